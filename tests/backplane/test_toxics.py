"""The bad network of the tests: each of its faults, seen from a client, and that it can be switched off again."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support import netns
from tests.support.redis_server import RedisServer, engines, running
from tests.support.toxics import Toxics
from tests.support.waiting import wait_until

SECONDS = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running(next(iter(engines().values()))) as started:
        yield started


@pytest.fixture
def toxics(server: RedisServer) -> Iterator[Toxics]:
    with Toxics("127.0.0.1", server.port) as started:
        yield started


@contextmanager
def dialled(toxics: Toxics) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", toxics.port), timeout=SECONDS) as client:
        yield client


def ask(client: socket.socket, text: str = "hello") -> str:
    """What an ECHO of that text comes back as."""
    client.sendall(f"ECHO {text}\r\n".encode())
    return heard(client, len(f"${len(text)}\r\n{text}\r\n")).splitlines()[-1]


def heard(client: socket.socket, size: int) -> str:
    got = b""
    while len(got) < size:
        piece = client.recv(size - len(got))
        assert piece, f"it ended after {got!r}"
        got += piece
    return got.decode()


def is_silent(client: socket.socket, seconds: float = 0.2) -> bool:
    """Whether nothing comes, not even an end, for that long."""
    client.settimeout(seconds)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(SECONDS)
    return False


def test_untouched_it_is_a_plain_wire(toxics: Toxics) -> None:
    with dialled(toxics) as client:
        assert ask(client) == "hello"
        assert ask(client, "x" * 50_000) == "x" * 50_000


async def test_inside_a_loop_it_works_the_same_way_without_a_thread(server: RedisServer) -> None:
    async with Toxics("127.0.0.1", server.port) as toxics:
        with server.client() as admin:
            before = len(admin.client_list())
            with dialled(toxics) as client:
                await wait_until(lambda: toxics.connections == 1, "the connection")
                toxics.reset()
                await wait_until(lambda: toxics.connections == 0, "its end")
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            await wait_until(lambda: len(admin.client_list()) == before, "the server hears of it")


@pytest.mark.parametrize("way", ["up", "down"])
def test_latency_delays_one_direction_and_keeps_the_order(toxics: Toxics, way: str) -> None:
    direction = getattr(toxics, way)
    direction.latency_ms, direction.jitter_ms = 50, 50
    with dialled(toxics) as client:
        started = time.monotonic()
        for number in range(20):
            client.sendall(f"ECHO {number:02}\r\n".encode())
        assert heard(client, 20 * 8).split("\r\n")[1::2] == [f"{number:02}" for number in range(20)]
        assert time.monotonic() - started >= 0.05


def test_a_reset_is_a_reset_for_the_client_and_the_next_connection_works(toxics: Toxics) -> None:
    with dialled(toxics) as client:
        assert ask(client) == "hello"
        toxics.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with dialled(toxics) as client:
        assert ask(client) == "hello"


def test_swallowed_replies_leave_the_request_done_and_nothing_closed(toxics: Toxics, server: RedisServer) -> None:
    with dialled(toxics) as client, server.client() as admin:
        assert ask(client) == "hello"
        toxics.swallow(up=False)
        client.sendall(b"PUBLISH nobody there\r\nSET swallowed 1 PX 60000\r\n")
        assert is_silent(client)
        assert admin.get("swallowed") == b"1"


def test_swallowed_requests_do_not_arrive_and_nothing_is_closed(toxics: Toxics, server: RedisServer) -> None:
    with dialled(toxics) as client, server.client() as admin:
        assert ask(client) == "hello"
        toxics.swallow(down=False)
        client.sendall(b"SET forgotten 1 PX 60000\r\n")
        assert is_silent(client)
        assert admin.get("forgotten") is None


def test_a_connection_with_a_hole_is_reset_when_it_is_heard_again(toxics: Toxics) -> None:
    with dialled(toxics) as client:
        assert ask(client) == "hello"
        toxics.swallow(down=False)
        client.sendall(b"PING\r\n")
        assert is_silent(client)
        toxics.heal()
        client.sendall(b"PING\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_dead_connection_stays_dead_beside_new_ones_that_work(toxics: Toxics) -> None:
    with dialled(toxics) as dead, dialled(toxics) as reset:
        assert [ask(dead), ask(reset)] == ["hello", "hello"]
        toxics.deaden(up=False)
        for client in (dead, reset):
            client.sendall(b"PING\r\n")
            assert is_silent(client)
        with dialled(toxics) as another:
            assert ask(another) == "hello"
        toxics.reset()
        with pytest.raises(ConnectionResetError):
            reset.recv(1)


def test_the_servers_end_is_swallowed_as_well(toxics: Toxics) -> None:
    with dialled(toxics) as client:
        assert ask(client) == "hello"
        toxics.swallow(up=False)
        client.sendall(b"QUIT\r\n")
        assert is_silent(client)


def test_what_was_held_goes_on_in_order_when_the_link_is_back(toxics: Toxics) -> None:
    with dialled(toxics) as client:
        assert ask(client) == "hello"
        toxics.hold()
        client.sendall(b"ECHO a\r\nECHO b\r\n")
        assert is_silent(client)
        toxics.heal()
        assert heard(client, 14).split() == ["$1", "a", "$1", "b"]


def test_slices_are_small_and_add_up(toxics: Toxics) -> None:
    toxics.down.slice_bytes = 3
    with dialled(toxics) as client:
        client.sendall(b"ECHO 0123456789\r\n")
        sizes = [len(client.recv(100)) for _ in range(2)]
        assert max(sizes) <= 3 * 3
        assert len(heard(client, len("$10\r\n0123456789\r\n") - sum(sizes))) > 0


def test_a_limit_ends_the_connection_after_so_many_bytes(toxics: Toxics) -> None:
    toxics.down.limit_bytes = 5
    with dialled(toxics) as client, pytest.raises(ConnectionResetError):
        ask(client)


def test_a_narrow_link_takes_its_time(toxics: Toxics) -> None:
    toxics.down.bytes_per_second = 10_000
    with dialled(toxics) as client:
        started = time.monotonic()
        ask(client, "x" * 1000)
        ask(client, "x" * 1000)
        assert time.monotonic() - started >= 0.1


def test_a_blackhole_accepts_and_says_nothing_until_it_is_healed(toxics: Toxics) -> None:
    toxics.blackhole()
    with dialled(toxics) as client:
        client.sendall(b"PING\r\n")
        assert is_silent(client)
        toxics.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with dialled(toxics) as client:
        assert ask(client) == "hello"


def test_refusing_leaves_open_connections_alone_and_ends_on_the_same_port(toxics: Toxics) -> None:
    with dialled(toxics) as client:
        assert ask(client) == "hello"
        toxics.refuse()
        with pytest.raises(ConnectionRefusedError), dialled(toxics):
            pass
        assert ask(client) == "hello"
        toxics.heal()
        with dialled(toxics) as another:
            assert ask(another) == "hello"


def test_a_server_that_is_gone_is_a_reset_or_an_end() -> None:
    with running(next(iter(engines().values()))) as short_lived, Toxics("127.0.0.1", short_lived.port) as toxics:
        with dialled(toxics) as client:
            assert ask(client) == "hello"
            short_lived.stop()
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
        with suppress(ConnectionResetError), dialled(toxics) as client:
            assert client.recv(1) == b""


@pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())
def test_a_pulled_cable_is_silence_and_what_was_sent_arrives_when_it_is_plugged_in(server: RedisServer) -> None:
    with netns.cable() as cable, running_at(cable) as client:
        assert ask(client) == "hello"
        cable.down()
        client.sendall(b"ECHO late\r\n")
        assert is_silent(client, 0.3)
        cable.up()
        assert heard(client, len("$4\r\nlate\r\n")).split() == ["$4", "late"]


@contextmanager
def running_at(cable: netns.Cable) -> Iterator[socket.socket]:
    """A client of a server that runs behind the cable."""
    with (
        running(next(iter(engines().values())), behind=cable) as server,
        socket.create_connection((cable.inside, server.port), timeout=SECONDS) as client,
    ):
        yield client
