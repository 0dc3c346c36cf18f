"""Signs what workers tell each other, so that whoever can write to Redis can't speak for a worker.

Theory of operation
-------------------
A signature is the last field of an envelope's header, `mac`: HMAC-SHA256 over the channel that the envelope is for and
every byte of the envelope without that field. A worker that knows nothing of signatures ignores the field. A call's
record holds the bytes that were published, so that its signature is that of its reader's mailbox.

What it is worth follows from what is signed. A message can't be made up, changed, sent to another worker, or moved to
another channel or deployment, since the name of the channel says all that. It can be said again where it was said
before: then the ids, epochs and times in it decide, which settle every call once. It can be held back. The key is the
same for all workers: it tells that one of them has spoken, not which.
"""

import hmac
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from typing import Literal

from gateway.setting_rules import UNSIGNED

Cause = Literal["unsigned", "wrong"]

_MARK = b',"mac":"'
_MAC_BYTES = 44
_END = b'"}'
_TAIL_BYTES = len(_MARK) + _MAC_BYTES + len(_END)
_PURPOSE = b"mcp-gateway envelope 1"
"""Keeps a key that somebody uses for something else, too, from saying the same thing there."""


def _ignore(_channel: str, _cause: Cause) -> None: ...


class Seal:
    """The keys of one deployment: the first signs, all verify. Their order is the way to change them without a gap."""

    def __init__(self, keys: Sequence[str], *, takes_unsigned: bool = False) -> None:
        if not keys:
            raise ValueError("a seal needs a key")
        self._keys = [hmac.digest(key.encode("utf-8", "surrogatepass"), _PURPOSE, "sha256") for key in keys]
        self._takes_unsigned = takes_unsigned
        self.on_refused: Callable[[str, Cause], None] = _ignore
        """Hears of every message that was refused: the channel that it came by, and why."""

    def __repr__(self) -> str:
        return f"<Seal [{len(self._keys)} keys{' | takes unsigned ones' if self._takes_unsigned else ''}]>"

    def sign(self, channel: str, message: bytes) -> bytes:
        """The envelope (as `encode` gives it) with a signature for this channel."""
        end = message.index(b"\n") - 1
        return b"".join((message[:end], _MARK, _mac(self._keys[0], channel, message), _END, message[end + 1 :]))

    def open(self, channel: str, message: bytes) -> bytes | None:
        """The one envelope without its signature; None if it was not signed for this channel with one of the keys."""
        start = message.find(b"\n") - _TAIL_BYTES
        mac_at, end = start + len(_MARK), start + _TAIL_BYTES
        if start < 0 or not message.startswith(_MARK, start) or not message.startswith(_END, end - len(_END)):
            if self._takes_unsigned:
                return message
            self.on_refused(channel, "unsigned")
            return None
        claimed, bare = message[mac_at : mac_at + _MAC_BYTES], message[:start] + b"}" + message[end:]
        for key in self._keys:
            if hmac.compare_digest(_mac(key, channel, bare), claimed):
                return bare
        self.on_refused(channel, "wrong")
        return None


def _mac(key: bytes, channel: str, message: bytes) -> bytes:
    return b2a_base64(hmac.digest(key, channel.encode() + b"\0" + message, "sha256"), newline=False)


def make_seal(words: Sequence[str]) -> Seal | None:
    """The seal that GATEWAY_ENVELOPE_KEY asks for, None where it is empty."""
    keys = [word for word in words if word != UNSIGNED]
    return Seal(keys, takes_unsigned=UNSIGNED in words) if keys else None
