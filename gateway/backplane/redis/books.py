"""The books in Redis: what people have decided, for good."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gateway.backplane import entries as texts
from gateway.backplane import rows
from gateway.backplane.base import BackplaneUnavailable, Edition, Entry
from gateway.backplane.envelope import Envelope, encode
from gateway.backplane.redis.commands import Rejected, script_command
from gateway.backplane.redis.core import Core, Tools, paired, revision_of, text_of
from gateway.pace import sliced

_MOST_CHANGES = 1000
"""Whoever has missed more reads the whole book."""
_SLICE = 256
_READ_AT_ONCE = 1000
_RECONNECT_SECONDS = 3
"""Within so long every worker has found a server that is back."""
_ASKING_SECONDS = 0.5
"""Who waits for the books says so more often than that (`rulebook.LOOK_SECONDS`)."""
_ASKING_MAX = 1000
_UPTIME = re.compile(r"^uptime_in_seconds:(\d{1,12})\r?$", re.MULTILINE)


class Books(Core):
    """See `gateway.backplane.base.Books`."""

    _is_single = False
    """Whether the address leads to one server for ever: a failover may bring an old one that nobody has found yet."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._asking: dict[str, float] = {}
        """Other workers that wait for the books themselves → when they said so."""

    async def read_book(self, book: str, since: int = 0) -> Edition:
        version, is_whole, flat = b"0", True, list[bytes]()
        if since:
            command = script_command("read_book", self._of_book(book), [since], is_repeatable=True)
            ((version, is_whole, flat),) = await self._link.call(command)
        if is_whole:  # as one command, its version among the entries: through a script it would cost Redis much more
            flat = await self._call("HGETALL", self._keys.book(book))
        texts_of = paired(flat)
        version = texts_of.pop(b"", b"0") if is_whole else version
        latest = self.now_ms + rows.AHEAD_MS  # what is beyond that could never be outranked: nobody believes it
        known: dict[str, Entry] = {}
        for part in sliced(texts_of.items(), _READ_AT_ONCE):
            found = {text_of(name): texts.load(text) for name, text in part}
            known |= {name: entry for name, entry in found.items() if entry is not None and entry.version <= latest}
            if len(part) == _READ_AT_ONCE:
                await asyncio.sleep(0)
        read = revision_of(version)
        return Edition(read if read <= latest else 0, known, is_whole=bool(is_whole))

    async def write_entry(self, book: str, name: str, text: bytes, expected: int | None = None) -> int | None:
        wish = "" if expected is None else expected
        args = [name, texts.tail(name, text), wish, self._lifetimes.changes_ms, _MOST_CHANGES]
        # Twice the same is but a second version; with a wish it would be refused for its own success.
        command = script_command("write_book", self._of_book(book), args, is_repeatable=expected is None)
        (version,) = await self._link.call(command)
        if version is None:
            return None
        await self._tell_of_book(book)
        return int(version)

    async def restore_book(self, book: str, entries: Mapping[str, Entry]) -> int:
        parts = list(sliced(entries.items(), _SLICE)) or [[]]
        put, is_news = 0, False
        for at, part in enumerate(parts, 1):
            triples = [word for name, entry in part for word in (name, entry.version, texts.dump(entry))]
            args: list[Any] = [self._lifetimes.changes_ms, _MOST_CHANGES, int(at == len(parts)), *triples]
            command = script_command("restore_book", self._of_book(book), args, is_repeatable=True)
            ((count, has_changed),) = await self._link.call(command)
            put, is_news = put + count, is_news or bool(has_changed)
        if is_news:
            await self._tell_of_book(book)
        return put

    async def call_for_books(self) -> bool:
        notice = self._sealed(self._keys.ctl, encode(Envelope("book", sender=self.worker_id)))
        others = await self._call(self._tools.publish, self._keys.ctl, notice) - 1
        since_ms = self._monotonic_ms - 1000 * _ASKING_SECONDS
        if others > sum(at_ms > since_ms for at_ms in self._asking.values()) or not self._is_single:
            return False
        # Nobody listens who doesn't ask as well. But this server may have started just now, with others on their way.
        try:
            said = text_of(await self._call("INFO", "server"))
        except Rejected:  # the user has no right to ask
            return False
        uptime = _UPTIME.search(said)
        return uptime is not None and int(uptime[1]) > _RECONNECT_SECONDS

    def _note_asking(self, worker: str) -> None:
        """The worker waits for the books, too."""
        if len(self._asking) >= _ASKING_MAX:
            self._asking.clear()
        self._asking[worker] = self._monotonic_ms

    async def prune_book(self, book: str, entries: Mapping[str, int]) -> None:
        for part in sliced(entries.items(), _SLICE):
            pairs = [word for pair in part for word in pair]
            await self._link.call(script_command("prune_book", [self._keys.book(book)], pairs, is_repeatable=True))

    def _of_book(self, book: str) -> list[str]:
        return [self._keys.book(book), self._keys.changes(book)]

    async def _tell_of_book(self, book: str) -> None:
        """Tell everybody, this worker included."""
        notice = self._sealed(self._keys.ctl, encode(Envelope("book", reason=book)))
        with suppress(BackplaneUnavailable):  # it is written; who doesn't hear of it finds out at the next beat
            await self._call(self._tools.publish, self._keys.ctl, notice)
