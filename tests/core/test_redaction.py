"""No signed token survives the redaction, wherever it stands; what only looks like one does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credential import Credential
from gateway.redaction import HIDDEN, redact
from gateway.tokens import Keyring

TOKEN = Keyring(["6a369b7f1bcf4d3e8d123ece38bb9627"]).issue(Credential("home", "mcp", "lamp", "an-id", 1000, 2000))
CLOUD = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1c2VySWQiOjEsImFnZW50SWQiOjJ9.c2lnbmF0dXJlLW9mLXRoZS1jbG91ZA"


@pytest.mark.parametrize("token", [TOKEN, CLOUD, TOKEN[:-10], TOKEN.rpartition(".")[0] + "."])
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "closed: {} is no good",
        "wss://h/mcp_endpoint/mcp/?token={}&server_id=x",
        "wss://h/{}/x",
        'Authorization: Bearer {}"',
        "令牌{}，无效",
        "('{}',)",
        "a={},b",
        "{}\n{}",
        "x.{}",
        "a.b.c.d.e.{}",
        "?url=wss%3A%2F%2Fh%2F%3Ftoken%3D{}%26x",
        "token_{}",
        "old{} new{}",
        "…{}…",
    ],
)
def test_a_signed_token_is_cut_out_of_any_text(text: str, token: str) -> None:
    told = redact(text.replace("{}", token))
    assert HIDDEN in told
    assert all(part not in told for part in token.split(".") if len(part) > 8)


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_stands_around_it_no_part_of_its_claims_is_left(before: str, after: str) -> None:
    told = redact(before + TOKEN + after)
    assert all(part not in told for part in TOKEN.split(".")[1:])


@pytest.mark.parametrize(
    "text",
    [
        "eyes.open",
        "key.value",
        "gateway.wire.close",
        "hey.you",
        "v1.2.3",
        "eyJ",
        "eyjafjallajökull.is",
        "monkey-island-of-the-south.example.com",
        "eyJ.eyJ",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text


GIANTS = ["eyJ", "eyJ.", "a." + "eyJ" * 9, "a://b:", "@a://b:", "a.", "token ", "token=", "bearer ", "://@", "a://b:c@"]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("part", GIANTS)
def test_a_giant_text_is_searched_in_one_pass(part: str) -> None:
    """It takes milliseconds, or minutes."""
    giant = part * (150_000 // len(part))
    assert redact(giant)
    assert redact(f"@ {giant}")


@pytest.mark.parametrize(
    "url", ["redis://u:p/w@h", "see rediss://:pw:pw@h:1/0, a@b", "x redis+sentinel://u:pw@a,b/c y"]
)
def test_a_password_in_a_url_is_cut_out(url: str) -> None:
    assert "p/w" not in redact(url)
    assert "pw" not in redact(url)
    assert HIDDEN in redact(url)
