"""Clusters of several tests side by side never meet: else the checker counts the neighbour's calls."""

import socket
import subprocess
import sys

import pytest

from tests.support.ports import own_port
from tests.support.redis_server import RedisServer, engines

PROGRAM = next(iter(engines().values()))
ASKED_OF_A_NEIGHBOUR = "from tests.support.ports import own_port; print([own_port() for _ in range(3)])"


def test_a_port_is_given_to_one_process_only_while_nobody_listens_on_it() -> None:
    mine = {own_port() for _ in range(3)}
    neighbour = subprocess.run([sys.executable, "-c", ASKED_OF_A_NEIGHBOUR], capture_output=True, text=True, check=True)
    theirs = {int(port) for port in neighbour.stdout.strip("[]\n").split(",")}
    assert len(mine) == len(theirs) == 3
    assert not mine & theirs


def test_a_port_that_somebody_listens_on_is_not_given() -> None:
    taken = own_port() + 1
    with socket.create_server(("127.0.0.1", taken)):
        assert own_port() != taken


def test_a_redis_server_does_not_take_its_neighbour_for_itself() -> None:
    first, second = RedisServer(PROGRAM), RedisServer(PROGRAM)
    try:
        first.start()
        second.port = first.port
        with pytest.raises(RuntimeError, match="does not start"):
            second.start()
    finally:
        first.close()
        second.close()
