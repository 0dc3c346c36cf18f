"""`mcp-gateway drain` and `mcp-gateway kick`: what an operator tells a worker, and what came of it.

Both say what they did and then watch the directory, since a message alone proves nothing: a worker drains when its row
says so, and a tool server is gone when its row names another connection, or none. Where workers sign what they tell
each other (GATEWAY_ENVELOPE_KEY), so must who gives them orders: others are not heard.
"""

import asyncio
from collections.abc import Callable, Sequence

from gateway.ages import age, span
from gateway.backplane.base import BackplaneUnavailable, WorkerRow
from gateway.backplane.envelope import Envelope, encode
from gateway.backplane.facts import AgentFacts, WorkerFacts
from gateway.backplane.redis.window import Window
from gateway.backplane.seal import make_seal
from gateway.directory import Row
from gateway.operating import CannotOperate, window_into
from gateway.settings import Settings
from gateway.tables import printable

POLL_SECONDS = 0.2
HEARD_SECONDS = 5.0
"""A worker that has heard says so in its row with its next beat; one that lives has a row again by then."""
REASON_CHARS_MAX = 200
_EVENTS = 100
REASON = "运维人员断开，请重连 / closed by an operator; please redial"

_SIGNED_ZH = "若网关设置了 GATEWAY_ENVELOPE_KEY，这里也要设置成相同的"
_SIGNED = "If the workers have a GATEWAY_ENVELOPE_KEY, this command needs the same"

Say = Callable[[str], None]


async def drain(settings: Settings, worker: str, say: Say, wait_seconds: float | None) -> bool:
    """Tell the worker to leave. With `wait_seconds` wait until it has (0: for as long as it takes).

    Return whether what was waited for has happened. Raises CannotOperate.
    """
    async with window_into(settings) as window:
        chosen = choose(await window.workers(), worker)
        order = Envelope("drain", worker=chosen.id)
        if chosen.state == "up" and not await _tell(window, settings, window.keys.ctl, order):
            raise CannotOperate("没有工作进程听到 / no worker has heard it: mcp-gateway doctor")
        if not await _has_begun(window, chosen.id):
            told = f"{chosen.id}: 没有开始排空，忙还是冻结？{_SIGNED_ZH}"
            say(f"{told} / does not begin to drain; is it busy, or frozen? {_SIGNED}")
            return False
        say(f"{chosen.id}: 正在排空 / draining")
        if wait_seconds is None:
            return True
        return await _until_gone(window, chosen.id, say, wait_seconds or float("inf"))


async def _tell(window: Window, settings: Settings, channel: str, envelope: Envelope) -> int:
    """Publish it, signed if workers sign; how many have heard it."""
    seal, message = make_seal(settings.envelope_key), encode(envelope)
    return await window.reader.tell(channel, (seal.sign(channel, message) if seal else message).decode())


def choose(workers: Sequence[WorkerFacts], word: str) -> WorkerFacts:
    """The living worker of that id, or the only one whose id begins so. Raises CannotOperate."""
    living = {worker.id: worker for worker in workers if worker.row is not None}
    found = [living[word]] if word in living else [living[name] for name in living if word and name.startswith(word)]
    if len(found) == 1:
        return found[0]
    listed = "".join(f"\n  {name}" for name in sorted(living)) or " -"
    why = (
        "不止一个工作进程以此开头 / several workers begin with"
        if found
        else "没有存活的工作进程叫 / no living worker is"
    )
    raise CannotOperate(f"{why} {word!r}。存活的 / those that live:{listed}")


async def _has_begun(window: Window, worker: str) -> bool:
    for _ in range(round(HEARD_SECONDS / POLL_SECONDS)):
        (now,) = await window.workers(also=[worker], limit=0)
        if now.state != "up":
            return True
        await asyncio.sleep(POLL_SECONDS)
    return False


