"""Signed tokens: what is issued comes back, what strangers make up does not get in, and each cause has its name."""

import base64
import contextlib
import hmac
import re
from dataclasses import replace
from itertools import product
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway import auth, tokens
from gateway.auth import TOKEN_CHARS_MAX, TokenCause, TokenProblem
from gateway.credential import LIFETIME_DAYS_MAX, SERVER_ID_CHARS_MAX, Credential
from gateway.tokens import CLOCK_MS, WORDS_REFUSED, Keyring, admit, claimed, is_signed, refused_words
from gateway.urls import paste_safe_signed_token

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"
OLD = "f" * 32
NOW = 1_800_000_000_000
DAY = 86_400_000
RING = Keyring([KEY])
BRIDGE = Credential("home", "mcp", "lamp", "0123456789abcdefghjk", NOW, NOW + DAY)
CLAIMS = {"jti": "0123456789abcdefghjk", "sub": "home", "role": "mcp", "sid": "lamp", "iat": NOW // 1000}
CLAIMS["exp"] = (NOW + DAY) // 1000


def cause(token: str, ring: Keyring = RING, now_ms: int = NOW) -> TokenCause:
    with pytest.raises(TokenProblem) as caught:
        ring.verify(token, now_ms)
    return caught.value.cause


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def signed(payload: Any = CLAIMS, ring: Keyring = RING, *, header: Any = None, **more: Any) -> str:
    """A token with any content at all, rightly signed with the ring's first key. Bytes are taken as they are."""
    key_id, key = next(iter(ring._signing.items()))
    header = {"typ": "JWT", "alg": "HS256", "kid": key_id, **more} if header is None else header
    parts = [part if isinstance(part, bytes) else orjson.dumps(part) for part in (header, payload)]
    text = ".".join(map(segment, parts))
    return f"{text}.{segment(hmac.digest(key, text.encode(), 'sha256'))}"


# Round trip

_AGENTS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60).filter(auth.is_agent_id)
_TIMES = st.tuples(st.integers(1, 10**13), st.integers(1, LIFETIME_DAYS_MAX * DAY))


@given(
    agent=_AGENTS,
    role=st.sampled_from(["mcp", "call"]),
    server_id=st.sampled_from(["", "lamp", "灯", "a b", "x" * SERVER_ID_CHARS_MAX]),
    token_id=st.text("AZaz09._-", min_size=1, max_size=64).filter(tokens.is_token_id),
    times=_TIMES,
    is_escaped=st.booleans(),
)
def test_what_is_issued_comes_back_whole(
    agent: str, role: Any, server_id: str, token_id: str, times: tuple[int, int], is_escaped: bool
) -> None:
    issued = Credential(agent, role, server_id if role == "mcp" else "", token_id, times[0], sum(times))
    token = RING.issue(issued, is_escaped=is_escaped)
    assert is_signed(token)
    assert RING.verify(token, times[0]) == issued
    assert RING.opened(token).key_id == RING.key_ids[0]


def test_it_is_a_token_by_the_standard_that_other_programs_can_read() -> None:
    assert claimed(RING.issue(BRIDGE)) == {"typ": "JWT", "alg": "HS256", "kid": RING.key_ids[0], **CLAIMS}
    assert RING.verify(signed(), NOW) == BRIDGE


def test_a_legacy_token_is_told_by_itself_and_says_no_more_than_the_agent() -> None:
    assert RING.verify(auth.issue("home", KEY), NOW) == Credential("home")
    assert Credential("home").is_legacy
    assert not BRIDGE.is_legacy


