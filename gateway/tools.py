"""A tool server's list of tools, made safe for every robot.

One tool with `"required": null` makes the Python robot stop reading its whole list, and TypeScript clients refuse a
list for one bad schema. So schemas are normalised, and only a tool without a string name is dropped, or one that is
larger or nested deeper than any honest one. What is said to a language model and can't be seen by people is taken out
(`hygiene`). No schema is ever applied here, and no reference followed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from gateway import hygiene

Tool: TypeAlias = dict[str, Any]

WEIGHT_MAX = 200_000
"""After so much to be looked through (`Taken.weight`), a tenth of a second's work, a list is cut."""
_OPTIONAL = {"title": str, "annotations": dict, "outputSchema": dict, "icons": list, "_meta": dict}


def normalise(tool: Any) -> Tool | None:
    """The tool with a string description and an object schema; None for one whose name is no string.

    Unknown fields pass, known optional ones where they are of their type. `execution` goes: it speaks of tasks, which
    a call through the gateway does not offer.
    """
    if type(tool) is not dict:
        return None
    name = tool.get("name")
    if type(name) is not str:
        return None
    clean = {
        key: value
        for key, value in tool.items()
        if key != "execution" and (key not in _OPTIONAL or type(value) is _OPTIONAL[key])
    }
    if type(clean.get("description")) is not str:
        clean["description"] = ""
    clean["inputSchema"] = _schema(clean.get("inputSchema"))
    return clean


def _schema(schema: Any) -> dict[str, Any]:
    clean: dict[str, Any] = dict(schema) if type(schema) is dict else {}
    clean["type"] = "object"
    properties = clean.get("properties")
    clean["properties"] = (
        {name: value if isinstance(value, dict | bool) else {} for name, value in properties.items()}
        if type(properties) is dict
        else {}
    )
    required = clean.get("required")
    clean["required"] = (
        list(dict.fromkeys(name for name in required if type(name) is str)) if type(required) is list else []
    )
    return clean


def encode(tools: list[Tool]) -> bytes:
    """The tools as the JSON text that is kept and shared. Raises TypeError if one is nested too deep to be written."""
    return orjson.dumps(tools)


def digest(encoded: bytes) -> str:
    """The name of a tool set: equal tools have equal digests, wherever they are read."""
    return hashlib.sha256(encoded).hexdigest()[:32]


def told(name: str, encoded: bytes) -> list[Tool] | None:
    """The tool set of that name, as somebody has kept it; None if it is another one, or none at all."""
    try:
        tools = orjson.loads(encoded) if digest(encoded) == name else None
    except orjson.JSONDecodeError:
        return None
    is_one = isinstance(tools, list) and all(type(tool) is dict and type(tool.get("name")) is str for tool in tools)
    return tools if is_one else None


def fit(usable: list[Tool], tools_max: int, bytes_max: int) -> tuple[list[Tool], bytes, int]:
    """The tools from the front that keep to the limits and can be written as JSON; their text; how many are not."""
    kept: list[Tool] = []
    texts: list[bytes] = []
    size = 2
    for tool in usable[:tools_max]:
        try:
            text = encode([tool])[1:-1]
        except TypeError:
            continue
        if size + len(text) + 1 > bytes_max:
            break
        kept.append(tool)
        texts.append(text)
        size += len(text) + 1
    return kept, b"[" + b",".join(texts) + b"]", len(usable) - len(kept)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is taken of one list, and of one tool."""

    tools_max: int
    bytes_max: int
    tool_bytes: int
    schema_depth: int


@dataclass(slots=True)
class Taken:
    """What is taken of a list, and what became of the rest."""

    tools: list[Tool] = field(default_factory=list)
    encoded: bytes = b"[]"
    dropped: int = 0
    """Entries that are no usable tools, or have the name of an earlier one."""
    oversized: int = 0
    """Tools that are too large, or nested too deep, by themselves."""
    cut: int = 0
    """Tools that the limits of the list leave out, or that can't be written as JSON."""
    cleaned: int = 0
    """Tools with characters that nobody sees in their texts: those have been taken out."""
    unreferenced: int = 0
    """References to other documents that have been taken out."""
    weight: int = 0
    """What it took to look closely at tools: their strings, objects and arrays, and what was suspicious in texts."""

    def oddities(self, bounds: Bounds) -> Iterator[tuple[str, str]]:
        """What its people should know of a list that was not taken as it came: of which kind, and in words."""
        if self.dropped:
            yield "dropped", f"{self.dropped} tools without a usable name, or of an equal name, dropped"
        if self.oversized:
            most = f"GATEWAY_TOOL_BYTES={bounds.tool_bytes} or GATEWAY_SCHEMA_DEPTH={bounds.schema_depth}"
            yield "oversized", f"{self.oversized} tools beyond {most} dropped"
        if self.cut:
            yield "cut", f"{self.cut} tools beyond the limits, or impossible to write as JSON, left out"
        if self.cleaned:
            yield "hidden", f"invisible characters taken out of the texts of {self.cleaned} tools"
        if self.unreferenced:
            yield "references", f"{self.unreferenced} $ref to other documents taken out; none is followed"


def take(listed: list[Any], bounds: Bounds) -> Taken:
    """What is taken of a list. A closer look would cost seconds for a hostile one, so it has an end."""
    taken = Taken()
    usable: dict[str, Tool] = {}
    size = 0
    for entry in listed[: 2 * bounds.tools_max]:
        text = _text_of(entry)
        size += len(text) if len(text) <= bounds.tool_bytes else 0
        if size > bounds.bytes_max or taken.weight > WEIGHT_MAX:
            break
        tool = _usable(entry, text, bounds, taken)
        if tool is None:
            continue
        if tool["name"] in usable:
            taken.dropped += 1
        else:
            usable[tool["name"]] = tool
    taken.tools, taken.encoded, _ = fit(list(usable.values()), bounds.tools_max, bounds.bytes_max)
    taken.cut = len(listed) - len(taken.tools) - taken.dropped - taken.oversized
    return taken


def _text_of(entry: Any) -> bytes:
    """The entry as JSON; empty where it can't be written as such."""
    try:
        return orjson.dumps(entry)
    except TypeError:
        return b""


def _usable(entry: Any, text: bytes, bounds: Bounds, taken: Taken) -> Tool | None:
    """The tool of the entry, whose JSON is `text`; None, counted, where it is none to be listed."""
    if not text:
        return None
    if len(text) > bounds.tool_bytes or _is_too_deep(entry, text, bounds.schema_depth, taken):
        taken.oversized += 1
        return None
    tool = normalise(entry)
    if tool is None:
        taken.dropped += 1
        return None
    if hygiene.is_suspect(text):
        taken.weight += hygiene.weight(text)
        tool, found = hygiene.clean_tool(tool)
        taken.cleaned += found.texts > 0
        taken.unreferenced += found.references
    return tool


def _is_too_deep(entry: Any, text: bytes, limit: int, taken: Taken) -> bool:
    count = text.count(b"{") + text.count(b"[")
    if type(entry) is not dict or count <= limit:
        return False
    taken.weight += count
    return any(hygiene.is_deeper(entry.get(key), limit) for key in ("inputSchema", "outputSchema"))
