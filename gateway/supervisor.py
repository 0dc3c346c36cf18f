"""Keeps N worker processes running on one port until it is told to stop.

Theory of operation
-------------------
The supervisor takes no connections. It holds the port (`gateway.listening`), starts the workers, starts one again
that has ended, and passes signals on: the first one and a second, each with the time that it gives the workers, a third
as SIGKILL. On the admin port, where there is one, it speaks for all workers (`gateway.fleet`), until the last is gone.
Workers are in process groups of their own: a Ctrl-C in a terminal reaches every process of the foreground group, and a
worker that heard it twice would end without goodbye.

A worker that ends with 0 was drained by somebody who wanted a fresh one: it is started again at once. One that died
waits, longer each time.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from gateway.fleet import Fleet, Seat
from gateway.listening import ListenError
from gateway.member import packed
from gateway.settings import Settings

MEMBER = (sys.executable, "-P", "-m", "gateway.member")

_PACKAGES = str(Path(__file__).resolve().parent.parent)

_BACKOFF_SECONDS = 0.5
_BACKOFF_SECONDS_MAX = 30.0
_HEALTHY_SECONDS = 60.0  # a worker that lived this long had no trouble with its start
_SLACK_SECONDS = 10.0  # beside the time for closing handshakes: a busy machine, the last words to Redis

_CANNOT_LISTEN = 3  # the exit code of a worker whose start failed

_log = logging.getLogger("gateway.supervisor")


def run(settings: Settings, environ: Mapping[str, str], command: Sequence[str] = MEMBER) -> int:
    """Keep `settings.workers` processes of `command` running until SIGTERM or SIGINT; return the exit code.

    Each gets `environ` as its environment, and the settings on its standard input (`gateway.member`).
    """
    try:
        return asyncio.run(Supervisor(settings, environ, command).run())
    except ListenError as trouble:
        _log.error("%s", trouble, extra={"event": "listen_failed"})
        return _CANNOT_LISTEN


class Supervisor:
    """The worker processes of one machine. Made for one `run`."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], command: Sequence[str]) -> None:
        self._settings = settings
        # The workers must find this very package, wherever the supervisor found it.
        search = os.pathsep.join(filter(None, (_PACKAGES, environ.get("PYTHONPATH"))))
        self._environ = {**environ, "PYTHONPATH": search}
        self._command = command
        self._processes: dict[int, Process] = {}
        self._fleet = Fleet(settings.workers, on_drain=self._on_drain)
        self._stopping = asyncio.Event()
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._passed_on = signal.SIGTERM
        self._had_to_kill = False

    def __repr__(self) -> str:
        state = "stopping" if self._stopping.is_set() else "running"
        return f"<Supervisor [{len(self._processes)} workers | {state}]>"

    async def run(self) -> int:
        """Keep the workers running until a signal; 0 if all of them then ended by themselves, else 1."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        async with self._admin_port(), asyncio.TaskGroup() as outer:
            ending = outer.create_task(self._end(), name="end")
            async with asyncio.TaskGroup() as slots:
                for seat in self._fleet.seats:
                    slots.create_task(self._keep(seat), name=f"worker {seat.slot}")
            ending.cancel()
        return 1 if self._had_to_kill else 0

    def _admin_port(self) -> AbstractAsyncContextManager[None]:
        if not self._settings.admin_port:
            return nullcontext()
        from gateway import admin  # it takes a web server to serve it

        return admin.serving(self._fleet, self._settings)

    def _on_signal(self, number: signal.Signals) -> None:
        self._stopping.set()
        self._fleet.is_draining = True
        self._signals.put_nowait(number)

    def _on_drain(self) -> None:
        if not self._stopping.is_set():
            self._on_signal(signal.SIGTERM)

    async def _keep(self, seat: Seat) -> None:
        clock = asyncio.get_running_loop().time
        backoff_seconds, slot = _BACKOFF_SECONDS, seat.slot
        while not self._stopping.is_set():
            started = clock()
            process = await self._start(seat)
            code = await self._ended(seat, process)
            del self._processes[slot]
            if self._stopping.is_set():
                return
            if code == 0:
                fields = {"event": "process_drained", **_fields(slot, process)}
                _log.info("工作进程已排空，重新启动 / a drained worker is started again", extra=fields)
                continue
            if clock() - started >= _HEALTHY_SECONDS:
                backoff_seconds = _BACKOFF_SECONDS
            fields = {"event": "process_died", **_fields(slot, process)}
            _log.error(
                "工作进程退出，稍后重启 / a worker process ended and will be started again",
                extra={**fields, "exit_code": code, "in_seconds": backoff_seconds},
            )
            await _set_within(self._stopping, backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, _BACKOFF_SECONDS_MAX)

    async def _start(self, seat: Seat) -> Process:
        slot, channel = seat.slot, seat.take().theirs.fileno()
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, process_group=0, env=self._environ, pass_fds=(channel,)
        )
        self._processes[slot] = process
        if process.stdin is not None:
            process.stdin.write(packed(self._settings, channel))  # and left open: its end tells that we are gone
        fields = {"event": "process_started", **_fields(slot, process)}
        _log.info("工作进程已启动 / a worker process was started", extra=fields)
        if self._stopping.is_set():
            _signal(process, self._passed_on)
        return process

    async def _ended(self, seat: Seat, process: Process) -> int:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(seat.listen(), name=f"line to worker {seat.slot}")
            code = await process.wait()
            await seat.leave(listening)
        return code

    async def _end(self) -> None:
        """Pass on the first signal and a second; kill whoever is left after the time that they give, or at a third."""
        first = await self._signals.get()
        seconds = self._settings.close_seconds + _SLACK_SECONDS
        drain_seconds = self._settings.drain_seconds if first is signal.SIGTERM else 0.0
        second = await self._pass_on(first, drain_seconds + seconds)
        if second is not None:
            await self._pass_on(second, seconds)
        for slot, process in self._processes.items():
            self._had_to_kill = True
            fields = {"event": "process_killed", **_fields(slot, process)}
            _log.error(
                "工作进程没有及时退出，强制结束 / a worker process did not end in time and is killed", extra=fields
            )
            _signal(process, signal.SIGKILL)

    async def _pass_on(self, number: signal.Signals, seconds: float) -> signal.Signals | None:
        """Send the signal to all; the next one that is heard within the time."""
        self._passed_on = number
        fields = {"event": "supervisor_stopping", "signal": number.name, "workers": len(self._processes)}
        _log.info("正在停止 / stopping", extra=fields)
        for process in self._processes.values():
            _signal(process, number)
        try:
            async with asyncio.timeout(seconds):
                return await self._signals.get()
        except TimeoutError:
            return None


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _signal(process: Process, number: signal.Signals) -> None:
    # It may have ended a moment ago, which is as good.
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _fields(slot: int, process: Process) -> dict[str, object]:
    return {"slot": slot, "pid": process.pid}
