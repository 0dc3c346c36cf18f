"""What must hold in a round of a fault of Redis, beyond the accounting: judged from the logbook alone.

Calls between two connections of one worker go on untouched; what was in flight ends in its result when Redis is back
in time; nothing runs after its deadline; nobody is cut off. `broken_promises` is asked after the round.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.checker import Books, Fate
from tests.chaos.fleet import Fleet
from tests.chaos.logbook import Entry
from tests.chaos.nemesis import Fault
from tests.chaos.plan import worker_of

LOCAL_SECONDS = 1.6
"""A call between two connections of one worker, on a busy machine: the longest pause of a tool, and a second."""
IN_TIME_SECONDS = 1.5
"""A call with so much time left when Redis is back must end in its result."""
OWN_WILL = 1000
"""The close code of a robot that hangs up."""
REFUSED_AT_ONCE = ("worker unreachable",)
"""Nobody was subscribed at that moment; not executed."""
DEADLINE_SLACK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Gap:
    """Redis was away for these workers (all, if none is named)."""

    since: float
    until: float
    workers: tuple[str, ...]

    def hits(self, *workers: str) -> bool:
        return not self.workers or any(worker in self.workers for worker in workers)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a round has left in the logbook."""

    fleet: Fleet
    gaps: Sequence[Gap]
    fates: Sequence[tuple[Entry, Fate]]
    """Calls whose robots waited for the answer."""

    def home(self, ask: Entry) -> str:
        """The worker that the called tool server is at home with."""
        return worker_of(self.fleet.plan.home(ask["agent"], ask["server"]))


Promise = Callable[[Sight], Iterator[str]]


@dataclass(frozen=True, slots=True)
class RedisFault(Fault):
    """A fault, and what must be true of its round."""

    calls_per_second: float = 40.0
    promises: tuple[Promise, ...] = ()
    is_extra: bool = False
    """For the long run only: others show nearly the same."""


def broken_promises(fault: Fault, fleet: Fleet) -> list[str]:
    """What did not hold in the fleet's last round, beyond the verdict. Of other faults than those here: nothing."""
    if not isinstance(fault, RedisFault):
        return []
    books = Books(fleet.last_entries)
    fates = [
        (fate.ask, fate)
        for fate in books.fates.values()
        if fate.ask is not None and fate.ask["method"] == "tools/call" and fate.answers and fate.cancelled_at is None
    ]
    gaps = [
        Gap(entry["since"], entry["until"], tuple(entry["workers"]))
        for entry in fleet.last_entries
        if entry["kind"] == "away"
    ]
    sight = Sight(fleet, gaps, fates)
    return [f"{promise.__name__}: {text}" for promise in fault.promises for text in promise(sight)]


def local_calls_go_on(sight: Sight) -> Iterator[str]:
    """Calls between two connections of one worker end in results while Redis is away, as soon as ever."""
    for gap in sight.gaps:
        for ask, fate in sight.fates:
            if not gap.since < ask["at"] < gap.until or sight.home(ask) != ask["worker"]:
                continue
            answer = fate.answers[0]
            took = answer["at"] - ask["at"]
            if answer["outcome"] != "result" or took > LOCAL_SECONDS:
                told = f"{answer['outcome']} {answer['reason']} after {took:.2f} s"
                yield f"call {ask['call']} on {ask['worker']}: {told}"


def in_flight_ends_in_results(sight: Sight) -> Iterator[str]:
    """What was on its way when Redis went away, and has time left when it is back, ends in its result."""
    for gap in sight.gaps:
        for ask, fate in sight.fates:
            answer = fate.answers[0]
            was_written = ask["at"] < gap.since - 0.1 or answer["executed"] == "unknown"
            has_time = ask["at"] + ask["seconds"] > gap.until + IN_TIME_SECONDS
            was_in_flight = was_written and ask["at"] < gap.until and answer["at"] > gap.since
            if was_in_flight and has_time and answer["outcome"] != "result":
                yield f"call {ask['call']} of {sight.home(ask)} from {ask['worker']}: {answer['reason']}"


def short_gaps_cost_nothing(sight: Sight) -> Iterator[str]:
    """Redis was away for less than a call waits for it: every call ends in its result, or is refused at once."""
    for ask, fate in sight.fates:
        answer = fate.answers[0]
        if answer["outcome"] != "result" and answer["reason"] not in REFUSED_AT_ONCE:
            yield f"call {ask['call']} of {sight.home(ask)} from {ask['worker']}: {answer['reason']}"


def nothing_runs_late(sight: Sight) -> Iterator[str]:
    """No tool server is handed a call after its deadline."""
    for ask, fate in sight.fates:
        for run in fate.runs:
            late = run["at"] - ask["at"] - ask["seconds"]
            if late > DEADLINE_SLACK_SECONDS:
                yield f"call {ask['call']} began {late:.2f} s after its deadline"


def nobody_is_cut_off(sight: Sight) -> Iterator[str]:
    """Robots and tool servers stay connected while Redis is away."""
    for gap in sight.gaps:
        for entry in sight.fleet.last_entries:
            is_cut_off = entry["kind"] == "closed" and entry["code"] != OWN_WILL
            if is_cut_off and gap.since < entry["at"] < gap.until:
                yield f"{entry['robot']}: {entry['code']} {entry['at'] - gap.since:.2f} s after Redis had gone"


def other_workers_are_untouched(sight: Sight) -> Iterator[str]:
    """Calls between workers that still reach Redis end in results."""
    for gap in sight.gaps:
        for ask, fate in sight.fates:
            answer = fate.answers[0]
            is_meant = gap.since < ask["at"] < gap.until and not gap.hits(ask["worker"], sight.home(ask))
            if is_meant and answer["outcome"] != "result":
                yield f"call {ask['call']} from {ask['worker']} to {sight.home(ask)}: {answer['reason']}"


ALWAYS = (local_calls_go_on, nothing_runs_late, nobody_is_cut_off)
SHORT = (*ALWAYS, in_flight_ends_in_results)
NONE_LOST = (*SHORT, short_gaps_cost_nothing)
