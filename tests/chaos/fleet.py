"""A whole cluster of processes: workers on one Redis, robots and tool servers that dial them, and their logbook."""

import dataclasses
import http.client
import math
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.listening import reserve
from gateway.settings import Settings
from tests.chaos import robots, tool_servers, worker
from tests.chaos.logbook import Entry, Logbook, Pen
from tests.chaos.plan import Plan, worker_of
from tests.chaos.processes import Child
from tests.support.ports import own_port
from tests.support.redis_server import RedisServer, engines

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "chaos"
READY_SECONDS = 20.0
SPREAD_SECONDS = 20.0
NUMBERS_APART = 100_000_000
"""Each process of robots counts its calls from another number."""

SETTINGS = Settings(
    host="127.0.0.1",
    hello_pause_seconds=0.005,
    debounce_seconds=0.05,
    close_seconds=1.0,
    call_seconds=6.0,
    call_max_seconds=20.0,
    park_seconds=3.0,
    grace_seconds=5.0,
    handshake_seconds=5.0,
    list_wait_seconds=1.0,
    ping_seconds=1.0,
    pong_seconds=1.5,
    mcp_ping_seconds=2.0,
    ghost_seconds=0.5,
    lease_seconds=2.0,
    beat_seconds=0.3,
    redis_timeout_seconds=1.0,
    outbox_bytes=1024 * 1024,
    drain_seconds=4.0,
    drain_grace_seconds=0.2,
    log_level="WARNING",
)
"""Those of production, scaled down so that a fault takes seconds."""


