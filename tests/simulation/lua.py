"""The gateway's own Lua scripts, run as Redis runs them."""

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
from lupa import lua51

from tests.simulation.store import Refused, Words

Call = Callable[[Words], Any]


class Interpreter:
    """Lua 5.1 with `redis` and as much of `cjson` as is used. One is enough for all runs."""

    def __init__(self) -> None:
        self._lua = lua51.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        self._call: Call = _nothing
        names = self._lua.globals()
        names[b"redis"] = self._lua.table_from({b"call": self._redis_call, b"pcall": self._redis_pcall})
        names[b"cjson"] = self._lua.table_from({b"decode": lambda text: self._to_lua_json(orjson.loads(text))})
        self._scripts: dict[bytes, Any] = {}

    def run(self, text: bytes, keys: Words, args: Words, call: Call) -> Any:
        """The script's reply, as Redis makes it of what the script returns. Raises Refused."""
        script = self._scripts.get(text)
        if script is None:
            script = self._scripts[text] = self._lua.eval(b"function(KEYS, ARGV)\n" + text + b"\nend")
        self._call = call
        try:
            return _to_reply(script(self._lua.table_from(keys), self._lua.table_from(args)))
        except lua51.LuaError as error:
            raise Refused(f"ERR {error}") from error

    def _redis_call(self, *words: Any) -> Any:
        return self._to_lua(self._call([_word(word) for word in words]))

    def _redis_pcall(self, *words: Any) -> Any:
        try:
            return self._redis_call(*words)
        except Refused as refused:
            return self._lua.table_from({b"err": str(refused).encode()})

    def _to_lua(self, reply: Any) -> Any:
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._lua.table_from([self._to_lua(part) for part in reply])
        return reply

    def _to_lua_json(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._lua.table_from({name.encode(): self._to_lua_json(part) for name, part in value.items()})
        if isinstance(value, list):
            return self._lua.table_from([self._to_lua_json(part) for part in value])
        return value.encode() if isinstance(value, str) else value


@cache
def interpreter() -> Interpreter:
    return Interpreter()


@cache
def digest(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def _nothing(_: Words) -> Any:
    raise Refused("ERR no script runs")


def _word(word: Any) -> bytes:
    if isinstance(word, bytes):
        return word
    if isinstance(word, int | float):
        return b"%.17g" % word
    raise Refused("ERR Lua redis lib command arguments must be strings or integers")


def _to_reply(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, int | float):
        return int(value)
    if isinstance(value, bytes):
        return value
    if value[b"err"] is not None:
        raise Refused(value[b"err"].decode())
    return [_to_reply(value[at]) for at in range(1, len(value) + 1)]
