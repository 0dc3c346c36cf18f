"""The data of a small Redis: the commands that the gateway uses, with TTLs in a time that is given."""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

Words: TypeAlias = list[bytes]


class Refused(Exception):
    """Redis's answer is an error; the text is what stands after the minus."""


class Hash(dict[bytes, bytes]):
    pass


class Set(dict[bytes, None]):
    """In the order of arrival, so that runs are alike."""


class Zset(dict[bytes, float]):
    def ordered(self) -> list[tuple[bytes, float]]:
        return sorted(self.items(), key=lambda item: (item[1], item[0]))


class Stream(list[Words]):
    pass


class Store:
    """Keys, values and their ends. `now_ms` is the server's clock."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.values: dict[bytes, Any] = {}
        self.ends_ms: dict[bytes, int] = {}
        self.refusal = ""
        """What every write is answered with, if anything."""

    def clear(self) -> None:
        self.values.clear()
        self.ends_ms.clear()

    def all_keys(self) -> list[bytes]:
        return [key for key in list(self.values) if self.find(key, object) is not None]

    def find(self, key: bytes, kind: type) -> Any:
        """The value, None if there is none (any more)."""
        if key in self.ends_ms and self.ends_ms[key] <= self.now_ms():
            self.delete(key)
        value = self.values.get(key)
        if value is not None and not isinstance(value, kind):
            raise Refused("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def take(self, key: bytes, kind: type) -> Any:
        """The value, made if it was not there."""
        value = self.find(key, kind)
        if value is None:
            value = self.values[key] = kind()
        return value

    def delete(self, key: bytes) -> bool:
        self.ends_ms.pop(key, None)
        return self.values.pop(key, None) is not None

    def drop_empty(self, key: bytes) -> None:
        if not self.values.get(key, True):
            self.delete(key)

    def run(self, words: Words) -> Any:
        """The command's reply: None, int, bytes, or a list of these. Raises Refused."""
        name = words[0].upper()
        command = _READS.get(name)
        if command is None:
            command = _WRITES.get(name)
            if command is None:
                raise Refused(f"ERR unknown command '{words[0].decode('utf-8', 'replace')}'")
            if self.refusal:
                raise Refused(self.refusal)
        try:
            return command(self, *words[1:])
        except (TypeError, ValueError) as error:
            raise Refused(f"ERR {name.decode()}: {error}") from error


def _get(store: Store, key: bytes) -> bytes | None:
    value: bytes | None = store.find(key, bytes)
    return value


def _set(store: Store, key: bytes, value: bytes, *options: bytes) -> bytes:
    store.delete(key)
    store.values[key] = value
    if options:
        unit, amount = options
        store.ends_ms[key] = store.now_ms() + int(amount) * {b"PX": 1, b"EX": 1000}[unit.upper()]
    return b"OK"


def _del(store: Store, *keys: bytes) -> int:
    return sum(store.find(key, object) is not None and store.delete(key) for key in keys)


def _exists(store: Store, *keys: bytes) -> int:
    return sum(store.find(key, object) is not None for key in keys)


def _pexpire(store: Store, key: bytes, ms: bytes) -> int:
    if store.find(key, object) is None:
        return 0
    store.ends_ms[key] = store.now_ms() + int(float(ms))
    return 1


def _pttl(store: Store, key: bytes) -> int:
    if store.find(key, object) is None:
        return -2
    return store.ends_ms[key] - store.now_ms() if key in store.ends_ms else -1


def _hset(store: Store, key: bytes, *pairs: bytes) -> int:
    values: Hash = store.take(key, Hash)
    before = len(values)
    values.update(zip(pairs[::2], pairs[1::2], strict=True))
    return len(values) - before


def _hget(store: Store, key: bytes, name: bytes) -> bytes | None:
    values: Hash = store.find(key, Hash) or Hash()
    return values.get(name)


def _hgetall(store: Store, key: bytes) -> Words:
    return [word for pair in (store.find(key, Hash) or Hash()).items() for word in pair]


def _hlen(store: Store, key: bytes) -> int:
    return len(store.find(key, Hash) or ())


def _remove(kind: type) -> Callable[..., int]:
    def remove(store: Store, key: bytes, *names: bytes) -> int:
        values = store.find(key, kind)
        if values is None:
            return 0
        before = len(values)
        for name in names:
            values.pop(name, None)
        removed = before - len(values)
        store.drop_empty(key)
        return removed

    return remove


def _sadd(store: Store, key: bytes, *members: bytes) -> int:
    values: Set = store.take(key, Set)
    before = len(values)
    values.update(dict.fromkeys(members))
    return len(values) - before


def _smembers(store: Store, key: bytes) -> Words:
    return list(store.find(key, Set) or ())


