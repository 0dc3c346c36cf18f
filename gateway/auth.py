"""Legacy tokens and keys: which agent a connection speaks for. The signed kind is in `gateway.tokens`.

Theory of operation
-------------------
The token is that of the deployed consoles: base64 of AES-ECB with PKCS#7 padding over `{"agentId": "…"}`, under the
server key. It has no expiry, no nonce and no signature, so whoever knows the key can make one, and the same agent
always has the same token. ECB is not a choice: only this form is accepted and issued by what people run today.

People paste tokens into URLs by hand, so spelling is forgiven: `+` that arrived as a blank, the URL-safe alphabet,
missing padding, a second percent-encoding. What is wrong with a token is told to the log (`TokenProblem.cause`); the
peer only learns 400 (none given) or 401.
"""

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeAlias
from urllib.parse import unquote

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

TOKEN_CHARS_MAX = 4096  # a token of the longest agent id has some 1500; nothing longer is worth a key's work
AGENT_CHARS_MAX = 256
AGENT_RULE = "智能体编号须为 1 到 256 个可打印字符 / an agent id is 1 to 256 printable characters"

Opener: TypeAlias = Callable[[bytes], bytes]
"""What a key makes of whole blocks."""

_BLOCK_BYTES = 16
_KEY_BYTES = 32
_SPELLING = str.maketrans(" -_", "++/")


class TokenCause(Enum):
    """What is wrong with a token, for the log."""

    EMPTY = "没有令牌 / no token"
    TOO_LONG = "令牌太长 / the token is too long"
    NOT_BASE64 = "令牌不是 base64，可能没有复制完整 / the token is not base64; it may have been cut when copied"
    WRONG_LENGTH = "令牌长度不对，可能没有复制完整 / the token has a wrong length; it may have been cut when copied"
    NO_KEY_FITS = "没有密钥能解开令牌，它来自另一个密钥 / no key opens the token; it was made with another key"
    NOT_JSON = (
        "令牌解开后不是 JSON，多半来自另一个密钥 / the token opens to no JSON; it was probably made with another key"
    )
    NO_AGENT = "令牌里没有可用的智能体编号 / the token holds no usable agent id"
    FOREIGN = (
        "签名令牌的格式或算法不是本网关的，例如官方云的令牌 / "
        "a signed token of another form or algorithm than ours, such as the official cloud's"
    )
    BAD_SIGNATURE = (
        "令牌的签名不对：被改动，或没有复制完整 / the token's signature is wrong: altered, or cut when copied"
    )
    BAD_CLAIMS = "令牌缺少必需的内容，或内容的类型不对 / the token lacks a claim, or one has a wrong type"
    EXPIRED = "令牌已过期 / the token has expired"
    NOT_YET = (
        "令牌的签发时间在将来：请核对签发它的机器的时钟 / "
        "the token was issued in the future: check the clock of the machine that issued it"
    )
    WRONG_ROLE = "令牌的角色不能用于这个路径 / the token's role is not for this path"
    WRONG_SERVER = "令牌只用于另一个 server_id / the token is for another server_id only"
    LEGACY_OFF = (
        "旧式令牌在这里已停用 / legacy tokens are switched off here (GATEWAY_LEGACY_TOKENS, or the agent's policy)"
    )
    REVOKED = "令牌已吊销 / the token is revoked"


class TokenProblem(Exception):
    """The token is refused. `cause` is for the log; it contains nothing of the token."""

    def __init__(self, cause: TokenCause) -> None:
        super().__init__(cause.value)
        self.cause = cause

    @property
    def is_missing(self) -> bool:
        """True if the peer gave no token at all: 400 instead of 401."""
        return self.cause is TokenCause.EMPTY


def check_size(token: str) -> None:
    """Raise `TokenProblem` where there is no token, or one too long to be worth any work."""
    if not token.strip():
        raise TokenProblem(TokenCause.EMPTY)
    if len(token) > TOKEN_CHARS_MAX:
        raise TokenProblem(TokenCause.TOO_LONG)


def verify(token: str, keys: Sequence[str]) -> str:
    """Return the agent id that the token carries under any of the keys; raise `TokenProblem` if there is none."""
    return agent_of(token, [opener(key) for key in keys])


def agent_of(token: str, openers: Sequence[Opener]) -> str:
    """As `verify`, with what `opener` has made of the keys once."""
    check_size(token)
    sealed = _unspelled(token)
    # A foreign key leaves a valid padding once in 256, so a failure after the decryption may not end the search.
    furthest = TokenCause.NO_KEY_FITS
    for one in openers:
        try:
            return _agent(_opened(sealed, one))
        except TokenProblem as problem:
            if problem.cause is not TokenCause.NO_KEY_FITS and furthest is not TokenCause.NO_AGENT:
                furthest = problem.cause
    raise TokenProblem(furthest)


def issue(agent: str, key: str, *, blanks: int = 0) -> str:
    """Return the agent's token, spelled as the console spells it. Raise ValueError if that can't be an agent id.

    `blanks` more blanks after the JSON's colon make another token for the same agent (`gateway.urls` needs that).
    """
    if not is_agent_id(agent):
        raise ValueError(AGENT_RULE)
    text = b'{"agentId":' + b" " * (1 + blanks) + orjson.dumps(agent) + b"}"
    padder = PKCS7(_BLOCK_BYTES * 8).padder()
    encryptor = _cipher(key).encryptor()
    sealed = encryptor.update(padder.update(text) + padder.finalize()) + encryptor.finalize()
    return base64.b64encode(sealed).decode("ascii")


def is_agent_id(agent: object) -> bool:
    """True for a non-empty printable string of bearable length."""
    return isinstance(agent, str) and 0 < len(agent) <= AGENT_CHARS_MAX and agent.isprintable()


def is_key(given: str, keys: Sequence[str]) -> bool:
    """True if the given text is one of the keys. Takes the same time wherever the first difference is."""
    matches = [hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()) for key in keys]
    return any(matches)


def is_bearer(authorization: str, key: str) -> bool:
    """Return whether the value of an Authorization header is `Bearer` and this key."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and is_key(given.strip(), (key,))


def opener(key: str) -> Opener:
    """What decrypts whole blocks with the key. In ECB none depends on another, so it may be kept and used for ever."""
    return _cipher(key).decryptor().update


def _cipher(key: str) -> Cipher[modes.ECB]:
    raw = key.encode()
    if len(raw) not in (16, 24, 32):
        raw = raw[:_KEY_BYTES].ljust(_KEY_BYTES, b"\0")
    return Cipher(algorithms.AES(raw), modes.ECB())


def _unspelled(token: str) -> bytes:
    text = unquote(token) if "%" in token else token
    text = text.strip("\t\r\n").translate(_SPELLING).rstrip("=")
    try:
        sealed = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise TokenProblem(TokenCause.NOT_BASE64) from None
    if not sealed or len(sealed) % _BLOCK_BYTES:
        raise TokenProblem(TokenCause.WRONG_LENGTH)
    return sealed


def _opened(sealed: bytes, one: Opener) -> bytes:
    padded = one(sealed)
    size = padded[-1]
    if not 0 < size <= _BLOCK_BYTES or not padded.endswith(bytes((size,)) * size):
        raise TokenProblem(TokenCause.NO_KEY_FITS)
    return padded[:-size]


def _agent(text: bytes) -> str:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise TokenProblem(TokenCause.NOT_JSON) from None
    agent = content.get("agentId") if isinstance(content, dict) else None
    if not isinstance(agent, str) or not is_agent_id(agent):
        raise TokenProblem(TokenCause.NO_AGENT)
    return agent