class Worker:
    """A slot for a worker: one port, and the process that listens there at the moment."""

    def __init__(self, slot: int, folder: Path, settings: Settings) -> None:
        self.slot = slot
        self.name = worker_of(slot)
        self.port = own_port()  # nobody else may have it while the worker is dead
        self._reserved = reserve(settings.host, self.port)
        self.settings = dataclasses.replace(settings, port=self.port)
        self.child = Child(self.name, worker.main, folder)
        self.read_bytes = 0
        """How much of its log has been looked through."""

    def start(self, *, is_awaited: bool = True, **changes: Any) -> None:
        """Start it; `changes` are `settings` to change, `without` protections, or the version that it `speaks`."""
        settings = dataclasses.replace(self.settings, **changes.pop("settings", {}))
        self.child.arguments = {"settings": settings, **changes}
        self.child.start()
        if is_awaited:
            self.until_ready()

    def until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until it takes connections."""
        wait_for(
            lambda: self.status("/readyz") == 200 or not self.child.is_running,
            f"{self.name} is ready",
            seconds,
            self.child.last_words,
        )
        if not self.child.is_running:
            raise AssertionError(f"{self.name} has ended with {self.child.ended()}\n{self.child.last_words()}")

    def status(self, path: str) -> int:
        """The status of an HTTP answer, 0 if there is none."""
        return self._get(path)[0]

    def health(self) -> bytes:
        """Its health answer: every tool server as it knows it."""
        return self._get(f"/mcp_endpoint/health?key={self.settings.key[0]}")[1]

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def stop(self, seconds: float = 30.0) -> int:
        """End as on SIGTERM; the exit code."""
        self.child.signal(signal.SIGTERM)
        return self.child.ended(seconds)

    def close(self) -> None:
        self.child.kill()
        self._reserved.close()


class Fleet:
    """Three workers, two processes of robots, two of tool servers. `with Fleet(url) as fleet`."""

    def __init__(self, url: str, *, store: RedisServer | None = None, slots: int = 3, **plan: Any) -> None:
        self.url = url
        self._store = store
        changes: dict[str, Any] = plan.pop("settings", {})
        self._scratch = tempfile.TemporaryDirectory(prefix="gateway-chaos-")
        self.folder = Path(self._scratch.name)
        key = secrets.token_hex(16)  # who strays in from another fleet is refused
        settings = dataclasses.replace(SETTINGS, redis_url=url, key=(key,), **changes)
        self.settings = settings
        self.workers = [Worker(slot, self.folder, settings) for slot in range(slots)]
        ports = tuple(one.port for one in self.workers)
        self.plan = Plan(self.folder, ports, key, **{"call_seconds": settings.call_seconds, **plan})
        servers = self.plan.servers
        self._tool_processes = {"tools-0": servers[:-1], "tools-1": servers[-1:]}
        self.tools = [
            Child(name, tool_servers.main, self.folder, plan=self.plan, who=name, servers=names)
            for name, names in self._tool_processes.items()
        ]
        self.robots = [
            Child(f"robots-{index}", robots.main, self.folder, plan=self.plan, who=f"robots-{index}")
            for index in range(2)
        ]
        self._pen = Pen(self.folder, "nemesis")
        self.logbook = Logbook(self.folder)
        self.last_entries: list[Entry] = []
        """Of the last round: what it left behind must be known to the next."""
        self.immortal: set[int] = set()
        """Slots of workers that no fault may end: they show what builds up over time."""
        self._numbered = 0

    @property
    def store(self) -> RedisServer:
        """The one Redis server behind it."""
        if self._store is None:
            raise LookupError("this fleet has more than one Redis server")
        return self._store

    def clients(self) -> list[Any]:
        """A client of each Redis server behind it, for looking in. To be closed by who asks for them."""
        return [] if self._store is None else [self._store.client()]

    @property
    def peers(self) -> list[Child]:
        return [*self.robots, *self.tools]

    # Life

    def start(self, **options: Any) -> None:
        """Start everything; the workers with these options (see `Worker.start`)."""
        for one in self.workers:
            one.start(is_awaited=False, **options)
        for one in self.workers:
            one.until_ready()
        for child in self.peers:
            self.start_peers(child)

    def start_peers(self, child: Child) -> None:
        """Start a process of robots or tool servers, again if it was killed."""
        if child in self.robots:
            self._numbered += 1
            child.arguments["first_number"] = self._numbered * NUMBERS_APART
        child.start()

    def close(self) -> None:
        """Kill everything and forget it."""
        for child in self.peers:
            child.kill()
        for one in self.workers:
            one.close()
        self._pen.close()
        self._scratch.cleanup()

    def __enter__(self) -> "Fleet":
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What rounds need

    def everywhere(self, what: str, children: Sequence[Child], within: float = 20.0, **fields: Any) -> list[Any]:
        """Tell several processes the same, and wait for all replies."""
        tickets = [(child, child.order(what, **fields)) for child in children]
        return [child.reply(ticket, within) for child, ticket in tickets]

    def spread(self) -> None:
        """Everybody is connected to the worker of their home, and can be reached from every worker."""
        self._send_home(self.tools)
        self._send_home(self.robots)
        missing = [pair for pair, seconds in self.probe(time.monotonic(), SPREAD_SECONDS).items() if seconds is None]
        assert not missing, f"not reached: {missing}"

    def bring_back(self) -> None:
        """As `spread` in mid-load: tool servers are at home; robots find back with their next conversation."""
        self._send_home(self.tools)
        self.everywhere("spread", self.robots, seconds=0.0)

    def _send_home(self, group: Sequence[Child]) -> None:
        if not all(self.everywhere("spread", group, SPREAD_SECONDS + 5, seconds=SPREAD_SECONDS)):
            raise AssertionError("not everybody came home")

    def quiet(self) -> float:
        """No call is asked any more, and none is owed; until when the logs are to be judged."""
        is_settled = all(self.everywhere("quiet", self.robots, within=60.0))
        return time.monotonic() if is_settled else math.inf  # what has not come by now is not expected any more

    def probe(self, since: float, seconds: float, slots: Sequence[int] | None = None) -> dict[str, float | None]:
        """After how long each tool server was reached from each worker: see `robots.Crowd.probe`."""
        chosen = list(range(len(self.workers)) if slots is None else slots)
        answer: dict[str, float | None] = self.robots[0].ask(
            "probe", since=since, seconds=seconds, slots=chosen, within=seconds + 5
        )
        return answer

    def tracebacks(self) -> list[str]:
        """What workers wrote of exceptions that they did not expect, since this was asked for the last time."""
        found = []
        for one in self.workers:
            text = one.child.log_text(one.read_bytes)
            one.read_bytes += len(text.encode())
            found += [f"{one.name}: {part[:2000]}" for part in text.split("Traceback")[1:]]
        return found

    def keep(self, name: str) -> Path:
        """Put what all processes wrote, and how the workers see the cluster, where it stays; returns where."""
        kept = KEPT / name.replace(" ", "-")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.folder, kept)
        for one in self.workers:
            (kept / f"{one.name}-health.json").write_bytes(one.health())
        return kept.relative_to(ROOT)

    def note(self, kind: str, **fields: Any) -> float:
        """Write into the logbook what the nemesis did."""
        return self._pen.note(kind, **fields)

    @contextmanager
    def frozen(self, child: Child) -> Iterator[None]:
        """Nothing of the process runs inside the block; its calls are pardoned for that time."""
        since = time.monotonic()
        child.freeze()
        try:
            yield
        finally:
            child.thaw()
            self.note("frozen", name=child.name, since=since, until=time.monotonic())

    def kill_peers(self, child: Child) -> None:
        """kill -9 a process of peers."""
        child.kill()
        self.note("ended", name=child.name)


def wait_for(
    predicate: Callable[[], Any], description: str, seconds: float, last_words: Callable[[], str] = str
) -> None:
    """Wait until it is true. AssertionError if that does not come."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {description}\n{last_words()}")
        time.sleep(0.02)


@contextmanager
def on_own_redis(program: str | None = None, *options: str, is_started: bool = True, **plan: Any) -> Iterator[Fleet]:
    """A fleet on a Redis server of its own, for the length of the block."""
    store = RedisServer(program or next(iter(engines().values())), *options)
    try:
        store.start()
        fleet = Fleet(store.url, store=store, **plan)
        try:
            if is_started:
                fleet.start()
            yield fleet
        finally:
            fleet.close()
    finally:
        store.close()
