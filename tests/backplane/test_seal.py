"""Signed messages between workers: what is genuine arrives, and a writer in Redis is heard by nobody."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backplane.envelope import Envelope, decode, encode
from gateway.backplane.keys import Keys
from gateway.backplane.redis import RedisBackplane, RedisOptions
from gateway.backplane.seal import Seal, make_seal
from gateway.setting_rules import UNSIGNED
from tests.backplane.cluster import Cluster, RedisEngine, Seat
from tests.support.waiting import wait_until

OLD, NEW = "old-" * 8, "new-" * 8
HERE, THERE = "mcpgw:in:{here-0}", "mcpgw:in:{there-1}"
REQUEST = encode(Envelope("req", id="5b1f09aa-1", sender="gw-0", agent="home", body=b'{"jsonrpc":"2.0"}'))


def seal(*words: str) -> Seal:
    made = make_seal(words)
    assert made is not None
    return made


# -- what a signature says


@given(st.binary(max_size=300), st.text(max_size=20))
def test_what_was_signed_comes_out_as_it_went_in(body: bytes, reason: str) -> None:
    message = encode(Envelope("req", id="1", reason=reason, body=body))
    assert seal(OLD).open(HERE, seal(OLD).sign(HERE, message)) == message


@given(st.data())
def test_no_byte_can_be_changed_left_out_or_added(data: st.DataObject) -> None:
    signed = seal(OLD).sign(HERE, REQUEST)
    at = data.draw(st.integers(0, len(signed) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != signed[at]))
    for changed in (
        signed[:at] + bytes([other]) + signed[at + 1 :],
        signed[:at] + signed[at + 1 :],
        signed[:at] + bytes([other]) + signed[at:],
    ):
        assert seal(OLD).open(HERE, changed) is None


@pytest.mark.parametrize("channel", [THERE, "mcpgw:ctl", "other:in:{here-0}", ""])
def test_a_message_for_another_channel_or_deployment_is_refused(channel: str) -> None:
    assert seal(OLD).open(channel, seal(OLD).sign(HERE, REQUEST)) is None


def test_an_old_worker_reads_a_signed_message_as_it_always_did() -> None:
    assert list(decode(seal(OLD).sign(HERE, REQUEST))) == list(decode(REQUEST))


def test_without_a_key_there_is_no_seal() -> None:
    assert make_seal(()) is None
    assert make_seal((UNSIGNED,)) is None


def test_a_seal_never_shows_its_keys() -> None:
    assert OLD not in repr(seal(OLD, NEW))
    assert OLD not in repr(RedisOptions(envelope_key=(OLD,)))


# -- changing keys without a gap: any two neighbours of these steps understand each other


@pytest.mark.parametrize(
    "steps",
    [
        [(), (OLD, UNSIGNED), (OLD,)],
        [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)],
        [(OLD,), (OLD, UNSIGNED), ()],
    ],
    ids=["begin to sign", "another key", "no longer sign"],
)
def test_workers_of_two_steps_of_a_roll_out_hear_each_other(steps: list[tuple[str, ...]]) -> None:
    for before, after in pairwise(steps):
        for speaker, hearer in ((before, after), (after, before)):
            signer, opener = make_seal(speaker), make_seal(hearer)
            message = REQUEST if signer is None else signer.sign(HERE, REQUEST)
            assert opener is None or opener.open(HERE, message) == REQUEST, (speaker, hearer)


@pytest.mark.parametrize(("speaker", "hearer"), [((), (OLD,)), ((NEW,), (OLD,)), ((NEW,), (OLD, UNSIGNED))])
def test_a_step_that_is_left_out_is_a_gap(speaker: tuple[str, ...], hearer: tuple[str, ...]) -> None:
    signer = make_seal(speaker)
    assert seal(*hearer).open(HERE, REQUEST if signer is None else signer.sign(HERE, REQUEST)) is None


def test_why_a_message_was_refused_is_told() -> None:
    told: list[tuple[str, str]] = []
    opener = seal(OLD)
    opener.on_refused = lambda channel, cause: told.append((channel, cause))
    opener.open(HERE, REQUEST)
    opener.open(HERE, seal(NEW).sign(HERE, REQUEST))
    assert told == [(HERE, "unsigned"), (HERE, "wrong")]


# -- on Redis


class KeyedEngine(RedisEngine):
    """Workers that sign, and a writer who is not one of them."""

    def __init__(self, engine: RedisEngine) -> None:
        super().__init__(engine.name, engine.server, engine.client, RedisOptions(envelope_key=(OLD,)))


@pytest.fixture
def keyed(redis_engine: RedisEngine) -> Cluster:
    return Cluster(KeyedEngine(redis_engine))


def forged(seat: Seat) -> dict[tuple[str, ...], int]:
    assert isinstance(seat.backplane, RedisBackplane)
    return {labels: count for labels, count in seat.backplane.meters.forged_total.values.items() if count}


async def test_workers_with_a_key_dispatch_answer_and_say_goodbye_to_each_other(keyed: Cluster) -> None:
    async with keyed("here-0", "there-1") as (here, there):
        await here.dispatch("there-1", "1", "2")
        assert [(await there.ear.next()).id for _ in range(2)] == ["1", "2"]
        there.backplane.answer("here-0", Envelope("res", id="1", body=b"{}"))
        assert (await here.ear.next()).body == b"{}"
        here.backplane.withdraw("there-1", Envelope("cancel", id="2"))
        assert (await there.ear.next()).type == "cancel"
        await here.backplane.leave()
        assert (await there.ear.next()).type == "bye"
        assert forged(here) == forged(there) == {}


async def test_what_a_writer_publishes_is_heard_by_nobody_and_counted(
    keyed: Cluster, redis_engine: RedisEngine, caplog: pytest.LogCaptureFixture
) -> None:
    keys, stolen = Keys(), seal(OLD).sign(Keys().mailbox("here-0"), REQUEST)
    async with keyed("here-0", "there-1") as (here, there):
        for message in (REQUEST, seal(NEW).sign(keys.mailbox("there-1"), REQUEST), stolen):
            redis_engine.client.publish(keys.mailbox("there-1"), message)
        for message in (b'{"t":"drain","w":"there-1"}', encode(Envelope("bye", sender="here-0")), stolen):
            redis_engine.client.publish(keys.ctl, message)
        redis_engine.client.publish(keys.mailbox("there-1"), REQUEST * 1000)
        await here.send("there-1", Envelope("query", id="genuine"))
        assert (await there.ear.next()).id == "genuine"
        await wait_until(lambda: sum(forged(there).values()) == 1006, "all of them were counted")
        assert forged(there) == {("unsigned",): 1003, ("wrong",): 3}
        assert here.ear.ids == []
    told = [record for record in caplog.records if getattr(record, "event", "") == "envelope_forged"]
    assert 0 < len(told) < 50, "a flood of them is no flood of lines"
    assert OLD not in caplog.text


async def test_a_forged_message_does_not_take_genuine_ones_along(keyed: Cluster, redis_engine: RedisEngine) -> None:
    channel = Keys().mailbox("there-1")
    genuine = seal(OLD).sign(channel, encode(Envelope("query", id="genuine", sender="here-0")))
    async with keyed("there-1") as (there,):
        redis_engine.client.publish(channel, REQUEST + genuine + REQUEST)
        assert (await there.ear.next()).id == "genuine"
        await wait_until(lambda: forged(there) == {("unsigned",): 2}, "the others were dropped")
        assert there.ear.ids == ["genuine"]


async def test_a_request_in_a_record_is_believed_only_if_it_was_signed_for_this_worker(
    keyed: Cluster, redis_engine: RedisEngine
) -> None:
    async with keyed("here-0", "there-1") as (here, there):
        await here.dispatch("there-1", "1", "2", body=b"{}")
        [first, second] = await there.backplane.pending()
        assert [envelope.id for envelope in decode(first.message)] == ["1"]
        key = Keys().call("there-1", "2")
        redis_engine.client.hset(key, "message", redis_engine.client.hget(key, "message").replace(b"{}", b"[]"))
        assert [record.message for record in await there.backplane.pending()] == [first.message, b""]
        assert second.message
        assert forged(there) == {("wrong",): 1}


async def test_an_answer_in_a_record_is_believed_only_if_it_was_signed_for_who_asked(
    keyed: Cluster, redis_engine: RedisEngine
) -> None:
    async with keyed("here-0", "there-1") as (here, there):
        await here.dispatch("there-1", "1", "2")
        for call_id in ("1", "2"):
            there.backplane.answer("here-0", Envelope("res", id=call_id, body=b'{"right":1}'))
            await here.ear.next()
        wanted = [("there-1", "1"), ("there-1", "2")]
        assert all(record and record.result for record in await here.backplane.read(wanted))
        key = Keys().call("there-1", "2")
        redis_engine.client.hset(key, "result", redis_engine.client.hget(key, "result").replace(b"1}", b"2}"))
        redis_engine.client.hset(Keys().call("there-1", "1"), "result", encode(Envelope("res", id="1", body=b"{}")))
        assert [record and record.result for record in await here.backplane.read(wanted)] == [b"", b""]
        assert forged(here) == {("wrong",): 1, ("unsigned",): 1}


async def test_without_a_key_not_one_byte_is_added(redis_cluster: Cluster, redis_engine: RedisEngine) -> None:
    async with redis_cluster("here-0", "there-1") as (here, there):
        tap = redis_engine.client.pubsub()
        tap.subscribe(Keys().mailbox("there-1"))
        envelope = Envelope("query", id="1", sender="here-0")
        await here.send("there-1", envelope)
        await there.ear.next()
        kinds = {"subscribe"}
        while "message" not in kinds:
            heard = tap.get_message(timeout=5)
            kinds.add(heard["type"])
        assert heard["data"] == encode(envelope)
        tap.close()
