"""Who has to leave, and how thousands do."""

from itertools import count
from typing import Any, cast

from gateway.bouncer import CLOSED_PER_TICK, EXPIRED, LEGACY_OFF, REVOKED, Bouncer, Ground
from gateway.connection import Connection, Kind, Wire
from gateway.credential import Credential
from gateway.hub import Hub
from gateway.robotlink import RobotLink
from gateway.rulebook import Rulebook
from tests.support.running import settings

NOW_MS = 10_000


class Plug:
    """A wire that only notes its end."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, str]] = []

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


class Link:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection


class House:
    """A hub full of robots, and the rulebook beside it."""

    def __init__(self, **changes: Any) -> None:
        nobody: Any = None
        self.ids = count()
        self.hub = Hub()
        self.rulebook = Rulebook(settings(), nobody, nobody, lambda book, names: None)
        self.bouncer = Bouncer(settings(**changes), self.hub, self.rulebook)

    def let_in(self, credential: Credential, kind: Kind = Kind.ROBOT) -> Plug:
        plug = Plug()
        connection = Connection(str(next(self.ids)), kind, credential.agent, cast(Wire, plug), credential, "", 0)
        self.hub.add_robot(cast(RobotLink, Link(connection)))
        return plug

    def ground(self, credential: Credential, kind: Kind = Kind.ROBOT) -> Ground | None:
        self.let_in(credential, kind)
        return self.bouncer.ground(self.hub.connections[-1], NOW_MS)


def signed(token_id: str, *, expires_ms: int = 20_000) -> Credential:
    return Credential("home", "call", token_id=token_id, issued_ms=1, expires_ms=expires_ms)


def test_who_is_good_may_stay() -> None:
    assert House().ground(signed("t")) is None
    assert House().ground(Credential("home")) is None


def test_a_token_ends_with_its_expiry_or_its_revocation() -> None:
    house = House()
    assert house.ground(signed("t", expires_ms=NOW_MS)) == EXPIRED
    house.rulebook.revocations.put("token:t", b"{}")
    assert house.ground(signed("t")) == REVOKED
    assert house.ground(signed("u")) is None


def test_old_tokens_end_where_policy_or_setting_switches_them_off_for_that_role() -> None:
    assert House(legacy_tokens="mcp").ground(Credential("home")) == LEGACY_OFF
    assert House(legacy_tokens="mcp").ground(Credential("home"), Kind.TOOL_SERVER) is None
    assert House(legacy_tokens="none").ground(signed("t")) is None
    house = House(legacy_tokens="none")
    house.rulebook.policies.put("home", b'{"legacy_tokens":"all"}')
    assert house.ground(Credential("home")) is None


def test_only_those_that_a_decision_is_about_are_looked_at() -> None:
    house = House()
    one, other = house.let_in(signed("t")), house.let_in(signed("u"))
    house.rulebook.revocations.put("token:t", b"{}")
    house.rulebook.revocations.put("token:u", b"{}")
    house.bouncer.on_change("revoked", ["token:t"], NOW_MS)
    house.bouncer.tick(NOW_MS)
    assert (one.closed, other.closed) == ([(1008, REVOKED.reason)], [])


def test_thousands_leave_in_slices_within_two_seconds_of_ticks() -> None:
    house = House()
    plugs = [house.let_in(Credential("home")) for _ in range(3 * CLOSED_PER_TICK)]
    stays = house.let_in(Credential("other"))
    house.rulebook.revocations.put("agent:home", b"{}")
    for _ in range(2):
        house.bouncer.on_change("revoked", ["agent:home"], NOW_MS)
    for done in (1, 2, 3, 3):
        house.bouncer.tick(NOW_MS)
        assert sum(bool(plug.closed) for plug in plugs) == done * CLOSED_PER_TICK
    assert all(len(plug.closed) == 1 for plug in plugs)
    assert stays.closed == []
    assert 20_000 / CLOSED_PER_TICK * 0.05 <= 2, "a full worker is empty in time"


def test_who_was_pardoned_while_waiting_for_his_turn_stays() -> None:
    house = House()
    plug = house.let_in(signed("t"))
    house.rulebook.revocations.put("token:t", b"{}")
    house.bouncer.on_change("revoked", ["token:t"], NOW_MS)
    house.rulebook.revocations.put("token:t", None)
    house.bouncer.tick(NOW_MS)
    assert plug.closed == []


def test_a_newcomer_whose_token_was_revoked_while_he_was_let_in_is_shown_out() -> None:
    house = House()
    house.rulebook.revocations.put("token:t", b"{}")
    plug = house.let_in(signed("t"))
    house.bouncer.note(house.hub.connections[-1], NOW_MS)
    house.bouncer.tick(NOW_MS)
    assert [code for code, _ in plug.closed] == [1008]


def test_an_expired_token_is_found_although_thousands_came_and_went_before() -> None:
    house = House()
    for number in range(1000):
        house.let_in(signed(f"t{number}"))
        house.bouncer.note(house.hub.connections[-1], NOW_MS)
        house.hub.remove(str(number))
    plug = house.let_in(signed("stays"))
    house.bouncer.note(house.hub.connections[-1], NOW_MS)
    assert len(house.bouncer._expiring) < 200, "those that went are forgotten"
    house.bouncer.tick(19_999)
    assert plug.closed == []
    house.bouncer.tick(22_000)
    assert plug.closed == [(1008, EXPIRED.reason)]


def test_a_token_that_expired_by_a_clock_which_was_set_back_expires_later() -> None:
    house = House()
    plugs = [house.let_in(signed("t")) for _ in range(CLOSED_PER_TICK + 1)]
    for connection in house.hub.connections:
        house.bouncer.note(connection, NOW_MS)
    house.bouncer.tick(20_000)
    house.bouncer.tick(NOW_MS)
    assert sum(not plug.closed for plug in plugs) == 1
    house.bouncer.tick(20_000)
    assert all(plug.closed == [(1008, EXPIRED.reason)] for plug in plugs)
