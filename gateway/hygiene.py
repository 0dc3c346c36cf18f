"""What strangers' texts must not carry to a language model or a terminal: characters that nobody sees.

Theory of operation
-------------------
Zero-width characters, bidirectional overrides, tag characters and runs of variation selectors can hide instructions in
a description that people have read and found harmless. They are taken out of texts; what people can see stays, and so
does what makes visible characters: the joiner inside an emoji, joiners between letters of Arabic and Indic scripts,
one variation selector after what it applies to, line feed and tab. Other line breaks become a line feed.

Only texts are changed (titles, descriptions, comments), never what a call means: names of properties, `enum`, `const`,
`default`, `examples` and patterns pass as they are.

A reference of a schema to another document is taken out as well. The gateway follows none, and neither should robots.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_EMOJI = r"\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_JOINING = r"\u0600-\u109f\u1780-\u17ff"
"""Scripts whose letters change their form with a joiner beside them."""
_SELECTABLE = rf"#*0-9\u00a9\u00ae\u203c\u2049\u2122\u2139{_EMOJI}{_CJK}"
"""What is followed by a variation selector for good reason."""

_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    r"\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
    rf"|[\u200c\u200d](?!(?<=[{_JOINING}].)[{_JOINING}]|(?<=[{_EMOJI}\ufe0f]\u200d)[{_EMOJI}])"
    rf"|(?<![{_SELECTABLE}])[\ufe00-\ufe0f]"
    rf"|(?<![{_CJK}])[\U000e0100-\U000e01ef]"
)
_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_MAYBE = re.compile(
    rb"\\(?:[bfr]|u00)|\x7f|\xc2[\x80-\x9f\xad]|\xcd\x8f|\xd8\x9c|\xe1(?:\x85[\x9f\xa0]|\x9e[\xb4\xb5]|\xa0[\x8b-\x8f])"
    rb"|\xe2(?:\x80[\x8b-\x8f\xa8-\xae]|\x81[\xa0-\xaf])|\xe3\x85\xa4"
    rb"|\xef(?:\xb7[\x90-\xaf]|\xb8[\x80-\x8f]|\xbb\xbf|\xbe\xa0|\xbf[\xb0-\xbf])|\xf0[\x93\x9b\x9d]|\xf3"
)
"""What `_HIDDEN` may match, as JSON text has it in UTF-8: quicker to look for, and sometimes wrong."""
_FOREIGN_REFERENCE = re.compile(rb'"\$(?:ref|dynamicRef|recursiveRef)":"(?!#)')

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value maps names, which somebody chose, to schemas."""
_DATA = ("enum", "const", "default", "examples", "example", "pattern", "format", "required", "dependentRequired")
"""Keywords whose value is no text for people."""


@dataclass(slots=True)
class Findings:
    """What was taken out of one tool."""

    texts: int = 0
    references: int = 0


def clean(text: str) -> str:
    """The text without what nobody sees; the very same one where there is nothing of it."""
    if _HIDDEN.search(text) is None:
        return text
    return _HIDDEN.sub("", _BREAKS.sub("\n", text))


def is_suspect(text: bytes) -> bool:
    """Whether JSON text (compact) may hold anything that `clean_tool` takes out; cheap, and never wrong with no."""
    if (not text.isascii() or b"\\" in text or b"\x7f" in text) and _MAYBE.search(text) is not None:
        return True
    return b'ef":"' in text and _FOREIGN_REFERENCE.search(text) is not None


def weight(text: bytes) -> int:
    """What it takes to clean a tool whose JSON text this is: about as many µs, halved."""
    parts = text.count(b'"') + text.count(b"{") + text.count(b"[")
    return parts + len(text) // 64 + 2 * len(_MAYBE.findall(text))


def clean_tool(tool: Mapping[str, Any]) -> tuple[dict[str, Any], Findings]:
    """The tool with clean texts and without references to elsewhere, and what that took out."""
    found = Findings()
    cleaned = dict(tool)
    for key in ("title", "description"):
        if key in tool:
            cleaned[key] = _text(tool[key], found)
    for key in ("inputSchema", "outputSchema"):
        if key in tool:
            cleaned[key] = _schema(tool[key], found)
    return cleaned, found


def _text(text: str, found: Findings) -> str:
    cleaned = clean(text)
    found.texts += cleaned is not text
    return cleaned


def _schema(node: Any, found: Findings) -> Any:
    """A part of a schema. Not deeper than JSON text that could be written, so that recursion is bounded."""
    if type(node) is str:
        return _text(node, found)
    if type(node) is list:
        return [_schema(member, found) for member in node]
    if type(node) is not dict:
        return node
    cleaned: dict[str, Any] = {}
    for key, value in node.items():
        if key in _REFERENCES and type(value) is str and not value.startswith("#"):
            found.references += 1
        elif key in _BY_NAME and type(value) is dict:
            cleaned[key] = {name: _schema(schema, found) for name, schema in value.items()}
        else:
            cleaned[key] = value if key in _DATA else _schema(value, found)
    return cleaned


def is_deeper(value: Any, limit: int) -> bool:
    """Whether objects and arrays are nested in it more than `limit` deep."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return bool(level)
