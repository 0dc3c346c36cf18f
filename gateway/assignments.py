"""`KEY=VALUE` as people write it, applied to the JSON object of a policy."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.policy import CHOICES, LIMITS, LISTS, SIDES, PolicyProblem, unknown_key
from gateway.quantities import parse_count, parse_seconds, parse_size

KEYS = (
    *(f"{key}.{side}" for key in LISTS for side in SIDES),
    *("timeouts.GLOB", "result_bytes.GLOB"),
    *CHOICES,
    *(f"limits.{name}" for name in LIMITS),
)
_TABLES = ("timeouts", "result_bytes")
_LIST_KEY = re.compile(r"(\w+)\.(\w+)([+-]?)")


def assigned(fields: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The fields with the assignments made, one after the other; `fields` stays as it is. Raises PolicyProblem.

    Whether the values are good is for `policy.checked` to say.
    """
    changed: dict[str, Any] = orjson.loads(orjson.dumps(dict(fields)))
    for text in assignments:
        _assign(changed, text)
    return {key: value for key, value in changed.items() if value not in (None, {})}


def _assign(fields: dict[str, Any], text: str) -> None:
    is_of_table = text.startswith(tuple(f"{key}." for key in _TABLES))
    key, is_there, value = text.rpartition("=") if is_of_table else text.partition("=")
    if not is_there:
        raise PolicyProblem(f"{text[:80]}：要写成 KEY=VALUE / {text[:80]}: write KEY=VALUE; KEY= takes it back")
    head, _, rest = key.partition(".")
    found = _LIST_KEY.fullmatch(key)
    if found is not None and f"{found[1]}.{found[2]}" in KEYS and found[1] in LISTS:
        table = fields.setdefault(head, {})
        _put(table, found[2], _listed(table.get(found[2]) or [], found[3], value))
    elif key in CHOICES:
        fields[key] = value or None
    elif is_of_table and rest:
        _put(fields.setdefault(head, {}), rest, _number(key, head, value))
    elif head == "limits" and rest in LIMITS:
        _put(fields.setdefault(head, {}), rest, _number(key, rest, value))
    else:
        raise unknown_key(key, KEYS)


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _listed(before: list[Any], sign: str, value: str) -> list[Any] | None:
    """The list that the value says, or `before` with or without it; None: there is to be none."""
    try:
        given = (
            orjson.loads(value) if value.startswith("[") else [one.strip() for one in value.split(",") if one.strip()]
        )
    except orjson.JSONDecodeError as error:
        raise PolicyProblem(f"{value[:80]} 不是有效的 JSON / {value[:80]} is not valid JSON: {error}") from None
    if sign == "+":
        return [*before, *(glob for glob in given if glob not in before)]
    if sign == "-":
        return [glob for glob in before if glob not in given]
    return given if value else None


def _number(key: str, name: str, value: str) -> float | None:
    if not value:
        return None
    parse = parse_seconds if name == "timeouts" else parse_size if name.endswith("_bytes") else parse_count
    try:
        return parse(value)
    except ValueError as error:
        raise PolicyProblem(f"{key[:80]}={value[:80]}: {error}") from None
