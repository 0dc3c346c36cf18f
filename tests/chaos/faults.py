"""What happens to processes: workers and peers that die, freeze, storm, flood, or speak another version.

What happens to Redis is in `redis_faults`.
"""

import time
from typing import Any

from tests.chaos.fleet import Worker
from tests.chaos.nemesis import Fault, Field

STORM_SHORT, STORM = 300, 2000
LARGE_BYTES = 4 * 1024 * 1024
FULL_BYTES, FILLING = 450_000, 24
"""Together more than an outbox and the buffers of two sockets hold."""


# Workers


def kill_worker(field: Field) -> None:
    """kill -9; an orchestrator starts it again."""
    victim = field.victim()
    victim.child.kill()
    field.strikes_now()
    field.hold(1.0)
    victim.start()


def freeze_worker(field: Field) -> None:
    """It stands still for longer than its lease, and goes on as if nothing had been."""
    lease_seconds = field.fleet.settings.lease_seconds
    with field.fleet.frozen(field.worker().child):
        field.hold(lease_seconds * field.random.uniform(1.2, 1.8))


def restart_one_by_one(field: Field) -> None:
    """A deployment: each worker gets SIGTERM, drains, and is started again before the next one's turn."""
    for worker in field.random.sample(field.mortals, len(field.mortals)):
        _replace(worker)


def _replace(worker: Worker, **options: Any) -> None:
    code = worker.stop()
    assert code == 0, f"{worker.name} ended with {code}\n{worker.child.last_words()}"
    worker.start(**options)


def stall_worker(field: Field) -> None:
    """Something keeps its event loop from turning for longer than its lease."""
    victim, seconds = field.worker(), 2.5 * field.stretch
    since = time.monotonic()
    victim.child.ask("burn", seconds=seconds)
    field.hold(2.5)
    field.fleet.note("frozen", name=victim.name, since=since, until=max(since + seconds, time.monotonic()))


def jump_clock(field: Field) -> None:
    """Its clock is set an hour or a day forward or back, and later right again."""
    victim = field.worker()
    seconds = field.random.choice([-86_400.0, -3_600.0, 3_600.0, 86_400.0])
    victim.child.ask("jump", seconds=seconds)
    field.hold(1.5)
    victim.child.ask("jump", seconds=-seconds)


# Two releases side by side


def newer_release(field: Field) -> None:
    """One worker says more in its headers than the others know, and sends messages of a type they don't know."""
    _beside(field, "newer")


def incompatible_release(field: Field) -> None:
    """One worker speaks a version of the envelope that the others don't, and the other way round."""
    _beside(field, "version 2")


def _beside(field: Field, speaks: str) -> None:
    victim = field.victim()
    victim.child.kill()
    victim.start(speaks=speaks)
    field.fleet.bring_back()
    field.strikes_now()
    field.hold(1.5)
    if speaks == "newer":
        missing = [pair for pair, seconds in field.fleet.probe(time.monotonic(), 10.0).items() if seconds is None]
        assert not missing, f"not reached beside a newer release: {missing}"
    victim.child.kill()
    victim.start()


# Peers


def kill_tool_servers(field: Field) -> None:
    """A machine with tool servers loses power in mid-call; it boots, and they redial."""
    victim = field.random.choice(field.fleet.tools)
    field.fleet.kill_peers(victim)
    field.hold(0.4)
    field.fleet.start_peers(victim)


def redial_tool_servers(field: Field) -> None:
    """All tool servers lose their connections in mid-call and dial some other worker."""
    for _ in field.moments(1.0, every=0.5):
        field.fleet.everywhere("redial", field.fleet.tools)


def kill_robots(field: Field) -> None:
    """Half of the robots vanish in mid-call."""
    victim = field.fleet.robots[1]
    field.fleet.kill_peers(victim)
    field.hold(0.5)
    field.fleet.start_peers(victim)


