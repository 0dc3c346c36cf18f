"""The bounds of one socket: how much it may send, how fast it is read, how much that it asked for it may not read."""

from asyncio import AbstractEventLoop, TimerHandle, Transport

from gateway.rates import Allowance

FRAGMENTS_MAX = 16_384
"""Of one message; 8 MiB in half-kilobyte pieces. Empty ones would otherwise go on for ever within any size."""
CONTROL_FRAMES_PER_SECOND = 200
"""Pings and pongs from one peer; real ones send one in 20 s."""
ANSWERS_BYTES_MAX = 256 * 1024
"""Small answers of our own (pongs, answers to pings, refusals) that may wait for a peer that reads nothing."""
TURN_BYTES_MAX = 1024 * 1024
"""Of such answers within one turn of the event loop, whether they will be read or not."""
SMALL_BYTES = 8 * 1024
"""Larger ones are pages of a tool list."""
PAGES_MAX = 4
"""So many of the largest may wait."""


class Throttle:
    """Reads a transport at so many bytes a second on average: after more than that it is paused until they are due.

    A pause is as long as one read of the transport (256 KiB at most) is worth, so it ends within seconds.
    """

    def __init__(self, loop: AbstractEventLoop, transport: Transport, bytes_per_second: float) -> None:
        self._loop = loop
        self._transport = transport
        self._per_second = bytes_per_second
        self._allowance = Allowance(bytes_per_second, bytes_per_second)
        self._timer: TimerHandle | None = None
        self._is_over = False

    @property
    def is_paused(self) -> bool:
        return self._timer is not None

    def note(self, size_bytes: int) -> None:
        """So much has been read."""
        now = self._loop.time()
        self._allowance.spend(size_bytes, now)
        owed_seconds = self._allowance.owed(now) / self._per_second
        if owed_seconds > 0 and self._timer is None and not self._is_over and not self._transport.is_closing():
            self._transport.pause_reading()
            self._timer = self._loop.call_later(owed_seconds, self._resume)

    def stop(self) -> None:
        """Read from now on as it comes: the connection ends, and its end must be heard."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._resume()

    def _resume(self) -> None:
        self._timer = None
        if not self._transport.is_closing():
            self._transport.resume_reading()


class Unread:
    """What a peer has been answered since it last had read everything."""

    __slots__ = ("_page_bytes", "_page_bytes_max", "_small_bytes", "_turn_bytes")

    def __init__(self, page_bytes: int) -> None:
        self._small_bytes = self._turn_bytes = self._page_bytes = 0
        self._page_bytes_max = PAGES_MAX * page_bytes

    def note(self, size_bytes: int, *, unread_bytes: int, unwritten_bytes: int) -> bool:
        """Whether the peer may be given another answer, with so much waiting for it to read or yet to be written.

        Small answers count from when the peer falls behind: many at once are no fault, up to a point. Pages count at
        once.
        """
        if not unwritten_bytes:
            self._turn_bytes = 0
            self._page_bytes = self._page_bytes if unread_bytes else 0
        if size_bytes > SMALL_BYTES:
            self._page_bytes += size_bytes
            return self._page_bytes <= self._page_bytes_max
        self._turn_bytes += size_bytes
        self._small_bytes = self._small_bytes + size_bytes if unread_bytes else 0
        return self._small_bytes <= ANSWERS_BYTES_MAX and self._turn_bytes <= TURN_BYTES_MAX
