"""The envelope: what one worker says to another, one line of JSON header and the JSON-RPC text untouched.

Several envelopes may travel back to back in one message; `len` in each header says where its body ends.
Unknown header fields are ignored, so that a newer worker can say more to an older one. An envelope of an
unknown type or version still decodes: the receiver answers it with `nack unsupported` (design §7).

The ids in a header become parts of keys and channels, so an envelope with one that can't be is none.

What is said to all workers may come from a person at `redis-cli`: there the header alone is enough (`decode_notice`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from gateway.backplane.keys import are_plain

VERSION = 1
TYPES = frozenset({"req", "res", "nack", "query", "status", "cancel", "note", "kick", "probe", "bye", "drain", "book"})


HEADER_BYTES_MAX = 1024 * 1024

Open: TypeAlias = Callable[[bytes], bytes | None]
"""Gets one envelope's bytes; None: it is not to be believed."""


class EnvelopeError(ValueError):
    """A mailbox message that is no sequence of envelopes; nothing of it from this point on can be trusted."""


@dataclass(slots=True)
class Envelope:
    """One message between workers. Fields that a type does not use stay at their defaults and off the wire."""

    type: str
    id: str = ""
    sender: str = ""
    agent: str = ""
    server: str = ""
    epoch: int = 0
    conn: str = ""
    tool: str = ""
    ms: int = 0
    """Milliseconds that the sender leaves for the work, counted from `due`'s clock."""
    due: int = 0
    """The same deadline as a point in the backplane's time (ms); 0: none."""
    reason: str = ""
    worker: str = ""
    """Whom a `drain` on the channel of all workers is for."""
    trace: str = ""
    """Where the trace of a `req` has come to, as a W3C `traceparent`; empty: nothing but what its body says."""
    version: int = VERSION
    body: bytes = b""

    @property
    def is_supported(self) -> bool:
        return self.version == VERSION and self.type in TYPES


_FIELDS = (
    ("id", "id"),
    ("from", "sender"),
    ("agent", "agent"),
    ("server", "server"),
    ("epoch", "epoch"),
    ("conn", "conn"),
    ("tool", "tool"),
    ("ms", "ms"),
    ("due", "due"),
    ("reason", "reason"),
    ("w", "worker"),
    ("trace", "trace"),
)


_KNOWN = {wire_name: (attribute, type(getattr(Envelope(""), attribute))) for wire_name, attribute in _FIELDS}
"""Name on the wire → attribute, and the one type that it may have."""
_UNKNOWN = ("", None)


def encode(envelope: Envelope) -> bytes:
    """The envelope as bytes: header line, newline, body."""
    header: dict[str, Any] = {"v": envelope.version, "t": envelope.type}
    for wire_name, attribute in _FIELDS:
        value = getattr(envelope, attribute)
        if value:
            header[wire_name] = value
    header["len"] = len(envelope.body)
    return orjson.dumps(header) + b"\n" + envelope.body


def decode(message: bytes, opened: Open | None = None) -> Iterator[Envelope]:
    """Every envelope of one mailbox message, in order; those that `opened` does not believe are left out.

    Raises EnvelopeError at the first place that is no envelope; those before it have been yielded.
    """
    start = 0
    while start < len(message):
        newline = message.find(b"\n", start, start + HEADER_BYTES_MAX)
        if newline < 0:
            raise EnvelopeError("no header line")
        header = _header(message[start:newline])
        length = header.get("len", 0)
        end = newline + 1 + length if type(length) is int and length >= 0 else -1
        if not newline < end <= len(message):
            raise EnvelopeError("the body's length does not fit the message")
        if opened is None or opened(message[start:end]) is not None:
            yield _envelope(header, message[newline + 1 : end])
        start = end


def decode_notice(message: bytes, opened: Open | None = None) -> Iterator[Envelope]:
    """Every envelope of a message to all workers: as `decode`, or one bare header as a person types it.

    `v` and the newline may be missing there: `{"t":"drain","w":"gw-0-5b1f09aa"}`.
    """
    typed = message.strip()
    if b"\n" in typed:
        yield from decode(message, opened)
        return
    if opened is not None and opened(message) is None:
        return
    header = _header(typed)
    if header.get("len", 0) != 0:
        raise EnvelopeError("the body is missing")
    yield _envelope({"v": VERSION, **header}, b"")


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise EnvelopeError("the header is not JSON") from error
    if not isinstance(header, dict):
        raise EnvelopeError("the header is not an object")
    return header


def _envelope(header: dict[str, Any], body: bytes) -> Envelope:
    envelope = Envelope(type=str(header.get("t", "")), body=body)
    version = header.get("v")
    envelope.version = version if type(version) is int else 0
    for name, value in header.items():
        attribute, kind = _KNOWN.get(name, _UNKNOWN)
        if type(value) is kind:
            setattr(envelope, attribute, value)
    if not are_plain(envelope.id, envelope.sender, envelope.conn, envelope.worker):
        raise EnvelopeError("an id that can't be one")
    return envelope
