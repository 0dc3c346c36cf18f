"""Several workers on one machine: started, started again when they die, ended with the supervisor.

The workers here are stand-ins that only report; `Started.ended()` returns when the last of them is gone.
"""

import os
import re
import signal

import pytest

from gateway.member import packed, unpacked
from gateway.settings import Settings
from tests.cli.command_line import CommandLine, Started

STARTED = r"^started (\d+) 4711 kkkk$"


async def supervised(cli: CommandLine, workers: int, *options: str) -> tuple[Started, list[int]]:
    """The supervisor, and the process ids of its workers once all run."""
    started = await cli.start(str(workers), *options, module="tests.cli.supervised")
    return started, [int(pid) for pid in await started.until(STARTED, workers)]


async def test_it_starts_as_many_workers_as_are_set_and_hands_them_the_settings(cli: CommandLine) -> None:
    started, pids = await supervised(cli, 3)
    assert len(set(pids)) == 3
    assert started.process.pid not in pids


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_all_workers_and_then_it_with_0(number: signal.Signals, cli: CommandLine) -> None:
    started, _ = await supervised(cli, 2)
    assert await started.stop(number) == 0
    assert "again" not in started.text


async def test_a_worker_that_died_is_started_again_with_a_line_that_says_why(cli: CommandLine) -> None:
    started, pids = await supervised(cli, 2)
    (cli.cwd / f"die-{pids[0]}").touch()
    after = [int(pid) for pid in await started.until(STARTED, 3)]
    assert after[:2] == pids
    assert after[2] not in pids
    assert f"pid={pids[0]} exit_code=3" in started.text
    assert await started.stop() == 0


async def test_a_worker_that_was_killed_is_started_again(cli: CommandLine) -> None:
    started, pids = await supervised(cli, 1)
    os.kill(pids[0], signal.SIGKILL)
    await started.until(STARTED, 2)
    assert "exit_code=-9" in started.text


async def test_a_worker_that_dies_again_and_again_is_given_more_and_more_time(cli: CommandLine) -> None:
    started, pids = await supervised(cli, 1)
    for starts in (2, 3):
        (cli.cwd / f"die-{pids[-1]}").touch()
        pids = [int(pid) for pid in await started.until(STARTED, starts)]
    assert await started.until(r"in_seconds=([\d.]+)", 2) == ["0.5", "1.0"]


async def test_a_signal_while_a_worker_waits_to_be_started_again_ends_it_at_once(cli: CommandLine) -> None:
    started, pids = await supervised(cli, 1)
    (cli.cwd / f"die-{pids[0]}").touch()
    await started.until("in_seconds=")
    assert await started.stop() == 0


async def test_a_second_signal_is_passed_on_and_a_third_kills_workers_that_do_not_end(cli: CommandLine) -> None:
    started, _ = await supervised(cli, 2, "--deaf")
    for times, number in enumerate((signal.SIGTERM, signal.SIGINT), 1):
        started.process.send_signal(number)
        await started.until("/ stopping", times)
    assert re.findall("signal=(SIG[A-Z]+)", started.text) == ["SIGTERM", "SIGINT"]
    assert await started.stop() == 1
    assert started.text.count("is killed") == 2


async def test_a_worker_that_was_drained_is_started_again_at_once_and_without_an_error(cli: CommandLine) -> None:
    started, pids = await supervised(cli, 2)
    for times in (3, 4):
        os.kill(pids[-1], signal.SIGTERM)
        pids = [int(pid) for pid in await started.until(STARTED, times)]
    assert len(set(pids)) == 4
    assert started.text.count("a drained worker is started again") == 2
    assert "in_seconds" not in started.text
    assert "ERROR" not in started.text
    assert await started.stop() == 0


async def test_workers_end_when_the_supervisor_is_killed(cli: CommandLine) -> None:
    started, _ = await supervised(cli, 2)
    assert await started.stop(signal.SIGKILL) == -signal.SIGKILL


async def test_a_ctrl_c_in_the_terminal_reaches_a_worker_only_through_the_supervisor(cli: CommandLine) -> None:
    started, pids = await supervised(cli, 2)
    assert {os.getpgid(pid) for pid in pids}.isdisjoint({os.getpgid(started.process.pid)})


def test_settings_survive_the_way_to_a_worker() -> None:
    settings = Settings(port=1, key=("a", "b"), origins=(), call_seconds=0.5, public_url="https://例.example")
    assert unpacked(packed(settings, 7)) == (settings, 7)
    assert packed(settings).count(b"\n") == 1
