"""A worker under attack, the innocent beside the attackers, and everything that must stay as it was.

Theory of operation
-------------------
`play` runs cases side by side; `settle` waits until every attacker is gone and asks the worker what it still holds.
What must come back to the base line exactly (sockets, descriptors, tasks) is compared after every slice of cases, and
what can only be bounded (memory, objects) between a warm worker and the end. The log is read to the last line: each is
JSON below ERROR, and none has a piece of a token in it.
"""

import asyncio
import base64
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.settings import Settings
from tests.chaos.processes import Child, Gone
from tests.fuzz import worker
from tests.fuzz.cast import KEY, OTHER, SHARED, TOKENS
from tests.fuzz.innocents import Innocents
from tests.fuzz.player import Fault, play
from tests.fuzz.script import Case
from tests.support.ports import own_port

MIB = 1024 * 1024
SETTINGS = Settings(
    host="127.0.0.1",
    key=(KEY,),
    log_format="json",
    # Small, so that what is too much takes a moment only.
    frame_bytes=256 * 1024,
    robot_frame_bytes=128 * 1024,
    outbox_bytes=1 * MIB,
    result_bytes=64 * 1024,
    tools_per_server=100,
    toolset_bytes=32 * 1024,
    tools_per_agent=200,
    servers_per_agent=16,
    header_seconds=1.0,
    close_seconds=0.5,
    handshake_seconds=5.0,
    hello_pause_seconds=0.005,
    debounce_seconds=0.05,
    call_seconds=20.0,
    list_wait_seconds=0.5,
    ghost_seconds=1.0,
    grace_seconds=0.5,
    park_seconds=0.5,
    name_hold_seconds=5.0,
    drain_seconds=0,
    # Wide, so that attackers are stopped by what they do and not by how many they are.
    handshakes_per_second=100_000,
    tool_handshakes_per_second=100_000,
    calls_per_second=100_000,
    calls_per_connection=64,
)
AT_ONCE = 40
BOUND_SECONDS = 25.0
SETTLE_SECONDS = 20.0
EXACT = ("sockets", "connections")
NEAR = {"descriptors": 2, "tasks": 4, "app tasks": 0}
"""So many more than at first are nothing: what the worker itself has just begun."""
OBJECTS_MAX, OBJECTS_PER_CASE = 30_000, 0.05
"""The directory keeps a bounded number of events, names and rows of those who have been here; it fills up at first."""
RSS_MAX = 32 * MIB
PEAK_MAX = 192 * MIB
"""While the attackers are there: forty of them may each have an outbox to fill, and some frames on their way."""
BAD_LEVELS = ("ERROR", "CRITICAL")
_SECRET = "a token or a key is in the log"


def _pieces() -> list[str]:
    """What no line of the log may contain: the key, and the beginning that all tokens of such agents share."""
    return sorted({text[:21] for text in TOKENS} | {KEY, base64.b64encode(KEY.encode()).decode()[:21]})


@dataclass(slots=True)
class Found:
    """A fault, and the number of the case that has shown it; None if it shows in the worker."""

    case: int | None
    fault: Fault

    def __str__(self) -> str:
        who = "" if self.case is None else f"case {self.case}: "
        return f"{who}{self.fault.kind}: {self.fault.text}"


