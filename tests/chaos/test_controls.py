"""With a protection switched off the harness sees the damage; with it, in the same scenario, it sees none."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.chaos.controls import CONTROLS, Control, play


@pytest.mark.timeout(120)
@pytest.mark.parametrize("control", CONTROLS, ids=[control.protection.replace(" ", "-") for control in CONTROLS])
def test_the_damage_is_seen_without_the_protection_and_none_with_it(control: Control) -> None:
    with ThreadPoolExecutor(2) as side_by_side:
        runs = [side_by_side.submit(play, control, is_protected=is_protected) for is_protected in (False, True)]
        without, protected = [run.result() for run in runs]
    assert {violation.kind for violation in without} == {control.damage}, "\n".join(map(str, without))
    assert protected == [], "\n".join(map(str, protected))
