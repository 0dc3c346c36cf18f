"""Fleets that stay up between rounds, and several faults at a time: a round mostly waits."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

from tests.chaos.fleet import Fleet, on_own_redis
from tests.chaos.nemesis import Fault, Round, play, replay
from tests.chaos.processes import Gone

SIDE_BY_SIDE = 2

Factory = Callable[[], AbstractContextManager[Fleet]]


class Stage:
    """Plays rounds. A fleet on which one has failed is not used again.

    Its threads live as long as itself: a server that is started by a thread ends with that thread.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="stage")
        self._free: list[tuple[Factory, ExitStack, Fleet]] = []

    def play(self, faults: Sequence[Fault], seed: int) -> list[str]:
        """Play all of them, each on a fleet of its own; what was broken, with the commands that show it again."""
        return [trouble for trouble in self._threads.map(lambda fault: self._play(fault, seed), faults) if trouble]

    def close(self) -> None:
        for _, stack, _ in self._free:
            stack.close()
        self._threads.shutdown()

    def _play(self, fault: Fault, seed: int) -> str:
        factory = fault.fleet or on_own_redis
        stack, fleet = self._take(factory)
        try:
            played = play(fleet, fault, seed)
            trouble = _trouble(played)
        except (AssertionError, Gone) as error:
            trouble = f"{fault.name}: {error}"
        except BaseException:
            stack.close()
            raise
        if trouble:
            kept = fleet.keep(f"{fault.name}-{seed}")
            stack.close()
            return f"{trouble}\nlogs: {kept}\nagain: {replay(fault.name, seed)}"
        self._free.append((factory, stack, fleet))
        return ""

    def _take(self, factory: Factory) -> tuple[ExitStack, Fleet]:
        for entry in list(self._free):
            if entry[0] is factory:
                self._free.remove(entry)
                return entry[1:]
        stack = ExitStack()
        return stack, stack.enter_context(factory())


def _trouble(played: Round) -> str:
    if played.verdict.violations:
        return str(played)
    return "" if played.counts["result"] else f"{played}\nno call ran before or after it"
