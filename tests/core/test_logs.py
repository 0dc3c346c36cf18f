"""Log lines: one form for everybody, every field visible, no secret."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import logs
from gateway.meters import Meters

TOKEN = "0fBjOA0YclUsK7iEYvt6r2hBxAHCoka5nAL4gj6ZAXQ="


def record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("gateway.test")
    return logger.makeRecord("gateway.test", logging.INFO, __file__, 1, message, args, None, extra=extra)


def text(message: str, *args: object, **extra: Any) -> str:
    return logs.TextFormatter().format(record(message, *args, **extra))


def parsed(message: str, *args: object, **extra: Any) -> dict[str, Any]:
    line = logs.JsonFormatter().format(record(message, *args, **extra))
    assert "\n" not in line
    content: dict[str, Any] = orjson.loads(line)
    return content


@pytest.fixture
def loggers() -> Iterator[None]:
    """Gives back the loggers that a test sets up."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("gateway", "uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "opentelemetry.trace")
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, (was_level, was_propagate) in before.items():
        logging.getLogger(name).setLevel(was_level)
        logging.getLogger(name).propagate = was_propagate


def test_a_text_line_has_time_level_logger_message_and_fields() -> None:
    line = text("opened", agent="home", calls=3, tool="a b", client="")
    head, _, rest = line.partition("Z ")
    assert len(head) == len("2026-01-31T12:00:00.123")
    assert rest == 'INFO gateway.test opened agent=home calls=3 tool="a b" client=""'


def test_a_peer_cannot_fake_a_field_or_a_line() -> None:
    line = text("a\nb", client='x agent="admin"\nINFO')
    assert "\n" not in line
    assert line.endswith(r'a\nb client="x agent=\"admin\"\nINFO"')


def test_a_json_line_is_an_object_with_the_fields_as_keys() -> None:
    line = parsed("opened %s", "x", agent="家", calls=3, since=1.5, names=("a", "b"), none=None)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "INFO",
        "event": "other",
        "logger": "gateway.test",
        "message": "opened x",
        "agent": "家",
        "calls": 3,
        "since": 1.5,
        "names": ["a", "b"],
        "none": None,
    }


@pytest.mark.usefixtures("loggers")
def test_a_process_that_has_a_worker_says_which_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("INFO", "json")
    logs.bind("gw-0-5b1f09aa", Meters().log_records_total)
    logging.getLogger("gateway.test").info("ready", extra={"event": "worker_ready", "worker": "somebody else"})
    line = orjson.loads(capsys.readouterr().err)
    assert (line["event"], line["worker"]) == ("worker_ready", "gw-0-5b1f09aa")


def test_a_field_cannot_pass_itself_off_as_the_level() -> None:
    line = parsed("x", level="fine")
    assert (line["level"], line["level_"]) == ("INFO", "fine")


def test_any_value_can_be_logged() -> None:
    line = parsed("x", big=2**70, odd="\ud800", thing=object, nan=float("nan"), deep={1: {"b": {2}}})
    assert line["big"] == str(2**70)
    assert line["deep"] == {"1": {"b": [2]}}
    assert "odd=" in text("x", odd="\ud800")


def test_a_message_a_name_and_a_traceback_that_are_no_utf_8_can_be_logged() -> None:
    """As names of files and errors of the system may be."""
    line = parsed("not found: %s", "data/\udcff", **{"odd\udcff": 1})
    assert (line["message"], line["odd?"]) == ("not found: data/?", 1)
    try:
        raise OSError("data/\udcff")
    except OSError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    assert "OSError: data/?" in orjson.loads(logs.JsonFormatter().format(failed))["trace"]


@pytest.mark.usefixtures("loggers")
def test_what_a_peer_says_of_its_trace_is_not_repeated_by_the_library_that_reads_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.set_up("INFO", "json")
    propagator = TraceContextTextMapPropagator()
    for state in ("no member", "a=1,a=2", "x" * 9000):
        propagator.extract({"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": state})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "message",
    [
        f"GET /mcp_endpoint/mcp/?token={TOKEN}&server_id=a",
        "GET /mcp_endpoint/health?agent=a&key=hunter2",
        "redis://user:hunter2@redis:6379/0 refused",
        "redis://:hunter2@redis:6379/0 refused",
        "redis://:hunter2/slash@redis:6379/0 refused",
        "Authorization: Bearer hunter2",
        "bearer hunter2 refused",
        '{"token": "hunter2"}',
        "password='hunter2'",
    ],
)
@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()])
def test_a_secret_that_slipped_in_is_cut_out(message: str, formatter: logging.Formatter) -> None:
    for made in (record(message), record("%s", message), record("x", url=message), record("x", urls=[message])):
        line = formatter.format(made)
        assert "hunter2" not in line
        assert TOKEN.rstrip("=") not in line
        assert "***" in line


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()])
def test_a_secret_in_a_field_of_that_name_or_in_a_traceback_is_cut_out(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("?token=hunter2")
    except ValueError:
        made = record("failed", key="hunter2", token="hunter2")
        made.exc_info = sys.exc_info()
    line = formatter.format(made)
    assert "ValueError" in line
    assert "hunter2" not in line


def test_an_agents_name_and_a_tools_are_left_alone() -> None:
    assert text("call failed", agent="monkey", tool="key_press").endswith("agent=monkey tool=key_press")


@pytest.mark.usefixtures("loggers")
def test_every_logger_speaks_in_the_form_that_was_set(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("INFO", "json")
    logging.getLogger("gateway.hub").info("one", extra={"conn": 1})
    logging.getLogger("uvicorn.error").warning("two")
    logging.getLogger("somebody.else").error("three")
    lines = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["one", "two", "three"]


@pytest.mark.usefixtures("loggers")
def test_uvicorn_is_quiet_and_its_access_log_silent(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("DEBUG", "text")
    logging.getLogger("uvicorn.error").info("connection open")
    logging.getLogger("uvicorn.access").error("GET /mcp_endpoint/mcp/?token=x")
    logging.getLogger("websockets.server").debug("< GET /?token=x")
    logging.getLogger("gateway.hub").debug("mine")
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["mine"]


@pytest.mark.usefixtures("loggers")
def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("WARNING", "text")
    logging.getLogger("gateway.hub").info("quiet")
    logging.getLogger("gateway.hub").warning("loud")
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["loud"]
