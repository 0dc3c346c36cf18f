"""How often something may happen. Times are seconds of any clock that only goes forward."""


class Rate:
    """A token bucket: so many a second, as many at once. 0 a second: no limit."""

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
