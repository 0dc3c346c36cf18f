"""Values of the directory as JSON text that operators can read, and back.

Reading is forgiving, since a newer or an older worker may have written, or somebody else: unknown fields are ignored, a
field of the wrong type or with a number that no worker writes counts as missing, and text that is no such value at all
(broken JSON, a missing required field) reads as None: the caller treats it as absent.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import orjson

from gateway.backplane.base import RobotRow, WorkerRow
from gateway.backplane.keys import is_plain
from gateway.directory import Claim, Pins, Row, Seen

Value = TypeVar("Value", Row, Claim, Seen, RobotRow)

_KINDS = (Row, Claim, Seen, RobotRow)
_DEFAULTS = {kind: tuple((spec.name, spec.default) for spec in fields(kind)) for kind in _KINDS}
"""Looked up with every row that is written or read, and slow to find out; so are the next two."""
_TYPES = {kind: {spec.name: spec.type for spec in fields(kind)} for kind in _KINDS}
_REQUIRED = {kind: {spec.name for spec in fields(kind) if spec.default is MISSING} for kind in _KINDS}

_STATES = ("handshake", "up", "offline")
_IDS = ("worker", "conn", "toolset")
"""They become parts of keys and channels."""
_DIGITS_MAX = 14
"""What a worker says of itself are times and counts; longer numbers are none, and can't be told as JSON."""
TIME_MS_MAX = 253_402_300_800_000
"""The year 10000. Every number in a row is a time or a count; what is greater can't be shown or counted on with."""
AHEAD_MS = 20 * 365 * 86_400_000
"""A time further ahead than that was written by nobody of ours: it could never be outranked. So much, because the clock
of a small machine may be years behind when it starts, and what people have decided must hold then too."""


def dump(value: Row | Claim | Seen | RobotRow, agent: str = "") -> bytes:
    """The value as JSON text, fields at their default left out. `agent` is noted where the key can't say it."""
    kept: dict[str, Any] = {}
    for name, default in _DEFAULTS[type(value)]:
        item = getattr(value, name)
        if item != default:
            kept[name] = item
    if agent:
        kept["agent"] = agent
    try:
        return orjson.dumps(kept)
    except orjson.JSONEncodeError:  # a lone surrogate in somebody's name: shown as `?`
        return orjson.dumps({name: _printable(item) for name, item in kept.items()})


def _printable(item: Any) -> Any:
    return item.encode("utf-8", "replace").decode("utf-8") if isinstance(item, str) else item


def load_row(text: bytes, latest_ms: int = TIME_MS_MAX) -> Row | None:
    return _load(Row, text, latest_ms)


def is_at(text: bytes, worker: str) -> bool:
    """Whether it is a row that names the worker: quicker to tell than all that the row says."""
    raw = _object(text)
    return raw is not None and raw.get("worker") == worker


def load_claim(text: bytes, latest_ms: int = TIME_MS_MAX) -> Claim | None:
    return _load(Claim, text, latest_ms)


def load_seen(text: bytes, latest_ms: int = TIME_MS_MAX) -> Seen | None:
    return _load(Seen, text, latest_ms)


def load_robot(text: bytes) -> RobotRow | None:
    return _load(RobotRow, text)


def dump_pins(pins: Pins) -> bytes:
    """The pins as JSON text: tool → fingerprint, what is pinned and what waits for approval."""
    return orjson.dumps(pins_as_data(pins))


def pins_as_data(pins: Pins) -> dict[str, Any]:
    data: dict[str, Any] = {"since": pins.since, "decided": pins.decided}
    return data | {name: dict(value) for name, value in (("tools", pins.tools), ("offered", pins.offered)) if value}


def load_pins(text: bytes, latest_ms: int = TIME_MS_MAX) -> Pins | None:
    raw = _object(text)
    return None if raw is None else pins_of(raw, latest_ms)


def pins_of(raw: Mapping[str, Any], latest_ms: int = TIME_MS_MAX) -> Pins | None:
    """The pins in what JSON text said. None where they can't be trusted to be whole."""
    since, decided = raw.get("since"), raw.get("decided")
    tools, offered = _texts(raw.get("tools", {})), _texts(raw.get("offered", {}))
    if type(since) is not int or type(decided) is not int:
        return None
    if min(since, decided) < 0 or max(since, decided) > latest_ms:
        return None
    return None if tools is None or offered is None else Pins(since, decided, tools, offered)


def _texts(value: Any) -> dict[str, str] | None:
    is_so = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    return value if is_so else None


def noted_agent(text: bytes) -> str:
    """The agent that `dump` noted in the value, or "" ."""
    raw = _object(text) or {}
    agent = raw.get("agent")
    return agent if isinstance(agent, str) else ""


def dump_member(kind: str, agent: str, name: str) -> bytes:
    """What a worker owns, as a member of its set."""
    return orjson.dumps([kind, agent, name])


def load_member(text: bytes) -> tuple[str, str, str] | None:
    try:
        member = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if isinstance(member, list) and len(member) == 3 and all(isinstance(part, str) for part in member):
        return (member[0], member[1], member[2])
    return None


def dump_worker(row: WorkerRow) -> dict[str, str]:
    """The row as fields of a hash."""
    return {spec.name: str(getattr(row, spec.name)) for spec in fields(row)}


def load_worker(hash_fields: Mapping[bytes, bytes]) -> WorkerRow | None:
    """The row, or None where the hash is not there."""
    if not hash_fields:
        return None
    text = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in hash_fields.items()}
    return WorkerRow(
        host=text.get("host", ""),
        pid=_integer(text.get("pid")),
        version=text.get("version", ""),
        started_ms=_integer(text.get("started_ms")),
        state=text.get("state", "up"),
        robots=_integer(text.get("robots")),
        tool_servers=_integer(text.get("tool_servers")),
        calls=_integer(text.get("calls")),
    )


def _integer(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else 0


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return raw if isinstance(raw, dict) else None


def _load(kind: type[Value], text: bytes, latest_ms: int = TIME_MS_MAX) -> Value | None:
    raw = _object(text)
    if raw is None:
        return None
    kept: dict[str, Any] = {}
    types = _TYPES[kind]
    for name, value in raw.items():
        if name in types:
            fitting = _fitting(name, types[name], value, latest_ms)
            if fitting is not None:
                kept[name] = fitting
    return kind(**kept) if _REQUIRED[kind] <= kept.keys() else None


def _fitting(name: str, kind: Any, value: Any, latest_ms: int) -> Any:
    """The value as the field wants it, or None where it does not fit."""
    if name == "takeovers":
        is_times = isinstance(value, list) and all(type(time) is int and 0 <= time <= latest_ms for time in value)
        return tuple(value) if is_times else None
    if name == "state":
        return value if value in _STATES else None
    if name in _IDS:
        return value if type(value) is str and is_plain(value) else None
    if type(value) is int and not 0 <= value <= latest_ms:
        return None
    return value if type(value) is kind else None
