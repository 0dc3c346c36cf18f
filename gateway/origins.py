"""From which web pages a browser may come: the list of `GATEWAY_ORIGINS`.

A browser sends the origin of the page that dials; other clients send none, and pass. The list is about pages that use
a visitor's browser and network, not about who may come: that is what tokens are for.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from gateway.sources import Headers

ANY = "*"
NONE = "null"
"""What a browser sends for a page without an origin: a file, a sandboxed frame. Passes only where it is listed."""
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class Origins:
    """The origins that are allowed."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self.listed: Sequence[str] = tuple(one if one == ANY else normal(one) or one for one in allowed)
        """As browsers spell them; for CORS."""
        self._is_any = ANY in self.listed
        self._set = frozenset(self.listed)

    def allow(self, headers: Headers) -> bool:
        """Return whether who sent these headers may dial in: he is no browser, or on a page that is listed."""
        if self._is_any:
            return True
        given = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        return all(normal(origin) in self._set for origin in given)


def normal(origin: str) -> str:
    """Return the origin in the spelling of browsers: lower case, no default port, no final slash; empty if it is none.

    Schemes of apps (`capacitor://localhost`, `chrome-extension://…`) are origins as well.
    """
    text = origin.strip().lower()
    if text == NONE:
        return NONE
    if not text.isprintable() or " " in text:  # urlsplit takes tabs out of the middle of a name
        return ""
    try:
        parts = urlsplit(text.removesuffix("/"))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if not (parts.scheme and host) or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return ""
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, _DEFAULT_PORTS.get(parts.scheme)) else "")
