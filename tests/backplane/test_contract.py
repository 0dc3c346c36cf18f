"""What a backplane promises, on memory and on every Redis-compatible server that is here."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from gateway.backplane.base import Change, Record, RobotRow, Verdict
from gateway.backplane.envelope import Envelope
from gateway.directory import Claim, Pins, Row, Seen
from tests.backplane.cluster import WORKER_ROW, Cluster, Seat
from tests.support.waiting import wait_until

AGENT = "a"
LONG_AGO_MS = 1


# -- the directory


async def test_pins_are_taken_with_a_change_or_not_at_all_and_people_without_a_row_can_change_them(
    cluster: Cluster,
) -> None:
    async with cluster("v", "w") as (v, w):
        first, second = Pins(5, 0, {"加": "x"}), Pins(5, 9, {"加": "y"}, {"b": ""})
        revision = await v.backplane.commit(AGENT, 0, Change(pins={"s": first, "t": second}))
        assert revision is not None
        assert await w.backplane.commit(AGENT, 0, Change(pins={"s": second})) is None
        assert (await w.snapshot(AGENT)).pins == {"s": first, "t": second}
        assert await w.backplane.commit(AGENT, revision, Change(pins={"s": second, "t": None})) is not None
        assert (await v.snapshot(AGENT)).pins == {"s": second}
        assert (await v.snapshot("b")).pins == {}


async def test_an_agent_nobody_knows_has_revision_zero(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        snapshot = await w.snapshot(AGENT)
        assert (snapshot.revision, snapshot.rows, snapshot.claims, snapshot.seen) == (0, {}, {}, {})


async def test_what_was_committed_is_in_everybodys_next_snapshot(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        row = Row("up", "v", "c", 5, 7, True, "计算器", "1.2", "d1", 3, 0, "", (1, 2))
        claim = Claim("s", "加", 5, 9)
        seen = Seen(1, 2, "lost", "—")
        revision = await v.backplane.commit(AGENT, 0, Change({"s": row}, {"n": claim}, {"s": seen}))
        snapshot = await w.snapshot(AGENT)
        assert (snapshot.revision, snapshot.rows, snapshot.claims) == (revision, {"s": row}, {"n": claim})
        assert snapshot.seen == {"s": seen}


async def test_a_commit_on_an_old_revision_changes_nothing(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        first = await v.backplane.commit(AGENT, 0, Change({"s": v.row()}))
        assert await w.backplane.commit(AGENT, 0, Change({"s": w.row(), "t": w.row()})) is None
        snapshot = await w.snapshot(AGENT)
        assert (snapshot.revision, snapshot.rows) == (first, {"s": v.row()})


async def test_of_two_commits_on_one_revision_exactly_one_is_taken(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(seat.backplane.commit(AGENT, 0, Change({"s": seat.row()}))) for seat in (v, w)]
        taken = [task.result() for task in both]
        assert sorted(revision is None for revision in taken) == [False, True]


async def test_revisions_only_grow_also_after_the_store_lost_everything(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        revisions = [0]
        for _ in range(5):
            revision = await w.backplane.commit(AGENT, revisions[-1], Change({"s": w.row()}))
            assert revision is not None
            revisions.append(revision)
        await wait_until(lambda: w.backplane.now_ms > revisions[-1], "time goes on")
        cluster.engine.lose_everything()
        again = await w.backplane.commit(AGENT, 0, Change({"s": w.row()}))
        assert again is not None
        revisions.append(again)
        assert revisions == sorted(set(revisions))


async def test_a_revision_is_a_time_of_the_store(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        before = (await w.snapshot(AGENT)).now_ms
        revision = await w.backplane.commit(AGENT, 0, Change({"s": w.row()}))
        assert revision is not None
        assert before <= revision <= (await w.snapshot(AGENT)).now_ms


async def test_none_removes_what_it_is_given_for(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        put = Change({"s": w.row()}, {"n": Claim("s", "n", 1, 2)}, {"s": Seen(1)})
        revision = await w.backplane.commit(AGENT, 0, put)
        assert revision is not None
        await w.backplane.commit(AGENT, revision, Change({"s": None}, {"n": None}, {"s": None}))
        snapshot = await w.snapshot(AGENT)
        assert (snapshot.rows, snapshot.claims, snapshot.seen) == ({}, {}, {})


async def test_agents_do_not_see_each_other(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await w.backplane.commit("one", 0, Change({"s": w.row()}))
        assert (await w.snapshot("two")).revision == 0


@pytest.mark.parametrize("agent", ["智能体", "a b", "x" * 200, "h-" + "0" * 32, "{}", "a:b"])
async def test_an_agent_may_have_any_name(cluster: Cluster, agent: str) -> None:
    async with cluster("v", "w") as (v, w):
        await w.backplane.watch(agent)
        revision = await v.backplane.commit(agent, 0, Change({"s": v.row()}))
        await wait_until(lambda: w.ear.catalogs == [(agent, revision)], "the change is heard under the agent's name")
        assert list((await w.backplane.overview(limit=5)).agents) == [agent]
        assert await w.backplane.changed(LONG_AGO_MS) == {agent: revision}
        assert await v.backplane.owned("v") == [("server", agent, "s")]


async def test_only_the_newest_of_the_seen_are_kept(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        first = {f"s{at}": Seen(connected=at) for at in range(100)}
        then = {f"s{at}": Seen(disconnected=at) for at in range(100, 200)}
        revision = await w.backplane.commit(AGENT, 0, Change({}, {}, first))
        assert revision is not None
        await w.backplane.commit(AGENT, revision, Change({}, {}, then))
        kept = (await w.snapshot(AGENT)).seen
        assert sorted(kept) == sorted(f"s{at}" for at in range(72, 200))


async def test_tool_sets_are_found_by_digest(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.backplane.commit(AGENT, 0, Change({"s": v.row(toolset="d")}, toolsets={"d": b"[1]"}))
        await v.backplane.put_toolsets({"e": b"[2]"})
        assert await w.backplane.toolsets(["d", "e", "f", "d"]) == {"d": b"[1]", "e": b"[2]"}


async def test_a_tool_set_that_got_lost_is_put_back(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await w.backplane.put_toolsets({"d": b"[1]"})
        cluster.engine.lose_everything()
        await w.backplane.put_toolsets({"d": b"[1]"})
        assert await w.backplane.toolsets(["d"]) == {"d": b"[1]"}


async def test_a_watcher_hears_each_change_and_no_other_agents(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await w.backplane.watch("one")
        await v.backplane.commit("two", 0, Change({"s": v.row()}))
        first = await v.backplane.commit("one", 0, Change({"s": v.row()}))
        assert first is not None
        second = await v.backplane.commit("one", first, Change({"s": v.row("d")}))
        await wait_until(lambda: len(w.ear.catalogs) >= 2, "both changes are heard")
        assert w.ear.catalogs == [("one", first), ("one", second)]


async def test_the_worker_that_commits_hears_itself(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await w.backplane.watch(AGENT)
        revision = await w.backplane.commit(AGENT, 0, Change({"s": w.row()}))
        await wait_until(lambda: w.ear.catalogs == [(AGENT, revision)], "its own change is heard")


async def test_who_no_longer_watches_no_longer_hears(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await w.backplane.watch("one")
        await w.backplane.watch("two")
        await w.backplane.unwatch("one")
        await v.backplane.commit("one", 0, Change({"s": v.row()}))
        await v.backplane.commit("two", 0, Change({"s": v.row()}))
        await wait_until(lambda: w.ear.catalogs, "the watched agent's change is heard")
        assert [agent for agent, _ in w.ear.catalogs] == ["two"]


async def test_watching_again_after_having_stopped_works(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await w.backplane.watch(AGENT)
        await w.backplane.unwatch(AGENT)
        await w.backplane.watch(AGENT)
        await w.backplane.watch(AGENT)
        revision = await v.backplane.commit(AGENT, 0, Change({"s": v.row()}))
        await wait_until(lambda: w.ear.catalogs == [(AGENT, revision)], "the change is heard once")


async def test_changed_names_the_agents_since_a_time(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        one = await w.backplane.commit("one", 0, Change({"s": w.row()}))
        assert one is not None
        await wait_until(lambda: w.backplane.now_ms > one + 1, "time goes on")
        two = await w.backplane.commit("two", 0, Change({"s": w.row()}))
        assert two is not None
        assert await w.backplane.changed(LONG_AGO_MS) == {"one": one, "two": two}
        assert await w.backplane.changed(one + 1) == {"two": two}
        assert await w.backplane.changed(two + 1) == {}


# -- who owns what


async def test_a_worker_owns_the_rows_that_name_it(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.backplane.commit(AGENT, 0, Change({"s": v.row(), "of-w": w.row()}))
        assert await w.backplane.owned("v") == [("server", AGENT, "s")]
        assert await w.backplane.owned("w") == []


async def test_the_agents_whose_rows_name_a_worker_are_told_apart(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        for agent, row in (("one", v.row()), ("two", w.row()), ("智能体", replace(v.row(), state="offline"))):
            await v.backplane.commit(agent, 0, Change({"s": row, "of-w": w.row()}))
        assert await w.backplane.naming("v", ["智能体", "never", "two", "one"]) == ["智能体", "one"]
        assert await w.backplane.naming("v", []) == []


@pytest.mark.parametrize("how", ["offline", "gone", "another's"])
async def test_a_row_that_is_no_longer_its_own_is_struck_off(cluster: Cluster, how: str) -> None:
    async with cluster("v", "w") as (v, w):
        revision = await v.backplane.commit(AGENT, 0, Change({"s": v.row()}))
        assert revision is not None
        rows = {"offline": replace(v.row(), state="offline"), "gone": None, "another's": w.row()}
        await v.backplane.commit(AGENT, revision, Change({"s": rows[how]}))
        assert await v.backplane.owned("v") == []


async def test_a_worker_is_forgotten_once_it_is_dead_and_clean(cluster: Cluster) -> None:
    async with cluster("dead", "w") as (dead, w):
        await dead.backplane.commit(AGENT, 0, Change({"s": dead.row(), "t": dead.row()}))
        cluster.engine.drop_lease("dead")
        assert await w.backplane.alive(["dead", "w", "never"]) == {"w"}
        await w.backplane.bury("dead", [("server", AGENT, "s")])
        assert "dead" in (await w.backplane.beat(WORKER_ROW, 60)).workers
        await w.backplane.bury("dead", await w.backplane.owned("dead"))
        assert list((await w.backplane.beat(WORKER_ROW, 60)).workers) == ["w"]


async def test_a_worker_that_lives_is_not_forgotten_however_clean(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await w.backplane.bury("v", [])
        assert sorted((await w.backplane.beat(WORKER_ROW, 60)).workers) == ["v", "w"]
        assert await w.backplane.alive(["v"]) == {v.id}


async def test_burying_one_twice_does_no_harm(cluster: Cluster) -> None:
    async with cluster("dead", "w") as (_, w):
        cluster.engine.drop_lease("dead")
        await w.backplane.bury("dead", [])
        await w.backplane.bury("dead", [("robot", AGENT, "c")])
        assert list((await w.backplane.beat(WORKER_ROW, 60)).workers) == ["w"]


# -- leases


async def test_only_the_first_beat_is_fresh(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        assert not await w.beat()
        cluster.engine.drop_lease("w")
        assert await w.beat()
        assert not await w.beat()


async def test_a_beat_after_the_store_lost_everything_is_fresh(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        cluster.engine.lose_everything()
        assert await w.beat()


async def test_a_lease_ends_by_itself(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.beat(lease_seconds=0.05)

        async def is_over() -> bool:
            return await w.backplane.alive(["v"]) == set()

        await wait_until(is_over, "the lease is over")

        async def is_listed_as_over() -> bool:
            beat = await w.backplane.beat(WORKER_ROW, 60)
            return beat.workers["v"] <= beat.now_ms

        await wait_until(is_listed_as_over, "the list says so, some milliseconds later on a busy machine")


async def test_a_beat_tells_every_workers_deadline(cluster: Cluster) -> None:
    async with cluster("v", "w") as (_, w):
        beat = await w.backplane.beat(WORKER_ROW, 30)
        assert sorted(beat.workers) == ["v", "w"]
        assert beat.workers["v"] > beat.workers["w"] > beat.now_ms + 20_000


async def test_who_leaves_has_no_lease_no_mailbox_and_says_bye(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.backplane.leave()
        bye = await w.ear.next()
        assert (bye.type, bye.sender) == ("bye", "v")
        assert await w.backplane.alive(["v"]) == set()
        assert await w.send("v", Envelope("probe")) == 0
        assert list((await w.backplane.beat(WORKER_ROW, 60)).workers) == ["w"]


async def test_who_leaves_without_having_cleaned_up_stays_listed_for_the_reaper(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.backplane.commit(AGENT, 0, Change({"s": v.row()}))
        await v.backplane.leave()

        async def is_listed_as_over() -> bool:
            beat = await w.backplane.beat(WORKER_ROW, 60)
            return beat.workers["v"] <= beat.now_ms

        await wait_until(is_listed_as_over, "the list says so, some milliseconds later on a busy machine")


# -- mailboxes


async def test_an_envelope_arrives_whole_and_names_its_sender(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        sent = Envelope("note", "i", "", "a", "s", 3, "c", "t", 4, 5, "r", body=b'{"x":"\n"}')
        assert await v.send("w", sent) == 1
        assert await w.ear.next() == replace(sent, sender="v")


async def test_envelopes_of_one_sender_keep_their_order_whatever_they_are(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        sending = v.backplane
        for at in range(30):
            sending.send("w", Envelope("note", id=f"n{at}"))
            sending.withdraw("w", Envelope("cancel", id=f"c{at}"))
            sending.answer("w", Envelope("res", id=f"r{at}"))
            sending.drop(f"d{at}", "w", Envelope("nack", id=f"d{at}"))
        expected = [f"{kind}{at}" for at in range(30) for kind in "ncrd"]
        await wait_until(lambda: len(w.ear.ids) == len(expected), "everything arrives")
        assert w.ear.ids == expected


async def test_a_worker_may_write_to_itself(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        assert await w.send("w", Envelope("probe", id="1")) == 1
        assert (await w.ear.next()).id == "1"


async def test_nobody_there_is_told_to_the_sender(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        assert await w.send("nobody", Envelope("probe")) == 0


async def test_nothing_is_called_back_from_inside_the_caller(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        called: list[object] = []
        w.backplane.send("w", Envelope("probe"), called.append)
        assert called == []
        assert w.ear.envelopes == []
        await wait_until(lambda: called and w.ear.envelopes, "it is called back later")


# -- calls


async def test_a_call_reaches_its_worker_and_is_on_record(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        assert await v.dispatch("w", "1", body=b'{"id":1}') == [Verdict.OK]
        envelope = await w.ear.next()
        assert (envelope.type, envelope.id, envelope.sender, envelope.body) == ("req", "1", "v", b'{"id":1}')
        (record,) = await w.backplane.pending()
        assert (record.id, record.state, record.sender, record.agent) == ("1", "sent", "v", "a")
        assert (record.server_id, record.tool) == ("s", "t")
        assert record.message.endswith(b'{"id":1}')


async def test_a_worker_without_a_lease_gets_nothing(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        cluster.engine.drop_lease("w")
        assert await v.dispatch("w", "1") == [Verdict.GONE]
        assert await v.backplane.read([("w", "1")]) == [None]
        await v.send("w", Envelope("probe", id="after"))
        assert (await w.ear.next()).id == "after"


async def test_the_same_id_again_is_a_duplicate_and_delivers_nothing(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        assert await v.dispatch("w", "1") == [Verdict.OK]
        assert await v.dispatch("w", "1", "2", "2") == [Verdict.DUP, Verdict.OK, Verdict.DUP]
        await v.send("w", Envelope("probe", id="after"))
        assert [(await w.ear.next()).id for _ in range(3)] == ["1", "2", "after"]


async def test_a_call_whose_deadline_has_passed_is_late(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        now_ms = (await v.snapshot(AGENT)).now_ms
        assert await v.dispatch("w", "1", due=now_ms - 1) == [Verdict.LATE]
        assert await v.dispatch("w", "2", due=now_ms + 60_000) == [Verdict.OK]
        assert (await w.ear.next()).id == "2"
        assert await v.backplane.read([("w", "1")]) == [None]


async def test_a_mailbox_that_nobody_reads_leaves_nothing_behind(cluster: Cluster) -> None:
    async with cluster("v") as (v,):
        async with cluster("w"):
            pass
        assert await v.dispatch("w", "1", "2") == [Verdict.NOSUB, Verdict.NOSUB]
        assert await v.backplane.read([("w", "1"), ("w", "2")]) == [None, None]


async def test_many_calls_of_one_turn_keep_their_order(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        ids = [str(at) for at in range(600)]
        assert set(await v.dispatch("w", *ids)) == {Verdict.OK}
        await wait_until(lambda: len(w.ear.ids) == len(ids), "all arrive")
        assert w.ear.ids == ids
        assert sorted(record.id for record in await w.backplane.pending()) == sorted(ids)


async def test_an_answer_is_written_down_and_delivered(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.dispatch("w", "1")
        w.backplane.answer("v", Envelope("res", id="1", body=b"42"))
        answer = await v.ear.next()
        assert (answer.type, answer.id, answer.sender, answer.body) == ("res", "1", "w", b"42")
        (record,) = await v.backplane.read([("w", "1")])
        assert record is not None
        assert (record.state, record.message) == ("answered", b"")
        assert record.result.endswith(b"42")
        assert await w.backplane.pending() == []


async def test_an_answer_without_a_record_is_delivered_all_the_same(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        w.backplane.answer("v", Envelope("res", id="never"))
        assert (await v.ear.next()).id == "never"
        assert await v.backplane.read([("w", "never")]) == [None]


async def test_a_call_answered_already_is_not_run_again(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.dispatch("w", "1")
        w.backplane.answer("v", Envelope("res", id="1"))
        await v.ear.next()
        assert await v.dispatch("w", "1") == [Verdict.DUP]


async def test_a_withdrawn_call_is_off_the_record_before_its_worker_is_told(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.dispatch("w", "1")
        await w.ear.next()
        v.backplane.withdraw("w", Envelope("cancel", id="1"))
        assert (await w.ear.next()).type == "cancel"
        assert await w.backplane.pending() == []
        assert await w.backplane.read([("w", "1")]) == [None]


async def test_a_call_withdrawn_in_the_turn_it_was_made_is_off_the_record(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        dispatching = asyncio.ensure_future(v.dispatch("w", "1"))
        await asyncio.sleep(0)
        v.backplane.withdraw("w", Envelope("cancel", id="1"))
        await dispatching
        assert [(await w.ear.next()).type for _ in range(2)] == ["req", "cancel"]
        assert await w.backplane.pending() == []


async def test_a_dropped_call_is_off_the_record_and_its_sender_is_told(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.dispatch("w", "1")
        w.backplane.drop("1", "v", Envelope("nack", id="1", reason="busy"))
        nack = await v.ear.next()
        assert (nack.type, nack.reason) == ("nack", "busy")
        assert await w.backplane.pending() == []


async def test_calls_within_one_worker_are_on_record_but_wait_for_nobody(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        record = Record("1", "sent", "w", AGENT, "s", "t", sent_ms=5)
        w.backplane.note_local([record], [w.backplane.now_ms + 1000])
        assert await v.send("w", Envelope("probe")) == 1

        async def noted() -> Record | None:
            return (await v.backplane.read([("w", "1")]))[0]

        assert await wait_until(noted, "the call is on record") == replace(record, state="local")
        assert await w.backplane.pending() == []
        w.backplane.forget_local(["1"])

        async def forgotten() -> bool:
            return await v.backplane.read([("w", "1")]) == [None]

        await wait_until(forgotten, "the call is off the record")


async def test_a_record_outlives_everybody_only_for_a_while(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.dispatch("w", "1")
        w.backplane.answer("v", Envelope("res", id="1"), keep_seconds=0.05)
        await v.ear.next()

        async def is_over() -> bool:
            return await v.backplane.read([("w", "1")]) == [None]

        await wait_until(is_over, "the record has expired")


# -- robots and the overview


async def test_a_robot_makes_its_agent_known(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await w.backplane.put_robots({(AGENT, "c1"): RobotRow("w", "esp32", 1), (AGENT, "c2"): RobotRow("w", "", 2)})
        overview = await w.backplane.overview(limit=5)
        assert (overview.agents, overview.robots) == ({AGENT: {}}, {AGENT: 2})
        assert AGENT in await w.backplane.changed(LONG_AGO_MS)
        assert await w.backplane.owned("w") == [("robot", AGENT, "c1"), ("robot", AGENT, "c2")]


async def test_an_agent_whose_name_fits_no_key_is_known_by_its_robots_alone(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await w.backplane.put_robots({("智能体", "c"): RobotRow("w", "esp32", 1)})
        assert (await w.backplane.overview(limit=5)).robots == {"智能体": 1}
        assert (await w.backplane.overview(limit=5, agent="智能体")).robots == {"智能体": 1}


async def test_a_robot_that_went_is_no_longer_counted(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await w.backplane.put_robots({(AGENT, "c1"): RobotRow("w", "", 1), (AGENT, "c2"): RobotRow("w", "", 1)})
        await w.backplane.put_robots({(AGENT, "c1"): None})
        assert (await w.backplane.overview(limit=5)).robots == {AGENT: 1}
        assert await w.backplane.owned("w") == [("robot", AGENT, "c2")]


async def test_a_robot_does_not_change_the_catalog(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        revision = await w.backplane.commit(AGENT, 0, Change({"s": w.row()}))
        await w.backplane.put_robots({(AGENT, "c"): RobotRow("w", "", 1)})
        assert (await w.snapshot(AGENT)).revision == revision
        assert await w.backplane.changed(LONG_AGO_MS) == {AGENT: revision}


async def test_the_overview_shows_workers_agents_and_robots_of_all(cluster: Cluster) -> None:
    async with cluster("v", "w") as (v, w):
        await v.backplane.commit(AGENT, 0, Change({"s": v.row()}))
        await w.backplane.put_robots({(AGENT, "c"): RobotRow("w", "", 1)})
        overview = await w.backplane.overview(limit=5)
        assert overview.workers == {"v": WORKER_ROW, "w": WORKER_ROW}
        assert (overview.agents, overview.robots) == ({AGENT: {"s": v.row()}}, {AGENT: 1})
        assert not overview.truncated


async def test_the_overview_shows_no_worker_that_lost_its_lease(cluster: Cluster) -> None:
    async with cluster("v", "w") as (_, w):
        cluster.engine.drop_lease("v")
        assert list((await w.backplane.overview(limit=5)).workers) == ["w"]


async def test_the_overview_is_cut_visibly_newest_first(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        for at in range(4):
            revision = await w.backplane.commit(f"a{at}", 0, Change({"s": w.row()}))
            assert revision is not None
            await wait_until(partial(_is_past, w, revision), "time goes on")
        overview = await w.backplane.overview(limit=2)
        assert (list(overview.agents), overview.truncated) == (["a3", "a2"], True)
        one = await w.backplane.overview(limit=2, agent="a0")
        assert (list(one.agents), one.truncated) == (["a0"], False)


async def test_the_overview_leaves_out_agents_with_nothing_left(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        revision = await w.backplane.commit("empty", 0, Change({"s": w.row()}))
        assert revision is not None
        await w.backplane.commit("empty", revision, Change({"s": None}))
        await w.backplane.commit(AGENT, 0, Change({"s": w.row()}))
        overview = await w.backplane.overview(limit=1)
        assert (list(overview.agents), overview.truncated) == ([AGENT], False)


async def test_renewing_and_noting_events_is_always_possible(cluster: Cluster) -> None:
    async with cluster("w") as (w,):
        await w.backplane.commit(AGENT, 0, Change({"s": w.row()}))
        await w.backplane.renew([AGENT, "unknown"])
        await w.backplane.renew([])
        await w.backplane.event("join", {"agent": AGENT, "server": "s", "epoch": 3})
        assert (await w.snapshot(AGENT)).rows == {"s": w.row()}


# -- sessions


async def test_a_session_can_be_opened_again(cluster: Cluster) -> None:
    async with cluster("v") as (v,):
        again = cluster.engine.backplane("w")
        for _ in range(2):
            async with again.session(v.ear):
                assert await v.send("w", Envelope("probe", id="x")) == 1
                assert (await v.ear.next()).id == "x"


async def test_a_failure_inside_a_session_comes_out_as_it_is(cluster: Cluster) -> None:
    backplane = cluster.engine.backplane("w")
    async with cluster("v") as (v,):
        with pytest.raises(KeyError, match="mine"):
            async with backplane.session(v.ear):
                raise KeyError("mine")


async def test_what_was_asked_for_last_still_goes_out_when_a_session_ends(cluster: Cluster) -> None:
    async with cluster("v") as (v,):
        async with cluster("w") as (w,):
            w.backplane.send("v", Envelope("note", id="last"))
        assert (await v.ear.next()).id == "last"


def _is_past(seat: Seat, time_ms: int) -> bool:
    return seat.backplane.now_ms > time_ms + 1
