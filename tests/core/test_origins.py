"""Which web pages may dial in."""

import pytest

from gateway.origins import Origins, normal

LISTED = ("https://Console.Example.com/", "http://192.168.1.7:8002", "https://[2001:db8::1]:8443", "https://控制台.cn")


def allows(*origins: str, listed: tuple[str, ...] = LISTED) -> bool:
    return Origins(listed).allow([(b"origin", origin.encode("latin-1")) for origin in origins])


def test_who_sends_no_origin_is_no_browser_and_passes() -> None:
    assert allows()
    assert allows(listed=())


@pytest.mark.parametrize(
    "origin",
    [
        "https://console.example.com",
        "HTTPS://CONSOLE.EXAMPLE.COM",
        "https://console.example.com:443",
        "http://192.168.1.7:8002",
        "https://[2001:DB8::1]:8443",
        "https://xn--xcrx5b1z3a.cn",
    ],
)
def test_a_listed_page_passes_in_every_spelling(origin: str) -> None:
    assert allows(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "http://console.example.com",
        "https://console.example.com:8443",
        "https://console.example.com.evil.net",
        "https://evil.net/https://console.example.com",
        "https://console.example.com@evil.net",
        "https://user@console.example.com",
        "http://192.168.1.7",
        "http://192.168.1.7:80020",
        "null",
        "",
        "https://",
        "console.example.com",
        "https://console.example.com\xff",
        "https://console.exam\tple.com",
        "https://console.example.com ,",
    ],
)
def test_every_other_page_does_not(origin: str) -> None:
    assert not allows(origin)
    assert not allows("https://console.example.com", origin), "one that is listed does not speak for the other"


def test_a_page_without_an_origin_passes_only_where_that_is_listed() -> None:
    assert allows("null", listed=("null",))
    assert not allows("null", listed=("https://a.example",))


def test_the_star_lets_every_page_pass() -> None:
    assert allows("null", listed=("https://a.example", "*"))
    assert allows("whatever", listed=("*",))


@pytest.mark.parametrize("origin", ["capacitor://localhost", "chrome-extension://abcdef"])
def test_apps_have_origins_too(origin: str) -> None:
    assert allows(origin, listed=(origin,))


@pytest.mark.parametrize("text", ["", "example.com", "https://a/b", "https://a?b", "https://a:x", "https://", "//a"])
def test_what_is_no_origin_has_no_spelling(text: str) -> None:
    assert normal(text) == ""
