"""Faults to plant in a worker, one for each thing that a run must notice: what can't fail proves nothing."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson

from gateway import intake
from gateway.credential import Credential
from gateway.intake import GatewayHttpProtocol
from gateway.refused import Refused
from gateway.robotsession import RobotSession
from gateway.tokens import Keyring
from gateway.toolsession import ToolSession
from gateway.wire import GatewayWebSocketProtocol

STALL_SECONDS = 1.5
INFLATED_BYTES = 300_000_000
_KEPT: list[Any] = []


def _on_unoffered_request(act: Callable[[], object]) -> None:
    """Do it when a tool server asks for what was never offered."""
    answer = ToolSession._answer

    def acting(self: ToolSession, request: Any) -> Any:
        if request.method.startswith(("sampling", "elicitation")):
            act()
        return answer(self, request)

    ToolSession._answer = acting  # type: ignore[method-assign]


def _raise() -> None:
    raise ValueError("planted")


def raises() -> None:
    """A frame that nobody thought of."""
    _on_unoffered_request(_raise)


def dies() -> None:
    """The process ends."""
    _on_unoffered_request(lambda: os._exit(3))


def stalls() -> None:
    """One peer keeps everybody waiting."""
    _on_unoffered_request(lambda: time.sleep(STALL_SECONDS))


def inflates() -> None:
    """A few bytes become many, and are gone again when anybody looks."""
    _on_unoffered_request(lambda: bytearray(b"x") * INFLATED_BYTES)


def _on_lost(keep: Callable[[GatewayWebSocketProtocol], Any]) -> None:
    lost = GatewayWebSocketProtocol.connection_lost

    def keeping(self: GatewayWebSocketProtocol, exc: Exception | None) -> None:
        lost(self, exc)
        _KEPT.append(keep(self))

    GatewayWebSocketProtocol.connection_lost = keeping  # type: ignore[method-assign]


def keeps_objects() -> None:
    """A connection that has gone is remembered for ever."""
    _on_lost(lambda protocol: (protocol, [[] for _ in range(1000)]))


def keeps_bytes() -> None:
    """So are its bytes, in which no collector sees anything."""
    _on_lost(lambda _: b"x" * 1_000_000)


def keeps_descriptors() -> None:
    """A file is opened for each connection, and never closed."""
    _on_lost(lambda _: os.open(os.devnull, os.O_RDONLY))


def holds_connections() -> None:
    """A peer that has said its last is waited for nevertheless."""
    GatewayWebSocketProtocol.eof_received = lambda self: True  # type: ignore[method-assign,assignment]


def answers_oddly() -> None:
    """A status that no document names."""
    intake._invalid = lambda: Refused(418, "bad_request", "text")


def closes_oddly() -> None:
    """So with a close code."""
    fail = GatewayWebSocketProtocol._fail
    GatewayWebSocketProtocol._fail = (  # type: ignore[method-assign]
        lambda self, code, reason: fail(self, 4444, reason)
    )


def forgets_answers() -> None:
    """A request without an answer."""
    on_request = RobotSession._on_request
    RobotSession._on_request = (  # type: ignore[method-assign]
        lambda self, request: [] if request.id == "fence" else on_request(self, request)
    )


def logs_tokens() -> None:
    """A token in the log, without the word before it by which it would be cut out."""
    verify = Keyring.verify

    def telling(self: Keyring, token: str, now_ms: int) -> Credential:
        sys.stderr.write(orjson.dumps({"level": "INFO", "message": f"came with {token[:60]}"}).decode() + "\n")
        return verify(self, token, now_ms)

    Keyring.verify = telling  # type: ignore[method-assign]


def talks() -> None:
    """A line in the log that is none, as the interpreter writes it where nobody catches."""
    made = GatewayHttpProtocol.connection_made

    def talking(self: GatewayHttpProtocol, transport: Any) -> None:
        sys.stderr.write("Exception ignored in: <planted>\n")
        made(self, transport)

    GatewayHttpProtocol.connection_made = talking  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    plant.__name__.replace("_", " "): plant
    for plant in (
        raises,
        dies,
        stalls,
        inflates,
        keeps_objects,
        keeps_bytes,
        keeps_descriptors,
        holds_connections,
        answers_oddly,
        closes_oddly,
        forgets_answers,
        logs_tokens,
        talks,
    )
}
