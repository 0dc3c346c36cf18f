"""Log lines: text for people, JSON for machines, on standard error, without secrets.

Theory of operation
-------------------
Everybody logs by `logging.getLogger("gateway…")`; what belongs to a line besides its sentence travels in `extra=` and
comes out as `key=value`, or as keys of the JSON object. Nobody logs a token. Should one slip through all the same, in
a message of a library or in a traceback, the formatter cuts it out of the finished line: that is the last place that
every line passes.
"""

import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.redaction import HIDDEN, SECRET_NAMES, redact

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO gateway.hub connection opened agent=a conn=3`, one line, tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        head = f"{_time(record)} {record.levelname} {record.name} {_one_line(record.getMessage())}"
        fields = "".join(f" {name}={_text(value)}" for name, value in _clean(_extra(record)).items())
        trace = _trace(self, record)
        return redact(head + fields + (f"\n{trace}" if trace else ""))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the extra fields, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        # A field may not pass itself off as the time or the message.
        line |= {(f"{name}_" if name in line else name): value for name, value in _clean(_extra(record)).items()}
        if trace := _trace(self, record):
            line["trace"] = redact(trace)
        return orjson.dumps(line, default=repr).decode()


def set_up(level: str, log_format: str) -> None:
    """Send every logger's lines to standard error in this form. May be called again.

    uvicorn's own lines come in the same form, from WARNING on; its access log, which has query strings, is off.
    """
    formatter = JsonFormatter if log_format == "json" else TextFormatter
    quiet = {"level": level if level in ("ERROR", "CRITICAL") else "WARNING", "handlers": [], "propagate": True}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": formatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"level": "WARNING" if level == "DEBUG" else level, "handlers": ["stderr"]},
            "loggers": {
                "gateway": {"level": level},
                "uvicorn": quiet,
                "uvicorn.error": quiet,
                "uvicorn.access": {**quiet, "level": "CRITICAL", "propagate": False},
                "websockets": quiet,
            },
        }
    )


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _text(value: object) -> str:
    text = str(value)
    # Peers choose some of these values; quoting keeps them from faking other fields or lines.
    if text and text.isprintable() and not set(text) & set(' "='):
        return text
    return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _clean(value: Any) -> Any:
    match value:
        case str():
            return redact(value.encode("utf-8", "replace").decode())
        case dict():
            return {
                str(name): HIDDEN if str(name).lower() in SECRET_NAMES else _clean(inner)
                for name, inner in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_clean(inner) for inner in value]
        case bool() | int() | float() | None:
            return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)
        case _:
            return redact(str(value))
