"""A real nginx with the shipped configuration: only addresses, paths of files, and what a test names are changed."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.project.repository import ROOT
from tests.support import http
from tests.support.ports import own_port
from tests.support.waiting import wait_until

SHIPPED = ROOT / "deploy" / "nginx"
BALANCES = ("hash", "round-robin")
MISSING = "no nginx on PATH: nothing is known here of the gateway behind it (Debian/Ubuntu: apt install nginx-light)"

_SERVER = re.compile(r"^ *server (gateway(?:-\d)?):8004 resolve (.*);\n", re.MULTILINE)
_PR_SET_PDEATHSIG = 1


def program() -> str | None:
    """nginx; distributions put it where only root looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def version() -> tuple[int, ...]:
    """As of the program; nothing where there is none."""
    found = program()
    if found is None:
        return ()
    said = subprocess.run([found, "-v"], capture_output=True, text=True, timeout=20, check=True).stderr
    return tuple(int(part) for part in said.rpartition("/")[2].split()[0].split("."))


def changed(text: str, changes: Mapping[str, str]) -> str:
    """The text with these replaced; each must be there, or the test would be one of another configuration."""
    for old, new in changes.items():
        assert old in text, f"the shipped configuration has no {old!r}"
        text = text.replace(old, new)
    return text


def upstream(balance: str, addresses: Sequence[str]) -> str:
    """The shipped upstream, with these workers in place of those that Docker's DNS knows; so any nginx takes it."""
    text = (SHIPPED / f"{balance}.conf").read_text()
    first, *_, last = [*_SERVER.finditer(text)] * 2
    servers = "".join(f"    server {address} {first[2]};\n" for address in addresses)
    return text[: first.start()] + servers + text[last.end() :]


class Nginx:
    """One nginx on a port of its own; `workers` is the text of its upstream. Ends with the thread that started it."""

    def __init__(self, folder: Path, workers: str, **changes: str) -> None:
        self.port = own_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        ours = {
            "/tmp/": f"{folder}/",
            "/dev/stdout": f"{folder}/access.log",
            "error_log stderr": f"error_log {folder}/error.log",
            "listen 8004": f"listen 127.0.0.1:{self.port}",
        }
        (folder / "nginx.conf").write_text(changed((SHIPPED / "nginx.conf").read_text(), ours | changes))
        (folder / "workers.conf").write_text(workers)

    @property
    def access_log(self) -> str:
        return self._read("access.log")

    @property
    def error_log(self) -> str:
        return self._read("error.log")

    def _read(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def check(self) -> subprocess.CompletedProcess[str]:
        """What nginx itself says of the configuration."""
        return subprocess.run([*self._command(), "-t"], capture_output=True, text=True, timeout=20)

    async def start(self) -> None:
        """Start; returns once requests are answered, by whomever."""
        self._begin()
        await wait_until(self._answers, "nginx answers", seconds=20)

    def _begin(self) -> None:
        with (self._folder / "stderr.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command(), "-g", f"daemon off;{_user()}"], stdout=log, stderr=log, preexec_fn=end_with_parent
            )

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"nginx has ended: {self._read('stderr.log')}{self.error_log}"
        try:
            await http.get(self.port, "/livez")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it at once, and every connection with it. Idempotent."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)
            self._process = None

    def _command(self) -> list[str]:
        found = program()
        assert found is not None
        return [found, "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]


def _user() -> str:
    """As root, nginx would become a user that may not enter the test's folder."""
    return " user root root;" if os.geteuid() == 0 else ""


def end_with_parent() -> None:
    """On Linux, the process ends with the tests. By SIGTERM: one that is killed would leave its children."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
