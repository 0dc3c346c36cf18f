"""What people are told about a tool server that is there, or is not: one verdict, with the cause and the next step."""

from dataclasses import dataclass

from gateway.ages import span
from gateway.registry import TAKEOVERS_TO_NAME

_UNITS_ZH = {"d": "天", "h": "小时", "min": "分钟", "s": "秒"}

# How causes begin, as they are written down (`link.cause`, else the close code and reason) → what they mean.
_CAUSES = (
    (
        "initialize unanswered",
        "它没有回答 initialize：桥接后面的 MCP 程序没有启动、启动太慢或已崩溃，请看桥接的日志",
        "it did not answer `initialize`: the MCP program behind the bridge did not start, is slow or has crashed; "
        "see the bridge's log",
    ),
    (
        "initialize refused",
        "它拒绝了 initialize，多半是版本不兼容，请升级该程序",
        "it refused `initialize`, most likely for the protocol version: update that program",
    ),
    (
        "tools/list unanswered",
        "它没有回答 tools/list，请看该程序的日志",
        "it did not answer `tools/list`: see that program's log",
    ),
    (
        "tools/list refused",
        "它拒绝了 tools/list，所以没有工具，请看该程序的日志",
        "it refused `tools/list`, so it has no tools here: see that program's log",
    ),
    (
        "silent",
        "它不再回答 ping 和 tools/list：程序卡住了，请重启它",
        "it answered neither pings nor `tools/list` any more: the program hangs, restart it",
    ),
    (
        "limit ",
        "超出了网关的上限，请减少工具，或由管理员调高该设置",
        "a limit of the gateway was reached: give it fewer tools, or have the setting raised",
    ),
    (
        ("replaced", "superseded", "ghost"),
        "同一 server_id 的新连接取代了它",
        "a newer connection of the same server_id took its place",
    ),
    (
        "网关重启",
        "网关重启，程序应当自动重连；没有重连请重启桥接",
        "the gateway was restarted; bridges redial by themselves: restart one that does not",
    ),
    (
        "网关进程",
        "它所在的网关进程失联，程序应当自动重连",
        "the gateway worker that it was connected to was lost; bridges redial by themselves",
    ),
    (
        "运维人员",
        "被管理员断开，程序应当自动重连",
        "an operator closed it; bridges redial by themselves",
    ),
    (
        ("1000", "1001", "1005"),
        "对方自己关闭了连接：程序已退出或被停止，请启动它",
        "it closed the connection itself: the program has ended or was stopped; start it",
    ),
    (
        "1006",
        "连接中断，没有告别：网络断开、程序被杀死，或代理超时；请看程序是否在运行",
        "the connection broke without a goodbye: network, a killed program, or a proxy's timeout; "
        "see whether the program runs",
    ),
    (
        "1009",
        "它发来的消息太大（GATEWAY_FRAME_BYTES）",
        "it sent a message that is too large (GATEWAY_FRAME_BYTES)",
    ),
    (
        "1011",
        "连接因错误或长时间无响应而关闭，请看桥接和网关的日志",
        "closed after an error, or because nothing was heard for too long; see the logs of bridge and gateway",
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`code` is one of few words, for programs; `text` is for people."""

    code: str
    text: str

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "text": self.text}


def explained(cause: str) -> str:
    """What a cause means, in both languages; the cause itself where it is no known one."""
    for beginnings, zh, en in _CAUSES:
        if cause.startswith(beginnings):
            return f"{zh} / {en}"
    return cause or "原因不明 / cause unknown"


# One tool server


def connected(tools: int, since_ms: int, now_ms: int, takeovers: int, trouble: str) -> Verdict:
    """It is connected and registered."""
    if takeovers >= TAKEOVERS_TO_NAME:
        return Verdict(
            "shared_server_id",
            f"一分钟内被取代 {takeovers} 次：两个程序共用一个 server_id，请给它们不同的 server_id / "
            f"taken over {takeovers} times within a minute: two programs share this server_id; give each its own",
        )
    zh, en = ago(since_ms, now_ms)
    if not tools:
        why_zh, why_en = (
            _two(explained(trouble)) if trouble else ("它的 tools/list 是空的", "its `tools/list` is empty")
        )
        return Verdict(
            "no_tools",
            f"已连接（{zh}），但没有工具：{why_zh} / connected ({en}), but without tools: {why_en}",
        )
    return Verdict("connected", f"已连接（{zh}），{tools} 个工具 / connected ({en}), {tools} tools")


def not_allowed(rule: str) -> Verdict:
    """It is connected, and its people don't want robots to use it."""
    return Verdict(
        "not_allowed",
        f"已连接，但策略不允许它（{rule}），小智端看不到它的工具；见 mcp-gateway policy / "
        f"connected, but the agent's policy does not allow it ({rule}): robots see none of its tools; "
        "see mcp-gateway policy",
    )


def worker_lost(worker: str) -> Verdict:
    """Its row says connected, but its worker is gone."""
    return Verdict(
        "worker_lost",
        f"它所在的网关进程 {worker} 失联，等待它重连 / its gateway worker {worker} was lost; it is expected to redial",
    )


def in_handshake(since_ms: int, now_ms: int) -> Verdict:
    """It has dialled in and is not through yet."""
    zh, en = ago(since_ms, now_ms)
    return Verdict(
        "handshake",
        f"{zh}连上，MCP 握手还没有完成：它还没有回答 initialize 或 tools/list / "
        f"dialled in {en}, the MCP handshake is not complete: `initialize` or `tools/list` is not answered yet",
    )


def handshake_failed(error: str, failed_ms: int, now_ms: int) -> Verdict:
    """It dials in, but never gets through."""
    zh, en = ago(failed_ms, now_ms)
    why_zh, why_en = _two(explained(error))
    return Verdict(
        "handshake_failed",
        f"握手失败（{zh}）：{why_zh} / the handshake failed ({en}): {why_en}",
    )


def disconnected(cause: str, since_ms: int, now_ms: int) -> Verdict:
    """It was connected once."""
    zh, en = ago(since_ms, now_ms)
    why_zh, why_en = _two(explained(cause))
    return Verdict("disconnected", f"{zh}断开：{why_zh} / disconnected {en}: {why_en}")


# The agent


def never_connected() -> Verdict:
    return Verdict(
        "never_connected",
        "还没有工具服务器用这个令牌连接过：请检查桥接里的网址和令牌，以及它是否在运行 / "
        "no tool server has ever connected with this token: check the URL and token in the bridge, and that it runs",
    )


def of_agent(verdicts: list[Verdict]) -> Verdict:
    """The verdict on the agent, from those on its tool servers; there is at least one."""
    good = [verdict for verdict in verdicts if verdict.code == "connected"]
    bad = [verdict for verdict in verdicts if verdict.code not in ("connected", "not_allowed")]
    if not (good or bad):
        return verdicts[0]
    if not bad:
        count = len(good)
        return Verdict("ok", f"工具端已连接：{count} 个 / all {count} tool servers are connected")
    if good:
        zh, en = f"{len(good)} 个已连接，{len(bad)} 个有问题", f"{len(good)} connected, {len(bad)} with trouble"
        return Verdict("partly", f"{zh}，见各自的说明 / {en}: see each one's verdict")
    if any(verdict.code in ("no_tools", "shared_server_id") for verdict in bad):
        return next(verdict for verdict in bad if verdict.code in ("no_tools", "shared_server_id"))
    order = ("handshake", "handshake_failed", "worker_lost", "disconnected")
    worst = min(bad, key=lambda verdict: order.index(verdict.code))
    zh, en = _two(worst.text)
    return Verdict(worst.code, f"工具端未连接：{zh} / no tool server is connected: {en}")


def ago(at_ms: int, now_ms: int) -> tuple[str, str]:
    """How long ago, in Chinese and in English."""
    if not at_ms:
        return "很久以前", "long ago"
    text = span(max(0, now_ms - at_ms) / 1000)
    number, _, unit = text.partition(" ")
    return f"{number} {_UNITS_ZH[unit]}前", f"{text} ago"


def _two(text: str) -> tuple[str, str]:
    """The Chinese and the English half; the text twice where it has no halves."""
    zh, slash, en = text.partition(" / ")
    return (zh, en) if slash else (text, text)
