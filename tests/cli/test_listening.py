"""The sockets on which workers listen."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from gateway.listening import ListenError, listen, reserve


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def port_of(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def test_port_0_takes_a_free_one(stack: ExitStack) -> None:
    one = stack.enter_context(closing(listen("127.0.0.1", 0)))
    stack.enter_context(closing(socket.create_connection(("127.0.0.1", port_of(one)), timeout=5)))


def test_a_port_that_is_taken_is_named_with_the_cure(stack: ExitStack) -> None:
    one = stack.enter_context(closing(listen("127.0.0.1", 0)))
    for attempt in (listen, reserve):
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port_of(one)} .*GATEWAY_PORT"):
            attempt("127.0.0.1", port_of(one))


def test_an_address_that_is_not_ours_is_named(stack: ExitStack) -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:0"):
        stack.enter_context(closing(listen("192.0.2.1", 0)))


def test_all_workers_listen_on_the_reserved_port_and_share_what_comes_evenly(stack: ExitStack) -> None:
    port = port_of(stack.enter_context(closing(reserve("127.0.0.1", 0))))
    workers = [stack.enter_context(closing(listen("127.0.0.1", port, is_shared=True))) for _ in range(3)]
    for _ in range(120):
        stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=5)))
    assert all(waiting(worker) >= 15 for worker in workers)


def test_what_comes_while_a_worker_is_dead_goes_to_the_others(stack: ExitStack) -> None:
    port = port_of(stack.enter_context(closing(reserve("127.0.0.1", 0))))
    dead, alive = (listen("127.0.0.1", port, is_shared=True) for _ in range(2))
    stack.enter_context(closing(alive))
    dead.close()
    for _ in range(20):
        stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=5)))
    assert waiting(alive) == 20


def test_a_second_gateway_does_not_slip_in_beside_the_workers_of_the_first(stack: ExitStack) -> None:
    port = port_of(stack.enter_context(closing(reserve("127.0.0.1", 0))))
    stack.enter_context(closing(listen("127.0.0.1", port, is_shared=True)))
    for attempt in (listen, reserve):
        with pytest.raises(ListenError):
            attempt("127.0.0.1", port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_the_empty_ipv6_address_means_both_families(stack: ExitStack) -> None:
    port = port_of(stack.enter_context(closing(listen("::", 0))))
    stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=5)))


def waiting(listening: socket.socket) -> int:
    """Accept and close what has arrived; how many that were."""
    listening.setblocking(False)
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
