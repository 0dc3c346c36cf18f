"""What one worker holds of a limit that all workers share: pure arithmetic, in seconds of a clock that goes forward.

Theory of operation
-------------------
A call must not wait for the store, and an agent that calls now and then must not cost a command. So a sixteenth of
every limit belongs to the workers in equal parts, for nothing: each one's `Purse`. The other fifteen are in the
store's bucket. Once a purse is half empty its worker asks the store for units ahead of time, for about as many as it
has lately needed, and its `Share` spends these as well. Units that are held are not lost to others for long: the
bucket goes on filling.

Whoever asks for the first time, or got all it asked for last time, may meanwhile spend on credit. The debt goes with
the next question and is taken out of the bucket whether there is enough or not. So a crowd that comes all at once is
let in before the answer is here, and paid for afterwards.

Over any time, all workers together let through at most limit × time + burst, and besides, once, what each of them may
have had in its purse, held or owed (`Limit.spare_units`). A store that does not answer leaves every worker alone with a
bucket of the full limit.

What counts against two limits (a call does: its agent's and its tool server's) is taken from both or from neither, here
as in the store.
"""

from collections.abc import Callable
from dataclasses import dataclass

QUIET_PART = 1 / 16
"""Of every limit: the workers', without asking."""
QUIET_UNITS_MIN = 2.0
"""In every purse: a limit of a few units must not mean a command for each of them."""
CREDIT_PART = 1 / 4
"""Of a burst: what one worker may owe."""
ASK_PARTS = (1 / 64, 1 / 8)
"""Of a burst: what is asked for at once, at first and at most."""
HELD_WINDOWS = 10.0
"""For so long what was granted counts as held."""
LATE_SECONDS = 0.25
"""A store that takes longer to answer is away."""
AWAY_SECONDS = 1.0
"""Until it is asked again."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many units in a window, all of them at once if need be."""

    units: float
    window_seconds: float = 1.0

    @property
    def per_second(self) -> float:
        return self.units / self.window_seconds

    @property
    def burst(self) -> float:
        return max(1.0, self.units)

    @property
    def ask_min(self) -> int:
        return max(1, int(self.burst * ASK_PARTS[0]))

    @property
    def ask_max(self) -> int:
        return max(1, int(self.burst * ASK_PARTS[1]))

    @property
    def credit(self) -> int:
        return int(self.burst * CREDIT_PART)

    @property
    def shared(self) -> "Limit":
        """The part of it that is in the store's bucket."""
        return Limit(self.units * (1 - QUIET_PART), self.window_seconds)

    def purse_units(self, part: float) -> float:
        """How many units a purse of this part of the limit can hold."""
        return min(self.burst, max(self.burst * part, QUIET_UNITS_MIN))

    def spare_units(self, workers: int) -> float:
        """By how much each of so many workers may exceed the limit, once: its purse, what it holds, what it owes."""
        return self.purse_units(QUIET_PART / workers) + 1.5 * self.ask_max + self.credit


class Purse:
    """A worker's own part of a limit: a token bucket."""

    __slots__ = ("_at", "_is_alone", "_part", "_per_second", "limit", "most", "units")

    def __init__(self, limit: Limit, part: float, now: float) -> None:
        self._is_alone = False
        self._at = now
        self._part = part
        self.units = limit.burst
        self.adjust(limit, part)
        self.fill(now)

    def adjust(self, limit: Limit, part: float) -> None:
        """The limit is another one, or this worker's part of it."""
        self.limit, self._part = limit, part
        part = 1.0 if self._is_alone else part
        self._per_second = limit.per_second * part
        self.most = limit.purse_units(part)

    @property
    def is_alone(self) -> bool:
        """Whether it stands for the whole limit, for want of a store."""
        return self._is_alone

    @is_alone.setter
    def is_alone(self, is_alone: bool) -> None:
        if is_alone is not self._is_alone:
            self._is_alone = is_alone
            self.adjust(self.limit, self._part)

    def fill(self, now: float) -> float:
        """How many units there are now."""
        units = self.units + (now - self._at) * self._per_second
        self._at = now
        self.units = units = units if units < self.most else self.most
        return units

    @property
    def wait_seconds(self) -> float:
        """How long until there is a unit, from when it was last filled."""
        return max(0.0, 1.0 - self.units) / self._per_second


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker wants of the store's buckets, and what it has spent already: both are taken from all of them."""

    want: int
    debt: int


