"""A file of JSON that outlives the process: what people decided, where there is no Redis to keep it.

Theory of operation
-------------------
The gateway and commands beside it read and write the same file. Who changes it holds a lock (a file beside it) while
reading, changing and putting the new text in its place by one rename: a reader needs no lock and sees the old text or
the new one, whole. The file is its owner's alone.
"""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from gateway.backplane.base import BackplaneUnavailable

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]
_LOCK_SECONDS = 2.0
"""Whoever holds the lock for so long has been stopped in the middle of it."""
_LOCK_PAUSE_SECONDS = 0.002
_ABSENT: _Stamp = (0, 0, 0)


class DurableFile:
    """One such file; it and its directory need not be there yet. Reads again only what has changed.

    Every method raises BackplaneUnavailable, with the file's name and why, where it can't be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: _Stamp | None = None
        self._content: dict[str, Any] = {}
        self._is_hidden = False

    def has_changed(self) -> bool:
        """Return whether the file is another one than when it was read or written last; True before the first time."""
        return self._look() != self._stamp

    def read(self) -> dict[str, Any]:
        """Return the object that the file holds, {} where there is no file. Not to be changed."""
        stamp = self._look()
        if stamp != self._stamp:
            self._content = self._load() if stamp != _ABSENT else {}
            self._stamp = stamp
        return self._content

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """Hold the lock and give what the file holds; what it has become is written at the end, if it is other."""
        with self._locked():
            before = self.read()
            content = orjson.loads(orjson.dumps(before))
            yield content
            if content != before:
                self._write(content)

    def _look(self) -> _Stamp:
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return _ABSENT
        except PermissionError as error:
            return self._hidden(error)
        except OSError as error:
            raise self._unreadable(error) from None
        self._is_hidden = False
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _hidden(self, error: PermissionError) -> _Stamp:
        """Nobody may look into the directory. A gateway with a key of its own has always done without one."""
        if self._stamp not in (None, _ABSENT):
            raise self._unreadable(error) from None
        if not self._is_hidden:
            self._is_hidden = True
            text = (
                "看不到 %s：其中的决定（若有）不生效，新的决定不会保存；请让网关的用户能读写该目录 / "
                "can't look for %s: what was decided there (if anything) is not in force, and nothing will be kept. "
                "Give the gateway's user rights to that directory"
            )
            logger.error(text, self.path, self.path, extra={"event": "data_hidden", "cause": str(error)})
        return _ABSENT

    def _load(self) -> dict[str, Any]:
        try:
            content = orjson.loads(self.path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise self._unreadable(error) from None
        if not isinstance(content, dict):
            raise self._unreadable("not a JSON object")
        return content

    def _write(self, content: dict[str, Any]) -> None:
        text = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    self._hand_over(handle)
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self.path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            raise self._unwritable(error) from None
        self._stamp, self._content = self._look(), content

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            self._hand_over(lock)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._lock(lock)
            yield
        finally:
            os.close(lock)

    def _lock(self, lock: int) -> None:
        """Take the lock, which others hold for the length of one small write."""
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise self._unwritable(error) from None
                time.sleep(_LOCK_PAUSE_SECONDS)
            else:
                return

    def _hand_over(self, handle: int) -> None:
        """What root writes belongs to whom the directory belongs to: the gateway beside it must be able to read it."""
        if os.geteuid() == 0:
            owner = self.path.parent.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)

    def _unreadable(self, error: object) -> BackplaneUnavailable:
        cure = "请修复或从备份恢复 / mend it, or restore it from a backup"
        return BackplaneUnavailable(f"读不出 / can't read {self.path}: {error}。{cure}")

    def _unwritable(self, error: object) -> BackplaneUnavailable:
        cure = "请检查 GATEWAY_DATA_DIR 的权限 / check the rights of GATEWAY_DATA_DIR"
        return BackplaneUnavailable(f"写不了 / can't write {self.path}: {error}。{cure}")
