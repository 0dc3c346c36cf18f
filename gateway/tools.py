"""A tool server's list of tools, made safe for every robot.

One tool with `"required": null` makes the Python robot stop reading its whole list, and TypeScript clients refuse a
list for one bad schema. So schemas are normalised, and only a tool without a string name is dropped.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, TypeAlias

import orjson

Tool: TypeAlias = dict[str, Any]

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


def bearable(listed: list[Any], tools_max: int, bytes_max: int) -> tuple[list[Any], int]:
    """What of a list is worth a closer look, which costs seconds for a hostile one; and how much is not.

    That is everything but what comes long after `tools_max`, is above `bytes_max` by itself, or nested too deep.
    """
    kept = [entry for entry in listed[: 2 * tools_max] if _is_writable(entry, bytes_max)]
    return kept, len(listed) - len(kept)


def normalise_all(listed: Iterable[Any]) -> tuple[list[Tool], int]:
    """The usable tools in the server's own order, the first of each name; and how many were dropped."""
    tools: dict[str, Tool] = {}
    dropped = 0
    for entry in listed:
        tool = normalise(entry)
        if tool is None or tool["name"] in tools:
            dropped += 1
        else:
            tools[tool["name"]] = tool
    return list(tools.values()), dropped


def _is_writable(entry: Any, bytes_max: int) -> bool:
    try:
        return len(orjson.dumps(entry)) <= bytes_max
    except TypeError:
        return False


def encode(tools: list[Tool]) -> bytes:
    """The tools as the JSON text that is kept and shared. Raises TypeError if one is nested too deep to be written."""
    return orjson.dumps(tools)


def digest(encoded: bytes) -> str:
    """The name of a tool set: equal tools have equal digests, wherever they are read."""
    return hashlib.sha256(encoded).hexdigest()[:32]


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


def take(listed: list[Any], tools_max: int, bytes_max: int) -> tuple[list[Tool], bytes, int, int]:
    """What is taken of a list; its text; how many entries are no usable tools; how many the limits leave out."""
    looked_at, unread = bearable(listed, tools_max, bytes_max)
    usable, dropped = normalise_all(looked_at)
    kept, encoded, cut = fit(usable, tools_max, bytes_max)
    return kept, encoded, dropped, cut + unread
