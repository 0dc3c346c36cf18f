"""What peers have seen: each process writes its own file, a line of JSON for every event, at the time of the machine.

Theory of operation
-------------------
`time.monotonic()` is one clock for all processes of a machine, so lines of different files can be compared. A line is
written by one system call and not buffered: what a process has seen is on disk even if it is killed the next moment.

Kinds of entries, and what each has besides `at`, `who` (the process) and `kind`:

- by robots: `ask` call, method, robot, agent, server, worker, seconds until it is due
- `answer` call, robot, outcome `result` or `error`, executed, reason
- `cancel` call · `stray` robot, what (an answer that is not its) · `closed` robot, code
- by tool servers: `begin` call, agent (its own), of (the agent in the call), server, worker · `end` call
- by both: `joined` and `left` peer, slot
- by the nemesis: `frozen` name, since, until · `ended` name (a process of peers that was killed)
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

Entry = Mapping[str, Any]


class Pen:
    """Writes the lines of one process."""

    def __init__(self, folder: Path, who: str) -> None:
        self.who = who
        self._file = os.open(folder / f"{who}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, kind: str, **fields: Any) -> float:
        """Write a line; returns its time."""
        at = time.monotonic()
        os.write(self._file, orjson.dumps({"at": at, "who": self.who, "kind": kind, **fields}) + b"\n")
        return at

    def close(self) -> None:
        os.close(self._file)


class Logbook:
    """Reads all files of a folder, from where it stopped the last time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}

    def read_on(self) -> list[Entry]:
        """What was written since, in the order of time."""
        entries: list[Entry] = []
        for path in self.folder.glob("*.jsonl"):
            entries += self._new(path)
        return sorted(entries, key=lambda entry: float(entry["at"]))

    def _new(self, path: Path) -> list[Entry]:
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be half written
        self._read[path] = self._read.get(path, 0) + len(whole)
        return [orjson.loads(line) for line in whole.splitlines()]