def test_a_signed_token_forgives_what_pasting_does_to_it_and_no_url_spells_it_otherwise() -> None:
    token = RING.issue(BRIDGE)
    assert RING.verify(f" {token}\r\n", NOW) == BRIDGE
    assert quote(token, safe="") == quote_plus(token) == token


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent": ""},
        {"agent": "a\nb"},
        {"agent": "x" * 257},
        {"role": None},
        {"role": "robot"},
        {"token_id": ""},
        {"token_id": "a:b"},
        {"token_id": ".a"},
        {"token_id": "x" * 65},
        {"server_id": "~x"},
        {"server_id": " x"},
        {"server_id": "x" * 65},
        {"role": "call"},
        {"expires_ms": NOW},
        {"expires_ms": NOW + LIFETIME_DAYS_MAX * DAY + 1000},
        {"expires_ms": 10**15},
        {"issued_ms": 0},
    ],
    ids=repr,
)
def test_what_a_token_cannot_say_is_not_issued_and_not_believed_either(wrong: dict[str, Any]) -> None:
    names = {"agent": "sub", "token_id": "jti", "server_id": "sid", "expires_ms": "exp", "issued_ms": "iat"}
    with pytest.raises(ValueError, match=" / "):
        RING.issue(replace(BRIDGE, **wrong))
    claims = {names.get(name, name): value // 1000 if name.endswith("_ms") else value for name, value in wrong.items()}
    assert cause(signed({**CLAIMS, **claims})) in (TokenCause.BAD_CLAIMS, TokenCause.NO_AGENT, TokenCause.EXPIRED)


# Time


def test_a_token_is_good_until_the_moment_of_its_expiry() -> None:
    token = RING.issue(BRIDGE)
    assert RING.verify(token, NOW + DAY - 1) == BRIDGE
    assert cause(token, now_ms=NOW + DAY) is TokenCause.EXPIRED
    assert RING.opened(token).credential == BRIDGE, "whoever inspects it still learns whose it was"


def test_a_clock_that_is_a_little_ahead_is_forgiven_and_one_that_is_not_is_named() -> None:
    token = RING.issue(BRIDGE)
    assert RING.verify(token, NOW - CLOCK_MS) == BRIDGE
    assert cause(token, now_ms=NOW - CLOCK_MS - 1) is TokenCause.NOT_YET


def test_a_time_before_which_a_token_is_not_good_is_heeded() -> None:
    token = signed({**CLAIMS, "nbf": (NOW + 2 * CLOCK_MS) // 1000})
    assert cause(token) is TokenCause.NOT_YET
    assert RING.verify(token, NOW + 2 * CLOCK_MS) == BRIDGE


# Strangers


def public_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_token_without_a_signature_is_refused_whatever_it_calls_its_algorithm() -> None:
    names: list[Any] = ["none", "None", "nOnE", "", "HS256", "HS512", "RS256", "ES256", None, 7, ["HS256"]]
    for name in names:
        header = orjson.dumps({"typ": "JWT", "alg": name, "kid": RING.key_ids[0]})
        token = f"{segment(header)}.{segment(orjson.dumps(CLAIMS))}."
        assert cause(token) in (TokenCause.FOREIGN, TokenCause.BAD_SIGNATURE)


def test_a_right_signature_under_another_algorithms_name_is_refused() -> None:
    names: list[Any] = ["none", "RS256", "ES256", "PS256", "EdDSA", "HS384", "HS512", "hs256", "", None, 7, ["HS256"]]
    for name in names:
        assert cause(signed(alg=name)) is TokenCause.FOREIGN


def test_a_public_key_used_as_a_secret_opens_nothing() -> None:
    """The old confusion: RS256 announced, HMAC made with what everybody may know."""
    known = public_key()
    for alg in ("RS256", "HS256"):
        header = orjson.dumps({"typ": "JWT", "alg": alg, "kid": RING.key_ids[0]})
        text = f"{segment(header)}.{segment(orjson.dumps(CLAIMS))}"
        for secret in (known, known.strip(), b"", b"\0" * 32, KEY.encode(), RING.key_ids[0].encode()):
            assert cause(f"{text}.{segment(hmac.digest(secret, text.encode(), 'sha256'))}") in (
                TokenCause.FOREIGN,
                TokenCause.BAD_SIGNATURE,
            )


def test_the_official_clouds_token_is_called_foreign() -> None:
    cloud = {"userId": 1, "agentId": 2, "endpointId": "agent_2", "purpose": "mcp-endpoint", "iat": 1, "exp": 2}
    assert cause(signed(cloud, header={"alg": "ES256", "typ": "JWT"})) is TokenCause.FOREIGN


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["x"], [], "exp", None, [7], {"exp": 1}], ids=repr)
def test_what_must_be_understood_and_is_not_is_refused(crit: Any) -> None:
    assert cause(signed(crit=crit)) is TokenCause.FOREIGN
    assert cause(signed(crit=crit, x=1)) is TokenCause.FOREIGN


def test_a_payload_that_is_said_to_be_elsewhere_is_refused() -> None:
    assert cause(signed(b64=False, crit=["b64"])) is TokenCause.FOREIGN
    assert cause(signed(b"", b64=False, crit=["b64"])) is TokenCause.FOREIGN


KEY_IDS = ["", "../../etc/passwd", "0", "' OR 1=1 --", "\x00", "令", "x" * 100, None, 7, ["a"], {"a": 1}, True]


@pytest.mark.parametrize("key_id", KEY_IDS, ids=repr)
def test_a_key_id_picks_one_of_our_keys_or_nothing(key_id: Any) -> None:
    assert cause(signed(kid=key_id)) in (TokenCause.NO_KEY_FITS, TokenCause.FOREIGN)


def test_a_key_id_that_is_none_of_ours_costs_the_work_of_one_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time of a refusal would tell which keys still count."""
    work: list[str] = []

    def counted(text: str, key: bytes) -> dict[str, Any]:
        work.append(text)
        return claims_of(text, key)

    claims_of = tokens._claims
    monkeypatch.setattr(tokens, "_claims", counted)
    stranger = RING.issue(BRIDGE)[:-3] + "AAA"
    for token in (stranger, signed(kid="0" * 12), signed(header={"alg": "HS256"}), Keyring([OLD]).issue(BRIDGE)):
        assert cause(token) in (TokenCause.BAD_SIGNATURE, TokenCause.NO_KEY_FITS)
    assert len(work) == 4
    nobodys = Keyring([])
    nobodys._signing = {"0" * 12: tokens._NOBODYS_KEY}
    assert cause(nobodys.issue(BRIDGE)) is TokenCause.NO_KEY_FITS, "whoever knows that work opens nothing by it"


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_comes_with_the_token_is_not_looked_at(name: str) -> None:
    own = {"kty": "oct", "k": segment(b"mine" * 8)}
    text = (
        f"{segment(orjson.dumps({'typ': 'JWT', 'alg': 'HS256', 'kid': RING.key_ids[0], name: own}))}.{segment(b'{}')}"
    )
    assert cause(f"{text}.{segment(hmac.digest(b'mine' * 8, text.encode(), 'sha256'))}") is TokenCause.BAD_SIGNATURE


def test_every_changed_character_is_noticed() -> None:
    token = RING.issue(BRIDGE)
    for at, char in enumerate(token):
        other = "A" if char != "A" else "B"
        with pytest.raises(TokenProblem):
            RING.verify(token[:at] + other + token[at + 1 :], NOW)
        with pytest.raises(TokenProblem):
            RING.verify(token[:at], NOW)


def test_a_second_spelling_of_the_same_signature_is_refused() -> None:
    """The last of 43 characters has two bits that nobody reads, and a lax reader skips what is no base64."""
    head, _, tail = RING.issue(BRIDGE).rpartition(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twins = [head + "." + tail[:-1] + char for char in alphabet if char != tail[-1]]
    for twin in [*twins, f"{head}.{tail}!", f"{head}.!{tail}", f"{head}.{tail}\n="]:
        with pytest.raises(TokenProblem):
            RING.verify(twin, NOW)


@pytest.mark.parametrize("size", [0, 7])
def test_a_giant_is_refused_before_anything_is_done_with_it(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.tokens._jws", None)  # nothing of the library is reached
    assert cause("." * 2 + "A" * (TOKEN_CHARS_MAX - 1 + size)) is TokenCause.TOO_LONG
    assert cause(signed(padding="x" * 200)) is TokenCause.FOREIGN


@pytest.mark.parametrize("content", [b"[" * 190, b'{"a":' * 38, b'{"alg":' + b"1" * 180 + b"}"], ids=["[", "{", "1"])
def test_a_header_that_is_deep_or_has_giant_numbers_is_refused(content: bytes) -> None:
    assert cause(signed(header=content)) is TokenCause.FOREIGN


@pytest.mark.parametrize(
    "token",
    ["..", "...", "a.b.c", " . . ", "令.牌.！", "\ud800..", "%ff.%fe.%00", "eyJ.eyJ.x", "x.\ud800.x", "\x00.\x00.\x00"],
)
def test_scraps_with_dots_are_refused(token: str) -> None:
    with pytest.raises(TokenProblem):
        RING.verify(token, NOW)
    with pytest.raises(TokenProblem):  # behind a header of ours
        RING.verify(token.replace(token.partition(".")[0], signed().partition(".")[0], 1), NOW)


WRONG_TYPES: list[Any] = [None, True, 7, -1, 0, 1.5, "", "1", [], ["home"], {}, {"a": 1}]


@pytest.mark.parametrize("name", ["jti", "sub", "role", "sid", "iat", "exp"])
def test_a_claim_of_a_wrong_type_is_refused_though_the_signature_is_right(name: str) -> None:
    """Only who holds the key can sign such a thing; an old program of ours, or somebody's own."""
    may: dict[str, list[Any]] = {"sid": ["", "1"], "iat": [7, 1.5], "sub": ["1"], "jti": ["1"]}
    for value in WRONG_TYPES:
        if value in may.get(name, []) and not isinstance(value, bool):
            continue
        assert cause(signed({**CLAIMS, name: value})) in (
            TokenCause.BAD_CLAIMS,
            TokenCause.NO_AGENT,
            TokenCause.EXPIRED,
        ), value


@pytest.mark.parametrize("name", ["jti", "sub", "role", "iat", "exp"])
def test_a_missing_claim_is_refused(name: str) -> None:
    rest = {key: value for key, value in CLAIMS.items() if key != name}
    assert cause(signed(rest)) is (TokenCause.NO_AGENT if name == "sub" else TokenCause.BAD_CLAIMS)


DATES = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400, "1e300", "253402300800", "-5", "0", "-0.0"]


