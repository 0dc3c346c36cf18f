"""One live WebSocket, as the rest of the gateway sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from gateway.credential import Credential

OnEnd: TypeAlias = Callable[[int, str], None]
"""Told once that a socket has ended: code and reason. Never from within a call of its wire."""


class Wire(Protocol):
    """What a connection may do to its socket (`gateway.wire`)."""

    def attach(self, on_frame: Callable[[bytes], None], *, max_bytes: int) -> None:
        """Let every whole message (text or binary, fragments joined, not decoded) go straight to `on_frame`.

        `on_frame` is called synchronously, never from within attach, and reading is never paused but to keep to
        `connection_rate_bytes`. Before it is attached, what comes is dropped. A message above `max_bytes` closes the
        connection with 1009; an exception out of `on_frame` is logged and closes it with 1011. Called again, it
        replaces what was attached.
        """
        ...

    def send(self, text: bytes) -> bool:
        """Write one unfragmented text frame at once.

        False if the socket is closed or closing, and if it had to be dropped because more than the outbox bound was
        waiting unread (then `is_slow` is True). True promises only that the frame is on its way.
        """
        ...

    def answer(self, text: bytes) -> bool:
        """As `send`, for what the peer asked of the gateway itself: one that reads no such answer is dropped sooner."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; the reason is cut to the 123 bytes of UTF-8 that fit in a close frame.

        The socket is gone at most `close_seconds` later, whether the peer answers, reads, or does neither. A second
        call does nothing.
        """
        ...

    def abort(self) -> None:
        """Drop the socket now, without a closing handshake and without what was still to be sent."""
        ...

    @property
    def outbox_bytes(self) -> int:
        """How many bytes wait for the peer to read."""
        ...

    @property
    def is_slow(self) -> bool:
        """True once the socket was dropped because the peer did not read."""
        ...


class Kind(Enum):
    """Which of the two peers dialled in; the value is the last part of the path."""

    TOOL_SERVER = "mcp"
    ROBOT = "call"

    label: str
    """The name in logs and metrics."""

    def __init__(self, role: str) -> None:
        self.label = self.name.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """A peer's socket and what is known of it from its handshake. `id` is unique in the cluster, for ever."""

    id: str
    kind: Kind
    agent: str
    wire: Wire
    credential: Credential
    """What it came in with; its agent is `agent`."""
    address: str
    """Where the peer is, seen past the proxies that are trusted (`gateway.sources`)."""
    opened_ms: int
    server_id: str = ""
    """What a tool server asked to be called, or its token claims; empty: the gateway chooses."""
