"""Tokens of both kinds: whose they are, and whether they open the path that is dialled.

Theory of operation
-------------------
A signed token is a JWT (RFC 7519) with one algorithm, HS256, by PyJWT. The signing key is derived from the server key
by HKDF, so that what signs can't be used to open a legacy token, nor the other way round; the header's `kid` is a
short id of the derived key, and tells which of several keys to take while they are rotated: the first signs, all
verify. The two kinds are told apart by the two dots of a JWT, which base64 can't have.

Whatever a stranger sends costs little: its length is bounded before it is looked at, its header before it is parsed,
and of what it claims nothing is parsed before the signature is found good. The algorithm is ours, whatever the header
says. Times are checked here and not by the library, since the clock is the caller's.

The payload is written by us: the id comes first, so that its length shifts all that follows against the groups of
base64 (`gateway.urls` needs that).
"""

import base64
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway import auth
from gateway.auth import TokenCause, TokenProblem, is_agent_id
from gateway.credential import LIFETIME_DAYS_MAX, SERVER_ID_RULE, Credential, Role, is_server_id

WORDS_REFUSED = ("key", "call")
"""A xiaozhi-server refuses a URL that has one of these anywhere, in whatever case."""

CLOCK_MS = 60_000
"""So far may the clock of the machine that issued a token be ahead."""

_ALGORITHM = "HS256"
_KEY_BYTES = 32
_KEY_ID_BYTES = 6
_NOBODYS_KEY = bytes(_KEY_BYTES)
_HEADER_CHARS_MAX = 256  # ours has 80
_TIME_MS_MAX = 253_402_300_800_000  # the year 10000: the last that a clock of four digits can show
_TOKEN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
TOKEN_ID_RULE = "令牌编号须为 1 到 64 个字母、数字或 -_. / a token id is 1 to 64 letters, digits and -_."

_jws = jwt.PyJWS(algorithms=[_ALGORITHM])


@dataclass(frozen=True, slots=True)
class Opened:
    """A token whose key fits, whatever the time."""

    credential: Credential
    starts_ms: int = 0
    """It is not to be taken before."""
    key_id: str = ""
    """The key that signed it; empty: a legacy token."""


class Keyring:
    """The server's keys, ready for work: what they derive is derived once. Never shows them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._openers = [auth.opener(key) for key in keys]
        self._signing = dict(_named(key) for key in keys)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys as signed tokens name them; the first signs. They are no secrets."""
        return tuple(self._signing)

    def verify(self, token: str, now_ms: int) -> Credential:
        """Return what the token says. Raise `TokenProblem` where it is not good now; `admit` must come after."""
        opened = self.opened(token)
        if opened.starts_ms > now_ms + CLOCK_MS:
            raise TokenProblem(TokenCause.NOT_YET)
        if 0 < opened.credential.expires_ms <= now_ms:
            raise TokenProblem(TokenCause.EXPIRED)
        return opened.credential

    def opened(self, token: str) -> Opened:
        """Return what the token says, expired or not. Raise `TokenProblem` where no key fits, or it says no sense."""
        auth.check_size(token)
        if not is_signed(token):
            return Opened(Credential(auth.agent_of(token, self._openers)))
        text = unspelled(token)
        key_id = _key_id(text)
        key = self._signing.get(key_id)
        if key is None:
            with suppress(TokenProblem):  # the work of a key that is there: else time would tell which keys still count
                _claims(text, _NOBODYS_KEY)
            raise TokenProblem(TokenCause.NO_KEY_FITS)
        return _understood(_claims(text, key), key_id)

    def issue(self, credential: Credential, *, is_escaped: bool = False) -> str:
        """Return the signed token that says this, signed with the first key. Raise ValueError for what it can't say.

        `is_escaped` spells the names in it without any of their own characters: longer, and of the same meaning.
        """
        _check(credential)
        key_id, key = next(iter(self._signing.items()))
        payload = _payload(credential, is_escaped=is_escaped)
        return _jws.encode(payload, key, _ALGORITHM, {"kid": key_id}, sort_headers=False)


def is_signed(token: str) -> bool:
    """Whether that looks like a signed token, and not like a legacy one."""
    return token.count(".") == 2


def is_token_id(text: str) -> bool:
    """Whether that may be the id of a signed token."""
    return _TOKEN_ID.fullmatch(text) is not None


def unspelled(token: str) -> str:
    """The token without the blanks of pasting; no URL spells it otherwise. Raise `TokenProblem` for what is none."""
    text = token.strip()
    if not text.isascii():
        raise TokenProblem(TokenCause.FOREIGN)
    return text


def claimed(token: str) -> Mapping[str, Any]:
    """Header and claims of a signed token, whoever signed it: nothing to be believed. Empty if that can't be read."""
    try:
        content = _jws.decode_complete(unspelled(token), options={"verify_signature": False})
        claims = orjson.loads(content["payload"])
    except (jwt.InvalidTokenError, TokenProblem, orjson.JSONDecodeError):
        return {}
    return {**content["header"], **claims} if isinstance(claims, dict) else {}


def admit(credential: Credential, role: Role, server_id: str, legacy_tokens: str) -> str:
    """Return the server_id to use for who dials the role's path and asks for that one.

    Raise `TokenProblem` where the token is not for this. `legacy_tokens` is the mode that holds for the agent: the
    role for which tokens of the old kind still work, `all` or `none`.
    """
    if credential.is_legacy:
        if not takes_legacy(legacy_tokens, role):
            raise TokenProblem(TokenCause.LEGACY_OFF)
        return server_id
    if credential.role != role:
        raise TokenProblem(TokenCause.WRONG_ROLE)
    if credential.server_id and server_id not in ("", credential.server_id):
        raise TokenProblem(TokenCause.WRONG_SERVER)
    return credential.server_id or server_id


