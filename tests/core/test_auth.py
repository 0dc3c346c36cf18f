"""Tokens: the form that is deployed, forgiving spelling, and one cause for each thing that can be wrong."""

import base64
import contextlib
import os
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import AGENT_CHARS_MAX, TokenCause, TokenProblem, agent_of, is_key, issue, opener, verify
from tests.peers.token import console_token, encrypt, pad_key

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"
OTHER = "f" * 32
MD5 = "5d41402abc4b2a76b9719d911017c592"


def cause(token: str, *keys: str) -> TokenCause:
    with pytest.raises(TokenProblem) as caught:
        verify(token, keys or (KEY,))
    return caught.value.cause


def token_with(*chars: str) -> tuple[str, str]:
    """An agent and its token that has all of these characters."""
    for number in range(10_000):
        token = issue(agent := f"agent-{number}", KEY)
        if all(char in token for char in chars):
            return agent, token
    raise AssertionError(f"no token has {chars}")


def test_a_token_that_was_pasted_years_ago_still_opens() -> None:
    """Made by mcp-endpoint-server's own code for the agent test1."""
    assert verify("0fBjOA0YclUsK7iEYvt6r2hBxAHCoka5nAL4gj6ZAXQ=", [KEY]) == "test1"


@pytest.mark.parametrize(
    "key", [KEY, "sixteen bytes ok", "x" * 24, "short", "", "much longer than thirty-two bytes, cut", "密钥"]
)
@pytest.mark.parametrize("agent", [MD5, "single_module", "智能体 7", "a"])
def test_tokens_are_those_of_the_console_for_keys_of_any_length(key: str, agent: str) -> None:
    assert issue(agent, key) == console_token(agent, key)
    assert verify(console_token(agent, key), [key]) == agent


def test_the_same_agent_always_gets_the_same_token() -> None:
    assert issue("a", KEY) == issue("a", KEY)


def test_more_blanks_make_another_token_for_the_same_agent() -> None:
    tokens = {issue("a", KEY, blanks=blanks) for blanks in range(20)}
    assert len(tokens) == 20
    assert {verify(token, [KEY]) for token in tokens} == {"a"}


def test_json_without_the_blank_is_accepted() -> None:
    assert verify(encrypt('{"agentId":"single_module"}', KEY), [KEY]) == "single_module"


def test_every_key_verifies() -> None:
    assert verify(issue("a", OTHER), [KEY, OTHER]) == "a"
    assert verify(issue("a", KEY), [KEY, OTHER]) == "a"


def test_a_plus_that_arrived_as_a_blank_is_repaired() -> None:
    agent, token = token_with("+")
    assert verify(token.replace("+", " "), [KEY]) == agent


def test_the_url_safe_alphabet_is_understood() -> None:
    agent, token = token_with("+", "/")
    assert verify(token.replace("+", "-").replace("/", "_"), [KEY]) == agent


def test_missing_padding_is_forgiven() -> None:
    agent, token = token_with("=")
    assert verify(token.rstrip("="), [KEY]) == agent


def test_a_token_that_is_still_percent_encoded_is_decoded() -> None:
    agent, token = token_with("+", "/", "=")
    assert verify(quote(token, safe=""), [KEY]) == agent


def test_a_line_break_that_was_pasted_along_is_forgiven() -> None:
    assert verify(issue("a", KEY) + "\r\n", [KEY]) == "a"


def test_no_token_and_blanks_are_empty() -> None:
    assert cause("") is cause("   ") is TokenCause.EMPTY


def test_a_giant_is_refused_before_anything_is_done_with_it() -> None:
    assert cause("A" * 4097) is TokenCause.TOO_LONG


@pytest.mark.parametrize("token", ["not!base64", "令牌", "AAAAA", "\ud800"])
def test_what_is_no_base64_is_called_so(token: str) -> None:
    assert cause(token) is TokenCause.NOT_BASE64


@pytest.mark.parametrize("token", ["AAAA", "====", base64.b64encode(bytes(17)).decode()])
def test_what_is_no_whole_number_of_blocks_has_a_wrong_length(token: str) -> None:
    assert cause(token) is TokenCause.WRONG_LENGTH