@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
def test_a_date_that_is_no_date_is_refused(name: str, date: str) -> None:
    payload = orjson.dumps({**CLAIMS, name: "HERE"}).replace(b'"HERE"', date.encode())
    assert cause(signed(payload)) is TokenCause.BAD_CLAIMS


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b'"home"', b"{", b"\xff", b"[" * 2000, b'{"a":' * 300])
def test_a_signed_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    assert cause(signed(payload)) is TokenCause.BAD_CLAIMS


def test_a_token_that_is_addressed_to_somebody_else_is_refused() -> None:
    assert cause(signed({**CLAIMS, "aud": "another service"})) is TokenCause.BAD_CLAIMS


def test_of_duplicate_claims_the_last_counts_wherever_they_are_read() -> None:
    """As RFC 7515 and RFC 7519 have it, and the same for header and claims, for us and the library."""
    twice = orjson.dumps(CLAIMS)[:-1] + b',"sub":"other","role":"call","sid":""}'
    assert RING.verify(signed(twice), NOW) == replace(BRIDGE, agent="other", role="call", server_id="")
    header = orjson.dumps({"alg": "HS256", "kid": RING.key_ids[0]})
    assert RING.verify(signed(header=b'{"alg":"none",' + header[1:]), NOW) == BRIDGE
    assert cause(signed(header=header[:-1] + b',"alg":"none"}')) is TokenCause.FOREIGN


