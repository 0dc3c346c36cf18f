"""Numbers as people write them in a configuration: counts, sizes in bytes, times in seconds."""

import math
import re

KIB = 1024
MIB = 1024 * KIB

_SIZE = re.compile(r"(\d+)\s*(?:([kmg]i)?b?)", re.IGNORECASE)
_FACTORS = {"": 1, "ki": KIB, "mi": MIB, "gi": 1024 * MIB}


def parse_count(text: str) -> int:
    """Return the whole number; raise ValueError (for people) if it is none."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("不是整数 / is not a whole number") from None


def parse_size(text: str) -> int:
    """Return the number of bytes of `1048576`, `512KiB`, `8 MiB`; raise ValueError (for people) if it is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("不是字节数 / is not a number of bytes (a plain number, or one with KiB or MiB)")
    return int(match[1]) * _FACTORS[(match[2] or "").lower()]


def parse_seconds(text: str) -> float:
    """Return the finite number of seconds; raise ValueError (for people) if it is none."""
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("不是秒数 / is not a number of seconds") from None
    if not math.isfinite(seconds):
        raise ValueError("不是有限的秒数 / is not a finite number of seconds")
    return seconds


def parse_share(text: str) -> float:
    """Return the finite number; raise ValueError (for people) if it is none."""
    try:
        share = float(text)
    except ValueError:
        raise ValueError("不是数字 / is not a number") from None
    if not math.isfinite(share):
        raise ValueError("不是有限的数字 / is not a finite number")
    return share


def format_size(size_bytes: int) -> str:
    """Return the size as `parse_size` reads it, in the largest unit that divides it."""
    for unit, factor in (("MiB", MIB), ("KiB", KIB)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)
