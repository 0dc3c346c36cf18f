"""Ports that stay with one test process, also while nothing listens on them.

A server that a test stops and starts again must find its port free, and its clients must meet nobody else there. The
kernel hands out its ephemeral ports again at once, to the test next door; so these lie below that range, each is
locked by a file for as long as the process lives, and none is given twice.
"""

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path

_FIRST, _BEHIND = 12_000, 32_000
_LOCKS = Path(tempfile.gettempdir()) / f"gateway-test-ports-{os.getuid()}"


class _Ports:
    def __init__(self) -> None:
        self._turn = itertools.count(os.getpid() * 97)
        self._locks: list[int] = []

    def take(self) -> int:
        _LOCKS.mkdir(exist_ok=True)
        for turn in itertools.islice(self._turn, _BEHIND - _FIRST):
            port = _FIRST + turn % (_BEHIND - _FIRST)
            lock = os.open(_LOCKS / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            except OSError:
                os.close(lock)
                continue
            self._locks.append(lock)
            return port
        raise RuntimeError("every port is taken")


_ports = _Ports()


def own_port() -> int:
    """A port of 127.0.0.1 that no other test gets before this process has ended."""
    return _ports.take()
