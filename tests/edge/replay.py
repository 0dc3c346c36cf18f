"""The image without a builder: its steps on this machine's files, then its gateway on a root that can't be written.

Theory of operation
-------------------
A program of its own, run as root in a mount namespace of its own (`unshare --mount`): what it mounts is gone when it
ends. Each stage begins as an overlay over this machine's root, which stands for the base image: what a step writes is
kept in memory. The repository is hidden there, so a stage has only what the Dockerfile copies. The Python is this one.
Packages come from a folder that holds the files of the lock, so that pip need not ask anybody. The last line that it
prints is a JSON object of what was found.
"""

import json
import os
import shlex
import shutil
import signal
import string
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.project.dockerfile import Stage, command_of, health_command, stages
from tests.project.repository import ROOT
from tests.support.ports import own_port

PYTHON = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]  # of a venv: the one that made it
WHEELS = "/wheels"
START_SECONDS = 30.0
STOP_SECONDS = 20.0


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, timeout=20)


class Room:
    """One stage's file system, and what the instructions have said so far."""

    def __init__(self, space: Path, stage: Stage, wheels: Path) -> None:
        self.stage = stage
        self.root = space / "root"
        self.cwd = Path("/")
        self.environ = {"PATH": f"{PYTHON.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        for name in ("upper", "work", "root"):
            (space / name).mkdir(parents=True)
        options = f"lowerdir=/,upperdir={space / 'upper'},workdir={space / 'work'}"
        mount("-t", "overlay", "overlay", "-o", options, self.root)
        for shared in ("/proc", "/dev"):
            mount("--bind", shared, self.inside(shared))
        self.inside(WHEELS).mkdir()
        mount("--bind", wheels, self.inside(WHEELS))
        mount("-t", "tmpfs", "tmpfs", self.inside(ROOT))
        for folder in (PYTHON, *PYTHON.parents):
            if not folder.is_symlink() and folder != Path("/"):
                self.inside(folder).chmod(self.inside(folder).stat().st_mode | 0o011)

    def inside(self, path: str | Path) -> Path:
        """Where this path of the stage lies."""
        return self.root / str(path).lstrip("/")

    def command(self, *words: str) -> list[str]:
        return ["chroot", str(self.root), "env", "--chdir", str(self.cwd), *words]

    def play(self, others: dict[str, "Room"]) -> None:
        for name, rest in self.stage.instructions:
            match name:
                case "WORKDIR":
                    self.cwd = Path(rest)
                    self.inside(rest).mkdir(parents=True, exist_ok=True)
                case "ENV":
                    given = (word.partition("=") for word in shlex.split(rest))
                    self.environ |= {key: string.Template(value).substitute(self.environ) for key, _, value in given}
                case "COPY":
                    self._copy(rest.split(), others)
                case "RUN":
                    self._run(command_of(rest))

    def _copy(self, words: list[str], others: dict[str, "Room"]) -> None:
        source = ROOT
        if words[0].startswith("--from="):
            source = others[words.pop(0).removeprefix("--from=")].root
        *names, target = words
        is_folder = target.endswith("/") or len(names) > 1
        for name in names:
            found = source / name.lstrip("/")
            to = self.inside(self.cwd / target) / (found.name if is_folder else "")
            to.parent.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                shutil.copytree(found, to, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(found, to)

    def _run(self, words: list[str]) -> None:
        packages = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}
        environ = {"HOME": "/root", "LANG": "C.UTF-8", **packages, **self.environ}
        subprocess.run(self.command(*words), env=environ, check=True, timeout=300)


class Container:
    """The last stage as it runs: an ordinary user without any right, a read-only root, and a volume."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.port = own_port()
        self.volume = room.environ["GATEWAY_DATA_DIR"]
        self.user, self.group = room.stage.last("USER").split(":")
        options = f"uid={self.user},gid={self.group},mode=0700"
        mount("-t", "tmpfs", "tmpfs", "-o", options, room.inside(self.volume))
        mount("-o", "remount,ro", room.root)

    def start(self, words: list[str]) -> "subprocess.Popen[str]":
        ids = ["--reuid", self.user, "--regid", self.group, "--clear-groups"]
        rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        command = self.room.command("setpriv", *ids, *rights, *words)
        environ = self.room.environ | {"GATEWAY_HOST": "127.0.0.1", "GATEWAY_PORT": str(self.port)}
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def is_healthy(self) -> bool:
        check = self.start(health_command())
        check.communicate(timeout=20)
        return check.returncode == 0

    def becomes_healthy(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while not (is_healthy := self.is_healthy()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return is_healthy

    def can_write(self, folder: str) -> bool:
        attempt = self.start(["touch", f"{folder}/written"])
        attempt.communicate(timeout=20)
        return attempt.returncode == 0

    def written(self) -> list[str]:
        folder = self.room.inside(self.volume)
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def replay(space: Path, wheels: Path) -> dict[str, Any]:
    """Play all stages and run the last one; what was found."""
    mount("-t", "tmpfs", "tmpfs", space)
    rooms: dict[str, Room] = {}
    for number, stage in enumerate(stages()):
        room = Room(space / str(number), stage, wheels)
        room.play(rooms)
        rooms[stage.name] = room
    final = rooms[stages()[-1].name]
    container = Container(final)
    found: dict[str, Any] = {"healthy_before": container.is_healthy()}
    gateway = container.start([*command_of(final.stage.last("ENTRYPOINT")), *command_of(final.stage.last("CMD"))])
    try:
        found["healthy"] = container.becomes_healthy()
        found["status"] = status_of(gateway.pid)
        found["written"] = container.written()
        found["can_write"] = [name for name in ("/", "/tmp", "/opt/gateway", "/data") if container.can_write(name)]
        gateway.send_signal(signal.SIGTERM)
        found["output"], _ = gateway.communicate(timeout=STOP_SECONDS)
        found["exit_code"] = gateway.returncode
        found["healthy_after"] = container.is_healthy()
    finally:
        with suppress(ProcessLookupError):
            gateway.kill()
    packages = final.inside("/opt/gateway/lib").glob("python*/site-packages/*.dist-info")
    found["packages"] = sorted(path.name.removesuffix(".dist-info") for path in packages)
    return found


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(replay(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")