def test_claims_that_are_not_known_are_no_matter() -> None:
    assert RING.verify(signed({**CLAIMS, "iss": "console", "note": [1]}), NOW) == BRIDGE


@given(st.text(max_size=100), st.text(max_size=100), st.text(max_size=60))
def test_whatever_comes_with_two_dots_is_refused(header: str, payload: str, signature: str) -> None:
    with pytest.raises(TokenProblem):
        RING.verify(f"{header}.{payload}.{signature}", NOW)


@given(st.binary(max_size=190), st.binary(max_size=400))
def test_whatever_is_rightly_signed_there_is_a_credential_or_a_problem(header: bytes, payload: bytes) -> None:
    for token in (signed(payload, header=header), signed(payload)):
        with contextlib.suppress(TokenProblem):
            assert RING.verify(token, NOW)


def test_neither_a_problem_nor_a_keyring_shows_a_secret() -> None:
    token = signed({**CLAIMS, "exp": 1, "iat": 1})
    with pytest.raises(TokenProblem) as caught:
        RING.verify(token, NOW)
    [secret] = RING._signing.values()
    told = str(caught.value) + repr(caught.value) + repr(RING) + str(RING.key_ids)
    assert all(one not in told for one in (token, token.split(".")[1], KEY, secret.hex(), repr(secret)))


