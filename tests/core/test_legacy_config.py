"""An existing mcp-endpoint-server.cfg keeps deployed tokens and ports working."""

from pathlib import Path

import pytest

from gateway.configuration import SettingsError, load
from gateway.settings import Settings

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"

UPSTREAM = f"""\
[server]
host = 127.0.0.1
port = 8123
debug = false
log_level = DEBUG
key = {KEY}

[websocket]
max_connections = 1000
ping_interval = 30

[security]
allowed_origins = *
enable_cors = true

[logging]
log_file = logs/mcp_server.log
"""


def place(cwd: Path, text: str, name: str = "data/.mcp-endpoint-server.cfg") -> Path:
    path = cwd / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(cwd: Path, **environ: str) -> tuple[Settings, list[str]]:
    return load(environ, dotenv=None, cwd=cwd)


def test_the_file_of_the_upstream_is_found_in_data_and_taken_over_with_one_line(tmp_path: Path) -> None:
    place(tmp_path, UPSTREAM)
    settings, lines = read(tmp_path)
    assert settings == Settings(host="127.0.0.1", port=8123, log_level="DEBUG", key=(KEY,))
    assert len(lines) == 1
    assert "host, key, log_level, origins, port" in lines[0]
    assert KEY not in lines[0]


def test_the_one_in_data_wins_whole_over_the_one_beside_it(tmp_path: Path) -> None:
    place(tmp_path, "[server]\nport = 1\nhost = 10.0.0.1\n", "mcp-endpoint-server.cfg")
    place(tmp_path, "[server]\nport = 2\n")
    settings, _ = read(tmp_path)
    assert (settings.port, settings.host) == (2, Settings().host)


def test_the_one_beside_is_found_without_one_in_data(tmp_path: Path) -> None:
    place(tmp_path, "[server]\nport = 1\n", "mcp-endpoint-server.cfg")
    assert read(tmp_path)[0].port == 1


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    place(tmp_path, UPSTREAM)
    settings, _ = read(tmp_path, GATEWAY_PORT="9000")
    assert (settings.port, settings.key) == (9000, (KEY,))


def test_a_file_named_by_a_setting_is_read_wherever_it_is(tmp_path: Path) -> None:
    place(tmp_path, UPSTREAM)
    path = place(tmp_path, "[server]\nport = 77\n", "elsewhere/old.cfg")
    assert read(tmp_path, GATEWAY_CONFIG_FILE=str(path))[0].port == 77
    assert read(tmp_path, GATEWAY_CONFIG_FILE="elsewhere/old.cfg")[0].port == 77


def test_a_named_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"GATEWAY_CONFIG_FILE: .*nowhere\.cfg"):
        read(tmp_path, GATEWAY_CONFIG_FILE="nowhere.cfg")


def test_a_key_in_another_section_is_found(tmp_path: Path) -> None:
    place(tmp_path, f"[server]\nport = 1\n[security]\nkey = {KEY}\n")
    assert read(tmp_path)[0].key == (KEY,)


def test_a_key_that_the_console_cannot_carry_is_one_key_and_only_warns(tmp_path: Path) -> None:
    key = "pass%word/with,all&sorts"
    place(tmp_path, f"[server]\nkey = {key}\n")
    settings, lines = read(tmp_path)
    assert settings.key == (key,)
    assert any("console cuts" in line for line in lines)
    assert not any("sorts" in line for line in lines)


def test_switched_off_cors_means_no_origin(tmp_path: Path) -> None:
    place(tmp_path, "[security]\nallowed_origins = https://a.example, https://b.example\n")
    assert read(tmp_path)[0].origins == ("https://a.example", "https://b.example")
    place(tmp_path, "[security]\nallowed_origins = *\nenable_cors = false\n")
    assert read(tmp_path)[0].origins == ()


def test_a_bad_value_names_the_file_and_the_place(tmp_path: Path) -> None:
    place(tmp_path, "[server]\nport = eight\n")
    with pytest.raises(SettingsError, match=r"mcp-endpoint-server\.cfg \[server\] port='eight'"):
        read(tmp_path)


def test_a_file_that_is_no_ini_file_stops_the_start_without_showing_its_text(tmp_path: Path) -> None:
    place(tmp_path, f"key = {KEY}\n")
    with pytest.raises(SettingsError) as caught:
        read(tmp_path)
    assert "no INI file" in str(caught.value)
    assert KEY not in str(caught.value)
