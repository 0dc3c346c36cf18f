"""Points in time as operators read them: how long ago in tables, ISO 8601 for machines."""

from datetime import UTC, datetime

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """A length of time in its largest unit: `3 min`; below a second `0 s`."""
    whole = int(seconds)
    for size, unit in _UNITS:
        if whole >= 2 * size or (whole >= size and unit != "s"):
            return f"{whole // size} {unit}"
    return f"{whole} s"


def age(at_ms: int, now_ms: int) -> str:
    """How long ago it was, or how long it takes until then; empty for 0, which is never."""
    if not at_ms:
        return ""
    return f"{span((now_ms - at_ms) / 1000)} ago" if at_ms <= now_ms else f"in {span((at_ms - now_ms) / 1000)}"


def iso(at_ms: int) -> str | None:
    """UTC to the millisecond; None for 0, which is never."""
    if not at_ms:
        return None
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return None  # no time that a calendar has


def from_iso(text: str | None) -> int:
    """The point in time (ms) that `iso` has written; 0 for None."""
    return round(datetime.fromisoformat(text).timestamp() * 1000) if text else 0