def _zadd(store: Store, key: bytes, *words: bytes) -> int:
    rest = list(words)
    conditions = set()
    while rest[0].upper() in (b"GT", b"LT", b"NX", b"XX"):
        conditions.add(rest.pop(0).upper())
    values: Zset = store.take(key, Zset)
    before = len(values)
    for score, member in zip(rest[::2], rest[1::2], strict=True):
        old = values.get(member)
        if old is not None and (b"NX" in conditions or (b"GT" in conditions and float(score) <= old)):
            continue
        values[member] = float(score)
    return len(values) - before


def _zscore(store: Store, key: bytes, member: bytes) -> bytes | None:
    score = (store.find(key, Zset) or Zset()).get(member)
    return None if score is None else _number(score)


def _zrange(store: Store, key: bytes, start: bytes, stop: bytes, *options: bytes) -> Words:
    items = (store.find(key, Zset) or Zset()).ordered()
    return _listed(_span(items, int(start), int(stop)), b"WITHSCORES" in options)


def _zrevrange(store: Store, key: bytes, start: bytes, stop: bytes, *options: bytes) -> Words:
    items = (store.find(key, Zset) or Zset()).ordered()[::-1]
    return _listed(_span(items, int(start), int(stop)), b"WITHSCORES" in options)


def _span(items: list[tuple[bytes, float]], start: int, stop: int) -> list[tuple[bytes, float]]:
    return items[start : stop + 1 if stop != -1 else None]


def _zrangebyscore(store: Store, key: bytes, low: bytes, high: bytes, *options: bytes) -> Words:
    is_open = low.startswith(b"(")
    least, most = _score(low.lstrip(b"(")), _score(high)
    items = [
        item
        for item in (store.find(key, Zset) or Zset()).ordered()
        if least <= item[1] <= most and not (is_open and item[1] == least)
    ]
    if b"LIMIT" in options:
        at = options.index(b"LIMIT")
        items = items[int(options[at + 1]) :][: int(options[at + 2])]
    return _listed(items, b"WITHSCORES" in options)


def _zremrangebyscore(store: Store, key: bytes, low: bytes, high: bytes) -> int:
    values = store.find(key, Zset) or Zset()
    gone = [member for member, score in values.items() if _score(low) <= score <= _score(high)]
    return _remove(Zset)(store, key, *gone)


def _zremrangebyrank(store: Store, key: bytes, start: bytes, stop: bytes) -> int:
    items = (store.find(key, Zset) or Zset()).ordered()
    first, last = (int(at) + len(items) if int(at) < 0 else int(at) for at in (start, stop))
    return _remove(Zset)(store, key, *(member for member, _ in items[max(first, 0) : max(last + 1, 0)]))


def _score(word: bytes) -> float:
    return {b"-inf": -math.inf, b"+inf": math.inf}.get(word) or float(word)


def _number(score: float) -> bytes:
    return b"%d" % score if score.is_integer() else repr(score).encode()


def _listed(items: Iterable[tuple[bytes, float]], with_scores: bool) -> Words:
    if with_scores:
        return [word for member, score in items for word in (member, _number(score))]
    return [member for member, _ in items]


def _xadd(store: Store, key: bytes, *words: bytes) -> bytes:
    stream: Stream = store.take(key, Stream)
    stream.append(list(words[words.index(b"*") + 1 :]))
    return b"%d-%d" % (store.now_ms(), len(stream))


def _time(store: Store) -> Words:
    now_ms = store.now_ms()
    return [b"%d" % (now_ms // 1000), b"%d" % (now_ms % 1000 * 1000)]


def _flushall(store: Store, *_: bytes) -> bytes:
    store.clear()
    return b"OK"


def _ping(_: Store, *words: bytes) -> bytes:
    return words[0] if words else b"PONG"


_READS: dict[bytes, Callable[..., Any]] = {
    b"PING": _ping,
    b"TIME": _time,
    b"GET": _get,
    b"MGET": lambda store, *keys: [_get(store, key) for key in keys],
    b"EXISTS": _exists,
    b"PTTL": _pttl,
    b"HGET": _hget,
    b"HGETALL": _hgetall,
    b"HLEN": _hlen,
    b"HVALS": lambda store, key: _hgetall(store, key)[1::2],
    b"SMEMBERS": _smembers,
    b"ZSCORE": _zscore,
    b"ZRANGE": _zrange,
    b"ZREVRANGE": _zrevrange,
    b"ZRANGEBYSCORE": _zrangebyscore,
}
_WRITES: dict[bytes, Callable[..., Any]] = {
    b"SET": _set,
    b"DEL": _del,
    b"PEXPIRE": _pexpire,
    b"HSET": _hset,
    b"HDEL": _remove(Hash),
    b"SADD": _sadd,
    b"SREM": _remove(Set),
    b"ZADD": _zadd,
    b"ZREM": _remove(Zset),
    b"ZREMRANGEBYSCORE": _zremrangebyscore,
    b"ZREMRANGEBYRANK": _zremrangebyrank,
    b"XADD": _xadd,
    b"FLUSHALL": _flushall,
}
