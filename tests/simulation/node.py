"""A gateway worker as the simulation runs it: a process of its own, on redis-py unmodified, without uvicorn."""

import asyncio
from collections.abc import Callable

from gateway.backplane.redis import RedisBackplane, RedisOptions
from gateway.connection import Connection, Kind
from gateway.credential import Credential
from gateway.settings import Settings
from gateway.worker import Worker
from tests.simulation.journal import Journal
from tests.simulation.loop import Process, SimLoop
from tests.simulation.net import Net
from tests.simulation.sockets import Peer, Socket
from tests.simulation.virtual import set_clock

# Everything that people would wait for is shortened; how the times relate is as in the defaults.
SETTINGS = Settings(
    key=("simulated",),
    redis_url="redis://redis:6379/0",
    call_seconds=4.0,
    call_max_seconds=20.0,
    park_seconds=2.5,
    grace_seconds=6.0,
    lease_seconds=3.0,
    beat_seconds=0.75,
    redis_timeout_seconds=0.75,
    handshake_seconds=5.0,
    hello_pause_seconds=0.05,
    list_wait_seconds=1.0,
    mcp_ping_seconds=15.0,
    ghost_seconds=1.0,
    debounce_seconds=0.1,
    close_seconds=1.0,
    drain_seconds=6.0,
    drain_grace_seconds=0.3,
)
OPTIONS = RedisOptions(timeout_seconds=0.75, patience_seconds=0.75, ping_seconds=0.4)


class Node:
    """One life of one worker."""

    def __init__(self, loop: SimLoop, net: Net, journal: Journal, name: str, skew_seconds: float) -> None:
        self.process = Process(loop, name)
        self.worker_id = f"{name}-{name}"
        self.worker: Worker | None = None
        self.sockets: list[Socket] = []
        self._loop, self._net, self._journal = loop, net, journal
        self._skew_seconds = skew_seconds
        self._task = self.process.start(self._live(), f"node {name}")
        self._task.add_done_callback(self._on_ended)

    @property
    def takes_connections(self) -> bool:
        """Whether a load balancer would send somebody here."""
        is_up = not (self.process.is_dead or self.process.is_frozen)
        return is_up and self.worker is not None and self.worker.is_ready

    async def _live(self) -> None:
        backplane = RedisBackplane(SETTINGS.redis_url, self.worker_id, OPTIONS)
        set_clock(backplane, self._loop, self._skew_seconds)
        self.worker = Worker(SETTINGS, backplane)
        async with self.worker.running():
            await asyncio.get_running_loop().create_future()

    def accept(self, process: Process, peer: Peer, kind: str, agent: str, server_id: str) -> Socket:
        """A socket of the peer to this worker; the worker hears of it a moment later."""
        socket = Socket(self._net, self._journal, self.process, process, peer)
        worker = self.worker
        assert worker is not None
        socket.connection_id = worker.new_connection_id()
        connection = Connection(
            id=socket.connection_id,
            kind=Kind(kind),
            agent=agent,
            wire=socket,
            credential=Credential(agent),
            address="",
            opened_ms=worker.backplane.now_ms,
            server_id=server_id,
        )
        self.sockets = [*(socket for socket in self.sockets if socket.is_open_here), socket]
        self.process.context.run(self._open, worker, connection, socket)
        return socket

    def _open(self, worker: Worker, connection: Connection, socket: Socket) -> None:
        """What `gateway.endpoints` does after it has let a peer in."""
        gone: Callable[[str], None]
        if connection.kind is Kind.TOOL_SERVER:
            tool_server = worker.open_tool_server(connection)

            def gone(cause: str) -> None:
                worker.tool_server_closed(tool_server, cause)

        else:
            robot = worker.open_robot(connection)

            def gone(cause: str) -> None:
                worker.robot_closed(robot)

        socket.on_gone = gone

    def kill(self, *, is_told: bool) -> None:
        """kill -9, or (not told) the whole machine."""
        self.process.kill()
        self._net.kill(self.process, is_told=is_told)
        for socket in self.sockets:
            socket.worker_died()

    def stop(self) -> None:
        """End in order, as after SIGTERM."""
        self._task.get_loop().call_soon(self._task.cancel, context=self.process.context)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._journal.note(self.process.name, "has ended")
        if error is not None:
            self._journal.complain(f"{self.process.name} ended with {error!r}")

    def drain(self) -> None:
        """As SIGTERM has it: its connections leave one by one, then it ends."""
        worker = self.worker
        if worker is not None:
            worker.drain.follow(on_end=self.stop)
            self.process.soon(worker.drain.begin, "simulated")

    @property
    def is_over(self) -> bool:
        return self._task.done()
