"""Settings: where a value comes from, what is refused, and in which words."""

import dataclasses
from pathlib import Path

import pytest

from gateway.configuration import SettingsError, load
from gateway.setting_rules import broken_rules
from gateway.settings import Settings, env_name, example_env, specs

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef0123456789abcdef"


def read(environ: dict[str, str], cwd: Path, dotenv: str | None = None) -> tuple[Settings, list[str]]:
    file = None
    if dotenv is not None:
        file = cwd / ".env"
        file.write_text(dotenv, encoding="utf-8")
    return load(environ, dotenv=file, cwd=cwd)


def refusal(environ: dict[str, str], cwd: Path, dotenv: str | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        read(environ, cwd, dotenv)
    return str(caught.value)


def test_the_example_file_lists_every_setting_as_it_is_declared() -> None:
    """Mend it with `python -m gateway.settings > .env.example`."""
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == example_env()


def test_every_setting_stands_in_the_example_with_default_unit_and_reason() -> None:
    text = example_env()
    for name, spec in specs().items():
        assert f"\n# {env_name(name)}=" in text
        assert len(spec.reason.split(" / ")) >= 2 or "\n" in spec.reason, f"{name}: not in two languages"
    assert text.count("默认 default:") == text.count("单位 unit:") == len(specs())


def test_the_example_file_with_every_line_uncommented_gives_the_defaults(tmp_path: Path) -> None:
    lines = example_env().replace("# GATEWAY_", "GATEWAY_")
    assert read({}, tmp_path, lines) == (Settings(), [])


def test_without_anything_the_defaults_hold_and_break_no_rule(tmp_path: Path) -> None:
    assert read({}, tmp_path) == (Settings(), [])
    assert broken_rules(Settings()) == []


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    settings, _ = read({"GATEWAY_PORT": "9001"}, tmp_path, "GATEWAY_PORT=9002\nGATEWAY_HOST=127.0.0.1\n")
    assert (settings.port, settings.host) == (9001, "127.0.0.1")


def test_an_empty_value_counts_as_not_given(tmp_path: Path) -> None:
    settings, warnings = read({"GATEWAY_PORT": "", "GATEWAY_REDIS_URL": " "}, tmp_path, "GATEWAY_PORT=9002\n")
    assert (settings.port, settings.redis_url, warnings) == (9002, "", [])


def test_the_env_file_may_have_quotes_comments_and_exports(tmp_path: Path) -> None:
    dotenv = f"\ufeff# comment\nexport GATEWAY_KEY=\"{KEY}\"\nGATEWAY_PUBLIC_URL='https://a.example' # why\n\nOTHER=1\n"
    settings, warnings = read({}, tmp_path, dotenv)
    assert (settings.key, settings.public_url, warnings) == ((KEY,), "https://a.example", [])


def test_a_line_of_the_env_file_that_makes_no_sense_is_named_by_number_only(tmp_path: Path) -> None:
    _, warnings = read({}, tmp_path, f"GATEWAY_PORT=9000\nGATEWAY KEY {KEY}\n")
    assert len(warnings) == 1
    assert "line 2" in warnings[0]
    assert KEY not in warnings[0]


def test_an_env_file_that_was_asked_for_and_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        load({}, dotenv=tmp_path / "nowhere", cwd=tmp_path)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("1048576", 1048576), ("2MiB", 2 << 20), ("512 KiB", 512 << 10), ("1mib", 1 << 20)]
)
def test_sizes_are_written_in_bytes_or_with_a_unit(text: str, size_bytes: int, tmp_path: Path) -> None:
    assert read({"GATEWAY_FRAME_BYTES": text}, tmp_path)[0].frame_bytes == size_bytes


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("GATEWAY_PORT", "abc", "not a whole number"),
        ("GATEWAY_PORT", "70000", "from 0 to 65535"),
        ("GATEWAY_FRAME_BYTES", "8 apples", "number of bytes"),
        ("GATEWAY_RESULT_BYTES", "1MiB", "robots hang up at 1 MiB"),
        ("GATEWAY_CALL_SECONDS", "soon", "number of seconds"),
        ("GATEWAY_CALL_SECONDS", "nan", "finite"),
        ("GATEWAY_PING_SECONDS", "30", "nginx cuts"),
        ("GATEWAY_MCP_PING_SECONDS", "90", "bridges leave"),
        ("GATEWAY_LIST_WAIT_SECONDS", "9", "console waits 10 s"),
        ("GATEWAY_LOG_LEVEL", "LOUD", "one of DEBUG"),
        ("GATEWAY_PUBLIC_URL", "mcp.example.com", "http, https"),
        ("GATEWAY_PUBLIC_URL", "https://x.example/mcp/a", "/mcp/"),
        ("GATEWAY_REDIS_PREFIX", "a{b}", "letters, digits"),
        ("GATEWAY_WORKERS", "0", "from 1"),
        ("GATEWAY_ADMIN_PORT", "-1", "from 0 to 65535"),
        ("GATEWAY_CALL_LOG", "some", "one of errors, all, none"),
        ("GATEWAY_TRACE_SHARE", "1.5", "from 0 to 1"),
        ("GATEWAY_TRACE_SHARE", "half", "not a number"),
        ("GATEWAY_TRACE_SHARE", "nan", "finite"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_problem_and_example(
    name: str, value: str, problem: str, tmp_path: Path
) -> None:
    text = refusal({name: value}, tmp_path)
    assert f"{name}={value!r}" in text
    assert problem in text
    assert "for example" in text


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = refusal(
        {"GATEWAY_PORT": "x", "GATEWAY_CALL_SECONDS": "y", "GATEWAY_PROT": "1"}, tmp_path, "GATEWAY_WORKERS=z\n"
    )
    assert all(name in text for name in ("GATEWAY_PORT", "GATEWAY_CALL_SECONDS", "GATEWAY_WORKERS", "GATEWAY_PROT"))
    assert ".env" in text


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"GATEWAY_BEAT_SECONDS": "3"}, ("GATEWAY_BEAT_SECONDS", "GATEWAY_LEASE_SECONDS")),
        ({"GATEWAY_REDIS_TIMEOUT_SECONDS": "5"}, ("GATEWAY_REDIS_TIMEOUT_SECONDS", "GATEWAY_LEASE_SECONDS")),
        ({"GATEWAY_CALL_SECONDS": "301"}, ("GATEWAY_CALL_SECONDS", "GATEWAY_CALL_MAX_SECONDS")),
        ({"GATEWAY_OUTBOX_BYTES": "64KiB"}, ("GATEWAY_OUTBOX_BYTES", "GATEWAY_RESULT_BYTES")),
        ({"GATEWAY_NAME_HOLD_SECONDS": "1"}, ("GATEWAY_NAME_HOLD_SECONDS", "GATEWAY_GRACE_SECONDS")),
        ({"GATEWAY_DRAIN_SECONDS": "5"}, ("GATEWAY_DRAIN_GRACE_SECONDS", "GATEWAY_DRAIN_SECONDS")),
        ({"GATEWAY_PORT": "9000", "GATEWAY_ADMIN_PORT": "9000"}, ("GATEWAY_ADMIN_PORT", "GATEWAY_PORT")),
        ({"GATEWAY_ADMIN_HOST": "127.0.0.1"}, ("GATEWAY_ADMIN_HOST", "GATEWAY_ADMIN_PORT")),
        ({"GATEWAY_METRICS_KEY": KEY}, ("GATEWAY_METRICS_KEY", "GATEWAY_ADMIN_PORT")),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_both_names(
    environ: dict[str, str], names: tuple[str, str], tmp_path: Path
) -> None:
    text = refusal(environ, tmp_path)
    assert all(name in text for name in names)


