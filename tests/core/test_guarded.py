"""One failing item does not cost the others theirs."""

import pytest

from gateway.guarded import for_each


def test_the_others_are_done_and_the_failure_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    done = []

    def act(item: int) -> None:
        if item == 2:
            raise ValueError("two is bad")
        done.append(item)

    for_each([1, 2, 3], act, "counting")
    assert done == [1, 3]
    assert "counting" in caplog.text
    assert "two is bad" in caplog.text