async def _until_gone(window: Window, worker: str, say: Say, wait_seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    began = seen = loop.time()
    told = ""
    while True:
        try:
            row = await _row_of(window, worker)
            news = "" if row is None else f"{worker}: 还有 / left: {_load(row)}"
            is_gone = row is None and (loop.time() - seen > HEARD_SECONDS or await _has_drained(window, worker))
            seen = seen if row is None else loop.time()
        except BackplaneUnavailable as error:
            # One that lives puts its row back when Redis is back, perhaps empty: until then nothing is known.
            await window.reader.close()
            news, is_gone, seen = f"! {error}", False, loop.time()
        seconds = loop.time() - began
        if is_gone:
            say(f"{worker}: 已离开 / has left, after {span(seconds)}")
            return True
        if news not in ("", told):
            say(f"{news} ({span(seconds)})")
            told = news
        if seconds > wait_seconds:
            say(f"{worker}: 仍在排空，不再等待 / still draining; waited for {span(seconds)}")
            return False
        await asyncio.sleep(POLL_SECONDS)


async def _row_of(window: Window, worker: str) -> WorkerRow | None:
    if not window.reader.members:
        await window.reader.connect()
    (now,) = await window.workers(also=[worker], limit=0)
    return now.row


async def _has_drained(window: Window, worker: str) -> bool:
    """It has said goodbye. Without that its row may be missing because Redis was emptied."""
    return any(one.kind == "drained" and one.field("worker") == worker for one in await window.events(_EVENTS))


def _load(row: WorkerRow) -> str:
    return f"{row.tool_servers} 工具服务器 tool servers, {row.robots} 小智端 robots, {row.calls} 调用 calls"


async def kick(settings: Settings, agent: str, server_id: str, say: Say, wait_seconds: float, reason: str = "") -> bool:
    """Have the tool server's connection closed, whichever worker holds it; return whether that has happened.

    Waits so long for that, and as long again for the tool server to be back. Raises CannotOperate.
    """
    async with window_into(settings) as window:
        facts, row = await _row(window, agent, server_id)
        reason = reason.encode("utf-8", "replace").decode()[:REASON_CHARS_MAX] or REASON
        envelope = Envelope("kick", agent=facts.id, server=server_id, conn=row.conn, reason=reason)
        if not await _tell(window, settings, window.keys.mailbox(row.worker), envelope):
            raise CannotOperate(
                f"工作进程 {row.worker} 没有听到 / worker {row.worker} has not heard it: mcp-gateway doctor"
            )
        now = await _changed(window, facts.tag, server_id, row, wait_seconds)
        if now == row:
            told = f"{agent}/{server_id}: {row.conn} 没有断开"
            say(f"{told}。{_SIGNED_ZH} / was not closed within {span(wait_seconds)}. {_SIGNED}")
            return False
        say(f"{agent}/{server_id}: 已断开 / closed: {row.conn} ({row.worker})")
        if now is not None and now.state != "up":
            now = await _changed(window, facts.tag, server_id, now, wait_seconds)
        if now is not None and now.state == "up":
            say(f"{agent}/{server_id}: 已重连 / is back: {now.conn} ({now.worker})")
        else:
            say(f"{agent}/{server_id}: 尚未重连 / has not redialled yet; mcp-gateway inspect agent {agent}")
        return True


async def _row(window: Window, agent: str, server_id: str) -> tuple[AgentFacts, Row]:
    facts = await window.agent(agent)
    if facts is None:
        raise CannotOperate(f"不认识智能体 / no such agent: {agent}。mcp-gateway inspect agents")
    row = facts.rows.get(server_id)
    if row is None:
        known = printable(", ".join(sorted(facts.rows))) or "-"
        raise CannotOperate(f"{agent} 没有工具服务器 / has no tool server {server_id}。已知的 / it has: {known}")
    if row.state == "offline":
        ago = age(row.offline_since, facts.snapshot.now_ms)
        raise CannotOperate(f"{server_id} 已离线 / is offline since {ago}: {printable(row.cause)}")
    return facts, row


async def _changed(window: Window, tag: str, server_id: str, before: Row, wait_seconds: float) -> Row | None:
    """The row once it is another one, or as it is when the time is over."""
    row: Row | None = before
    for _ in range(max(1, round(wait_seconds / POLL_SECONDS))):
        row = await window.row(tag, server_id)
        if row is None or (row.conn, row.state) != (before.conn, before.state):
            return row
        await asyncio.sleep(POLL_SECONDS)
    return before