def test_a_rate_at_which_nothing_could_be_read_is_refused(tmp_path: Path) -> None:
    assert "64KiB or more" in refusal({"GATEWAY_CONNECTION_RATE_BYTES": "10KiB"}, tmp_path)
    assert read({"GATEWAY_CONNECTION_RATE_BYTES": "64KiB"}, tmp_path)[0].connection_rate_bytes == 65536


def test_several_workers_without_redis_are_refused_with_what_to_set(tmp_path: Path) -> None:
    assert "set GATEWAY_REDIS_URL" in refusal({"GATEWAY_WORKERS": "2"}, tmp_path)
    settings, _ = read({"GATEWAY_WORKERS": "2", "GATEWAY_REDIS_URL": "redis://h", "GATEWAY_KEY": KEY}, tmp_path)
    assert settings.workers == 2


def test_redis_without_a_key_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    text = refusal({"GATEWAY_REDIS_URL": "redis://h"}, tmp_path)
    assert "GATEWAY_KEY" in text
    assert "openssl rand -hex 16" in text


@pytest.mark.parametrize("url", ["http://h", "localhost:6379", "redis://h:port", "unix://"])
def test_an_address_that_is_no_redis_is_refused_without_being_repeated(url: str, tmp_path: Path) -> None:
    text = refusal({"GATEWAY_REDIS_URL": url.replace("//", "//:hunter2@"), "GATEWAY_KEY": KEY}, tmp_path)
    assert "GATEWAY_REDIS_URL" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("url", ["hunter2:4318", "grpc://u:hunter2@h:4317", "http:///hunter2", "http://[hunter2"])
def test_a_trace_address_that_is_none_is_refused_without_being_repeated(url: str, tmp_path: Path) -> None:
    text = refusal({"GATEWAY_TRACE_URL": url}, tmp_path)
    assert "GATEWAY_TRACE_URL" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("key", ["short", "密钥" * 10])