def test_a_token_of_another_gateway_fits_no_key() -> None:
    assert cause(issue("a", OTHER)) is TokenCause.NO_KEY_FITS
    assert cause(issue("a", OTHER), KEY, "x" * 16) is TokenCause.NO_KEY_FITS
    with pytest.raises(TokenProblem):
        verify(issue("a", KEY), [])


@pytest.mark.parametrize("end", [b"\0", b"\x11" * 17, b"\x02", b"\x03\x02\x03", b"\xff" * 16], ids=repr)
def test_what_is_padded_in_no_way_fits_no_key(end: bytes) -> None:
    """As everything does that another key has sealed, but for one in 256."""
    text = b'{"agentId": "a"}'.rjust(48 - len(end)) + end
    encryptor = Cipher(AES(pad_key(KEY)), ECB()).encryptor()
    assert cause(base64.b64encode(encryptor.update(text) + encryptor.finalize()).decode()) is TokenCause.NO_KEY_FITS


def test_a_key_opens_token_after_token_whatever_came_before() -> None:
    openers = [opener(KEY), opener(OTHER)]
    for agent, key in (("a", KEY), ("b", OTHER), ("a" * 200, KEY), ("b", "x" * 16), ("a", KEY)):
        if key in (KEY, OTHER):
            assert agent_of(issue(agent, key), openers) == agent
        else:
            with pytest.raises(TokenProblem):
                agent_of(issue(agent, key), openers)


def test_a_token_that_opens_to_no_json_is_called_so() -> None:
    assert cause(encrypt("agentId=1", KEY)) is TokenCause.NOT_JSON


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '"a"',
        '{"agentId": ""}',
        '{"agentId": null}',
        '{"agentId": 7}',
        '{"agentId": ["a"]}',
        '{"agentId": "a\\n"}',
        '{"agentid": "a"}',
        f'{{"agentId": "{"x" * (AGENT_CHARS_MAX + 1)}"}}',
    ],
)
def test_a_token_without_a_usable_agent_id_is_called_so(text: str) -> None:
    assert cause(encrypt(text, KEY)) is TokenCause.NO_AGENT


def test_the_cause_found_with_the_right_key_wins_over_those_of_the_others() -> None:
    assert cause(encrypt("{}", KEY), OTHER, KEY, "x" * 16) is TokenCause.NO_AGENT


def test_a_problem_tells_only_whether_anything_was_given_to_the_peer() -> None:
    assert TokenProblem(TokenCause.EMPTY).is_missing
    assert not TokenProblem(TokenCause.NO_AGENT).is_missing


def test_every_cause_has_a_text_of_its_own_in_both_languages() -> None:
    assert list(TokenCause.__members__) == [cause.name for cause in TokenCause], "two causes with one text are one"
    assert all(" / " in cause.value for cause in TokenCause)


def test_a_problem_never_repeats_the_token() -> None:
    token = issue("a", OTHER)
    with pytest.raises(TokenProblem) as caught:
        verify(token, [KEY])
    assert token not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("agent", ["", "x" * 257, "a\nb", "\x00"])
def test_no_token_is_issued_for_what_cannot_be_an_agent(agent: str) -> None:
    with pytest.raises(ValueError, match="agent id"):
        issue(agent, KEY)


def test_the_longest_agent_fits_into_a_token_that_is_accepted() -> None:
    assert verify(issue("智" * AGENT_CHARS_MAX, KEY), [KEY]) == "智" * AGENT_CHARS_MAX


def test_a_key_is_recognised_whole_only() -> None:
    assert is_key(KEY, [OTHER, KEY])
    assert not any(is_key(given, [KEY]) for given in ("", KEY[:-1], KEY + "0", KEY.upper(), "\ud800"))
    assert not is_key("", [])


@given(st.text(max_size=200))
def test_whatever_comes_as_token_there_is_an_agent_or_a_problem(token: str) -> None:
    with contextlib.suppress(TokenProblem):
        assert verify(token, [KEY, OTHER])


@given(st.integers(1, 8))
def test_random_blocks_are_refused(blocks: int) -> None:
    assert cause(base64.b64encode(os.urandom(16 * blocks)).decode()) in (TokenCause.NO_KEY_FITS, TokenCause.NOT_JSON)