class Arena:
    """One worker and the innocent."""

    def __init__(self, folder: Path, redis_url: str, faults: Sequence[str], bound_seconds: float) -> None:
        self.port = own_port()
        settings = dataclasses.replace(SETTINGS, port=self.port, redis_url=redis_url, data_dir=str(folder))
        self.child = Child(f"worker-{self.port}", worker.main, folder, settings=settings, faults=tuple(faults))
        self.innocents = [Innocents(self.port, agent, bound_seconds=bound_seconds) for agent in (SHARED, OTHER)]
        self.base: dict[str, int] = {}
        self.warm: dict[str, int] = {}
        self.played = 0
        self._warm_at = 0
        self._read = 0
        self._pieces = _pieces()

    async def open(self) -> None:
        """Start the worker and let the innocent come."""
        self.child.start()
        async with asyncio.timeout(20):
            while not await self.stats():
                await asyncio.sleep(0.02)
        for pair in self.innocents:
            await pair.come()
        self.base = await self.stats()

    async def close(self) -> None:
        for pair in self.innocents:
            await pair.leave()
        self.child.kill()

    async def stats(self) -> dict[str, int]:
        """What the worker holds. Raises Gone if it is gone."""
        found: dict[str, int] = await asyncio.to_thread(self.child.ask, "stats")
        return found

    # Playing

    async def play(self, cases: Sequence[tuple[int, Case]], at_once: int = AT_ONCE) -> list[Found]:
        """Play cases side by side; what each of them has shown."""
        found: list[Found] = []
        waiting = iter(cases)

        async def take() -> None:
            for number, case in waiting:
                found.extend(Found(number, fault) for fault in await play(self.port, case))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(at_once, len(cases))):
                tasks.create_task(take())
        self.played += len(cases)
        return found

    async def settle(self) -> list[Found]:
        """What is wrong in the worker once every attacker has gone."""
        faults = []
        try:
            faults += await self._left_over()
        except Gone as gone:
            faults.append(Fault("dead", str(gone)[-2000:]))
        faults += [Fault("innocent", text) for pair in self.innocents for text in pair.faults]
        faults += self.read_log()
        return [Found(None, fault) for fault in faults]

    async def _left_over(self) -> list[Fault]:
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_SECONDS
        while True:
            now = await self.stats()
            more = {name: now[name] - self.base[name] for name in (*EXACT, *NEAR) if name in now}
            bad = {name: by for name, by in more.items() if by > NEAR.get(name, 0) or (name in EXACT and by < 0)}
            if not bad:
                return []
            if loop.time() > until:
                return [Fault("left over", ", ".join(f"{name}: {by:+}" for name, by in bad.items()))]
            await asyncio.sleep(0.1)

    # Growth

    async def is_warm(self) -> None:
        """From now on nothing may grow."""
        self.warm, self._warm_at = await self.stats(), self.played

    async def grown(self) -> list[Found]:
        """What has grown since then beyond its bound."""
        now, cases = await self.stats(), self.played - self._warm_at
        more = {name: now[name] - self.warm[name] for name in ("objects", "rss_bytes")}
        faults = []
        if more["objects"] > OBJECTS_MAX + OBJECTS_PER_CASE * cases:
            faults.append(Fault("growth", f"{more['objects']} objects more after {cases} cases"))
        if more["rss_bytes"] > RSS_MAX:
            faults.append(Fault("growth", f"{more['rss_bytes'] / MIB:.1f} MiB more after {cases} cases"))
        if now["peak_bytes"] > self.base["rss_bytes"] + PEAK_MAX:
            faults.append(Fault("growth", f"{(now['peak_bytes'] - self.base['rss_bytes']) / MIB:.1f} MiB at the worst"))
        return [Found(None, fault) for fault in faults]

    # The log

    def read_log(self) -> list[Fault]:
        """What is wrong with the lines since the last time."""
        text = self.child.log_text(self._read)
        whole = text[: text.rfind("\n") + 1]
        self._read += len(whole.encode("utf-8", "replace"))
        lines = whole.rstrip("\n").split("\n") if whole else []
        found: dict[str, Fault] = {}
        for line in lines:
            kind = self._line_fault(line)
            if kind:
                shown = "" if kind is _SECRET else f": {line[:2500]}"
                found.setdefault(kind, Fault("log", kind + shown))
        return list(found.values())

    def _line_fault(self, line: str) -> str:
        if any(piece in line for piece in self._pieces):
            return _SECRET
        try:
            entry: dict[str, Any] = orjson.loads(line)
        except orjson.JSONDecodeError:
            return "a line that is none"
        return "a fault of the worker's own" if entry.get("level") in BAD_LEVELS or "Traceback" in line else ""


@contextlib.asynccontextmanager
async def arena(
    folder: Path, redis_url: str = "", *, faults: Sequence[str] = (), bound_seconds: float = BOUND_SECONDS
) -> AsyncGenerator[Arena]:
    """An arena for the length of the block, the innocent calling all the time."""
    made = Arena(folder, redis_url, faults, bound_seconds)
    over = asyncio.Event()
    try:
        await made.open()
        async with asyncio.TaskGroup() as tasks:
            for pair in made.innocents:
                tasks.create_task(pair.work(over))
            try:
                yield made
            finally:
                over.set()
    finally:
        await made.close()