def test_a_metrics_key_that_can_be_guessed_or_not_be_sent_is_refused_without_being_repeated(
    key: str, tmp_path: Path
) -> None:
    text = refusal({"GATEWAY_METRICS_KEY": key, "GATEWAY_ADMIN_PORT": "9000"}, tmp_path)
    assert "GATEWAY_METRICS_KEY" in text
    assert key not in text


@pytest.mark.parametrize("char", [*"/&%#+? ", "钥", "\t"])
def test_a_key_that_the_console_cannot_carry_is_refused_without_being_repeated(char: str, tmp_path: Path) -> None:
    text = refusal({"GATEWAY_KEY": f"topsecret{char}topsecret"}, tmp_path)
    assert "GATEWAY_KEY" in text
    assert "console" in text
    assert "topsecret" not in text


def test_several_keys_are_separated_by_commas_and_the_first_stays_first(tmp_path: Path) -> None:
    other = KEY[::-1]
    assert read({"GATEWAY_KEY": f"{other}, {KEY},,{other}"}, tmp_path)[0].key == (other, KEY)


def test_a_short_key_is_taken_with_a_warning_that_does_not_repeat_it(tmp_path: Path) -> None:
    settings, warnings = read({"GATEWAY_KEY": "hunter2"}, tmp_path)
    assert settings.key == ("hunter2",)
    assert len(warnings) == 1
    assert "hunter2" not in warnings[0]


def test_an_unknown_name_warns_with_the_nearest_one(tmp_path: Path) -> None:
    _, warnings = read({"GATEWAY_REDISURL": "x", "OTHER": "y"}, tmp_path)
    assert len(warnings) == 1
    assert "GATEWAY_REDISURL" in warnings[0]
    assert "did you mean GATEWAY_REDIS_URL" in warnings[0]


def test_what_kubernetes_injects_beside_a_service_called_gateway_is_ignored_with_one_line(tmp_path: Path) -> None:
    injected = {
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "8004",
        "GATEWAY_SERVICE_PORT_HTTP": "8004",
        "GATEWAY_PORT": "tcp://10.0.0.1:8004",
        "GATEWAY_PORT_8004_TCP": "tcp://10.0.0.1:8004",
        "GATEWAY_PORT_8004_TCP_PROTO": "tcp",
        "GATEWAY_PORT_8004_TCP_PORT": "8004",
        "GATEWAY_PORT_8004_TCP_ADDR": "10.0.0.1",
        "GATEWAY_REDIS_SERVICE_HOST": "10.0.0.2",
        "GATEWAY_REDIS_PORT": "tcp://10.0.0.2:6379",
    }
    settings, warnings = read(injected, tmp_path)
    assert settings == Settings()
    assert len(warnings) == 1
    assert "Kubernetes" in warnings[0]
    assert "10 variables" in warnings[0]


def test_a_public_address_that_xiaozhi_server_refuses_warns(tmp_path: Path) -> None:
    _, warnings = read({"GATEWAY_PUBLIC_URL": "https://monkey.example"}, tmp_path)
    assert len(warnings) == 1
    assert "monkey" in warnings[0]


def test_a_level_may_be_written_in_lower_case_and_as_others_call_it(tmp_path: Path) -> None:
    assert read({"GATEWAY_LOG_LEVEL": "warn"}, tmp_path)[0].log_level == "WARNING"
    assert read({"GATEWAY_LOG_LEVEL": "debug"}, tmp_path)[0].log_level == "DEBUG"


def test_a_repr_shows_what_is_changed_and_no_secret() -> None:
    settings = Settings(port=1, key=(KEY,), redis_url="redis://user:hunter2@h:6379/0")
    assert repr(settings) == "<Settings port=1 key=(1×***) redis_url=redis://user:***@h:6379/0>"
    assert repr(Settings()) == "<Settings>"


def test_settings_cannot_be_changed_and_name_their_units() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]
    for name, spec in specs().items():
        assert name.endswith("_seconds") == (spec.kind.name == "SECONDS") or name.endswith("_per_second")
        assert name.endswith("_bytes") == (spec.kind.name == "SIZE")


@pytest.mark.parametrize(
    "keys", ["short", "<openssl rand -hex 32>", f"{KEY[::-1]},short", "密" * 16, "unsigned", "unsigned,unsigned"]
)
def test_a_key_for_envelopes_that_could_be_guessed_or_signs_nothing_is_refused_and_not_repeated(
    keys: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="GATEWAY_ENVELOPE_KEY") as refusal:
        read({"GATEWAY_ENVELOPE_KEY": keys}, tmp_path)
    assert "short" not in str(refusal.value)
    assert "密密" not in str(refusal.value)


def test_taking_unsigned_envelopes_is_a_warning_at_every_start(tmp_path: Path) -> None:
    given, warnings = read({"GATEWAY_ENVELOPE_KEY": f"{KEY[::-1]},unsigned"}, tmp_path)
    assert given.envelope_key == (KEY[::-1], "unsigned")
    assert [("unsigned" in warning, KEY[::-1] in warning) for warning in warnings] == [(True, False)]
