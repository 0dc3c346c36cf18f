"""The URLs that people paste: into the console, into a bridge, into a xiaozhi-server.

Theory of operation
-------------------
Two readers are picky. The xiaozhi-server refuses a bridge URL that contains `key` or `call` anywhere, in whatever
case, token and host included; a random token does so about once in 800, and a few more blanks in its JSON make
another token for the same agent. The console refuses a health URL with `localhost` or `127.0.0.1`, and cuts it at the
last `/` and after `key=`, so the key is the last parameter and can't contain what ends or splits a URL.

A signed token is readable, so that what is spelled wrong in it is spelled wrong for ever: the agent's id has the word
at one alignment of base64's groups, and not at another. So the token's id is drawn anew, and each time of another
length; and where an agent's id has the word at all three, it is written as escapes, which never have it at one.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote, urlsplit

from gateway.auth import TOKEN_CHARS_MAX, issue
from gateway.credential import Credential
from gateway.tokens import Keyring, refused_words

SINGLE_MODULE = "single_module"
"""The agent of a xiaozhi-server that runs without a console."""

CONSOLE_CUTS_AT = "/&%#+? "
"""The console's URL ends, splits or changes at these, so a key must not contain them."""

_BLANKS_TRIED = 64  # each try fails about once in 800
_IDS_TRIED = 64  # half of them with escapes; each fails about once in 100
_ID_CHARS = 20


def base_url(public_url: str, host: str, port: int, lan_host: str) -> str:
    """Return the URL before `/mcp_endpoint`, without final slash.

    That is `public_url` where set; else the address listened on, or `lan_host` if that is every address.
    """
    if public_url:
        return public_url.strip().rstrip("/").removesuffix("/mcp_endpoint")
    name = lan_host if _is_any(host) else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def health_url(base: str, key: str) -> str:
    """Return what goes into the console's parameter `server.mcp_endpoint`."""
    return f"{_with_scheme(base, 'http')}/mcp_endpoint/health?key={quote(key, safe='')}"


def bridge_url(base: str, token: str) -> str:
    """Return what goes into a bridge, and into `mcp_endpoint` of a xiaozhi-server without a console."""
    return f"{_with_scheme(base, 'ws')}/mcp_endpoint/mcp/?token={quote(token, safe='')}"


def robot_url(base: str, token: str) -> str:
    """Return where a robot dials in; a xiaozhi-server makes this from the bridge's URL by itself."""
    return f"{_with_scheme(base, 'ws')}/mcp_endpoint/call/?token={quote(token, safe='')}"


def paste_safe_token(agent: str, key: str) -> str:
    """Return a token of the agent whose URL the xiaozhi-server accepts, as far as the token decides that.

    The same every time. Raise ValueError if that can't be an agent id.
    """
    tokens = (issue(agent, key, blanks=blanks) for blanks in range(_BLANKS_TRIED))
    return next((token for token in tokens if not refused_words(quote(token, safe=""))), issue(agent, key))


def paste_safe_signed_token(keyring: Keyring, credential: Credential, draw: Callable[[int], str]) -> str:
    """Return a signed token that says this, with an id that was drawn for it, to be pasted like the other kind.

    `draw` makes a new id of so many characters. Raise ValueError for what a token can't say.
    """
    for number in range(_IDS_TRIED):
        named = replace(credential, token_id=draw(_ID_CHARS + number % 3))
        token = keyring.issue(named, is_escaped=2 * number >= _IDS_TRIED)
        if len(token) <= TOKEN_CHARS_MAX and not refused_words(token):
            return token
    return keyring.issue(replace(credential, token_id=draw(_ID_CHARS)))


def base_warnings(base: str) -> list[str]:
    """Return what the console or the xiaozhi-server would refuse about these URLs, a sentence for people each."""
    warnings = []
    host = urlsplit(base).hostname or ""
    if words := refused_words(base):
        names = ", ".join(words)
        warnings.append(
            f"地址 {base} 含有 {names}，xiaozhi-server 会拒绝；请换一个主机名或路径（GATEWAY_PUBLIC_URL） / "
            f"the address {base} contains {names}, which xiaozhi-server refuses; "
            "use another host name or path (GATEWAY_PUBLIC_URL)"
        )
    if "localhost" in base.lower() or "127.0.0.1" in base or host == "::1":
        warnings.append(
            f"地址 {base} 只在本机有效，智控台也会拒绝；请把 GATEWAY_PUBLIC_URL 设为别人能访问的地址 / "
            f"the address {base} works on this machine only, and the console refuses it; "
            "set GATEWAY_PUBLIC_URL to one that others can reach"
        )
    return warnings


def public_url_problem(url: str) -> str:
    """Return what makes this no base for URLs, for people; empty if nothing does."""
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        return "不是网址 / is not a URL"
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname or not port_ok:
        return "不是 http、https、ws 或 wss 的网址 / is not a URL with http, https, ws or wss and a host"
    if parts.query or parts.fragment or "@" in parts.netloc:
        return "不能带 ?、# 或用户名 / must not have a query, a fragment or a user name"
    if "/mcp/" in parts.path + "/":
        return "路径不能含 /mcp/，智控台和 xiaozhi-server 会替换它 / must not contain /mcp/, which its readers replace"
    return ""


def _with_scheme(base: str, family: str) -> str:
    scheme, _, rest = base.partition("://")
    return f"{family}s://{rest}" if scheme in ("https", "wss") else f"{family}://{rest}"


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
