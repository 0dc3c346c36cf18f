"""Each thing that a run looks for is seen where it is planted; without a fault the same cases show nothing."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import arena as arena_module
from tests.fuzz import player
from tests.fuzz.arena import BOUND_SECONDS, Found, arena
from tests.fuzz.cast import ROBOT, TOOL_SERVER
from tests.fuzz.faults import FAULTS
from tests.fuzz.framing import FENCE, FENCE_ID, stated
from tests.fuzz.messages import dialled
from tests.fuzz.plays import case_of
from tests.fuzz.run import Numbered
from tests.fuzz.script import RIGHT, Case, Step, load, minimised
from tests.peers.raw import TEXT, masked_frame

ASKING = masked_frame(TEXT, b'{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{}}')
FENCED = (Step(0, "send", FENCE), Step(0, "expect", FENCE_ID))
SERVER = Case("tool server", (*dialled(0, TOOL_SERVER, "mallory-0"), Step(0, "send", ASKING), *FENCED))
ASKING_ROBOT = Case("robot", (*dialled(0, ROBOT, "mallory-1"), *FENCED))
STRANGER = Case("foreign protocol", (Step(0, "dial"), Step(0, "send", b"\x16\x03\x01\r\n\r\n")))
LIAR = Case("floods", (*dialled(0, ROBOT, "mallory-2"), Step(0, "send", stated(0x81, 2**40, form=64))))


def numbered(*cases: Case) -> list[Numbered]:
    return list(enumerate(cases))


TOGETHER = {
    "raises": "log: a fault of the worker's own",
    "answers oddly": "answer: peer 0: HTTP status 418 is not documented",
    "closes oddly": "answer: peer 0: close code 4444 is not documented",
    "forgets answers": "unanswered: ",
    "logs tokens": "log: a token or a key is in the log",
    "talks": "log: a line that is none",
    "keeps descriptors": "left over: descriptors",
}
"""Faults that don't cover each other, and what the finding begins with."""

CASES = numbered(SERVER, ASKING_ROBOT, STRANGER, LIAR, *[ASKING_ROBOT] * 4)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes is not waited for long."""
    monkeypatch.setattr(player, "ANSWER_SECONDS", 0.7)
    monkeypatch.setattr(player, "END_SECONDS", 0.7)
    monkeypatch.setattr(arena_module, "SETTLE_SECONDS", 0.7)


async def shown(folder: Path, cases: list[Numbered], *faults: str, bound_seconds: float = BOUND_SECONDS) -> list[str]:
    """What a run finds in these cases."""
    async with arena(folder, faults=faults, bound_seconds=bound_seconds) as live:
        found = await live.play(cases) + await live.settle()
    return [f"{entry.fault.kind}: {entry.fault.text}" for entry in found]


@pytest.mark.usefixtures("hurry")
async def test_faults_planted_together_are_all_seen(tmp_path: Path) -> None:
    found = await shown(tmp_path, CASES, *TOGETHER)
    assert {name for name, text in TOGETHER.items() if not any(line.startswith(text) for line in found)} == set()
    assert any("ValueError: planted" in line for line in found)


async def test_nothing_is_seen_where_nothing_is_planted(tmp_path: Path) -> None:
    assert await shown(tmp_path, CASES) == []


@pytest.mark.usefixtures("hurry")
async def test_the_end_of_the_worker_is_seen(tmp_path: Path) -> None:
    found = await shown(tmp_path, numbered(SERVER), "dies", bound_seconds=1.0)
    assert any(line.startswith("dead: ") for line in found)


@pytest.mark.usefixtures("hurry")
async def test_a_call_of_the_innocent_that_takes_too_long_is_seen(tmp_path: Path) -> None:
    found = await shown(tmp_path, numbered(SERVER), "stalls", bound_seconds=0.7)
    assert any(line.startswith("innocent: ") for line in found)


@pytest.mark.usefixtures("hurry")
async def test_a_connection_that_is_never_let_go_is_seen(tmp_path: Path) -> None:
    found = await shown(tmp_path, numbered(ASKING_ROBOT), "holds connections")
    assert {line.partition(":")[0] for line in found} >= {"held"}


async def test_growth_is_seen_in_objects_in_bytes_and_where_it_was_for_a_moment_only(tmp_path: Path) -> None:
    async with arena(tmp_path, faults=["keeps objects", "keeps bytes", "inflates"]) as live:
        await live.is_warm()
        await live.play([(0, ASKING_ROBOT)] * 50 + [(1, SERVER)])
        await live.settle()
        found: list[Found] = await live.grown()
    assert [entry.fault.text.split()[1:3] for entry in found] == [["objects", "more"], ["MiB", "more"], ["MiB", "at"]]


def test_every_fault_that_can_be_planted_has_its_control() -> None:
    alone = {"dies", "stalls", "holds connections", "keeps objects", "keeps bytes", "inflates"}
    assert set(FAULTS) == set(TOGETHER) | alone


def test_the_same_seed_and_number_are_the_same_case_and_others_are_others() -> None:
    assert [case_of(4, number).dump() for number in range(50)] == [case_of(4, number).dump() for number in range(50)]
    assert len({case_of(4, number).dump() for number in range(50)}) > 45


def test_a_kept_case_is_read_as_it_was() -> None:
    for number in range(50):
        case = case_of(9, number)
        assert load(case.dump()) == case


def test_what_a_finding_does_not_need_is_cut_away() -> None:
    noise = [Step(0, "send", Random(number).randbytes(50)) for number in range(20)]
    case = Case("?", (*noise, Step(0, "send", b"x" * 300 + RIGHT + b"y" * 300), *noise))
    small = minimised(case, lambda tried: any(RIGHT in step.data for step in tried.steps), 200)
    assert len(small.steps) == 1
    assert len(small.steps[0].data) < 100
