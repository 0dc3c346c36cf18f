"""One worker of several on a machine: takes its settings from the supervisor, serves until told to stop.

The settings come as one line of JSON on standard input, so that keys are in no argument list and no environment, and
every worker has the same ones whenever it was started. The pipe stays open after that: when it ends, the supervisor is
gone, and nobody would ever stop this worker. It then leaves by itself (SIGHUP, see `gateway.server`).
"""

import dataclasses
import os
import signal
import socket
import sys
import threading
from typing import Any

import orjson

from gateway import logs
from gateway.declared import Kind
from gateway.listening import ListenError, listen
from gateway.settings import Settings, specs

NO_CHANNEL = -1
_CHANNEL = "channel"


def packed(settings: Settings, channel: int = NO_CHANNEL) -> bytes:
    """Return the settings as one line, with the file descriptor by which the supervisor asks (`gateway.intercom`)."""
    values = {**dataclasses.asdict(settings), _CHANNEL: channel}
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)


def unpacked(line: bytes) -> tuple[Settings, int]:
    """Return the settings and the file descriptor of a line that `packed` made."""
    values: dict[str, Any] = orjson.loads(line)
    channel: int = values.pop(_CHANNEL)
    for name, spec in specs().items():
        if spec.kind is Kind.LIST:
            values[name] = tuple(values[name])  # JSON has no tuples
    return Settings(**values), channel


def main() -> int:
    """Serve until told to stop; return the exit code."""
    settings, channel = unpacked(sys.stdin.buffer.readline())
    logs.set_up(settings.log_level, settings.log_format)
    from gateway import app  # here, so that it finds logging set up

    try:
        listening = listen(settings.host, settings.port, is_shared=True)
    except ListenError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    threading.Thread(target=_stop_with_the_supervisor, name="lifeline", daemon=True).start()
    return app.run(settings, [listening], supervisor=socket.socket(fileno=channel))


def _stop_with_the_supervisor() -> None:
    # Past Python's buffer: its lock, held by a thread in the background, would abort the interpreter's own end.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGHUP)


if __name__ == "__main__":
    sys.exit(main())
