"""Protections switched off one at a time: what the harness must then see. A checker that can't fail is worthless.

Theory of operation
-------------------
Each control is a scenario that brings the cluster to the point where one protection alone stands between a fault and
its damage. It is played twice: as the gateway is, where nothing may be broken, and with that protection patched away
in the worker processes (`switches`), where the checker has to report exactly that kind of damage.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.checker import RUN_SLACK_SECONDS, Violation, check
from tests.chaos.fleet import Fleet, on_own_redis, wait_for
from tests.chaos.logbook import Entry

AGENT, SERVER = "alpha", "s0"
OWNER, CALLER, OTHER = 0, 1, 2
"""Slots: the tool server is at home on the first, its calls come from the second."""


@dataclass(slots=True)
class Scene:
    """What a scenario works with."""

    fleet: Fleet
    entries: list[Entry] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    """What no log shows, but the scenario itself."""

    def call(self, slot: int = CALLER, *, server: str = SERVER, **options: Any) -> int:
        """One call of a tool server by the robot on that worker; its number."""
        number: int = self.fleet.robots[0].ask("call", agent=AGENT, slot=slot, server=server, **options)
        assert number, "the robot was not connected"
        return number

    def until(self, kind: str, call: int) -> Entry:
        """Wait for an entry about the call."""
        found: list[Entry] = []

        def is_there() -> bool:
            self.entries += self.fleet.logbook.read_on()
            found[:] = [entry for entry in self.entries if (entry["kind"], entry.get("call")) == (kind, call)]
            return bool(found)

        wait_for(is_there, f"{kind} of call {call}", 15.0)
        return found[0]

    def until_recorded(self) -> None:
        """Wait until a call is in the ledger."""
        with self.fleet.store.client() as client:
            wait_for(lambda: next(client.scan_iter("mcpgw:call:*"), None), "a call is recorded", 5.0)

    def cut_subscriptions(self) -> None:
        with self.fleet.store.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    def cut_subscription_of(self, worker: int) -> None:
        """Of this worker only: nobody else has a reason to look."""
        pid = str(self.fleet.workers[worker].child.pid).encode()
        with self.fleet.store.client() as client:
            leases = [key.decode() for key in client.scan_iter("mcpgw:worker:*") if client.hget(key, "pid") == pid]
            name = leases[0].removeprefix("mcpgw:worker:{").removesuffix("}")
            [line] = [line for line in client.client_list() if line["name"] == f"mcpgw:{name}:sub"]
            client.execute_command("CLIENT", "KILL", "ID", line["id"])

    def until_surely_after(self, answer: Entry) -> None:
        """So long after an answer that the checker takes nothing for a coincidence."""
        time.sleep(max(0.0, answer["at"] + RUN_SLACK_SECONDS + 0.3 - time.monotonic()))


def message_lost_on_the_way(scene: Scene) -> None:
    """A published request does not arrive, and the subscription breaks: the record is all there is."""
    owner = scene.fleet.workers[OWNER].child
    owner.ask("deaf", is_deaf=True)
    scene.call()
    scene.until_recorded()
    owner.ask("deaf", is_deaf=False)
    scene.cut_subscription_of(OWNER)


def message_read_twice(scene: Scene) -> None:
    """A subscription breaks while a call runs: its record says that it was sent."""
    call = scene.call(pause=2.0)
    scene.until("begin", call)
    scene.cut_subscriptions()


def owner_wakes_up(scene: Scene) -> None:
    """A worker finds a request in its mailbox that was there before it slept through its lease."""
    with scene.fleet.frozen(scene.fleet.workers[OWNER].child):
        call = scene.call()
        scene.until_surely_after(scene.until("answer", call))
    scene.fleet.probe(time.monotonic(), 10.0, [CALLER])


def store_wakes_up(scene: Scene) -> None:
    """Redis stands still with a request in its socket until the call's deadline is over."""
    store = scene.fleet.store
    store.freeze()
    try:
        call = scene.call()
        scene.until_surely_after(scene.until("answer", call))
    finally:
        store.thaw()
    scene.fleet.probe(time.monotonic(), 10.0, [CALLER])


def old_connection_ends_late(scene: Scene) -> None:
    """A tool server is taken over by a newer connection; then the old one's end is told to the directory."""
    assert scene.fleet.tools[0].ask("takeover", agent=AGENT, server=SERVER, slot=CALLER), "the old one did not leave"
    for _ in range(10):
        scene.call(slot=OTHER)
        time.sleep(0.1)


def owner_dies_in_mid_call(scene: Scene) -> None:
    """A worker is killed while it runs a call for another one, long before the call's deadline."""
    call = scene.call(pause=5.0)
    scene.until("begin", call)
    scene.fleet.workers[OWNER].child.kill()


def store_forgets(scene: Scene) -> None:
    """FLUSHALL, and a worker that was not there before it."""
    with scene.fleet.store.client() as client:
        client.flushall()
    scene.fleet.workers[OTHER].child.kill()
    scene.fleet.workers[OTHER].start()
    missing = [pair for pair, seconds in scene.fleet.probe(time.monotonic(), 4.0, [OTHER]).items() if seconds is None]
    scene.violations += [Violation("not healed", 0, pair) for pair in missing]


@dataclass(frozen=True, slots=True)
class Control:
    """A protection, the scenario that needs it, and the damage without it."""

    protection: str
    scenario: Callable[[Scene], None]
    damage: str
    results_due: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)


PATIENT = {"ping_seconds": 20.0, "pong_seconds": 20.0, "mcp_ping_seconds": 20.0}
"""Nobody takes the other for dead meanwhile."""

CONTROLS = [
    Control("dispatch record", message_lost_on_the_way, "no result", results_due=True, settings={"call_seconds": 2.0}),
    Control("dedupe", message_read_twice, "doubled"),
    Control(
        "fence",
        owner_wakes_up,
        "ran after its end",
        settings={**PATIENT, "lease_seconds": 1.5},
        plan={"ping_seconds": 20.0},
    ),
    Control(
        "late check",
        store_wakes_up,
        "ran after its end",
        settings={**PATIENT, "lease_seconds": 20.0, "call_seconds": 0.9},
    ),
    Control(
        "compare on unregister", old_connection_ends_late, "no result", results_due=True, settings={"park_seconds": 0.5}
    ),
    Control(
        "owner lease",
        owner_dies_in_mid_call,
        "lost",
        settings={"lease_seconds": 1.5, "call_seconds": 6.0},
        plan={"call_seconds": 2.0},
    ),
    Control("recovery", store_forgets, "not healed"),
]


def play(control: Control, *, is_protected: bool) -> list[Violation]:
    """What the harness sees."""
    with on_own_redis(is_started=False, settings=control.settings, **control.plan) as fleet:
        fleet.start(without=() if is_protected else (control.protection,))
        fleet.spread()
        scene = Scene(fleet)
        fleet.logbook.read_on()
        control.scenario(scene)
        until = fleet.quiet()
        scene.entries += fleet.logbook.read_on()
        return check(scene.entries, until=until, results_due=control.results_due).violations + scene.violations
