"""Whatever a writer puts into Redis: no command of a worker leaves our prefix, or is of the writer's making."""

import asyncio
import string
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.backplane import redis as package
from gateway.backplane import rows
from gateway.backplane.base import Dispatch
from gateway.backplane.envelope import Envelope, EnvelopeError, decode, decode_notice
from gateway.backplane.redis import RedisBackplane
from gateway.backplane.redis.commands import Command, CommandLink
from gateway.backplane.redis.lines import Lines
from gateway.backplane.redis.slots import slot_of
from gateway.backplane.redis.subscriber import Subscriptions
from gateway.meters import Meters

KEY_BYTES_MAX = 512
REPLIES = {"snapshot": [b"0", 1, [], [], [], []], "dispatch": [b"gone"], "answer": 0, "withdraw": 0}
NASTY = (
    "",
    "*",
    "?",
    "{}",
    "}",
    "a}b{c",
    "a b",
    "a\r\nDEL x",
    "\0",
    "..",
    "gw-0-5b1f09aa",
    "网",
    "x" * 10_000,
    "-" * 161,
)
IDS = st.sampled_from(NASTY) | st.text(string.printable, max_size=20)
VALUES = IDS | st.integers() | st.none() | st.booleans() | st.lists(IDS, max_size=2)
ALLOWED = set(string.ascii_letters + string.digits + "._?-")
PLAIN = st.text(string.ascii_letters + "-.", min_size=1, max_size=12)


class Wire(CommandLink):
    """Takes every command and notes its keys; answers that nothing is there."""

    def __init__(self) -> None:
        self.up, self.tried = asyncio.Event(), asyncio.Event()
        self.meters = Meters()
        self.gather = self.on_up = lambda: None
        self.keys: list[tuple[str, ...]] = []

    pending, trouble = 0, ""

    async def run(self) -> None: ...

    def wake(self) -> None: ...

    async def flush(self) -> None: ...

    def distrust(self, command: Command, reason: str) -> None: ...

    def drop(self, reason: str) -> None: ...

    def enqueue(self, command: Command) -> None:
        args = command.args
        if command.script is not None:
            self.keys.append(tuple(map(_text, args[1 : 1 + args[0]])))
        elif args[0] in ("EXISTS", "DEL", "MGET"):
            self.keys.extend((_text(key),) for key in args[1:])
        else:
            self.keys.append((_text(args[1]),))
        command.on_reply(REPLIES.get(command.script.name if command.script else "", []))


class Ears(Subscriptions):
    """Subscribes to whatever it is told, and notes it."""

    def __init__(self, wire: Wire) -> None:
        self.up, self.tried = asyncio.Event(), asyncio.Event()
        self._wire = wire

    trouble = ""

    async def run(self) -> None: ...

    async def add(self, channel: str) -> None:
        self._wire.keys.append((channel,))

    def want(self, name: bytes) -> None: ...

    def discard(self, channel: str) -> None: ...

    def hears(self, channel: str) -> bool:
        return True

    def reads(self, channel: str) -> int:
        return 0

    def drop(self, reason: str, channel: str | None = None) -> None: ...


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)


def keys_of(monkeypatch: pytest.MonkeyPatch, act: Callable[[RedisBackplane], Awaitable[None]]) -> None:
    """Let a worker do it; every key and channel that it named must be one of ours."""
    wire = Wire()
    with monkeypatch.context() as patched:
        patched.setattr(package, "make_lines", lambda *_: Lines(wire, Ears(wire), ()))
        backplane = RedisBackplane("redis://127.0.0.1:1", "here-0")

    async def play() -> None:
        await act(backplane)
        wire.gather()

    asyncio.run(play())
    assert wire.keys, "nothing was tried"
    for keys in wire.keys:
        assert all(key.startswith("mcpgw:") and len(key) <= KEY_BYTES_MAX for key in keys), keys
        assert len({slot_of(key) for key in keys}) == 1, keys


FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@FUZZ
@given(worker=IDS, conn=IDS, digest=IDS, agent=IDS, call=PLAIN)
def test_calls_and_probes_for_a_row_go_to_keys_of_ours(
    worker: str, conn: str, digest: str, agent: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {"state": "up", "worker": worker, "conn": conn, "since": 1, "toolset": digest}

    async def act(backplane: RedisBackplane) -> None:
        await backplane.snapshot(agent)
        row = rows.load_row(orjson.dumps(written))
        if row is None:
            return
        envelope = Envelope("req", id=call, agent=agent, conn=row.conn)
        backplane.dispatch(Dispatch(row.worker, envelope, 1.0), lambda _: None)
        backplane.send(row.worker, Envelope("probe", id=f"{row.conn}?1", conn=row.conn))
        backplane.withdraw(row.worker, Envelope("cancel", id=call))
        await backplane.read([(row.worker, call)])
        await backplane.alive([row.worker])
        await backplane.toolsets([row.toolset] if row.toolset else [])

    keys_of(monkeypatch, act)


@FUZZ
@given(
    header=st.dictionaries(st.sampled_from(["v", "t", "id", "from", "conn", "w", "agent", "due", "len"]), VALUES),
    sender=IDS,
)
def test_what_is_answered_to_an_envelope_goes_to_keys_of_ours(
    header: dict[str, Any], sender: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(backplane: RedisBackplane) -> None:
        await backplane.alive(["somebody"])
        kept = {name: value for name, value in header.items() if not _is_wide(value)}
        for message in ({"v": 1, "t": "req", **kept}, {"v": 1, "t": "query", "id": "1", "from": sender}):
            heard: list[Envelope] = []
            for read in (decode, decode_notice):
                with suppress(EnvelopeError):
                    heard += read(orjson.dumps({**message, "len": 0}) + b"\n")
            for envelope in heard:
                end = Envelope("nack", id=envelope.id, reason="moved")
                if envelope.sender and envelope.id:
                    backplane.drop(envelope.id, envelope.sender, end)
                    backplane.answer(envelope.sender, end)

    keys_of(monkeypatch, act)


@FUZZ
@given(owned=st.lists(st.tuples(st.sampled_from(["server", "robot"]), IDS, IDS), max_size=3))
def test_cleaning_up_after_a_worker_that_somebody_made_up_touches_keys_of_ours_only(
    owned: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(backplane: RedisBackplane) -> None:
        members = [member for one in owned if (member := rows.load_member(orjson.dumps(one)))]
        await backplane.alive(["somebody"])
        await backplane.put_robots({(agent, conn): None for _, agent, conn in members})
        for _, agent, _ in members:
            await backplane.snapshot(agent)
            await backplane.watch(agent)
        await backplane.bury("somebody", members)

    keys_of(monkeypatch, act)


@given(
    st.dictionaries(st.sampled_from(["state", "worker", "conn", "since", "epoch", "toolset", "client"]), VALUES),
    st.binary(max_size=40),
)
def test_no_value_that_is_read_holds_an_id_that_is_none(fields: dict[str, Any], garbage: bytes) -> None:
    text = orjson.dumps({name: value for name, value in fields.items() if not _is_wide(value)})
    for value in (rows.load_row(text), rows.load_robot(text), rows.load_row(garbage), rows.load_robot(garbage)):
        ids = [getattr(value, name, "") for name in ("worker", "conn", "toolset")]
        assert all(set(one) <= ALLOWED and len(one) <= 160 for one in ids)


def _is_wide(value: Any) -> bool:
    """orjson writes integers of 64 bits only."""
    return isinstance(value, int) and not -(2**63) <= value < 2**64
