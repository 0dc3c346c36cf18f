"""The one table of what goes wrong: JSON-RPC error codes, WebSocket close codes, and the words for them.

Each text is one string, Chinese first, then English, and names cause and cure: it is read by a person through a
language model, in a log at night, or in the console (design §6.6; ADR 0005 for error instead of isError).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Literal

Executed = Literal[False, True, "unknown"]


class Code(IntEnum):
    """JSON-RPC error codes that the gateway itself sends. A tool server's own error passes verbatim."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    NOT_CONNECTED = -32001
    NO_ANSWER = -32002
    NOT_SENT = -32003
    NOT_ALLOWED = -32004


class CloseCode(IntEnum):
    """WebSocket close codes that the gateway sends; `docs/protocol.md` says what a client should do on each."""

    REPLACED = 1000
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_AGAIN_LATER = 1013


RESTART_REASON = "网关重启，请稍后重连 / gateway restarting, please redial"


@dataclass(frozen=True, slots=True)
class Failure:
    """A JSON-RPC error that the gateway raises itself.

    `executed` says whether the tool ran: False is only ever said when it is certain. None stands for errors that
    are not about a call. `outcome` is the word that counters and logs have for it (`meters.ENDS`).
    """

    code: Code
    message: str
    reason: str = ""
    executed: Executed | None = None
    outcome: str = "internal_error"
    retry_after_ms: int | None = None
    """After how long it is worth trying again, where that is known."""

    def as_error(self, agent: str, call: str = "") -> dict[str, Any]:
        """The value of the key `error` of a JSON-RPC answer to a peer of `agent`; `call` is the id of its call."""
        error: dict[str, Any] = {"code": int(self.code), "message": self.message}
        if self.executed is not None:
            data: dict[str, Any] = {"reason": self.reason, "executed": self.executed, "agent_id": agent}
            if self.retry_after_ms is not None:
                data["retry_after_ms"] = self.retry_after_ms
            error["data"] = {**data, "call": call} if call else data
        return error


def parse_error() -> Failure:
    return Failure(Code.PARSE_ERROR, "收到的不是有效的 JSON / the frame is not valid JSON")


def invalid_request(what: str) -> Failure:
    return Failure(Code.INVALID_REQUEST, f"请求格式不正确：{what} / invalid request: {what}")


def method_not_found(method: str) -> Failure:
    return Failure(Code.METHOD_NOT_FOUND, f"不支持的方法：{method[:64]} / method not supported: {method[:64]}")


def bad_params(zh: str, en: str) -> Failure:
    return Failure(Code.INVALID_PARAMS, f"{zh} / {en}", "bad params", False, "bad_params")


def too_deep() -> Failure:
    return bad_params("参数嵌套过深", "the arguments are nested too deep")


def unknown_tool(name: str) -> Failure:
    shown = name[:64]
    return Failure(
        Code.INVALID_PARAMS,
        f"没有名为 {shown} 的工具，请重新获取工具列表 / no tool is named {shown}; read the tool list again",
        "unknown tool",
        False,
        "unknown_tool",
    )


def not_allowed(name: str) -> Failure:
    shown = name[:64]
    return Failure(
        Code.NOT_ALLOWED,
        f"策略不允许此智能体使用工具 {shown}；查看：mcp-gateway policy show / "
        f"this agent's policy does not allow the tool {shown}; to see it: mcp-gateway policy show",
        "not allowed",
        False,
        "not_allowed",
    )


def not_approved(name: str) -> Failure:
    """Its definition is not the one that was pinned, and nobody has approved of it yet."""
    shown = name[:64]
    return Failure(
        Code.NOT_ALLOWED,
        f"工具 {shown} 的定义已改变，尚未批准；批准：mcp-gateway pins approve / "
        f"the definition of the tool {shown} has changed and is not approved; to do so: mcp-gateway pins approve",
        "not approved",
        False,
        "not_allowed",
    )


def no_tool_server(last_zh: str = "", last_en: str = "") -> Failure:
    """`last_*` say who was connected last, until when, and why not any more."""
    return Failure(
        Code.NOT_CONNECTED,
        f"该智能体没有已连接的 MCP 服务器{last_zh}：请检查 MCP 服务器是否已启动、接入点地址和令牌是否正确 / "
        f"no tool server of this agent is connected{last_en}: "
        "check that it runs and that its endpoint URL and token are right",
        "no tool server connected",
        False,
        "no_tool_server",
    )


