"""Only the directory: registering, takeovers, late goodbyes, putting back and burying, in thousands of orders.

Theory of operation
-------------------
The workers are real and so are the scripts, but nothing beats and nothing is sent over a network: commands go to the
small Redis directly, each a moment late, and now and then one is not carried out or its reply does not come. What
the lease would do at its beats is drawn instead: a worker is taken for dead and buried, a connection's facts are put
back. At the end everybody does what the beats of a minute do, and then the directory must say what is connected.
"""

import asyncio
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from gateway.backplane.envelope import decode
from gateway.backplane.keys import Keys
from gateway.backplane.redis import RedisBackplane
from gateway.backplane.redis.commands import Command, Rejected, Unanswered, Unsent
from gateway.worker import Worker
from tests.simulation import checker
from tests.simulation.loop import Process
from tests.simulation.mini_redis import shown
from tests.simulation.node import OPTIONS, SETTINGS, Node
from tests.simulation.run import Outcome, judged
from tests.simulation.store import Hash, Refused
from tests.simulation.virtual import set_clock
from tests.simulation.world import AGENT, World

WORK_SECONDS = 1.2
_KEYS = Keys()


class DirectLink:
    """What a `gateway.backplane.redis.link.Link` is to its callers, without a connection."""

    def __init__(self, node: "ModelNode", random: Random) -> None:
        self.gather: Callable[[], None] = lambda: None
        self.trouble = ""
        self.failures = 0.0
        """How often a command is not carried out, or its reply lost."""
        self.refusal = None
        self._node, self._random = node, random

    def wake(self) -> None:
        self._node.process.soon(lambda: self.gather())

    def enqueue(self, command: Command) -> None:
        self._node.worker_tasks.spawn(self._run([command]), "command")

    async def call(self, *commands: Command) -> list[Any]:
        self.gather()
        replies: list[Any] = []
        for command in commands:
            command.on_reply = replies.append
        await self._run(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _run(self, commands: Sequence[Command]) -> None:
        random = self._random
        # A connection breaks at one place: what comes after that is not carried out. All of the way's time is spent
        # on the way back, which allows the same orders as a part of it before.
        done = len(commands) if random.random() >= self.failures else random.randrange(len(commands) + 1)
        replies = [self._carry_out(command) for command in commands[:done]]
        await asyncio.sleep(0.03 * random.random())
        for command, reply in zip(commands, replies, strict=False):
            command.on_reply(reply if random.random() >= self.failures else Unanswered("drawn"))
        for command in commands[done:]:
            command.on_reply(Unsent("drawn"))

    def _carry_out(self, command: Command) -> Any:
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command.args]
        if command.script is not None:
            words = [b"EVAL", command.script.text, *words]
        try:
            reply = self._node.redis.run(words)
            self._node.note_command(words, reply)
            return reply
        except Refused as refused:
            return Rejected(str(refused))


class ModelNode(Node):
    """A worker that does nothing by itself."""

    def __init__(self, world: World, name: str, random: Random) -> None:
        self.redis = world.redis
        self.link = DirectLink(self, random)
        super().__init__(world.loop, world.net, world.journal, name, 0.0)
        self.channels = {_KEYS.mailbox(self.worker_id).encode(): b"message"}
        world.redis.channels[next(iter(self.channels))] = {self: None}  # type: ignore[dict-item]  # hears like a client

    @property
    def worker_tasks(self) -> Any:
        assert self.worker is not None
        return self.worker._tasks

    async def _live(self) -> None:
        backplane: Any = RedisBackplane(SETTINGS.redis_url, self.worker_id, OPTIONS)
        set_clock(backplane, self._loop, 0.0)
        backplane._link = backplane._outbox._link = self.link
        self.link.gather = backplane._outbox.flush
        self.worker = Worker(SETTINGS, backplane)
        self.worker._opened.set()
        self.announce()
        async with self.worker._tasks:
            await asyncio.get_running_loop().create_future()

    def note_command(self, words: list[bytes], reply: Any) -> None:
        self._net.digest = zlib.crc32(b"%.6f %s %r" % (self._loop.time(), b" ".join(words), reply), self._net.digest)
        if self._journal.is_traced:
            self._journal.note(self.process.name, f"{shown(words)} → {shown(reply)}")

    def push(self, message: list[bytes]) -> None:
        """A message for this worker's mailbox."""
        for envelope in decode(message[2]):
            if self.worker is not None:
                self.process.at(self._loop.time() + 0.01, self.worker.on_envelope, envelope)

    def announce(self) -> None:
        """It has a lease, for long."""
        key = _KEYS.worker(self.worker_id).encode()
        self.redis.store.values[key] = Hash({b"state": b"up"})
        for name in (_KEYS.worker(self.worker_id), _KEYS.owned(self.worker_id)):
            self.redis.run([b"PEXPIRE", name.encode(), b"3600000"])

    def lose_lease(self) -> None:
        self.redis.store.delete(_KEYS.worker(self.worker_id).encode())

    async def put_back(self) -> None:
        """What its beats do within a minute."""
        worker = self.worker
        if worker is not None:
            await worker._lease._put_back(list(worker.hub.tool_servers.values()))

    async def bury(self, other: Node, *, knows_agent: bool = False) -> None:
        """What the reaper does; where it has a robot of the agent it knows that, also if `owned` was lost."""
        if self.worker is not None:
            await self.worker._lease._reap(other.worker_id)
            if knows_agent:
                await self.worker._lease._bury([AGENT], other.worker_id)