class Share:
    """What this worker may spend of a limit, or of two together; `purse` is of the narrower one.

    `on_low` is told when the store should be asked: then `ask`, and later `answer` or `fail`, must follow. None where
    there is nobody to share with.
    """

    __slots__ = (
        "_asked_at",
        "_credit",
        "_debt",
        "_granted",
        "_granted_until",
        "_is_trusted",
        "_next_ask_at",
        "_on_low",
        "_outer",
        "_owed",
        "_purse",
        "_want",
        "_wanted_at",
    )

    def __init__(
        self, purse: Purse, outer: Purse | None = None, on_low: Callable[["Share", float], None] | None = None
    ) -> None:
        self._purse = purse
        self._outer = outer
        self._on_low = on_low
        self._granted = 0
        self._debt = 0
        """Spent on credit, and not told the store yet."""
        self._owed = 0
        """Spent on credit, and on its way to the store."""
        self._granted_until = self._wanted_at = self._next_ask_at = 0.0
        self._asked_at: float | None = None
        self._is_trusted = True
        self.adjust()

    def adjust(self) -> None:
        """A limit is another one now."""
        limits = [purse.limit for purse in self.purses]
        self._credit = min(limit.credit for limit in limits)
        self._want = min(limit.ask_min for limit in limits)
        self._granted = min(self._granted, self._ask_max)

    @property
    def purses(self) -> tuple[Purse, ...]:
        return (self._purse,) if self._outer is None else (self._purse, self._outer)

    @property
    def _ask_max(self) -> int:
        return min(purse.limit.ask_max for purse in self.purses)

    def take(self, now: float) -> float | None:
        """Take a unit: None. Else nothing was taken, and it is worth trying again in so many seconds."""
        purse, outer = self._purse, self._outer
        units = purse.fill(now)
        if outer is not None:
            units = min(units, outer.fill(now))
        if units >= 1.0:
            purse.units -= 1.0
            if outer is not None:
                outer.units -= 1.0
            if self._on_low is not None and (units < 0.5 * purse.most + 1.0 or not self._is_trusted):
                self._look_ahead(now)
            return None
        if self._on_low is None:
            return max(each.wait_seconds for each in self.purses)
        return self._take_shared(now)

    def _take_shared(self, now: float) -> float | None:
        """Take a unit that is not out of a purse."""
        if self._granted and now < self._granted_until:
            self._granted -= 1
        elif self._is_trusted and self._debt + self._owed < self._credit:
            self._debt += 1
        else:
            self._look_ahead(now)
            if self._asked_at is not None and now - self._asked_at > LATE_SECONDS:
                self._be_alone(True)
            return self._wait_seconds(now)
        self._look_ahead(now)
        return None

    def _wait_seconds(self, now: float) -> float:
        """How long until there is a unit: one of our own, or from the store."""
        own = max(purse.wait_seconds for purse in self.purses)
        return min(own, max(self._next_ask_at - now, LATE_SECONDS / 5))

    def _look_ahead(self, now: float) -> None:
        """Have the store asked, if it is time."""
        if self._asked_at is not None or now < self._next_ask_at:
            return
        is_well = self._is_trusted and not self._debt and now < self._granted_until
        if not is_well or 2 * self._granted <= self._want:
            assert self._on_low is not None
            self._on_low(self, now)

    # The store

    def ask(self, now: float) -> Ask:
        """What to ask the store for now."""
        pace = self._purse.limit.window_seconds * ASK_PARTS[1]
        since = now - self._wanted_at
        if since < pace:
            self._want = min(2 * self._want, self._ask_max)
        elif since > 4 * pace:
            self._want = max(self._want // 2, min(purse.limit.ask_min for purse in self.purses))
        self._wanted_at = self._asked_at = now
        self._owed, self._debt = self._debt, 0
        return Ask(self._want, self._owed)

    def answer(self, units: int, wait_seconds: float, now: float) -> None:
        """The store has granted so many units; if these were not all, it is asked again after the wait at least."""
        if now >= self._granted_until:
            self._granted = 0
        self._granted += units
        self._granted_until = now + HELD_WINDOWS * self._purse.limit.window_seconds
        self._is_trusted = units >= self._want
        self._next_ask_at = now if self._is_trusted else now + wait_seconds
        self._asked_at = None
        self._owed = 0
        self._be_alone(False)
        if self._debt:
            self._look_ahead(now)

    def fail(self, pause_seconds: float, now: float) -> None:
        """The store can't be asked; not again before the pause is over."""
        self._asked_at = None
        self._owed = self._debt = 0
        self._is_trusted = False
        self._next_ask_at = now + pause_seconds
        self._be_alone(True)

    def _be_alone(self, is_alone: bool) -> None:
        for purse in self.purses:
            purse.is_alone = is_alone

    def is_idle(self, now: float) -> bool:
        """Whether a new one would do as well: nobody has taken anything for long."""
        return self._asked_at is None and now >= self._granted_until and all(p.fill(now) >= p.most for p in self.purses)
