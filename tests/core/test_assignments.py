"""`KEY=VALUE` of `mcp-gateway policy set`: what it does to a policy, and what is said of one that means nothing."""

from typing import Any

import pytest

from gateway.assignments import KEYS, assigned
from gateway.policy import PolicyProblem, checked


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("tools.deny=a,b/*", {"tools": {"deny": ["a", "b/*"]}}),
        ("tools.allow=[]", {"tools": {"allow": []}}),
        ('servers.allow=["with, comma"]', {"servers": {"allow": ["with, comma"]}}),
        ("tools.deny+=a, b", {"tools": {"deny": ["a", "b"]}}),
        ("tools.deny-=a", {"tools": {"deny": []}}),
        ("timeouts.calc/*=5", {"timeouts": {"calc/*": 5.0}}),
        ("timeouts.v1.2_a=b=0.5", {"timeouts": {"v1.2_a=b": 0.5}}),
        ("result_bytes.*=64KiB", {"result_bytes": {"*": 65_536}}),
        ("duplicates=hide", {"duplicates": "hide"}),
        ("limits.catalog_bytes=1MiB", {"limits": {"catalog_bytes": 1_048_576}}),
        ("limits.calls_per_second=20", {"limits": {"calls_per_second": 20}}),
    ],
)
def test_an_assignment_sets_its_field(text: str, fields: dict[str, Any]) -> None:
    assert assigned({}, [text]) == fields
    assert checked(fields).as_json() == fields


FULL = {
    "tools": {"deny": ["a", "b"], "allow": ["*"]},
    "timeouts": {"a": 5.0},
    "pins": "block",
    "limits": {"robots_per_agent": 7},
}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("tools.allow=", {**FULL, "tools": {"deny": ["a", "b"]}}),
        ("tools.deny+=b,c", {**FULL, "tools": {"deny": ["a", "b", "c"], "allow": ["*"]}}),
        ("tools.deny-=a,z", {**FULL, "tools": {"deny": ["b"], "allow": ["*"]}}),
        ("timeouts.a=", {key: value for key, value in FULL.items() if key != "timeouts"}),
        ("pins=", {key: value for key, value in FULL.items() if key != "pins"}),
        ("limits.robots_per_agent=", {key: value for key, value in FULL.items() if key != "limits"}),
    ],
)
def test_an_assignment_leaves_everything_else_as_it_was(text: str, left: dict[str, Any]) -> None:
    assert assigned(FULL, [text]) == left
    assert FULL["tools"] == {"deny": ["a", "b"], "allow": ["*"]}, "what was read stays as it is"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tools.deny", "KEY=VALUE"),
        ("tool.deny=a", "did you mean tools.deny?"),
        ("tools.denies=a", "did you mean tools.deny?"),
        ("tools=a", "tools.deny"),
        ("timeouts=5", "timeouts.GLOB"),
        ("timeouts.=5", "timeouts.GLOB"),
        ("timeout.a=5", "did you mean timeouts.GLOB?"),
        ("duplicate=hide", "did you mean duplicates?"),
        ("limits.call_per_second=1", "did you mean limits.calls_per_second?"),
        ("timeouts.a=soon", "timeouts.a=soon"),
        ("result_bytes.a=much", "number of bytes"),
        ("limits.robots_per_agent=1.5", "whole number"),
        ("tools.deny=[a", "not valid JSON"),
    ],
)
def test_an_assignment_that_means_nothing_is_named_with_what_was_probably_meant(text: str, named: str) -> None:
    with pytest.raises(PolicyProblem) as caught:
        assigned({}, [text])
    assert named in str(caught.value)
    assert " / " in str(caught.value)


def test_every_key_can_be_assigned() -> None:
    for key in KEYS:
        value = "warn" if key == "pins" else "none" if key == "legacy_tokens" else "65536" if "." in key else "hide"
        value = "5" if key.startswith("timeouts") else value
        assert checked(assigned({}, [f"{key.replace('GLOB', 'a')}={value}"])) != checked({})