def run(seed: int, *, is_traced: bool = False) -> Outcome:
    """Run the seed's scenario to its end and judge it."""
    world = World(seed, is_traced=is_traced)
    return judged(world, Outcome(seed, ("directory",)), lambda: Model(world, Random(f"{seed} model")).play())


class Model:
    """The course of one run."""

    def __init__(self, world: World, random: Random) -> None:
        self.world, self.random = world, random
        self.nodes: list[ModelNode] = []
        self._process = Process(world.loop, "model")

    async def play(self) -> list[str]:
        """What was found wrong."""
        world, random = self.world, self.random
        for _ in range(3):
            self._start_node()
        await asyncio.sleep(0.01)
        for name, server_id in (("calc", "calc"), ("lamp", random.choice(("", "lamp")))):
            world.add_device(name, server_id)
        await asyncio.sleep(0.3 * random.random())
        end = world.loop.time() + WORK_SECONDS
        while world.loop.time() < end:
            random.choice(ACTS)(self)
            await asyncio.sleep(0.5 * random.random() ** 2)
        for node in self.nodes:
            node.link.failures = 0.0
            node.announce()
        await asyncio.sleep(4.0)  # half-open sockets are noticed, devices have dialled again
        found: list[str] = []
        for _ in range(2):  # what the first minute has not put right, the second does
            await self._minute()
            found = checker.check_rest(world)
            if not found:
                break
        return found + world.journal.complaints

    async def _minute(self) -> None:
        """What the beats of a minute do."""
        for node in self.nodes:
            for dead in self.world.past_nodes:
                self.do(node, node.bury(dead, knows_agent=True))
            self.do(node, node.put_back())
        await asyncio.sleep(2.0)

    def do(self, node: Node, work: Any) -> None:
        """Let the worker do it."""
        node.process.start(_tolerant(work), "drawn")

    def _start_node(self) -> None:
        self.world._count += 1
        node = ModelNode(self.world, f"w{self.world._count}", self.random)
        self.nodes.append(node)
        self.world.nodes.append(node)


async def _tolerant(work: Any) -> None:
    try:
        await work
    except (Unsent, Unanswered, Rejected):
        return


def _on_device(act: str) -> Callable[[Model], None]:
    def on_device(model: Model) -> None:
        getattr(model.random.choice(model.world.devices), act)()

    return on_device


def _dial_twice(model: Model) -> None:
    device = model.random.choice(model.world.devices)
    if device.server_id:
        device.dial()


def _fail(model: Model) -> None:
    node = model.random.choice(model.nodes)
    node.link.failures = model.random.choice((0.0, 0.2, 1.0))


def _forget(model: Model) -> None:
    model.world.note("FLUSHALL")
    model.world.redis.store.clear()
    for node in model.nodes:
        node.announce()


def _put_back(model: Model) -> None:
    node = model.random.choice(model.nodes)
    model.do(node, node.put_back())


def _bury_living(model: Model) -> None:
    """A worker was frozen for longer than its lease; it comes back while others bury it, and puts back what it has."""
    node, other = model.random.sample(model.nodes, 2)
    model.world.note(f"{node.process.name} is taken for dead by {other.process.name}")
    node.lose_lease()
    model.do(other, other.bury(node))

    def revive() -> None:
        if not node.process.is_dead:
            node.announce()
            model.do(node, node.put_back())

    model.world.outside.at(model.world.loop.time() + 0.3 * model.random.random(), revive)


def _kill(model: Model) -> None:
    if len(model.nodes) < 3:
        return
    node = model.random.choice(model.nodes)
    model.world.note(f"{node.process.name} is killed")
    model.nodes.remove(node)
    model.world.retire(node)
    node.kill(is_told=True)
    node.lose_lease()
    for other in model.nodes:
        if model.random.random() < 0.7:
            model.do(other, other.bury(node))
    model._start_node()


ACTS: tuple[Callable[[Model], None], ...] = (
    *(_on_device("hang_up"), _on_device("vanish"), _on_device("change_tools")),
    *(_dial_twice, _dial_twice, _put_back, _bury_living, _kill, _forget, _fail),
)
