"""Where a peer is, seen past the reverse proxies that are trusted.

Theory of operation
-------------------
A proxy appends to `X-Forwarded-For` whom it was dialled by. So the list is read from the right, and only as long as
whoever has written the entry is trusted: first the peer of the socket itself, then each entry in turn. The first
address that is no trusted proxy's is the source; whatever stands left of it was written by strangers. An entry that
is no address ends the reading as well, at the last proxy that could be believed.

`Forwarded` (RFC 7239) and `X-Real-IP` are not read: a proxy that sets none of them passes on what the client made up,
and no proxy sets all three.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Names in lower case."""

UNKNOWN = "?"
"""The source of a peer without an address, such as one of a Unix socket."""
HOPS_MAX = 32
ADDRESS_CHARS_MAX = 64
_MAPPED_BITS = 96
"""Before an IPv4 address in the clothes of IPv6."""
_FORWARDED_FOR = b"x-forwarded-for"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}")

_Address: TypeAlias = IPv4Address | IPv6Address
_Network: TypeAlias = IPv4Network | IPv6Network


class Proxies:
    """The proxies whose word is believed: addresses and networks. Raises ValueError for what is neither."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = tuple(network(text) for text in trusted)

    def source(self, peer: str, headers: Headers) -> str:
        """Return the address of whoever dialled, as text in canonical form; the peer's own where nobody is trusted."""
        if not self._networks and ":" not in peer:
            return peer or UNKNOWN
        here = address(peer)
        if here is None:
            return peer or UNKNOWN
        if not self._trusts(here):
            return str(here)
        told = b",".join(value for name, value in headers if name == _FORWARDED_FOR)
        for entry in reversed(told.rsplit(b",", HOPS_MAX)[-HOPS_MAX:]):
            if not entry.strip():
                continue
            behind = address(entry.decode("latin-1"))
            if behind is None:
                break
            here = behind
            if not self._trusts(here):
                break
        return str(here)

    def _trusts(self, one: _Address) -> bool:
        return any(one in network for network in self._networks)


def network(text: str) -> _Network:
    """Return the network that is meant, a single address being one of its own; ValueError if none is.

    The networks of all addresses are none: then everybody could say where he comes from.
    """
    meant = ip_network(text.strip(), strict=False)
    mapped = meant.network_address.ipv4_mapped if isinstance(meant, IPv6Network) else None
    if mapped is not None and meant.prefixlen >= _MAPPED_BITS:
        meant = IPv4Network((int(mapped), meant.prefixlen - _MAPPED_BITS))
    if not meant.prefixlen:
        raise ValueError(f"{text.strip()} 是所有地址 / {text.strip()} is every address")
    return meant


def address(text: str) -> _Address | None:
    """Return the address in such a text: with a port or without, IPv6 bare or in brackets; None if there is none.

    IPv4 in the clothes of IPv6, as a socket for both sees it, is IPv4.
    """
    text = text.strip()
    if len(text) > ADDRESS_CHARS_MAX:
        return None
    host, colon, port = text, "", ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket:
            return None
    elif text.count(":") == 1:
        host, colon, port = text.partition(":")
    if (colon or port) and not (colon == ":" and port.isascii() and port.isdigit()):
        return None
    try:
        found = ip_address(host.partition("%")[0])  # the zone is this machine's affair
    except ValueError:
        return None
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found


def source_name(address: str) -> str:
    """What a source is counted as: an IPv4 address, or the /64 that an IPv6 address is one of; empty: unknown."""
    if _IPV4.fullmatch(address):  # nearly always, and in its canonical form, which ip_address is long about
        return address
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
