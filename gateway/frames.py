"""WebSocket frames as bytes, without I/O: cut out of a stream, unmasked, and headed for sending.

Only what RFC 6455 §5.2 says about lengths is understood here. What a frame means, and whether it is allowed, is for
the reader to decide; `FrameCutter` merely never waits for a frame that can't be allowed.
"""

from collections.abc import Iterator
from struct import Struct

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without a wheel
    from websockets.utils import apply_mask

TEXT, BINARY = 0x81, 0x82
"""The first byte of a message in one frame."""

PING, PONG = 0x89, 0x8A
SMALL_END = 0x80 + 126
"""The second byte of a masked frame is below this if its payload is as short as that of a control frame has to be."""

_SHORT_HEADS = tuple(bytes((TEXT, size)) for size in range(126))
_MEDIUM_HEAD = Struct("!BBH").pack
_LONG_HEAD = Struct("!BBQ").pack
_LARGE_BYTES = 16 * 1024  # from here on, a view costs less than another copy


def text_head(size: int) -> bytes:
    """Return the head of an unmasked text frame, the only one of its message, that carries `size` bytes."""
    if size < 126:
        return _SHORT_HEADS[size]
    if size < 65536:
        return _MEDIUM_HEAD(TEXT, 126, size)
    return _LONG_HEAD(TEXT, 127, size)


def pong_head(size: int) -> bytes:
    """Return the head of an unmasked pong that carries `size` bytes, 125 at most."""
    return bytes((PONG, size))


def unmask(frame: bytes | bytearray, start: int) -> bytes:
    """Return the payload of a masked frame, which begins at `start`."""
    payload = frame[start:] if len(frame) < _LARGE_BYTES else memoryview(frame)[start:]
    return apply_mask(payload, frame[start - 4 : start])


class FrameCutter:
    """Cuts what one peer sends into masked frames. Holds at most one incomplete frame of at most `limit` bytes."""

    __slots__ = ("_frame", "_head", "_size")

    def __init__(self) -> None:
        self._head = b""  # of a frame whose length is not known yet
        self._frame = bytearray()  # as much as has come: a peer may announce what it never sends
        self._size = 0  # of that frame as it was announced; 0: there is none

    def cut(self, data: bytes, limit: int) -> Iterator[tuple[bytes | bytearray, int]]:
        """Yield each frame that is complete now, with the place where its payload starts.

        A frame that must not be waited for, because it is not masked or its payload is above `limit`, is yielded as
        its first two bytes, with 0 for the place; nothing can be cut after it.
        """
        at = 0
        if self._size:
            at = self._fill(data)
            if len(self._frame) < self._size:
                return
            frame, self._frame, self._size = self._frame, bytearray(), 0
            yield frame, _bounds(frame, 0)[0]
        elif self._head:
            data, self._head = self._head + data, b""
        while len(data) - at >= 2:
            start, end = _bounds(data, at)
            if data[at + 1] < 0x80 or end - start > limit:
                yield data[at : at + 2], 0
                return
            if not 0 < end <= len(data):
                break
            yield data[at:end], start - at
            at = end
        self._keep(data[at:])

    def _fill(self, data: bytes) -> int:
        """Put what is still missing into the incomplete frame; return how much that was."""
        size = min(len(data), self._size - len(self._frame))
        self._frame += data[:size]
        return size

    def _keep(self, rest: bytes) -> None:
        end = _bounds(rest, 0)[1] if len(rest) >= 2 else 0
        if end == 0:
            self._head = rest
        else:
            self._frame, self._size = bytearray(rest), end


class Fragments:
    """Joins the fragments of one message, for a reader who bounds their size and number."""

    __slots__ = ("_count", "_message")

    def __init__(self) -> None:
        self._message = bytearray()
        self._count = 0

    def add(self, data: bytes | bytearray | memoryview, *, is_first: bool) -> int:
        """Append the fragment; how many the message has by now."""
        if is_first:
            self._message, self._count = bytearray(), 0
        self._message += data
        self._count += 1
        return self._count

    def take(self) -> bytes:
        """The message as far as it has come; nothing is kept of it."""
        message, self._message = bytes(self._message), bytearray()
        return message


def _bounds(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return where the payload of the masked frame at `at` starts and ends; zeros while its length isn't there."""
    size = data[at + 1] & 0x7F
    if size < 126:
        return at + 6, at + 6 + size
    long = 2 if size == 126 else 8
    if len(data) < at + 2 + long:
        return 0, 0
    start = at + 6 + long
    return start, start + int.from_bytes(data[at + 2 : at + 2 + long])