def test_what_signs_is_not_the_key_that_opens_legacy_tokens() -> None:
    [secret] = RING._signing.values()
    assert KEY.encode() not in secret
    assert len(secret) == 32


def test_pieces_of_two_signed_tokens_make_no_third_as_those_of_two_legacy_ones_do() -> None:
    """AES-ECB hides each 16 bytes by themselves, and nothing holds them together; that is what the old kind is."""
    mine, also_mine = (
        base64.b64decode(auth.issue(agent, KEY)) for agent in ("xyz" + "A" * 16 + "1", "xyz" + "B" * 16 + "2")
    )
    spliced = base64.b64encode(mine[:32] + also_mine[32:]).decode()
    assert RING.verify(spliced, NOW).agent == "xyz" + "A" * 16 + "2", "nobody has issued that one"
    one, other = (RING.issue(replace(BRIDGE, agent=agent)).split(".") for agent in ("home", "flat"))
    for parts in ([one[0], other[1], one[2]], [one[0], one[1], other[2]]):
        assert cause(".".join(parts)) is TokenCause.BAD_SIGNATURE


# Rotation


def test_keys_rotate_without_a_moment_in_which_a_token_fails() -> None:
    """The operator's steps: the new key behind the old one, then before it, then alone."""
    old, both, turned, new = Keyring([OLD]), Keyring([OLD, KEY]), Keyring([KEY, OLD]), Keyring([KEY])
    with_old, with_new = old.issue(BRIDGE), new.issue(BRIDGE)
    assert both.issue(BRIDGE) == with_old, "the first signs"
    assert turned.issue(BRIDGE) == with_new
    for ring in (both, turned):
        assert ring.verify(with_old, NOW) == ring.verify(with_new, NOW) == BRIDGE
    assert cause(with_old, new) is TokenCause.NO_KEY_FITS
    assert cause(with_new, old) is TokenCause.NO_KEY_FITS


def test_a_key_has_the_same_id_everywhere_and_another_key_another() -> None:
    assert Keyring([KEY, OLD]).key_ids == (Keyring([KEY]).key_ids[0], Keyring([OLD]).key_ids[0])
    assert len({Keyring([f"key {number}"]).key_ids for number in range(50)}) == 50


def test_a_keyring_without_keys_opens_nothing() -> None:
    assert cause(RING.issue(BRIDGE), Keyring([])) is TokenCause.NO_KEY_FITS
    assert cause(auth.issue("home", KEY), Keyring([])) is TokenCause.NO_KEY_FITS


# Who may do what


def refusal(credential: Credential, role: Any, server_id: str = "", mode: str = "all") -> TokenCause:
    with pytest.raises(TokenProblem) as caught:
        admit(credential, role, server_id, mode)
    return caught.value.cause


def test_a_token_is_good_for_its_own_role_only() -> None:
    robot = Credential("home", "call", "", "id", 1, 2)
    assert admit(robot, "call", "", "all") == ""
    assert refusal(robot, "mcp") is TokenCause.WRONG_ROLE
    assert refusal(BRIDGE, "call") is TokenCause.WRONG_ROLE


def test_a_token_for_one_tool_server_names_it_and_is_nobody_else() -> None:
    assert admit(BRIDGE, "mcp", "", "all") == admit(BRIDGE, "mcp", "lamp", "all") == "lamp"
    assert refusal(BRIDGE, "mcp", "fan") is TokenCause.WRONG_SERVER
    anyone = replace(BRIDGE, server_id="")
    assert (admit(anyone, "mcp", "fan", "all"), admit(anyone, "mcp", "", "all")) == ("fan", "")


