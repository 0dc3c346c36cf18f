"""What only Redis can do to us, and what must become of it."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from gateway.backplane.base import BackplaneUnavailable, Change, RobotRow, Verdict
from gateway.backplane.envelope import Envelope
from gateway.backplane.keys import Keys, agent_tag
from gateway.backplane.redis import RedisBackplane, RedisOptions
from gateway.backplane.rows import dump_member
from gateway.directory import Claim, Row, Seen
from tests.backplane.cluster import BOUND_SECONDS, Cluster, Ear, RedisEngine, Seat, seated
from tests.backplane.proxy import Proxy, proxied
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

RIGHTS = "~mcpgw:* &mcpgw:* -@all +@read +@write +@pubsub +@scripting +@connection +time -@dangerous"
QUICK = RedisOptions(timeout_seconds=0.5, patience_seconds=0.2, ping_seconds=0.1)


# -- connections


async def test_a_worker_needs_two_named_connections_and_no_more(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        async with asyncio.TaskGroup() as tasks:
            for at in range(50):
                tasks.create_task(w.backplane.snapshot(f"a{at}"))
        names = [client["name"] for client in redis_engine.client.client_list()]
        assert sorted(name for name in names if name) == ["mcpgw:w:cmd", "mcpgw:w:sub"]


async def test_no_connection_is_left_after_a_session(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w"):
        pass
    await wait_until(lambda: len(redis_engine.client.client_list()) == 1, "only the test's own connection is left")


async def test_a_unix_socket_does(redis_engine: RedisEngine) -> None:
    async with seated(RedisBackplane(redis_engine.server.unix_url, "w")) as (w,):
        assert await w.send("w", Envelope("probe")) == 1


async def test_another_database_and_prefix_keep_deployments_apart(redis_engine: RedisEngine) -> None:
    of = redis_engine.server.url
    there = RedisBackplane(f"{of}/1", "w", RedisOptions(prefix="other:"))
    async with seated(RedisBackplane(of, "w"), there) as (w, other):
        await w.backplane.commit("a", 0, Change({"s": w.row()}))
        assert (await other.snapshot("a")).revision == 0
        assert redis_engine.client.exists("mcpgw:servers:{a}") == 1


@pytest.mark.parametrize("login", [":s3cret", "default:s3cret", "nobody:s3cret", "nobody:s3%63ret"])
async def test_a_wrong_password_is_told_without_telling_it(
    redis_engine: RedisEngine, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    redis_engine.client.config_set("requirepass", "right")
    redis_engine.client.execute_command("AUTH right")
    backplane = RedisBackplane(f"redis://{login}@127.0.0.1:{redis_engine.server.port}", "w")
    try:
        with pytest.raises(BackplaneUnavailable, match=r"(?i)invalid username-password pair") as refused:
            async with backplane.session(Ear()):
                pass
    finally:
        redis_engine.client.config_set("requirepass", "")
    assert "s3cret" not in f"{refused.value} {backplane!r} {backplane.trouble} {caplog.text}"


async def test_nothing_listening_is_told_with_the_address(own_server: RedisServer) -> None:
    own_server.stop()
    backplane = RedisBackplane(own_server.url, "w")
    with pytest.raises(BackplaneUnavailable, match=f"127.0.0.1:{own_server.port}"):
        async with backplane.session(Ear()):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "http://:s3cret@host",
        "redis://:s3cret/more@host:6379",
        "redis://user:s3cret?x@host:6379",
        "redis://:s3cret@host:6379/0?nonsense=1",
        "redis://:s3cret@host:port",
        "redis://:s3cret@host?db=x",
        "rediss://:s3cret@host?ssl_cert_reqs=maybe",
        "",
    ],
)
def test_a_url_that_can_not_be_used_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="GATEWAY_REDIS_URL") as refused:
        RedisBackplane(url, "w")
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_the_documented_rights_suffice(redis_engine: RedisEngine) -> None:
    redis_engine.client.execute_command(f"ACL SETUSER gateway reset on >pw {RIGHTS}")
    url = f"redis://gateway:pw@127.0.0.1:{redis_engine.server.port}"
    try:
        async with seated(RedisBackplane(url, "v"), RedisBackplane(url, "w")) as (v, w):
            await do_everything(v, w)
    finally:
        redis_engine.client.execute_command("ACL", "DELUSER", "gateway")


async def test_a_right_that_is_missing_is_told(redis_engine: RedisEngine) -> None:
    redis_engine.client.execute_command("ACL", "SETUSER", "poor", "reset", "on", ">pw", "+@all", "~mcpgw:*")
    url = f"redis://poor:pw@127.0.0.1:{redis_engine.server.port}"
    backplane = RedisBackplane(url, "w")
    try:
        with pytest.raises(BackplaneUnavailable, match=r"(?i)permission"):
            async with backplane.session(Ear()):
                pass
    finally:
        redis_engine.client.execute_command("ACL", "DELUSER", "poor")


async def do_everything(v: Seat, w: Seat) -> None:
    """Every verb of the backplane once."""
    await w.backplane.watch("a")
    revision = await v.backplane.commit("a", 0, Change({"s": v.row(toolset="d")}, toolsets={"d": b"[]"}))
    await wait_until(lambda: w.ear.catalogs == [("a", revision)], "the change is heard")
    await w.backplane.unwatch("a")
    await v.backplane.put_robots({("a", "c"): RobotRow("v", "", 1), ("智", "c"): RobotRow("v", "", 1)})
    assert await w.backplane.toolsets(["d"]) == {"d": b"[]"}
    assert await v.dispatch("w", "1", "2", "3") == [Verdict.OK] * 3
    assert [(await w.ear.next()).id for _ in range(3)] == ["1", "2", "3"]
    w.backplane.answer("v", Envelope("res", id="1"))
    w.backplane.drop("2", "v", Envelope("nack", id="2"))
    assert [(await v.ear.next()).id for _ in range(2)] == ["1", "2"]
    v.backplane.withdraw("w", Envelope("cancel", id="3"))
    assert (await w.ear.next()).id == "3"
    assert await w.backplane.pending() == []
    await w.backplane.put_toolsets({"e": b"[]"})
    await w.backplane.renew(["a", "智"])
    await w.backplane.changed(1)
    await w.backplane.event("join", {})
    assert set((await w.backplane.overview(limit=5)).robots) == {"a", "智"}
    await v.backplane.leave()
    assert (await w.ear.next()).type == "bye"
    await w.backplane.bury("v", await w.backplane.owned("v"))
    assert await w.backplane.alive(["v"]) == set()


# -- how much is asked of it


async def test_agents_that_change_together_are_listed_and_owned_together(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        before = Counter(_calls(redis_engine))
        async with asyncio.TaskGroup() as tasks:
            for at in range(50):
                tasks.create_task(w.backplane.commit(f"a{at}", 0, Change({"s": w.row()})))
        spent = Counter(_calls(redis_engine)) - before
        assert spent["zadd"] + spent["sadd"] <= 10
        assert len(await w.backplane.changed(1)) == len(await w.backplane.owned("w")) == 50


@pytest.mark.parametrize("words", [(True, True, False, True), (True, True, False), (False, False, True, False)])
async def test_of_a_row_that_comes_and_goes_the_last_word_counts(
    redis_engine: RedisEngine, words: tuple[bool, ...]
) -> None:
    """One connection ends while the next one of the same tool server is registered."""
    async with Cluster(redis_engine)("w") as (w,):
        directory: Any = w.backplane
        member = dump_member("server", "a", "s")
        for ended in [directory._owning.begin((member, is_mine)) for is_mine in words]:
            assert await ended is None
        assert await w.backplane.owned("w") == [("server", "a", "s")] * words[-1]


async def test_lines_of_the_event_log_that_come_together_are_written_together(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        before = Counter(_calls(redis_engine))
        for at in range(50):
            w.backplane.note_event("join", {"agent": f"a{at}", "server": "s"})
        await w.backplane.event("leave", {"cause": "智"})
        lines = [fields for _, fields in redis_engine.client.xrange("mcpgw:events")]
        assert (Counter(_calls(redis_engine)) - before)["evalsha"] <= 3
    assert [line[b"agent"].decode() for line in lines[:-1]] == [f"a{at}" for at in range(50)]
    assert lines[-1] == {b"kind": b"leave", b"worker": b"w", b"cause": "智".encode()}


async def test_lines_that_were_noted_last_are_written_when_the_session_ends(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        for at in range(500):
            w.backplane.note_event("leave", {"at": at})
    lines = [int(line[b"at"]) for _, line in redis_engine.client.xrange("mcpgw:events")]
    assert lines == list(range(500))


async def test_a_change_of_thousands_of_names_is_taken_whole(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        claims = {f"n{at}": Claim("s", f"n{at}", 1, 0) for at in range(5000)}
        revision = await w.backplane.commit("a", 0, Change(claims=claims))
        assert revision is not None
        assert (await w.snapshot("a")).claims == claims
        await w.backplane.commit("a", revision, Change(claims=dict.fromkeys(claims)))
        assert (await w.snapshot("a")).claims == {}


async def test_the_store_is_not_asked_again_for_tools_that_it_has_for_certain(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        tools = {"d": b"[]"}
        revision = await w.backplane.commit("a", 0, Change({"s": w.row()}, toolsets=tools))
        assert revision is not None
        before = Counter(_calls(redis_engine))
        assert await w.backplane.commit("a", revision, Change({"t": w.row()}, toolsets=tools)) is not None
        spent = Counter(_calls(redis_engine)) - before
        assert (spent["set"], spent["pexpire"]) == (1, 3)  # the revision; the rows, what is owned, the list of agents


async def test_after_a_lost_connection_nothing_is_certain_of_tools(redis_engine: RedisEngine) -> None:
    """Who answers now may be another server, which never heard of them."""
    async with Cluster(redis_engine)("w") as (w,):
        revision = await w.backplane.commit("a", 0, Change({"s": w.row()}, toolsets={"d": b"[]"}))
        assert revision is not None
        redis_engine.client.delete("mcpgw:toolset:d")
        redis_engine.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until(lambda: w.ear.gaps > 0, "the connection is there again")
        await w.backplane.commit("a", revision, Change({"t": w.row()}, toolsets={"d": b"[]"}))
        assert await w.backplane.toolsets(["d"]) == {"d": b"[]"}


def _calls(engine: RedisEngine) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in engine.client.info("commandstats").items()}


# -- the keys, which operators read


async def test_every_key_is_of_the_documented_name_and_kind(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, _):
        full = Change({"s": v.row()}, {"n": Claim("s", "n", 1, 2)}, {"s": Seen(1)}, {"d": b"[]"})
        await v.backplane.commit("a", 0, full)
        await v.backplane.put_robots({("智能体", "c"): RobotRow("v", "esp", 1)})
        await v.backplane.event("join", {"agent": "a"})
        await v.dispatch("w", "1")
        client = redis_engine.client
        kinds = {name.decode(): client.type(name).decode() for name in client.scan_iter()}
        assert kinds == {
            "mcpgw:workers": "zset",
            "mcpgw:worker:{v}": "hash",
            "mcpgw:worker:{w}": "hash",
            "mcpgw:agents": "zset",
            "mcpgw:rev:{a}": "string",
            "mcpgw:servers:{a}": "hash",
            "mcpgw:names:{a}": "hash",
            "mcpgw:seen:{a}": "hash",
            f"mcpgw:robots:{{h-{hashlib.sha256('智能体'.encode()).hexdigest()[:32]}}}": "hash",
            "mcpgw:toolset:d": "string",
            "mcpgw:owned:{v}": "set",
            "mcpgw:inflight:{w}": "zset",
            "mcpgw:call:{w}:1": "hash",
            "mcpgw:events": "stream",
        }


async def test_rows_are_json_that_people_can_read(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        await w.backplane.commit("智能体", 0, Change({"计算": w.row(name="计算器")}))
        text = redis_engine.client.hget(Keys().servers(agent_tag("智能体")), "计算")
        assert text == '{"state":"up","worker":"w","conn":"c","since":1,"name":"计算器","agent":"智能体"}'.encode()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"state":"up"}', b'{"state":1,"worker":2}', b"\xff"])
async def test_a_broken_row_counts_as_absent(redis_engine: RedisEngine, text: bytes) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        await w.backplane.commit("a", 0, Change({"s": w.row()}))
        redis_engine.client.hset("mcpgw:servers:{a}", "broken", text)
        redis_engine.client.hset("mcpgw:names:{a}", "broken", text)
        redis_engine.client.expire("mcpgw:names:{a}", 100)
        redis_engine.client.hset("mcpgw:seen:{a}", "broken", b"{")
        redis_engine.client.expire("mcpgw:seen:{a}", 100)
        snapshot = await w.snapshot("a")
        assert (snapshot.rows, snapshot.claims, snapshot.seen) == ({"s": w.row()}, {}, {})


async def test_a_row_of_the_future_is_read(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        await w.backplane.commit("a", 0, Change({"s": w.row()}))
        row = b'{"state":"up","worker":"w","conn":"c","since":1,"mood":"good","tools":"many"}'
        redis_engine.client.hset("mcpgw:servers:{a}", "s", row)
        assert (await w.snapshot("a")).rows == {"s": Row("up", "w", "c", 1)}


async def test_an_agent_whose_keys_have_expired_is_taken_off_the_list(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        client, long_ago = redis_engine.client, 1000
        await w.backplane.commit("a", 0, Change({"s": w.row()}))
        client.zadd("mcpgw:agents", {"gone": long_ago, "a": long_ago})
        await w.backplane.renew(["a"])
        assert client.zrange("mcpgw:agents", 0, -1) == [b"a"]


async def test_a_worker_that_died_unnoticed_is_taken_off_the_list(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        client, long_ago = redis_engine.client, 1000
        client.zadd("mcpgw:workers", {"clean": long_ago, "unclean": long_ago})
        client.sadd("mcpgw:owned:{unclean}", "x")
        client.expire("mcpgw:owned:{unclean}", 100)
        await w.beat()
        assert client.zrange("mcpgw:workers", 0, -1) == [b"unclean", b"w"]


async def test_every_lifetime_is_three_renewals_long(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, _):
        await v.backplane.commit("a", 0, Change({"s": v.row()}, toolsets={"d": b"[]"}))
        await v.backplane.put_robots({("a", "c"): RobotRow("v", "", 1)})
        await v.dispatch("w", "1")
        client, renewals_ms = redis_engine.client, 3 * 600_000
        for name in client.scan_iter():
            if not re.match(rb"mcpgw:(worker|call|inflight):", name):
                assert client.pttl(name) > renewals_ms - 60_000, name


# -- batches


def commands_since(redis_engine: RedisEngine, before: dict[str, int]) -> Counter[str]:
    """How often each command was run since then."""
    now = command_counts(redis_engine)
    return Counter({name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)})


def command_counts(redis_engine: RedisEngine) -> dict[str, int]:
    stats = redis_engine.client.info("commandstats")
    return {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}


async def test_calls_of_one_turn_are_one_script_and_one_publish(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, w):
        before = command_counts(redis_engine)
        await v.dispatch("w", *(str(at) for at in range(50)))
        counts = commands_since(redis_engine, before)
        assert (counts["evalsha"], counts["publish"], counts["hset"]) == (1, 1, 50)
        await wait_until(lambda: len(w.ear.ids) == 50, "all arrive")


async def test_answers_of_one_turn_are_one_script_and_one_publish_per_caller(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("u", "v", "w") as (u, v, w):
        await u.dispatch("w", *(f"u{at}" for at in range(20)))
        await v.dispatch("w", *(f"v{at}" for at in range(20)))
        before = command_counts(redis_engine)
        for at in range(20):
            w.backplane.answer("u", Envelope("res", id=f"u{at}"))
            w.backplane.answer("v", Envelope("res", id=f"v{at}"))
        await wait_until(lambda: len(u.ear.ids) == len(v.ear.ids) == 20, "all arrive")
        counts = commands_since(redis_engine, before)
        assert (counts["evalsha"], counts["publish"]) == (1, 2)


# -- scripts


async def test_scripts_that_redis_has_forgotten_are_sent_again(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, w):
        redis_engine.client.script_flush()
        assert await v.dispatch("w", "1", "2") == [Verdict.OK, Verdict.OK]
        redis_engine.client.script_flush()
        await do_everything(*await renamed(redis_engine, v, w))


async def renamed(redis_engine: RedisEngine, v: Seat, w: Seat) -> tuple[Seat, Seat]:
    """The same seats, with nothing left of what was done before."""
    redis_engine.client.flushall()
    for seat in (v, w):
        while seat.ear.envelopes:
            await seat.ear.next()
            seat.ear.envelopes.pop()
        await seat.beat()
    return v, w


# -- subscriptions that break


async def test_a_killed_subscription_is_a_gap_and_then_messages_flow(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, w):
        await w.backplane.watch("a")
        for times in (1, 2):
            redis_engine.client.client_kill_filter(_type="pubsub")
            await wait_until(partial(_have_noticed, v, w, times), "both have noticed")
            assert await v.send("w", Envelope("probe", id=str(times))) == 1
            assert (await w.ear.next()).id == str(times)
        revision = await v.backplane.commit("a", 0, Change({"s": v.row()}))
        await wait_until(lambda: w.ear.catalogs == [("a", revision)], "the watched agent is still watched")


def _have_noticed(v: Seat, w: Seat, gaps: int) -> bool:
    return v.ear.gaps == w.ear.gaps == gaps


async def test_the_gap_is_told_only_after_everything_is_subscribed_again(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("w") as (w,):
        agents = [f"a{at}" for at in range(1300)]
        async with asyncio.TaskGroup() as tasks:
            for agent in agents:
                tasks.create_task(w.backplane.watch(agent))
        redis_engine.client.client_kill_filter(_type="pubsub")
        await wait_until(lambda: w.ear.gaps == 1, "the gap is noticed")
        subscribed = redis_engine.client.pubsub_numsub(*(Keys().catalog(agent_tag(agent)) for agent in agents))
        assert {count for _, count in subscribed} == {1}


async def test_a_call_dispatched_into_a_gap_is_either_on_record_or_not_sent(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, w):
        redis_engine.client.client_kill_filter(_type="pubsub")
        (verdict,) = await v.dispatch("w", "1")
        await wait_until(lambda: w.ear.gaps == 1, "the gap is noticed")
        pending = [record.id for record in await w.backplane.pending()]
        assert (verdict, pending) in [(Verdict.NOSUB, []), (Verdict.OK, ["1"])]


async def test_garbage_in_a_mailbox_harms_nobody(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, w):
        for channel in ("mcpgw:in:{w}", "mcpgw:ctl"):
            for garbage in (b"", b"garbage", b"\xff\n", b"{}\n", b'{"len":9}\n'):
                redis_engine.client.publish(channel, garbage)
        await v.send("w", Envelope("probe", id="after"))
        await wait_until(lambda: "after" in w.ear.ids, "what comes after is heard")
        assert w.ear.gaps == 0


# -- a store that goes away


async def test_a_restart_without_data_is_a_gap_and_a_fresh_lease(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        own_server.stop()
        await wait_until(lambda: not w.backplane.is_connected, "the loss is noticed")
        assert str(own_server.port) in w.backplane.trouble
        own_server.start()
        await wait_until(lambda: v.ear.gaps == w.ear.gaps == 1, "both are back")
        assert await v.beat()
        assert await w.beat()
        await wait_until(lambda: w.backplane.is_connected and not w.backplane.trouble, "it says so")
        assert await v.dispatch("w", "1") == [Verdict.OK]


async def test_a_frozen_server_is_unavailable_soon_and_usable_again_afterwards(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v", QUICK), RedisBackplane(own_server.url, "w", QUICK)) as (v, w):
        own_server.freeze()
        async with asyncio.timeout(BOUND_SECONDS):
            with pytest.raises(BackplaneUnavailable):
                await v.backplane.commit("a", 0, Change({"s": v.row()}))
            assert await v.dispatch("w", "1") == [Verdict.UNAVAILABLE]
        await wait_until(lambda: not w.backplane.is_connected, "the watchdog notices, though nothing was asked")
        own_server.thaw()
        await wait_until(lambda: v.backplane.is_connected and w.backplane.is_connected, "both are back")
        await wait_until(lambda: v.ear.gaps and w.ear.gaps, "both know of the gap")
        assert await v.dispatch("w", "2") == [Verdict.OK]
        assert "2" in [record.id for record in await w.backplane.pending()]


async def test_a_call_that_met_a_frozen_server_is_of_unknown_outcome(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v", QUICK), RedisBackplane(own_server.url, "w", QUICK)) as (v, _):
        own_server.freeze()
        assert await v.dispatch("w", "1") == [Verdict.UNKNOWN]
        own_server.thaw()


async def test_while_redis_is_away_everything_fails_at_once(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "w", QUICK)) as (w,):
        own_server.stop()

        async def is_given_up() -> bool:
            return await w.dispatch("w", "x") == [Verdict.UNAVAILABLE]

        await wait_until(is_given_up, "patience has ended")
        with pytest.raises(BackplaneUnavailable, match=str(own_server.port)):
            await w.beat()
        assert await w.send("w", Envelope("probe")) == -1
        w.backplane.answer("w", Envelope("res", id="1"))
        own_server.start()
        await wait_until(lambda: w.backplane.is_connected, "it is back")


async def test_what_was_asked_for_in_a_short_outage_is_done_after_it(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        own_server.stop()
        await wait_until(lambda: not v.backplane.is_connected, "the loss is noticed")
        asking = asyncio.ensure_future(v.backplane.commit("a", 0, Change({"s": v.row()})))
        own_server.start()
        assert await asking is not None
        assert (await w.snapshot("a")).rows == {"s": v.row()}


# -- replies that get lost


@asynccontextmanager
async def behind_proxy(
    redis_engine: RedisEngine, worker_id: str, other_id: str
) -> AsyncGenerator[tuple[Proxy, Seat, Seat], None]:
    """A worker that reaches Redis through a proxy, and one that reaches it directly."""
    async with proxied(redis_engine.server.port) as proxy:
        behind = RedisBackplane(f"redis://127.0.0.1:{proxy.port}", worker_id)
        async with seated(behind, redis_engine.backplane(other_id)) as (seat, other):
            yield proxy, seat, other


async def test_a_call_whose_verdict_got_lost_is_repeated_and_delivered_once(redis_engine: RedisEngine) -> None:
    async with behind_proxy(redis_engine, "v", "w") as (proxy, v, w):
        proxy.is_mute = True
        dispatching = asyncio.ensure_future(v.dispatch("w", "1"))
        assert (await w.ear.next()).id == "1"
        proxy.cut()
        proxy.is_mute = False
        assert await dispatching == [Verdict.OK]
        await v.send("w", Envelope("probe", id="after"))
        await wait_until(lambda: "after" in w.ear.ids, "what comes after is heard")
        assert w.ear.ids == ["1", "after"]


async def test_a_lost_verdict_of_a_worker_that_died_meanwhile_is_unknown(redis_engine: RedisEngine) -> None:
    async with behind_proxy(redis_engine, "v", "w") as (proxy, v, w):
        proxy.is_mute = True
        dispatching = asyncio.ensure_future(v.dispatch("w", "1"))
        assert (await w.ear.next()).id == "1"
        redis_engine.drop_lease("w")
        proxy.cut()
        proxy.is_mute = False
        assert await dispatching == [Verdict.UNKNOWN]


async def test_a_commit_whose_reply_got_lost_is_not_repeated(redis_engine: RedisEngine) -> None:
    async with behind_proxy(redis_engine, "v", "w") as (proxy, v, w):
        await w.backplane.watch("a")
        proxy.is_mute = True
        gone = Row("offline", "v", "c", 1)
        committing = asyncio.ensure_future(v.backplane.commit("a", 0, Change({"s": gone})))
        await wait_until(lambda: w.ear.catalogs, "it was taken")
        proxy.cut()
        proxy.is_mute = False
        with pytest.raises(BackplaneUnavailable):
            await committing
        assert (await w.snapshot("a")).rows == {"s": gone}
        assert len(w.ear.catalogs) == 1


async def test_a_fresh_lease_is_not_forgotten_when_its_reply_gets_lost(redis_engine: RedisEngine) -> None:
    async with behind_proxy(redis_engine, "v", "w") as (proxy, v, _):
        redis_engine.lose_everything()
        proxy.is_mute = True
        beating = asyncio.ensure_future(v.beat())
        await wait_until(lambda: redis_engine.client.exists("mcpgw:worker:{v}"), "the beat was taken")
        proxy.cut()
        proxy.is_mute = False
        with pytest.raises(BackplaneUnavailable):
            await beating
        assert await v.beat()
        assert not await v.beat()


async def test_an_answer_whose_publish_got_lost_is_published_again(redis_engine: RedisEngine) -> None:
    async with behind_proxy(redis_engine, "w", "v") as (proxy, w, v):
        await v.dispatch("w", "1")
        await w.ear.next()
        proxy.cut()
        w.backplane.answer("v", Envelope("res", id="1", body=b"42"))
        assert (await v.ear.next()).body == b"42"
        (record,) = await v.backplane.read([("w", "1")])
        assert record is not None
        assert record.state == "answered"


# -- a store that refuses


async def test_a_full_store_delivers_nothing_and_says_so(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        with own_server.client() as client:
            client.config_set("maxmemory", "1")
            assert await v.dispatch("w", "1", "2") == [Verdict.REFUSED, Verdict.REFUSED]
            with pytest.raises(BackplaneUnavailable, match="memory"):
                await v.beat()
            w.backplane.answer("v", Envelope("res", id="of-before"))
            assert (await v.ear.next()).id == "of-before"
            client.config_set("maxmemory", "0")
        await v.send("w", Envelope("probe", id="after"))
        assert (await w.ear.next()).id == "after"


async def test_a_store_that_became_a_replica_delivers_nothing_and_says_so(own_server: RedisServer) -> None:
    async with seated(RedisBackplane(own_server.url, "v"), RedisBackplane(own_server.url, "w")) as (v, w):
        with own_server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            assert await v.dispatch("w", "1") == [Verdict.REFUSED]
            with pytest.raises(BackplaneUnavailable, match="this is a replica"):
                await v.backplane.commit("a", 0, Change({"s": v.row()}))
            client.execute_command("REPLICAOF", "NO", "ONE")
            await wait_until(lambda: v.backplane.is_connected and w.backplane.is_connected, "it is the primary again")
        assert w.ear.ids == []
        assert await v.dispatch("w", "1") == [Verdict.OK]


async def test_a_key_of_the_wrong_kind_is_an_error_of_that_command_only(redis_engine: RedisEngine) -> None:
    async with Cluster(redis_engine)("v", "w") as (v, w):
        redis_engine.client.set("mcpgw:servers:{a}", "text", ex=100)
        with pytest.raises(BackplaneUnavailable, match="wrong kind"):
            await v.snapshot("a")
        redis_engine.client.set("mcpgw:inflight:{w}", "text", ex=100)
        assert await v.dispatch("w", "1") == [Verdict.REFUSED]
        redis_engine.client.delete("mcpgw:inflight:{w}")
        assert await v.dispatch("w", "1") == [Verdict.OK]
        assert (await w.ear.next()).id == "1"
        assert (await v.snapshot("b")).revision == 0
