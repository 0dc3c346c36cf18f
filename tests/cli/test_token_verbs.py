"""`mcp-gateway token --role …, inspect, revoke, restore, revoked`: run inside the test, in a directory of its own."""

import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from gateway import token_command
from gateway.auth import issue
from gateway.banner import banner
from gateway.cli import main
from gateway.credential import Credential
from gateway.settings import Settings
from gateway.tokens import Keyring
from tests.support.redis_server import RedisServer, empty

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"
OLD = "f" * 32
PUBLIC = "https://mcp.example.com"
RING = Keyring([KEY])
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.out)
        return found


class Terminal(io.StringIO):
    """Somebody sits there."""

    def isatty(self) -> bool:
        return True


Run: TypeAlias = Callable[..., Answer]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `mcp-gateway token …`; `stdin` is what is piped into it; None: a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    monkeypatch.setenv("GATEWAY_PUBLIC_URL", PUBLIC)

    def command(*words: str, stdin: str | None = "") -> Answer:
        monkeypatch.setattr("sys.stdin", Terminal() if stdin is None else io.StringIO(stdin))
        try:
            code = main(["token", *words])
        except SystemExit as error:  # the usage
            code = int(error.code or 0)
        return Answer(code, *capsys.readouterr())

    return command


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def token_in(url: str) -> str:
    return parse_qs(urlsplit(url).query)["token"][0]


# Issue


def test_a_bridges_token_is_printed_with_its_url_and_without_the_key(run: Run) -> None:
    answer = run("--agent", "智能体", "--role", "mcp", "--server-id", "lamp", "--expires", "90d")
    [url] = re.findall(r"wss://\S+", answer.out)
    credential = RING.verify(token_in(url), now_ms())
    assert (answer.code, answer.err) == (0, "")
    assert (credential.agent, credential.role, credential.server_id) == ("智能体", "mcp", "lamp")
    assert abs(credential.expires_ms - now_ms() - 90 * DAY_MS) < 60_000
    assert url.startswith(f"{PUBLIC}/mcp_endpoint/mcp/?token=".replace("https", "wss"))
    assert credential.token_id in answer.out
    assert RING.key_ids[0] in answer.out
    assert KEY not in answer.out, "who passes this on must not pass the key on with it"


def test_a_robots_token_is_printed_in_a_url_for_the_single_module_and_in_one_for_robots(run: Run) -> None:
    """The xiaozhi-server checks the URL as it is pasted, then puts `/call/` for `/mcp/` itself."""
    for number in range(40):
        told = run("issue", "--agent", f"agent-{number}(F1", "--role", "call", "--json").json
        pasted = told["mcp_endpoint"]
        assert pasted.startswith("wss://")
        assert "/mcp/" in pasted
        assert not re.search("key|call", pasted, re.IGNORECASE)
        assert pasted.replace("/mcp/", "/call/") == told["robot_url"]
        assert RING.verify(told["token"], now_ms()).role == "call"
        assert "bridge_url" not in told
        assert "health_url" not in told


def test_each_token_has_an_id_of_its_own_and_a_year_unless_told_otherwise(run: Run) -> None:
    first, second = (run("--agent", "home", "--role", "mcp", "--json").json for _ in range(2))
    credential = RING.verify(first["token"], now_ms())
    assert first["id"] == credential.token_id != second["id"]
    assert abs(credential.expires_ms - now_ms() - 365 * DAY_MS) < 60_000
    assert set(first) >= {"agent", "role", "server_id", "id", "issued", "expires", "key_id", "token", "bridge_url"}


def test_without_a_role_it_is_the_token_that_it_always_was(run: Run) -> None:
    told = run("--agent", "home", "--json").json
    assert told["token"] == issue("home", KEY)
    assert run("issue", "--agent", "home", "--json").json == told
    assert list(told) == ["agent", "token", "bridge_url", "robot_url", "health_url"]


