"""Calls: agents with one tool server and one robot each; either K of each robot in flight, or so many in a second.

In a closed loop an answer brings the next call. A paced load sends ten calls at a time, each from another robot, as
often as its rate needs: then the number of agents changes nothing else.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import orjson

from bench.cpu import cpu_seconds, raise_open_files
from bench.load.orders import Orders, run
from bench.load.peers import Robot, ToolServer, each, encoded_list, result_of, tool_name
from bench.load.quantiles import quantiles
from bench.load.sockets import connect

BURST = 10
LARGE_BYTES = 64 * 1024

_ID = re.compile(rb'"id":(\d+)')


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start: one robot and one tool server of each agent. `pids` are the processes whose CPU counts."""

    tool_urls: Sequence[str]
    robot_urls: Sequence[str]
    pids: Sequence[int]
    others: Sequence[int] = ()
    in_flight: int = 0
    calls_per_second: float = 0
    tools: int = 1
    argument_bytes: int = 64
    result_bytes: int = 200


class Caller(Robot):
    """A robot that calls, and notes how long each call took (ns)."""

    def __init__(self, robot_socket: Any, tails: Sequence[bytes]) -> None:
        super().__init__(robot_socket)
        self.sent: dict[int, int] = {}
        self.took_ns: list[int] = []
        self.failed: list[bytes] = []
        self.is_looping = False
        self.idle = asyncio.Event()
        self._tails = cycle(tails)

    def begin(self, in_flight: int) -> None:
        self.is_looping = in_flight > 0
        self.idle.clear()
        self.took_ns.clear()
        self.failed.clear()
        self.socket.hear(self._on_answer)
        for _ in range(in_flight):
            self.call()
        self.socket.flush()

    def call(self) -> None:
        self.last_id += 1
        self.sent[self.last_id] = time.perf_counter_ns()
        self.socket.send(b'{"jsonrpc":"2.0","id":%d%b' % (self.last_id, next(self._tails)))

    def _on_answer(self, text: bytes) -> None:
        now = time.perf_counter_ns()
        message: dict[str, Any] = orjson.loads(text) if len(text) < LARGE_BYTES else _large(text)
        started = self.sent.pop(message["id"], None) if "id" in message else None
        if started is None:
            return
        if "result" in message:
            self.took_ns.append(now - started)
        else:
            self.failed.append(text)
        if self.is_looping:
            self.call()
        elif not self.sent:
            self.idle.set()

    async def end(self) -> None:
        """Return when the last call is answered, so that nothing of this round falls on the next one."""
        self.is_looping = False
        if self.sent:
            await self.idle.wait()


def _large(text: bytes) -> dict[str, Any]:
    """What matters of a big answer, without reading all of it: this process must not be what is waited for."""
    rpc_id = _ID.search(text)
    return {"id": int(rpc_id[1]), "result" if b'"result":{' in text[:200] else "error": None} if rpc_id else {}


def call_tails(plan: Plan) -> list[bytes]:
    """The frames of calls behind their ids: one for each tool, in turns."""
    arguments = {"room": ""}
    arguments["room"] = "a" * (plan.argument_bytes - len(orjson.dumps(arguments)))
    params = ({"name": tool_name(number), "arguments": arguments} for number in range(plan.tools))
    return [b',"method":"tools/call","params":' + orjson.dumps(one) + b"}" for one in params]


async def join(plan: Plan) -> tuple[list[ToolServer], list[Caller]]:
    """Connect everybody; return when all robots have listed their tools."""
    tool_servers: list[ToolServer] = []
    callers: list[Caller] = []
    tool_list, result, tails = encoded_list(plan.tools), result_of(plan.result_bytes), call_tails(plan)

    async def dial(url: str) -> None:
        tool_servers.append(ToolServer(await connect(url), tool_list, result))

    async def call(url: str) -> None:
        caller = Caller(await connect(url), tails)
        await caller.shake_hands()
        callers.append(caller)

    await each(plan.tool_urls, dial)
    await each(plan.robot_urls, call)
    return tool_servers, callers


async def pace(callers: Sequence[Caller], calls_per_second: float) -> None:
    """Send calls for ever, ten robots at a time."""
    burst = min(BURST, len(callers))
    turn, started, sent = cycle(callers), time.perf_counter(), 0
    while True:
        for caller in [next(turn) for _ in range(burst)]:
            caller.call()
            caller.socket.flush()
        sent += burst
        await asyncio.sleep(max(0.0, started + sent / calls_per_second - time.perf_counter()))


async def measure(plan: Plan, callers: Sequence[Caller], orders: Orders, order: dict[str, Any]) -> dict[str, Any]:
    """One round: load, let it settle, measure for a time or until told that it is enough, and finish every call."""
    for caller in callers:
        caller.begin(plan.in_flight)
    async with asyncio.TaskGroup() as tasks:
        pacing = tasks.create_task(pace(callers, plan.calls_per_second)) if plan.calls_per_second else None
        await asyncio.sleep(order["warm_up"])
        for caller in callers:
            caller.took_ns.clear()
        before, others_before, started = cpu_seconds(plan.pids), cpu_seconds(plan.others), time.perf_counter()
        await orders.sleep(order["seconds"])
        after, others_after, seconds = cpu_seconds(plan.pids), cpu_seconds(plan.others), time.perf_counter() - started
        took_ns = sorted(nanoseconds for caller in callers for nanoseconds in caller.took_ns)
        if pacing is not None:
            pacing.cancel()
    async with asyncio.timeout(30):
        for caller in callers:
            await caller.end()
    calls = max(1, len(took_ns))
    return {
        "calls": len(took_ns),
        "failed_calls": sum(len(caller.failed) for caller in callers),
        "failed": [text.decode() for caller in callers for text in caller.failed[:1]][:3],
        "cpu_us": (after - before) / calls * 1e6,
        "others_us": (others_after - others_before) / calls * 1e6,
        "calls_per_second": len(took_ns) / seconds,
        "quantiles_ms": quantiles([one / 1e6 for one in took_ns]),
    }


async def main(orders: Orders) -> None:
    plan = Plan(**await orders.next())
    raise_open_files(2 * len(plan.tool_urls) + 500)
    tool_servers, callers = await join(plan)
    sockets = [one.socket for one in tool_servers] + [one.socket for one in callers]
    orders.answer({"connected": len(sockets)})
    while (order := await orders.next()) is not None:
        report = await measure(plan, callers, orders, order)
        orders.answer(report | {"lost": [one.lost for one in sockets if one.lost][:3]})


if __name__ == "__main__":
    run(main)