def takes_legacy(mode: str, role: str) -> bool:
    """Whether tokens of the old kind work for the role, in this mode."""
    return mode in ("all", role)


def refused_words(text: str) -> list[str]:
    """The words in the text for which a xiaozhi-server refuses a URL."""
    return [word for word in WORDS_REFUSED if word in text.lower()]


# Keys


def _named(key: str) -> tuple[str, bytes]:
    """The key that signs, and its id. In hexadecimal: that has no refused word, however base64 groups it."""
    signing = _derived(key.encode(), "signed token")
    return _derived(signing, "key id")[:_KEY_ID_BYTES].hex(), signing


def _derived(key: bytes, purpose: str) -> bytes:
    info = f"xiaozhi-mcp-gateway {purpose}".encode()
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(key)


# A stranger's token


def _key_id(text: str) -> str:
    """What the header says: nothing but which key to try."""
    segment, _, _ = text.partition(".")
    if len(segment) > _HEADER_CHARS_MAX:
        raise TokenProblem(TokenCause.FOREIGN)
    try:
        header = orjson.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except ValueError:  # no base64, no JSON
        raise TokenProblem(TokenCause.FOREIGN) from None
    if not isinstance(header, dict) or header.get("alg") != _ALGORITHM:
        raise TokenProblem(TokenCause.FOREIGN)
    key_id = header.get("kid")
    return key_id if isinstance(key_id, str) else ""


def _claims(text: str, key: bytes) -> dict[str, Any]:
    try:
        payload = _jws.decode(text, key, [_ALGORITHM])
    except jwt.InvalidSignatureError:
        raise TokenProblem(TokenCause.BAD_SIGNATURE) from None
    except jwt.PyJWTError:
        raise TokenProblem(TokenCause.FOREIGN) from None
    try:
        claims = orjson.loads(payload)
    except orjson.JSONDecodeError:
        claims = None
    if not isinstance(claims, dict):
        raise TokenProblem(TokenCause.BAD_CLAIMS)
    return claims


def _understood(claims: dict[str, Any], key_id: str) -> Opened:
    issued_ms, expires_ms = _time_ms(claims.get("iat")), _time_ms(claims.get("exp"))
    starts_ms = _time_ms(claims["nbf"]) if "nbf" in claims else issued_ms
    agent = claims.get("sub")
    if not isinstance(agent, str) or not is_agent_id(agent):
        raise TokenProblem(TokenCause.NO_AGENT)
    token_id, role, server_id = claims.get("jti"), claims.get("role"), claims.get("sid", "")
    named = isinstance(token_id, str) and isinstance(role, str) and isinstance(server_id, str)
    # What is addressed to somebody else is not ours, as RFC 7519 has it: we have no name to be addressed by.
    if not named or not issued_ms or not expires_ms or not starts_ms or "aud" in claims:
        raise TokenProblem(TokenCause.BAD_CLAIMS)
    credential = Credential(agent, role, server_id, token_id, issued_ms, expires_ms)  # type: ignore[arg-type]
    try:
        _check(credential)
    except ValueError:
        raise TokenProblem(TokenCause.BAD_CLAIMS) from None
    return Opened(credential, max(issued_ms, starts_ms), key_id)


def _time_ms(seconds: object) -> int:
    """A NumericDate in milliseconds; 0 where it is none, or not within the years of a clock."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < _TIME_MS_MAX / 1000:
        return 0  # and NaN is not between
    return round(seconds * 1000)


# Ours


def _check(credential: Credential) -> None:
    """Raise ValueError for what a signed token can't say."""
    if not is_agent_id(credential.agent):
        raise ValueError(auth.AGENT_RULE)
    if not is_token_id(credential.token_id):
        raise ValueError(TOKEN_ID_RULE)
    if credential.role not in ("mcp", "call"):
        raise ValueError("角色须为 mcp 或 call / the role is mcp or call")
    if not is_server_id(credential.server_id):
        raise ValueError(SERVER_ID_RULE)
    if credential.server_id and credential.role != "mcp":
        raise ValueError("server_id 只用于角色 mcp / a server_id goes with the role mcp only")
    if not 0 < credential.issued_ms < credential.expires_ms < _TIME_MS_MAX:
        raise ValueError("令牌须在签发之后过期 / a token expires after it was issued, and before the year 10000")
    if credential.expires_ms - credential.issued_ms > LIFETIME_DAYS_MAX * 86_400_000:
        raise ValueError("令牌最多有效十年 / a token is good for ten years at most")


def _payload(credential: Credential, *, is_escaped: bool) -> bytes:
    spell = _escaped if is_escaped else orjson.dumps
    server_id = b',"sid":' + spell(credential.server_id) if credential.server_id else b""
    return b'{"jti":%b,"sub":%b,"role":%b%b,"iat":%b,"exp":%b}' % (
        orjson.dumps(credential.token_id),
        spell(credential.agent),
        orjson.dumps(credential.role),
        server_id,
        _seconds(credential.issued_ms),
        _seconds(credential.expires_ms),
    )


def _escaped(text: str) -> bytes:
    """The JSON string, every UTF-16 unit of it as `\\uXXXX`."""
    units = text.encode("utf-16-be").hex()
    return b'"%b"' % "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)).encode()


def _seconds(ms: int) -> bytes:
    return orjson.dumps(ms // 1000 if ms % 1000 == 0 else ms / 1000)
