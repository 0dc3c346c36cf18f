"""Bytes to JSON-RPC messages and back.

Theory of operation
-------------------
`parse` never raises: whatever a peer sends becomes one of five values, and a frame that carries a usable id always
yields it, so that its sender gets an answer (`mcp-protocol.md` §3). `bool` is no id (True would alias 1), a float is
none either, and neither is an integer beyond 64 bits, which orjson reads as a float. The id's value and type are kept
as they came: `0`, `""`, `"1"` and `1` are four ids.

`standard_parse` reads once with the standard library what orjson refuses (NaN, lone surrogates, a BOM): a tool
server's answer of that kind cannot be forwarded, but its id tells which call to end (ADR 0006).
"""

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

RpcId: TypeAlias = int | str
Params: TypeAlias = dict[str, Any]

ID_CHARACTERS_MAX = 1024
"""An id comes back with every answer; real ones are short, and a long one would break the size of frames."""

PARTS_MAX = 500_000
"""So many objects and arrays in one frame: 8 MiB of `[` would take a second of everybody's and 300 MB to read."""
TOO_MANY_PARTS = f"more than {PARTS_MAX} objects and arrays"
PARTS_BYTES = 1024 * 1024
"""Smaller frames are not looked at for that."""

_ID_MAX = 2**63 - 1
_ID_MIN = -(2**63)


@dataclass(frozen=True, slots=True)
class Request:
    id: RpcId
    method: str
    params: Any
    """As it came: absent and null are both None, everything else is for the method to judge."""


@dataclass(frozen=True, slots=True)
class Notification:
    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: `message` is the whole object, so that nothing of it is lost. Exactly one of result/error counts."""

    id: RpcId
    message: dict[str, Any]

    @property
    def is_error(self) -> bool:
        """True for an answer whose `error` counts: a null beside a result does not (old peers send both)."""
        error = self.message.get("error")
        return error is not None or "result" not in self.message


@dataclass(frozen=True, slots=True)
class Invalid:
    """JSON, but no message. `id` is the sender's where it could be read, else None."""

    id: RpcId | None
    what: str
    is_answer: bool = False
    """It was meant as an answer, so it must not be answered: two peers could do that for ever."""
    has_method: bool = False


@dataclass(frozen=True, slots=True)
class Garbage:
    """No JSON at all (`what` says why), or only blanks (`is_blank`)."""

    what: str
    is_blank: bool = False


_VERSION = rb'"jsonrpc"\s{0,8}:\s{0,8}"2\.0"'
_ID = rb'"id"\s{0,8}:\s{0,8}"?([0-9]{1,10})"?'
_ID_FIRST = re.compile(rb"\s{0,8}\{\s{0,8}(?:" + _VERSION + rb"\s{0,8},\s{0,8})?" + _ID + rb"\s{0,8},")
_ID_LAST = re.compile(rb",\s{0,8}" + _ID + rb"(?:\s{0,8},\s{0,8}" + _VERSION + rb")?\s{0,8}\}\s{0,8}\Z")
_TAIL_BYTES = 256

Single: TypeAlias = Request | Notification | Response | Invalid
Message: TypeAlias = Single | Garbage | list[Any]


def parse(frame: bytes) -> Message:
    """What the frame says. A JSON array comes back as the list of its raw members (see `classify`)."""
    if len(frame) > PARTS_BYTES and _has_too_many_parts(frame):
        return Garbage(TOO_MANY_PARTS)
    try:
        value = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        return Garbage(str(error), is_blank=not frame.strip())
    return value if type(value) is list else classify(value)


def _has_too_many_parts(frame: bytes) -> bool:
    if frame.count(b"[") + frame.count(b"{") <= PARTS_MAX:
        return False
    plain = frame.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > PARTS_MAX:
        return True
    bare = b"".join(plain.split(b'"')[::2])  # within a text there may be as many as it likes
    return bare.count(b"[") + bare.count(b"{") > PARTS_MAX


def standard_parse(frame: bytes) -> Message:
    """As `parse`, with the standard library: it reads NaN, lone surrogates and a BOM. Ends the same ways.

    Every string of the message can be written again: what stood for no character is `?` or U+FFFD.
    """
    try:
        value = json.loads(frame.decode("utf-8-sig", "replace"))
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return Garbage(str(error))
    return value if type(value) is list else classify(value)


def answered_id(frame: bytes) -> int | None:
    """The numeric id of a response, where it is among the first or the last members; None elsewhere.

    For a frame that is no JSON, and too much for `standard_parse`.
    """
    found = _ID_FIRST.match(frame) or _ID_LAST.search(frame, max(0, len(frame) - _TAIL_BYTES))
    return int(found[1]) if found else None


def classify(value: Any) -> Single:
    """The message that a parsed JSON value is."""
    if type(value) is not dict:
        return Invalid(None, "not an object")
    method = value.get("method")
    if method is None:
        return _response(value)
    if type(method) is not str:
        return Invalid(usable_id(value.get("id")), "method is not a string", has_method=True)
    if "id" not in value:
        return Notification(method, value.get("params"))
    rpc_id = usable_id(value["id"])
    if rpc_id is None:
        return Invalid(None, "id must be a string or a 64-bit integer", has_method=True)
    return Request(rpc_id, method, value.get("params"))


def _response(value: dict[str, Any]) -> Single:
    rpc_id = usable_id(value.get("id"))
    if "result" not in value and "error" not in value:
        return Invalid(rpc_id, "neither method nor result nor error")
    if rpc_id is None:
        return Invalid(None, "an answer without an id", is_answer=True)
    return Response(rpc_id, value)


def usable_id(value: Any) -> RpcId | None:
    """The value as an id, or None if it can't be one."""
    if type(value) is str and len(value) <= ID_CHARACTERS_MAX:
        return value
    if type(value) is int and _ID_MIN <= value <= _ID_MAX:
        return value
    return None


class Undumpable(ValueError):
    """A value that came as JSON but can't go out as JSON: nested deeper than the encoder goes."""


def dumps(value: Any) -> bytes:
    """Compact JSON text. Raises Undumpable for what is nested too deep (255 levels) to be written."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise Undumpable(str(error)) from error


def excerpt(value: Any, characters_max: int) -> str:
    """The beginning of any JSON value as text for people; a string is its own text, None is none. Never raises."""
    if value is None or type(value) is str:
        return (value or "")[:characters_max]
    try:
        return dumps(value).decode()[:characters_max]
    except Undumpable:  # `str` would raise RecursionError
        return "(nested too deep)"[:characters_max]


def request(rpc_id: RpcId, method: str, params: Params | None = None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": rpc_id, "method": method}
    if params is not None:
        message["params"] = params
    return dumps(message)


def notification(method: str, params: Params | None = None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return dumps(message)


def result(rpc_id: RpcId, value: Any) -> bytes:
    return dumps({"jsonrpc": "2.0", "id": rpc_id, "result": value})


def error(rpc_id: RpcId | None, value: Any) -> bytes:
    return dumps({"jsonrpc": "2.0", "id": rpc_id, "error": value})