def clock_text(at_ms: int) -> str:
    """A point in time as people read it: UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def server_offline(server_id: str, since: str, cause: str) -> Failure:
    return Failure(
        Code.NOT_CONNECTED,
        f"MCP 服务器 {server_id} 自 {since} 起离线（{cause}），尚未重连 / "
        f"tool server {server_id} is offline since {since} ({cause}) and has not come back",
        "tool server offline",
        False,
        "offline",
    )


def server_moving(server_id: str) -> Failure:
    """Its connection is gone or going, and no other one is known yet."""
    return Failure(
        Code.NOT_CONNECTED,
        f"MCP 服务器 {server_id} 正在重连，请稍后再试 / tool server {server_id} is reconnecting; try again soon",
        "tool server offline",
        False,
        "offline",
    )


def lost_in_call(server_id: str) -> Failure:
    return Failure(
        Code.NO_ANSWER,
        f"MCP 服务器 {server_id} 在调用过程中断开，不知道是否已执行 / "
        f"tool server {server_id} was lost during the call; whether it ran is unknown",
        "tool server lost",
        "unknown",
        "tool_server_lost",
    )


def owner_lost(server_id: str) -> Failure:
    return Failure(
        Code.NO_ANSWER,
        f"持有 MCP 服务器 {server_id} 连接的网关进程失联，不知道是否已执行 / "
        f"the worker that held tool server {server_id} was lost; whether the call ran is unknown",
        "worker lost",
        "unknown",
        "owner_lost",
    )


def answer_lost(server_id: str) -> Failure:
    """It has run there, or was sent to it; the answer went to nobody, and is not on record."""
    return Failure(
        Code.NO_ANSWER,
        f"MCP 服务器 {server_id} 的答复在网关进程之间丢失，不知道是否已执行 / "
        f"the answer of tool server {server_id} was lost between two workers; whether the call ran is unknown",
        "answer lost",
        "unknown",
        "backplane_unavailable",
    )


def worker_unreachable(server_id: str) -> Failure:
    return Failure(
        Code.NOT_SENT,
        f"持有 MCP 服务器 {server_id} 连接的网关进程不可达，请求未发送 / "
        f"the worker that holds tool server {server_id} can't be reached; nothing was sent",
        "worker unreachable",
        False,
        "worker_unreachable",
    )


def not_understood(server_id: str) -> Failure:
    return Failure(
        Code.NOT_SENT,
        f"持有 MCP 服务器 {server_id} 连接的网关进程是另一个版本，看不懂这个请求，未执行；升级完成后重试 / "
        f"the worker that holds tool server {server_id} is of another version and did not understand the request; "
        "nothing ran. Try again when all workers are of one version",
        "versions differ",
        False,
        "versions_differ",
    )


def deadline_exceeded(server_id: str, seconds: float) -> Failure:
    return Failure(
        Code.NO_ANSWER,
        f"MCP 服务器 {server_id} 在 {seconds:g} 秒内没有回应 / "
        f"tool server {server_id} did not answer within {seconds:g} s",
        "deadline exceeded",
        "unknown",
        "timed_out",
    )


def not_sent_in_time(seconds: float) -> Failure:
    return Failure(
        Code.NOT_SENT,
        f"调用在 {seconds:g} 秒内未能送达 MCP 服务器 / the call could not be sent within {seconds:g} s",
        "deadline exceeded",
        False,
        "timed_out",
    )


def overloaded(limit: str) -> Failure:
    return Failure(
        Code.NOT_SENT,
        f"调用过多，已达上限 {limit}，请稍后重试 / too many calls: limit {limit} reached; try again later",
        "overloaded",
        False,
        "overloaded",
    )


def over_quota(limits: str, retry_after_seconds: float) -> Failure:
    """More than the agent, or all its robots together, may call one of its tool servers."""
    retry_after_ms = max(1, round(retry_after_seconds * 1000))
    return Failure(
        Code.NOT_ALLOWED,
        f"调用过于频繁，已达配额 {limits}，请在 {retry_after_ms} 毫秒后重试 / "
        f"too many calls: quota {limits} reached; try again in {retry_after_ms} ms",
        "quota",
        False,
        "over_quota",
        retry_after_ms,
    )


def backplane_unavailable(executed: Executed) -> Failure:
    code = Code.NOT_SENT if executed is False else Code.NO_ANSWER
    return Failure(
        code,
        "网关的共享存储（Redis）暂时不可用 / the gateway's shared store (Redis) is unavailable",
        "backplane unavailable",
        executed,
        "backplane_unavailable",
    )


def shutting_down() -> Failure:
    message = "网关正在重启，请稍后重试 / the gateway is restarting; try again later"
    return Failure(Code.NOT_SENT, message, "draining", False, "draining")


def stopped_in_call() -> Failure:
    return Failure(
        Code.NO_ANSWER,
        "网关在调用过程中重启，不知道是否已执行 / the gateway restarted during the call; whether it ran is unknown",
        "draining",
        "unknown",
        "draining",
    )


def internal_error(executed: Executed | None = None) -> Failure:
    return Failure(Code.INTERNAL_ERROR, "网关内部错误 / internal error of the gateway", "internal error", executed)


def bad_answer(server_id: str, what: str) -> Failure:
    return Failure(
        Code.INTERNAL_ERROR,
        f"MCP 服务器 {server_id} 的回应无法使用：{what} / tool server {server_id} gave an unusable answer: {what}",
        "unusable answer",
        True,
        "bad_answer",
    )
