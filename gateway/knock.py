"""What a handshake asks for, read from its request target and its headers; nothing is believed yet."""

from urllib.parse import unquote, unquote_plus

from gateway.credential import Role
from gateway.sources import Headers

PATH = "/mcp_endpoint"
PARAMETERS_MAX = 64
"""Of a query so many are looked at, the last ones: a stranger must not make us take thousands apart."""
_TAIL_CHARS = 3 * len(f"{PATH}/call/")
"""As long as the end of a path can be with every character percent-encoded; what stands before is no matter."""
_ROLES: dict[str, Role] = {"mcp": "mcp", "call": "call"}


def role_of(target: bytes) -> Role | None:
    """Return the role whose path this is; None for every other path.

    Whatever stands before `/mcp_endpoint` is accepted, since proxies put it there; the final slash may be missing.
    """
    path = target.partition(b"?")[0][-_TAIL_CHARS:].decode("latin-1")
    head, _, last = (unquote(path) if "%" in path else path).removesuffix("/").rpartition("/")
    role = _ROLES.get(last)
    return role if role and head.endswith(PATH) else None


def parameter(query: bytes, name: str) -> str:
    """Return the value of the query's last parameter of that name, decoded; empty if there is none."""
    wanted = name.encode()
    for part in reversed(query.rsplit(b"&", PARAMETERS_MAX)[-PARAMETERS_MAX:]):
        given, _, value = part.partition(b"=")
        if given == wanted or (b"%" in given and unquote_plus(given.decode("latin-1")) == name):
            return unquote_plus(value.decode("latin-1"))
    return ""


def token_of(query: bytes, headers: Headers) -> str:
    """Return the token: that of `?token=`; only without one that of `Authorization: Bearer`; empty if there is none.

    A header beside a query's token may be a proxy's own affair. Other schemes, such as Basic, always are.
    """
    token = parameter(query, "token")
    if token.strip():
        return token
    bearers = (bearer(value.decode("latin-1")) for name, value in headers if name == b"authorization")
    return next(filter(None, bearers), "")


def bearer(authorization: str) -> str:
    """Return what follows `Bearer`, in whatever case; empty if the scheme is another one."""
    scheme, _, given = authorization.strip().partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""