@pytest.mark.parametrize(("mode", "word"), [("none", "opens nothing"), ("mcp", "opens /mcp/ only")])
def test_a_legacy_token_that_opens_nothing_here_is_warned_about(
    mode: str, word: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_LEGACY_TOKENS", mode)
    answer = run("--agent", "home")
    assert answer.code == 0
    assert word in answer.err
    assert run("--agent", "home", "--role", "mcp").err == ""


@pytest.mark.parametrize(
    "words",
    [
        "--agent home --expires 90d",
        "--agent home --server-id lamp",
        "--agent home --role call --server-id lamp",
        "--agent home --role mcp --server-id ~x",
        "--agent home --role robot",
        "--agent home --role mcp --expires 90",
        "--agent home --role mcp --expires 0d",
        "--agent home --role mcp --expires 3651d",
        "--agent home --role mcp --expires -1d",
        "--agent home --role mcp --expires 99999999999d",
        "",
        "issue",
        "issue --role mcp",
        "forge --agent home",
        "revoke",
        "revoke --id a --agent b",
        "revoke --id a:b",
        "restore",
        "restore --id a/b",
        "revoked --limit 0",
    ],
)
def test_what_cannot_be_meant_is_refused_and_explained(words: str, run: Run) -> None:
    answer = run(*words.split())
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err


# Inspect


def signed(**more: Any) -> str:
    wanted = {"agent": "home", "role": "mcp", "token_id": "an-id", "issued_ms": now_ms() - 1000, **more}
    return RING.issue(Credential(**{"expires_ms": wanted["issued_ms"] + DAY_MS, **wanted}))


@pytest.mark.parametrize("spell", ["{}", "{}\n", "Bearer {}", "wss://h/mcp_endpoint/mcp/?token={}&server_id=x", "'{}'"])
def test_a_token_is_read_from_standard_input_however_it_was_copied(spell: str, run: Run) -> None:
    told = run("inspect", "--json", stdin=spell.format(signed()))
    assert told.code == 0
    assert told.json["id"] == "an-id"


def test_a_token_is_read_from_the_argument_or_asked_for_without_being_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("inspect", signed(), "--json").json["id"] == "an-id"
    monkeypatch.setattr("getpass.getpass", lambda prompt: signed(token_id="typed"))
    assert run("inspect", "--json", stdin=None).json["id"] == "typed"


def test_it_says_whose_it_is_for_what_until_when_and_by_which_key_and_never_shows_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", f"{OLD},{KEY}")
    token = signed(server_id="lamp")
    answer = run("inspect", "--json", stdin=token)
    told = answer.json
    expected = {"kind": "signed", "valid": True, "verified": True, "agent": "home", "roles": ["mcp"], "id": "an-id"}
    expected |= {"server_id": "lamp", "key_id": RING.key_ids[0], "key": "2/2", "revoked": False, "problem": None}
    assert expected.items() <= told.items()
    assert answer.code == 0
    text = run("inspect", stdin=token).out
    for said in ("home", "mcp", "lamp", "an-id", told["expires"], RING.key_ids[0], "(2/2)"):
        assert said in text
    for secret in (*token.split(".")[1:], KEY, OLD):
        assert secret not in text + answer.out + answer.err


def test_a_legacy_token_is_known_for_one(run: Run) -> None:
    answer = run("inspect", "--json", stdin=issue("home", KEY))
    told = answer.json
    assert answer.code == 0
    assert (told["kind"], told["agent"], told["roles"]) == ("legacy", "home", ["mcp", "call"])
    assert (told["expires"], told["id"], told["key_id"]) == (None, None, None)
    assert "never" in run("inspect", stdin=issue("home", KEY)).out


def test_a_legacy_token_that_is_switched_off_is_good_for_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_LEGACY_TOKENS", "none")
    answer = run("inspect", "--json", stdin=issue("home", KEY))
    assert (answer.code, answer.json["roles"]) == (1, [])
    assert "switched off" in run("inspect", stdin=issue("home", KEY)).out


def test_what_an_expired_token_said_is_still_told(run: Run) -> None:
    answer = run("inspect", "--json", stdin=signed(issued_ms=1000, expires_ms=2000))
    told = answer.json
    assert answer.code == 1
    assert (told["valid"], told["verified"], told["problem"]["code"], told["agent"]) == (False, True, "expired", "home")


def test_what_a_token_of_another_key_claims_is_told_as_a_claim(run: Run) -> None:
    foreign = Keyring(["x" * 32]).issue(Credential("home", "mcp", "", "an-id", now_ms(), now_ms() + DAY_MS))
    answer = run("inspect", "--json", stdin=foreign)
    told = answer.json
    assert answer.code == 1
    assert (told["valid"], told["verified"], told["problem"]["code"]) == (False, False, "no_key_fits")
    assert (told["agent"], told["key"]) == ("home", "unknown")
    assert "unproven" in run("inspect", stdin=foreign).out


@pytest.mark.parametrize("token", ["..", "a.b.c", "not-a-token!", "A" * 5000, "\x1b[2J.\x1b[2J.x", "令牌"])
def test_scraps_are_no_tokens_and_do_nothing_to_the_terminal(token: str, run: Run) -> None:
    answer = run("inspect", stdin=token)
    assert answer.code == 1
    assert "\x1b" not in answer.out
    assert run("inspect", "--json", stdin=token).json["valid"] is False


def test_nothing_to_inspect_is_said(run: Run) -> None:
    answer = run("inspect", stdin="\n")
    assert answer.code == 2
    assert "no token" in answer.err


def test_no_key_is_made_for_looking_at_a_token(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_KEY")
    answer = run("inspect", stdin=signed())
    assert answer.code == 2
    assert "there is no key" in answer.err
    assert not (tmp_path / "data").exists()


# Revoke


def test_a_token_is_revoked_by_its_id_and_good_again_when_that_is_undone(run: Run) -> None:
    token, other = signed(), signed(token_id="other")
    revoked = run("revoke", "--id", "an-id", "--reason", "on a forum")
    assert revoked.code == 0
    assert "revoked.json" in revoked.out
    looked = run("inspect", "--json", stdin=token)
    assert (looked.code, looked.json["revoked"], looked.json["revoked_by"]) == (1, True, "token:an-id")
    assert run("inspect", stdin=other).code == 0
    [entry] = run("revoked", "--json").json["revoked"]
    assert (entry["kind"], entry["name"], entry["reason"]) == ("token", "an-id", "on a forum")
    assert entry["until"] > "2036", "it is not known when the token expires"
    assert "token an-id" in run("revoked").out
    assert run("restore", "--id", "an-id").code == 0
    assert run("inspect", stdin=token).code == 0
    assert run("restore", "--id", "an-id").code == 1
    assert "nothing is revoked" in run("revoked").out


def test_a_token_at_hand_is_revoked_until_it_has_expired_without_being_shown(run: Run) -> None:
    token = signed()
    answer = run("revoke", "--token", stdin=f"wss://h/mcp_endpoint/mcp/?token={token}\n")
    assert answer.code == 0
    assert token.split(".")[1] not in answer.out
    [entry] = run("revoked", "--json").json["revoked"]
    assert entry["name"] == "an-id"
    assert entry["until"] < "2036"
    assert run("inspect", stdin=token).code == 1


def test_all_tokens_of_an_agent_so_far_are_revoked_and_new_ones_are_good(run: Run) -> None:
    before, legacy, neighbour = signed(), issue("home", KEY), signed(agent="office")
    answer = run("revoke", "--agent", "home")
    assert answer.code == 0
    assert "legacy tokens" in answer.out
    for token in (before, legacy):
        looked = run("inspect", "--json", stdin=token)
        assert (looked.code, looked.json["revoked_by"]) == (1, "agent:home")
    assert run("inspect", stdin=neighbour).code == 0
    assert run("inspect", stdin=signed(issued_ms=now_ms() + 5)).code == 0
    assert run("restore", "--agent", "home").code == 0
    assert run("inspect", stdin=legacy).code == 0


def test_a_legacy_token_is_not_revoked_by_itself_and_the_way_is_told(run: Run) -> None:
    answer = run("revoke", "--token", stdin=issue("my home", KEY))
    assert answer.code == 2
    assert "token revoke --agent 'my home'" in answer.err
    assert "nothing is revoked" in run("revoked").out


def test_a_token_that_is_no_good_anyway_is_not_written_down(run: Run) -> None:
    answer = run("revoke", "--token", stdin=signed()[:-8])
    assert answer.code == 2
    assert "not good here anyway" in answer.err


def test_the_newest_revocations_come_first_and_what_is_left_out_is_counted(run: Run) -> None:
    for number in range(3):
        run("revoke", "--id", f"id-{number}")
    told = run("revoked", "--limit", "2", "--json").json
    assert [entry["name"] for entry in told["revoked"]] == ["id-2", "id-1"]
    assert told["more"] == 1
    assert "1 more" in run("revoked", "--limit", "2").out


def test_with_redis_it_is_written_there_and_no_key_is_asked_for(
    run: Run, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with redis_server.client() as client:
        empty(client)
    token = signed()
    monkeypatch.setenv("GATEWAY_REDIS_URL", redis_server.url)
    monkeypatch.delenv("GATEWAY_KEY")
    assert "prefix mcpgw:" in run("revoke", "--id", "an-id").out
    assert run("revoked", "--json").json["revoked"][0]["name"] == "an-id"
    assert not (tmp_path / "data").exists()
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    assert run("inspect", "--json", stdin=token).json["revoked"] is True


def test_a_redis_that_is_away_leaves_the_question_open_and_refuses_the_order(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("GATEWAY_REDIS_TIMEOUT_SECONDS", "0.5")
    looked = run("inspect", "--json", stdin=signed())
    assert looked.code == 0
    assert looked.json["revoked"] is None
    assert "is not known" in looked.err
    assert run("revoke", "--id", "an-id").code == 2


def test_a_policy_that_switches_an_agents_legacy_tokens_off_is_heeded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    entry = {"version": 7, "legacy_tokens": "call"}
    (tmp_path / "data" / "policy.json").write_bytes(orjson.dumps({"version": 7, "entries": {"home": entry}}))
    assert run("inspect", "--json", stdin=issue("home", KEY)).json["roles"] == ["call"]
    assert run("inspect", "--json", stdin=issue("office", KEY)).json["roles"] == ["mcp", "call"]


def test_what_is_given_before_the_verb_holds_for_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.env").write_text(f"GATEWAY_KEY={KEY}\nGATEWAY_DATA_DIR={tmp_path}/elsewhere\n")
    monkeypatch.delenv("GATEWAY_KEY")
    assert run("--env-file", "other.env", "revoke", "--id", "an-id").code == 0
    assert (tmp_path / "elsewhere" / "revoked.json").is_file()
    assert run("revoked", "--env-file", "other.env", "--json").json["revoked"][0]["name"] == "an-id"


# What the gateway itself says at its start


@pytest.mark.parametrize("mode", ["none", "mcp", "call"])
def test_the_banner_shows_no_token_that_may_be_refused_but_how_to_make_one(mode: str) -> None:
    said = banner(Settings(key=(KEY,), public_url=PUBLIC, legacy_tokens=mode))
    assert "token=" not in said
    assert f"GATEWAY_LEGACY_TOKENS={mode}" in said
    assert "mcp-gateway token --agent single_module --role mcp" in said
    assert f"/health?key={KEY}" in said


def test_the_health_url_has_a_key_that_opens_it_and_no_other() -> None:
    """Without legacy tokens the server key need not be handed out, and does not open it any more."""
    own = "0123456789abcdef-for-monitors"
    said = banner(Settings(key=(KEY,), public_url=PUBLIC, legacy_tokens="none", health_key=own))
    assert f"/health?key={own}" in said
    assert KEY not in said
    assert f"/health?key={KEY}" in banner(Settings(key=(KEY,), public_url=PUBLIC, health_key=own)), "the console's"


def test_whoever_revokes_an_agent_with_a_slow_clock_is_told_that_new_tokens_will_not_do(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "slow" not in run("revoke", "--agent", "home").out
    monkeypatch.setattr(token_command, "_now_ms", lambda: now_ms() - 90_000)
    assert "slow by 90 s" in run("revoke", "--agent", "home").out
