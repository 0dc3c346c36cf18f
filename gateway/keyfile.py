"""The key that a gateway on the memory backplane makes for itself at its first start and keeps.

Theory of operation
-------------------
Tokens that people have pasted into their bridges must survive a restart, so the key is written before it is used, and
never replaced. Two processes that start at once may both make one: the file appears under its name complete, by a hard
link that fails if the name is taken, and whoever loses that race reads what the winner wrote.
"""

import os
import secrets
import tempfile
from pathlib import Path

_NAME = ".gateway-key"
_KEY_BYTES = 16  # 32 hexadecimal digits, whose text is an AES-256 key as it stands
_TEXT_BYTES_MAX = 1024


class KeyFileError(Exception):
    """The key can't be kept or read; the text says why and what to do, for people, without the key."""


def read(directory: Path) -> str | None:
    """Return the key that is kept in the directory, or None. Raise `KeyFileError` if it can't be read."""
    path = directory / _NAME
    try:
        with path.open(encoding="ascii") as stream:
            key = stream.read(_TEXT_BYTES_MAX).strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(_trouble(path, error)) from None
    if not key.isalnum():
        raise KeyFileError(
            f"{path}: 内容不是密钥；请恢复它，或删除后重新生成（旧令牌会失效） / "
            "holds no key; restore it, or delete it to get a new one (tokens made before will fail)"
        )
    return key


def read_or_create(directory: Path) -> tuple[str, bool]:
    """Return the kept key, and whether it was made just now. Raise `KeyFileError` if it can't be kept."""
    if key := read(directory):
        return key, False
    try:
        directory.mkdir(parents=True, exist_ok=True)
        is_new = _create(directory, secrets.token_hex(_KEY_BYTES))
    except OSError as error:
        raise KeyFileError(_trouble(directory / _NAME, error)) from None
    key = read(directory)
    if key is None:
        raise KeyFileError(f"{directory / _NAME}: 刚写入就消失了 / vanished as soon as it was written")
    return key, is_new


def _create(directory: Path, key: str) -> bool:
    # mkstemp makes the file 0600 before anything is in it.
    handle, draft = tempfile.mkstemp(prefix=_NAME + ".", dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(key + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, directory / _NAME)
    except FileExistsError:
        return False
    finally:
        os.unlink(draft)
    return True


def _trouble(path: Path, error: OSError | UnicodeDecodeError) -> str:
    reason = error.strerror if isinstance(error, OSError) else "not text"
    return (
        f"{path}: 无法保存或读取自动生成的密钥（{reason}）；请让目录可写，或设置 GATEWAY_KEY / "
        f"can't keep or read the generated key ({reason}); make the directory writable, or set GATEWAY_KEY"
    )
