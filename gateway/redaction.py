"""What must never be read by others is cut out of a text: tokens, keys, passwords in URLs.

Peers write some of these texts, so every search goes over the text once, whatever is in it.
"""

import re

HIDDEN = "***"

SECRET_NAMES = frozenset({"token", "key", "password", "passwd", "secret", "authorization"})

_NAMES = "|".join(sorted(SECRET_NAMES))

_RULES = (
    # ?token=…, "token": "…", password=…, sentinel_password=…; the name stays so that the line can still be understood
    (
        re.compile(rf"""(?i)(?<![a-z0-9])({_NAMES})(["']?\s*[=:]\s*["']?)(?:(?:bearer|basic)\s+)?[^\s&"'#,;<>]+"""),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+"), rf"\1 {HIDDEN}"),
)

# scheme://user:password@host; a password may hold a / that should have been encoded
_PASSWORD = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)([^\s/@:]*):([^\s@]*)@")
_WORD = re.compile(r"\S++")


_DOTTED = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]*+)++")
_OBJECT = ("eyJ", "eyA")  # `{"` and `{ ` in base64: how the header of a signed token begins
_HEADER_CHARS_MIN = 12


def redact(text: str) -> str:
    """Return the text with every token, key and password that can be recognised replaced by `***`."""
    if any(beginning in text for beginning in _OBJECT):
        text = _DOTTED.sub(_without_signed_token, text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    if "://" in text and "@" in text:
        text = _WORD.sub(_without_password, text)
    return text


def _without_signed_token(found: re.Match[str]) -> str:
    """What was found, up to where a signed token begins, whatever is written right before it."""
    dotted, at = found[0], 0
    for part in dotted.split(".")[:-1]:
        begins = [place for beginning in _OBJECT if (place := part.find(beginning)) >= 0]
        if begins and len(part) - min(begins) >= _HEADER_CHARS_MIN:
            return dotted[: at + min(begins)] + HIDDEN
        at += len(part) + 1
    return dotted


def _without_password(found: re.Match[str]) -> str:
    """The word without passwords. Nothing behind its last `@` is searched: each try would go to the end in vain."""
    word = found[0]
    end = word.rfind("@") + 1
    return _PASSWORD.sub(rf"\1\2:{HIDDEN}@", word[:end]) + word[end:]
