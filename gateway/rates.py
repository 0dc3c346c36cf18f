"""How often something may happen. Times are seconds of any clock that only goes forward."""


class Rate:
    """A token bucket: so many a second, as many at once. 0 a second: no limit."""

    __slots__ = ("_at", "_per_second", "_tokens")

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._tokens = per_second
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether one more is within the rate; counts it if so."""
        if not self._per_second:
            return True
        self._tokens = min(self._per_second, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Allowance:
    """So many units at once; what was taken grows back at so many a second."""

    __slots__ = ("_at", "_left", "_per_second", "_units")

    def __init__(self, units: float, per_second: float) -> None:
        self._units = self._left = units
        self._per_second = per_second
        self._at = 0.0

    def take(self, units: float, now: float) -> bool:
        """Whether there are so many; takes them if so."""
        self._left, self._at = self._left_at(now), now
        if self._left < units:
            return False
        self._left -= units
        return True

    def spend(self, units: float, now: float) -> None:
        """Take so many, whether there are or not: what is owed must grow back first."""
        self._left, self._at = self._left_at(now) - units, now

    def owed(self, now: float) -> float:
        """How many were spent that were not there, and have not grown back."""
        return max(0.0, -self._left_at(now))

    def is_spent(self, now: float) -> bool:
        """Whether nothing is left."""
        return self._left_at(now) <= 0

    def is_whole(self, now: float) -> bool:
        """Whether everything has grown back: it is as good as a new one."""
        return self._left_at(now) >= self._units

    def _left_at(self, now: float) -> float:
        return min(self._units, self._left + (now - self._at) * self._per_second)


class Allowances:
    """One allowance for each name; those that are whole again are forgotten once there are many."""

    __slots__ = ("_names_max", "_of", "_per_second", "_units")

    def __init__(self, units: float, per_second: float, *, names_max: int) -> None:
        self._units = units
        self._per_second = per_second
        self._names_max = names_max
        self._of: dict[str, Allowance] = {}

    def __len__(self) -> int:
        return len(self._of)

    def of(self, name: str, now: float) -> Allowance:
        """The name's allowance."""
        if len(self._of) >= self._names_max:
            self._of = {known: allowance for known, allowance in self._of.items() if not allowance.is_whole(now)}
        return self._of.setdefault(name, Allowance(self._units, self._per_second))


class Turnstile:
    """Lets so many a second through, each at a time of its own, and after a lull a few at once."""

    def __init__(self, per_second: float, *, at_once: int, wait_seconds_max: float) -> None:
        self._pace = 1.0 / per_second
        self._lead = at_once * self._pace
        self._wait_seconds_max = wait_seconds_max
        self._next = 0.0

    def turn(self, now: float) -> float | None:
        """In how many seconds the next one's turn is; None, and no turn taken, if that is too long to wait."""
        turn = max(self._next, now - self._lead)
        if turn - now > self._wait_seconds_max:
            return None
        self._next = turn + self._pace
        return max(0.0, turn - now)
