"""Values of the directory as JSON text that operators can read, and back.

Reading is forgiving, since a newer or an older worker may have written: unknown fields are ignored, a field of the
wrong type counts as missing, and text that is no such value at all (broken JSON, a missing required field) reads as
None: the caller treats it as absent.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import orjson

from gateway.backplane.base import RobotRow, WorkerRow
from gateway.directory import Claim, Row, Seen

Value = TypeVar("Value", Row, Claim, Seen, RobotRow)

_FIELDS = {kind: fields(kind) for kind in (Row, Claim, Seen, RobotRow)}
"""Looked up with every row that is read, and slow to find out."""

_STATES = ("handshake", "up", "offline")
_DIGITS_MAX = 18
"""What a worker says of itself are times and counts; longer numbers are none, and can't be told as JSON."""


def dump(value: Row | Claim | Seen | RobotRow, agent: str = "") -> bytes:
    """The value as JSON text, fields at their default left out. `agent` is noted where the key can't say it."""
    text = {spec.name: getattr(value, spec.name) for spec in fields(value)}
    kept = {spec.name: text[spec.name] for spec in fields(value) if text[spec.name] != spec.default}
    if agent:
        kept["agent"] = agent
    try:
        return orjson.dumps(kept)
    except orjson.JSONEncodeError:  # a lone surrogate in somebody's name: shown as `?`
        return orjson.dumps({name: _printable(item) for name, item in kept.items()})


def _printable(item: Any) -> Any:
    return item.encode("utf-8", "replace").decode("utf-8") if isinstance(item, str) else item


def load_row(text: bytes) -> Row | None:
    return _load(Row, text)


def load_claim(text: bytes) -> Claim | None:
    return _load(Claim, text)


def load_seen(text: bytes) -> Seen | None:
    return _load(Seen, text)


def load_robot(text: bytes) -> RobotRow | None:
    return _load(RobotRow, text)


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


def _load(kind: type[Value], text: bytes) -> Value | None:
    raw = _object(text)
    if raw is None:
        return None
    kept: dict[str, Any] = {}
    for spec in _FIELDS[kind]:
        value = _fitting(spec.name, spec.type, raw.get(spec.name))
        if value is not None:
            kept[spec.name] = value
        elif spec.default is MISSING:
            return None
    return kind(**kept)


def _fitting(name: str, kind: Any, value: Any) -> Any:
    """The value as the field wants it, or None where it does not fit."""
    if name == "takeovers":
        is_times = isinstance(value, list) and all(type(time) is int for time in value)
        return tuple(value) if is_times else None
    if name == "state":
        return value if value in _STATES else None
    return value if type(value) is kind else None
