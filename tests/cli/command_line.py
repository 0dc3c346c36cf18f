"""The command line as people use it: a real process, in a directory of its own, without this machine's settings."""

import asyncio
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from gateway.cli import main

ROOT = Path(__file__).resolve().parents[2]

RUN_SECONDS = 40.0  # Python processes with all their imports, on a machine where many others start as well


class Started:
    """A process that goes on running: what it has said so far, and how it ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""

    async def until(self, pattern: str, count: int = 1) -> list[str]:
        """What the pattern finds in all it wrote, once that is `count` times. AssertionError if that never comes."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(RUN_SECONDS):
                while len(found := re.findall(pattern, self.text, re.MULTILINE)) < count:
                    more = await self.process.stdout.read(4096)
                    assert more, f"ended without saying {pattern!r} {count} times: {self.text}"
                    self.text += more.decode()
                return found
        except TimeoutError:
            raise AssertionError(f"does not say {pattern!r} {count} times: {self.text}") from None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal; the exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """The exit code, once neither it nor a process that it started can write any more; the rest is in `text`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(RUN_SECONDS):
            self.text += (await self.process.stdout.read()).decode()
            return await self.process.wait()


class CommandLine:
    """Runs `mcp-gateway` in `cwd`."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self._started: list[Started] = []

    def environ(self, **environ: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        return inherited | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | environ

    def run(self, *arguments: str, module: str = "gateway.cli", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.cwd,
            env=self.environ(**environ),
            capture_output=True,
            encoding="utf-8",
            timeout=RUN_SECONDS,
            check=False,
        )

    def run_here(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """The same within this process, in a tenth of the time: where nothing depends on its being one of its own."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.cwd),
            patch.dict(os.environ, self.environ(**environ), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = main(arguments)
            except SystemExit as error:  # the usage
                code = int(error.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    async def start(self, *arguments: str, module: str = "gateway.cli", **environ: str) -> Started:
        """Start it; standard error goes where standard output goes. It is stopped at the test's end."""
        return await self.start_program([sys.executable, "-m", module, *arguments], **environ)

    async def start_program(self, command: Sequence[str], **environ: str) -> Started:
        """Start any program in the same way."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.cwd,
            env=self.environ(**environ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._started.append(Started(process))
        return self._started[-1]

    async def stop_all(self) -> None:
        for started in self._started:
            if started.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    started.process.terminate()
                try:
                    await started.ended()
                except TimeoutError:
                    started.process.kill()
                    await started.ended()
