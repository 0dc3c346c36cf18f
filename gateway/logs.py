"""Log lines: text for people, JSON for machines, on standard error, without secrets.

Theory of operation
-------------------
Everybody logs by `logging.getLogger("gateway…")`; what belongs to a line besides its sentence travels in `extra=` and
comes out as `key=value`, or as keys of the JSON object. One of these is `event`, the name of the kind of thing that
happened; texts may change, the names stay (`docs/logs.md`).

Nobody logs a token. Should one slip through all the same, in a message of a library or in a traceback, the formatter
cuts it out of the finished line: that is the last place that every line passes.
"""

import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.counting import Counter
from gateway.meters import LEVELS
from gateway.redaction import HIDDEN, SECRET_NAMES, redact

quiet = logging.getLogger("uvicorn.error.gateway")
"""For uvicorn's protocols, without their INFO and DEBUG lines: these print the query string, and with it the token."""
quiet.setLevel(logging.WARNING)
# Whoever configures `uvicorn.error` later resets the levels below it (logging.config); a filter stays.
quiet.addFilter(lambda record: record.levelno >= logging.WARNING)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO gateway.hub connection opened agent=a conn=3`, one line, tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        head = f"{_time(record)} {record.levelname} {record.name} {_one_line(record.getMessage())}"
        told = _clean(_extra(record))
        told |= {"event": told.pop("event")} if "event" in told else {}  # last: people read the sentence
        fields = "".join(f" {name}={_text(value)}" for name, value in told.items())
        trace = _trace(self, record)
        return redact(head + fields + (f"\n{trace}" if trace else ""))


class JsonFormatter(logging.Formatter):
    """One JSON object per line; `docs/logs.md` has the fields. `worker` is in each once it is known (`bind`)."""

    worker = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        fields = _clean(_extra(record))
        line: dict[str, Any] = {
            "ts": _time(record),
            "level": record.levelname,
            "event": fields.pop("event", "other"),
            "message": redact(_valid(record.getMessage())),
            "logger": record.name,
        }
        if self.worker:
            line["worker"] = self.worker
            fields.pop("worker", None)
        # A field may not pass itself off as the time or the message.
        line |= {(f"{name}_" if name in line else name): value for name, value in fields.items()}
        if trace := _trace(self, record):
            line["trace"] = redact(_valid(trace))
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
                "gateway.audit": {"level": "INFO"},  # whoever asked for it wants all of it
                "uvicorn": quiet,
                "uvicorn.error": quiet,
                "uvicorn.access": {**quiet, "level": "CRITICAL", "propagate": False},
                "websockets": quiet,
                "opentelemetry.trace": {**quiet, "level": "ERROR"},  # its warnings repeat what peers say, at each call
            },
        }
    )


def bind(worker_id: str, counter: Counter) -> None:
    """From now on this process logs for that worker: its id is in each JSON line, and each record is counted."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.worker = worker_id
    root.addHandler(_Counting(counter))


class _Counting(logging.Handler):
    """Counts records by level."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        self._counter.add(level if level in LEVELS else "info")


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
    return orjson.dumps(_valid(text)).decode()


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _valid(text: str) -> str:
    """A file's name or an error of the system may hold what UTF-8 has no place for; the line is worth more."""
    return text.encode("utf-8", "replace").decode()


def _clean(value: Any) -> Any:
    match value:
        case str():
            return redact(_valid(value))
        case dict():
            return {
                _valid(str(name)): HIDDEN if str(name).lower() in SECRET_NAMES else _clean(inner)
                for name, inner in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_clean(inner) for inner in value]
        case bool() | int() | float() | None:
            return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)
        case _:
            return redact(_valid(str(value)))