def half_open(field: Field) -> None:
    """Peers vanish without a word: their sockets stay open and nothing answers, then they are back."""
    victim = field.random.choice([field.fleet.robots[1], *field.fleet.tools])
    with field.fleet.frozen(victim):
        field.hold(field.random.uniform(1.5, 3.5))


def storm(field: Field) -> None:
    """Very many robots come at once, are cut off at once and come again; the others drop and redial as well."""
    count = STORM_SHORT if field.stretch <= 1 else STORM
    ticket = field.fleet.robots[1].order("storm", count=count, seconds=40.0)
    field.fleet.everywhere("redial", field.fleet.robots[:1])
    through = field.fleet.robots[1].reply(ticket, 60.0)
    assert through["through"] == count, f"of {count} robots only {through} got through"


def takeovers(field: Field) -> None:
    """Two programs share one server_id and fight for it, on different workers."""
    agent, server = field.someone()
    slot = field.fleet.plan.home(agent, server) + 1
    field.fleet.tools[0].ask(
        "twin", agent=agent, server=server, slot=slot % len(field.fleet.workers), seconds=2.0 * field.stretch
    )


def mute_tool_server(field: Field) -> None:
    """A program hangs, while the library around it still answers WebSocket pings."""
    agent, server = field.someone_of_the_first()
    field.fleet.tools[0].ask("mute", agent=agent, server=server, seconds=2.5 * field.stretch)


def slow_readers(field: Field) -> None:
    """A robot and a tool server stop reading, while more and more is written to them."""
    agent, server = field.someone_of_the_first()
    slots = range(len(field.fleet.workers))
    robots, tools = field.fleet.robots[0], field.fleet.tools[0]
    seconds, deaf_slot, other = 2.0 * field.stretch, field.random.choice(slots), field.fleet.plan.servers[-1]
    deaf_tools = tools.order("deaf", agent=agent, server=server, seconds=seconds)
    deaf_robot = robots.order("deaf", agent=agent, slot=deaf_slot, server=other, seconds=seconds, bulk=FULL_BYTES)
    for number in range(FILLING):
        slot = (deaf_slot + 1 + number % (len(slots) - 1)) % len(slots)
        robots.ask("call", agent=agent, slot=slot, server=server, pad=FULL_BYTES)
    tools.reply(deaf_tools, seconds + 20)
    robots.reply(deaf_robot, seconds + 20)


def large_messages(field: Field) -> None:
    """A tool answers with 4 MiB every 50 ms, beside everybody's small calls."""
    agent, server = field.someone()
    slots = range(len(field.fleet.workers))
    for _ in field.moments(1.5, every=0.05):
        slot = field.random.choice(slots)
        field.fleet.robots[0].ask("call", agent=agent, slot=slot, server=server, bulk=LARGE_BYTES)


FAULTS = [
    Fault("worker killed", (1, 3), kill_worker),
    Fault("worker frozen past its lease", (4,), freeze_worker),
    Fault(
        "rolling restart of all workers",
        (5,),
        restart_one_by_one,
        slow_seconds=0.3,
        stay_seconds=1.5,
        results_due=True,
    ),
    Fault("event loop stalled", (4, 22), stall_worker),
    Fault("clock jump", (29,), jump_clock),
    Fault("newer release beside", (27,), newer_release),
    Fault("incompatible release beside", (27,), incompatible_release),
    Fault("tool servers killed in mid-call", (18,), kill_tool_servers),
    Fault("tool servers redial in mid-call", (18, 19, 20), redial_tool_servers),
    Fault("robots killed in mid-call", (3, 28), kill_robots),
    Fault("half-open sockets", (2,), half_open),
    Fault("robot storm", (24,), storm, calls_per_second=20.0),
    Fault("takeover storm", (18, 19), takeovers),
    Fault("frozen tool server that still pongs", (21,), mute_tool_server),
    Fault("slow readers", (21,), slow_readers),
    Fault("4 MiB every 50 ms", (23,), large_messages, calls_per_second=30.0),
]
