"""Processes of a run: forked from one that has imported everything, told what to do, frozen, killed.

None outlives the tests: each ends with the server that forks them, which ends with the process that started it.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

Main: TypeAlias = Callable[..., None]
Pipe: TypeAlias = "Connection[Any, Any]"

END_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_PRELOADED = [f"tests.chaos.{name}" for name in ("worker", "robots", "tool_servers")]
_CONTEXT = multiprocessing.get_context("forkserver")
_STARTING = threading.Lock()


class Gone(Exception):
    """The process has ended, or says nothing."""


class Child:
    """One process: `main(pipe, **arguments)`. May be started again after its end."""

    def __init__(self, name: str, main: Main, folder: Path, **arguments: Any) -> None:
        self.name = name
        self.arguments = arguments
        self.is_frozen = False
        self._main = main
        self._log = folder / f"{name}.log"
        self._process: ForkServerProcess | None = None
        self._pipe: Pipe | None = None
        self._lock = threading.RLock()
        """Soak's samples are asked for from a thread of their own."""
        self._tickets = 0
        self._replies: dict[int, Any] = {}

    @property
    def pid(self) -> int:
        if self._process is None or self._process.pid is None:
            raise Gone(f"{self.name} was not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Begin; what it writes to standard error is kept in the folder."""
        _CONTEXT.set_forkserver_preload(_PRELOADED)
        self._pipe, its_end = _CONTEXT.Pipe()
        self._replies = {}
        self.is_frozen = False
        process = _CONTEXT.Process(
            target=_begin, args=(self._main, its_end, str(self._log), self.arguments), name=self.name
        )
        with _without_main():
            process.start()
        self._process = process
        its_end.close()

    # Orders

    def order(self, what: str, **fields: Any) -> int:
        """Tell it to do something; the number under which its reply can be had."""
        with self._lock:
            self._tickets += 1
            try:
                self._open_pipe().send({"ticket": self._tickets, "do": what, **fields})
            except OSError as error:
                raise Gone(f"{self.name}: {what}: {error}") from None
            return self._tickets

    def reply(self, ticket: int, seconds: float = END_SECONDS) -> Any:
        """What it replies to that order. Raises Gone."""
        deadline = time.monotonic() + seconds
        with self._lock:
            while ticket not in self._replies:
                self._read_reply(max(0.0, deadline - time.monotonic()))
            return self._replies.pop(ticket)

    def _read_reply(self, seconds: float) -> None:
        pipe = self._open_pipe()
        try:
            if not pipe.poll(seconds):
                raise Gone(f"{self.name}: no reply in time\n{self.last_words()}")
            number, value = pipe.recv()
        except (EOFError, OSError):
            raise Gone(f"{self.name} has ended\n{self.last_words()}") from None
        self._replies[number] = value

    def ask(self, what: str, *, within: float = END_SECONDS, **fields: Any) -> Any:
        """Tell it to do something and wait for the reply."""
        return self.reply(self.order(what, **fields), within)

    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log_text()[-3000:]

    def log_text(self, start: int = 0) -> str:
        """What it wrote to standard error, from there on."""
        if not self._log.exists():
            return ""
        with self._log.open(errors="replace") as log:
            log.seek(start)
            return log.read()

    def _open_pipe(self) -> Pipe:
        if self._pipe is None:
            raise Gone(f"{self.name} was not started")
        return self._pipe

    # Signals

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """Nothing of it runs from now on; its sockets stay open."""
        self.signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        if self.is_frozen:
            self.is_frozen = False
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word, whatever state it is in. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self.ended()

    def ended(self, seconds: float = END_SECONDS) -> int:
        """Its exit code, once it has ended. Raises Gone if it does not."""
        process, self._process = self._process, None
        if process is None:
            raise Gone(f"{self.name} was not started")
        process.join(seconds)
        code = process.exitcode
        if code is None:
            self._process = process
            raise Gone(f"{self.name} does not end within {seconds:g} s\n{self.last_words()}")
        process.close()
        with self._lock:
            if self._pipe is not None:
                self._pipe.close()
                self._pipe = None
        return code


@contextmanager
def _without_main() -> Iterator[None]:
    """Children would import the program that runs us once more; they need nothing of it."""
    with _STARTING:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program


def _begin(main: Main, pipe: Pipe, log: str, arguments: dict[str, Any]) -> None:
    os.setsid()  # a Ctrl-C is for the run, which ends its processes
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    main(pipe, **arguments)
