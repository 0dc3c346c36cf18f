"""The URLs that people paste are those that their readers accept."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway import urls
from gateway.auth import issue, verify

KEY = "6a369b7f1bcf4d3e8d123ece38bb9627"


def is_accepted_by_xiaozhi_server(url: str) -> bool:
    """The rule of its `validate_mcp_endpoint`."""
    return url.startswith("ws") and "/mcp/" in url and not re.search("key|call", url.lower())


@pytest.mark.parametrize(
    ("public_url", "host", "base"),
    [
        ("", "0.0.0.0", "http://192.168.1.2:8004"),
        ("", "::", "http://192.168.1.2:8004"),
        ("", "10.0.0.7", "http://10.0.0.7:8004"),
        ("", "fd00::7", "http://[fd00::7]:8004"),
        ("https://mcp.example.com/", "0.0.0.0", "https://mcp.example.com"),
        ("wss://example.com/house/mcp_endpoint/", "0.0.0.0", "wss://example.com/house"),
    ],
)
def test_the_base_is_the_public_address_or_the_best_guess(public_url: str, host: str, base: str) -> None:
    assert urls.base_url(public_url, host, 8004, "192.168.1.2") == base


@pytest.mark.parametrize(
    ("base", "http", "ws"),
    [
        ("http://h:1", "http://h:1", "ws://h:1"),
        ("ws://h:1", "http://h:1", "ws://h:1"),
        ("https://h/p", "https://h/p", "wss://h/p"),
        ("wss://h/p", "https://h/p", "wss://h/p"),
    ],
)
def test_each_url_has_the_scheme_of_its_use_and_keeps_the_prefix(base: str, http: str, ws: str) -> None:
    assert urls.health_url(base, KEY) == f"{http}/mcp_endpoint/health?key={KEY}"
    assert urls.bridge_url(base, "a+/=") == f"{ws}/mcp_endpoint/mcp/?token=a%2B%2F%3D"
    assert urls.robot_url(base, "a+/=") == f"{ws}/mcp_endpoint/call/?token=a%2B%2F%3D"


def test_xiaozhi_server_makes_the_robots_url_out_of_the_bridges() -> None:
    token = issue("a", KEY)
    assert urls.bridge_url("ws://h", token).replace("/mcp/", "/call/") == urls.robot_url("ws://h", token)


def test_the_console_finds_the_key_at_the_end_of_the_health_url() -> None:
    """It takes everything before the last `/` as prefix, and everything after `key=` as key."""
    url = urls.health_url("https://h/p", KEY)
    assert url.rpartition("/")[0] == "https://h/p/mcp_endpoint"
    assert url.partition("key=")[2] == KEY


def test_the_token_survives_the_url() -> None:
    for number in range(50):
        token = issue(f"agent-{number}", KEY)
        assert parse_qs(urlsplit(urls.bridge_url("http://h", token)).query)["token"] == [token]


def test_a_token_to_paste_never_has_a_word_that_xiaozhi_server_refuses() -> None:
    agents = [f"{number:032x}" for number in range(8000)]
    plain = [
        agent for agent in agents if not is_accepted_by_xiaozhi_server(urls.bridge_url("ws://h", issue(agent, KEY)))
    ]
    assert plain, "no agent of these needs help, so the test shows nothing"
    for agent in plain:
        token = urls.paste_safe_token(agent, KEY)
        assert is_accepted_by_xiaozhi_server(urls.bridge_url("ws://h", token))
        assert verify(token, [KEY]) == agent


def test_a_token_without_such_a_word_is_the_consoles_own() -> None:
    assert urls.paste_safe_token("single_module", KEY) == issue("single_module", KEY)


@pytest.mark.parametrize("base", ["http://monkey.example", "http://h/CallCenter"])
def test_an_address_with_such_a_word_is_warned_about(base: str) -> None:
    assert len(urls.base_warnings(base)) == 1
    assert "xiaozhi-server refuses" in urls.base_warnings(base)[0]


@pytest.mark.parametrize("base", ["http://127.0.0.1:8004", "http://localhost:8004", "http://[::1]:8004"])
def test_an_address_of_this_machine_only_is_warned_about(base: str) -> None:
    assert "GATEWAY_PUBLIC_URL" in urls.base_warnings(base)[0]


def test_an_ordinary_address_is_not_warned_about() -> None:
    assert urls.base_warnings("https://mcp.example.com/house") == []


@pytest.mark.parametrize("url", ["http://h", "https://h:8443/p", "ws://10.0.0.1", "wss://[fd00::1]:1"])
def test_addresses_of_four_schemes_are_a_base(url: str) -> None:
    assert urls.public_url_problem(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "h",
        "ftp://h",
        "http://",
        "http://h:x",
        "http://h?a=b",
        "http://h#a",
        "http://u:p@h",
        "http://h/mcp",
        "http://[",
        "",
    ],
)
def test_what_is_no_base_is_refused(url: str) -> None:
    assert urls.public_url_problem(url)