@pytest.mark.parametrize(("mode", "roles"), [("all", "mcp call"), ("mcp", "mcp"), ("call", "call"), ("none", "")])
def test_legacy_tokens_can_be_switched_off_for_a_role_or_for_both(mode: str, roles: str) -> None:
    legacy = Credential("home")
    role: Any
    for role in ("mcp", "call"):
        if role in roles:
            assert admit(legacy, role, "fan", mode) == "fan"
        else:
            assert refusal(legacy, role, "", mode) is TokenCause.LEGACY_OFF
        assert admit(replace(BRIDGE, role=role, server_id=""), role, "", mode) == ""


# To be pasted


def drawn() -> Any:
    numbers = iter(range(10**6))
    return lambda size: f"{next(numbers):0{size}d}"


HOSTILE = ["(F1x(F1xx(F1", "(F1x(F1xx(F1" * 20, "灯(F1x(F1xx(F1"]
"""Written in base64 at any alignment, these have `key` in them."""


@pytest.mark.parametrize("agent", [f"{number:032x}" for number in range(0, 200, 7)] + ["single_module", *HOSTILE])
@pytest.mark.parametrize("server_id", ["", "(F1x(F1xx(F1"])
def test_a_token_to_paste_has_no_word_that_xiaozhi_server_refuses(agent: str, server_id: str) -> None:
    wanted = Credential(agent, "mcp", server_id, "", NOW, NOW + DAY)
    token = paste_safe_signed_token(RING, wanted, drawn())
    assert refused_words(token) == []
    assert replace(RING.verify(token, NOW), token_id="") == wanted


def test_the_length_of_the_id_helps_where_an_agents_id_has_the_word_at_one_alignment() -> None:
    """Ids of one length all fail, whatever they are; others don't, and no escapes are needed."""
    draw = drawn()
    lengths = (20, 21, 22)
    hopeless = set()
    for agent in ("(F1", "x(F1", "xx(F1"):
        wanted = Credential(agent, "call", "", "", NOW, NOW + DAY)
        tokens = {size: [RING.issue(replace(wanted, token_id=draw(size))) for _ in range(20)] for size in lengths}
        hopeless |= {size for size in lengths if all(refused_words(token) for token in tokens[size])}
        token = paste_safe_signed_token(RING, wanted, draw)
        assert refused_words(token) == []
        assert claimed(token)["sub"] == agent
        assert f'"sub":"{agent}"'.encode() in base64.urlsafe_b64decode(token.split(".")[1] + "==")
    assert hopeless == set(lengths)


def test_no_key_has_an_id_that_puts_such_a_word_into_every_token() -> None:
    """An id is hexadecimal. What base64 makes of its digits at each of its four places never spells one of them."""
    groups = [base64.b64encode(bytes(group)).decode().lower() for group in product(b"0123456789abcdef", repeat=3)]
    places = [{group[place] for group in groups} for place in range(4)]
    for word in WORDS_REFUSED:
        for first in range(4):
            assert not all(char in places[(first + at) % 4] for at, char in enumerate(word))
    header, _, _ = RING.issue(BRIDGE).partition(".")
    assert refused_words(header) == []
    assert re.fullmatch("[0-9a-f]{12}", RING.key_ids[0])


@pytest.mark.parametrize("before", ["", " ", "  "])
def test_escapes_never_have_such_a_word_whatever_they_stand_for(before: str) -> None:
    """So there is a way out for every agent. An escape has six characters, which make eight at places of their own."""
    pairs = product("0123456789abcdef", repeat=2)  # each character of base64 is made of two neighbours at most
    shown = [base64.b64encode(f"{before}\\u{a}{b}{a}{b}\\u{a}{b}{a}{b}".encode()).decode().lower() for a, b in pairs]
    places = [{text[8 + place] for text in shown} for place in range(8)]
    for word in WORDS_REFUSED:
        for first in range(8):
            assert not all(char in places[(first + at) % 8] for at, char in enumerate(word)), first


def test_the_longest_names_still_make_a_token_that_is_taken() -> None:
    for agent in ("智" * auth.AGENT_CHARS_MAX, "😀" * auth.AGENT_CHARS_MAX, "(F1" * 85):
        wanted = Credential(agent, "mcp", "灯" * SERVER_ID_CHARS_MAX, "", NOW, NOW + DAY)
        token = paste_safe_signed_token(RING, wanted, drawn())
        assert replace(RING.verify(token, NOW), token_id="") == wanted
