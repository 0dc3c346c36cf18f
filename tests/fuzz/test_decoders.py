"""A slice of the decoders' cases in every run of the tests; `make fuzz` plays the rest."""

import pytest

from tests.fuzz import decoders

SEED = 20
CASES_EACH = 60


def found(name: str, cases: int) -> list[str]:
    """What so many cases of one target show."""
    numbers = [number for number in range(cases * len(decoders.TARGETS)) if decoders.target_of(number) == name]
    return [text for number in numbers if (text := decoders.judge(SEED, number))]


@pytest.mark.parametrize("name", decoders.TARGETS)
def test_whatever_comes_in_only_what_is_declared_comes_out(name: str) -> None:
    assert found(name, CASES_EACH) == []


@pytest.mark.parametrize("name", ["parsing", "shaping"])
def test_an_exception_that_is_not_declared_is_a_finding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(*_: object) -> bool:
        raise RecursionError("planted")

    monkeypatch.setattr("gateway.jsonrpc.usable_id", cut_short)
    assert {text.partition(" at ")[0] for text in found(name, 60)} == {f"{name}: RecursionError"}


def test_an_output_above_its_limit_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.results.shrink", lambda result, *_: result)
    assert {text.partition(" at ")[0] for text in found("shaping", 150)} == {"shaping: AssertionError"}
