"""A book's entries as JSON text that operators can read, and back.

`{"version":1795345630740,"before_ms":1795345630000}`; one that was taken back is `{"version":…,"removed":true}`.
What is no entry reads as None: the caller treats it as absent.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.backplane.base import Entry

_VERSION, _REMOVED = "version", "removed"
_VERSION_MAX = 2**43
"""A time (ms) in the year 2248. What is beyond that is no version; Redis' Lua counts exactly up to 2⁵³."""
_AS_WRITTEN = re.compile(rb'\{"version":([1-9][0-9]{0,12})(?:,("removed":true\}$)?|(?=\}$))', re.ASCII)
"""What we have written ourselves is not parsed: there may be very many."""


def tail(name: str, text: bytes) -> bytes:
    """Return what stands behind the version in the entry's text. Raises ValueError for what can't be an entry."""
    if not name:
        raise ValueError("an entry has a name")
    if not text:
        return b',"removed":true}'
    content = orjson.loads(text)
    if not isinstance(content, dict) or {_VERSION, _REMOVED} & content.keys():
        raise ValueError("an entry is a JSON object without `version` and `removed`")
    return _behind(orjson.dumps(content))


def dump(entry: Entry) -> bytes:
    """Return the whole text of an entry that was read or written here."""
    return b'{"version":%d' % entry.version + (_behind(entry.text) if entry.text else b',"removed":true}')


def _behind(text: bytes) -> bytes:
    return b"}" if text == b"{}" else b"," + text[1:]


def load(text: bytes) -> Entry | None:
    """Return the entry that the text is."""
    found = _AS_WRITTEN.match(text)
    if found is not None:
        version = int(found[1])
        if version < _VERSION_MAX:
            return Entry(version, b"" if found[2] else b"{" + text[found.end() :])
    try:
        return from_object(orjson.loads(text))
    except orjson.JSONDecodeError:
        return None


def from_object(content: Any) -> Entry | None:
    """Return the entry that the parsed text is."""
    if not isinstance(content, Mapping):
        return None
    version = content.get(_VERSION)
    if type(version) is not int or not 0 < version < _VERSION_MAX:
        return None
    if content.get(_REMOVED) is True:
        return Entry(version, b"")
    rest = {name: value for name, value in content.items() if name not in (_VERSION, _REMOVED)}
    return Entry(version, orjson.dumps(rest))


def to_object(entry: Entry) -> dict[str, Any]:
    """Return the entry as the object that `from_object` reads."""
    content: dict[str, Any] = orjson.loads(dump(entry))
    return content
