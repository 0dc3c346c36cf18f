"""Where a peer is, behind proxies that are trusted and those that are not."""

import pytest

from gateway.sources import HOPS_MAX, Proxies, address, network

INGRESS = ("10.0.0.0/8", "fd00::/8", "192.168.1.7")


def source(peer: str, *forwarded: str, trusted: tuple[str, ...] = INGRESS, name: bytes = b"x-forwarded-for") -> str:
    return Proxies(trusted).source(peer, [(name, value.encode("latin-1")) for value in forwarded])


@pytest.mark.parametrize("peer", ["203.0.113.5", "2001:db8::5", "192.168.1.8"])
def test_nobodys_header_is_believed_unless_the_peer_is_a_trusted_proxy(peer: str) -> None:
    assert source(peer, "198.51.100.1") == peer
    assert source("10.0.0.1", "198.51.100.1", trusted=()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["203.0.113.5"], "203.0.113.5"),
        (["1.1.1.1, 203.0.113.5"], "203.0.113.5"),  # what stands left was written by the client
        (["10.9.9.9, 203.0.113.5"], "203.0.113.5"),
        (["1.1.1.1, 203.0.113.5, 10.0.0.2, 192.168.1.7"], "203.0.113.5"),
        (["1.1.1.1", "203.0.113.5", "10.0.0.2"], "203.0.113.5"),  # several headers are one list
        (["1.1.1.1,203.0.113.5 ,, "], "203.0.113.5"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # a client inside the trusted network
        (["203.0.113.5:50123"], "203.0.113.5"),
        (["2001:DB8::0005"], "2001:db8::5"),
        (["[2001:db8::5]"], "2001:db8::5"),
        (["[2001:db8::5]:443"], "2001:db8::5"),
        (["::ffff:203.0.113.5"], "203.0.113.5"),
        (["fe80::1%eth0"], "fe80::1"),
    ],
)
def test_the_list_is_read_from_the_right_as_far_as_it_was_written_by_proxies(
    forwarded: list[str], expected: str
) -> None:
    assert source("10.0.0.1", *forwarded) == expected


@pytest.mark.parametrize(
    "garbage",
    [
        "unknown",
        "_hidden",
        "example.com",
        "1.2.3",
        "1.2.3.4:x",
        "[::1",
        "[::1]x",
        "1.2.3.4:",
        "::1]",
        "x" * 9000,
        "\xff",
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_address_ends_the_reading_at_the_last_proxy_that_could_be_believed(garbage: str) -> None:
    assert source("10.0.0.1", f"203.0.113.5, {garbage}") == "10.0.0.1"
    assert source("10.0.0.1", f"203.0.113.5, {garbage}, 10.0.0.2") == "10.0.0.2"


def test_no_header_and_other_headers_leave_the_proxy_itself() -> None:
    assert source("10.0.0.1") == source("10.0.0.1", "") == "10.0.0.1"
    for name in (b"forwarded", b"x-real-ip", b"cf-connecting-ip"):
        assert source("10.0.0.1", "203.0.113.5", name=name) == "10.0.0.1"


def test_a_list_of_any_length_costs_a_bounded_look() -> None:
    assert source("10.0.0.1", ", ".join(["203.0.113.5", *["10.0.0.2"] * (HOPS_MAX - 1)])) == "203.0.113.5"
    assert source("10.0.0.1", ", ".join(["203.0.113.5", *["10.0.0.2"] * 5000])) == "10.0.0.2"


@pytest.mark.parametrize(("peer", "expected"), [("", "?"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%2", "fe80::1")])
def test_a_peer_has_one_spelling(peer: str, expected: str) -> None:
    assert source(peer) == expected


def test_a_proxy_that_comes_as_ipv4_in_the_clothes_of_ipv6_is_known() -> None:
    assert source("::ffff:10.0.0.1", "203.0.113.5") == "203.0.113.5"


@pytest.mark.parametrize(
    "text", ["proxy.local", "10.0.0.0/33", "", "10.0.0.1-10.0.0.9", "0.0.0.0/0", "::/0", "::ffff:0:0/96"]
)
def test_what_is_no_network_or_is_every_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        network(text)
    assert str(network(" 10.1.2.3/8 ")) == str(network("::ffff:10.1.2.3/104")) == "10.0.0.0/8"
    assert source("10.0.0.1", "203.0.113.5", trusted=("::ffff:10.0.0.1",)) == "203.0.113.5"


def test_an_address_is_not_made_of_other_digits() -> None:
    assert address("１.２.３.４") is None
    assert address("0x7f.1") is None
