"""What must never be read by others is cut out of a text: tokens, keys, passwords in URLs."""

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
    # scheme://user:password@host; a password may hold a / that should have been encoded
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)([^\s/@:]*):([^\s@]*)@"), rf"\1\2:{HIDDEN}@"),
)


def redact(text: str) -> str:
    """Return the text with every token, key and password that can be recognised replaced by `***`."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
