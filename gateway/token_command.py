"""`mcp-gateway token inspect | revoke | restore | revoked`: what a token is worth, and what it is to be worth."""

import getpass
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from gateway import policies, revocations, tables
from gateway.ages import age, iso
from gateway.auth import AGENT_RULE, TokenProblem, is_agent_id
from gateway.backplane.base import Entry
from gateway.bookkeeping import Bookkeeper, opened
from gateway.credential import LIFETIME_DAYS_MAX, Credential
from gateway.operating import CannotOperate
from gateway.policies import DEFAULT, Policies
from gateway.revocations import Revocations
from gateway.settings import Settings
from gateway.tokens import TOKEN_ID_RULE, Keyring, Opened, admit, claimed, is_signed, is_token_id

_TEXT_CHARS_MAX = 65_536
_SPARE_DAYS = 10  # clocks differ; nothing is forgotten before its time
_DAY_MS = 86_400_000
_ROLES: tuple[Any, ...] = ("mcp", "call")

_REVOKED = "已吊销，两秒内处处生效，连着的会断开 / revoked, everywhere within two seconds, live connections included: "
_AGENT_REVOKED = """\
  旧式令牌：全部拒绝，直到撤回 / legacy tokens: all refused until mcp-gateway token restore --agent {agent}
  签名令牌：{now} 之前签发的都拒绝 / signed tokens: all issued before then are refused
  新的令牌可用 / new ones work: mcp-gateway token --agent {agent} --role mcp
"""

_SLOW = """\
  ! 本机时钟慢 {0} 秒：这段时间内在这里签发的令牌也算在此之前 /
    this machine's clock is slow by {0} s: tokens that are made here before that has passed are refused as well
"""

Write: TypeAlias = Callable[[str], None]


async def run(settings: Settings, arguments: Namespace, write: Write, warn: Write) -> int:
    """Return the exit code: 0 done, or the token is good; 1 not so. Raises CannotOperate."""
    match arguments.verb:
        case "inspect":
            return await _inspect(settings, arguments, write, warn)
        case "revoke":
            return await _revoke(settings, arguments, write)
        case "restore":
            return await _restore(settings, arguments, write)
        case _:
            return await _list(settings, arguments, write)


# Inspect


async def _inspect(settings: Settings, arguments: Namespace, write: Write, warn: Write) -> int:
    token, keyring = _read(arguments.token), Keyring(settings.key)
    seen = _seen(token, keyring, settings)
    if seen["valid"]:
        credential = keyring.opened(token).credential
        try:
            async with opened(settings) as books:
                await _look_up(books, credential, seen, settings)
        except CannotOperate as error:
            warn(f"! 不知道是否已吊销 / whether it is revoked is not known: {error}\n")
    write(tables.as_json(seen) if arguments.json else _seen_text(seen))
    return 0 if seen["valid"] and not seen["revoked"] and seen["roles"] else 1


def _seen(token: str, keyring: Keyring, settings: Settings) -> dict[str, Any]:
    """What the token and the keys alone say."""
    now_ms = _now_ms()
    problem: TokenProblem | None = None
    try:
        keyring.verify(token, now_ms)
    except TokenProblem as error:
        problem = error
    try:
        found, is_ours = keyring.opened(token), True
    except TokenProblem:
        found, is_ours = _claimed(token), False
    credential = found.credential
    return {
        "kind": "signed" if is_signed(token) else "legacy",
        "valid": problem is None,
        "problem": {"code": problem.cause.name.lower(), "text": problem.cause.value} if problem else None,
        "verified": is_ours,
        "agent": credential.agent or None,
        "roles": _roles(credential, settings.legacy_tokens) if credential.agent else [],
        "server_id": credential.server_id or None,
        "id": credential.token_id or None,
        "issued": iso(credential.issued_ms),
        "expires": iso(credential.expires_ms),
        "expires_in": age(credential.expires_ms, now_ms) or None,
        "key_id": found.key_id or None,
        "key": _which_key(keyring, found.key_id),
        "revoked": None,
        "revoked_by": None,
    }


def _claimed(token: str) -> Opened:
    """What a signed token says of itself, without any proof; nothing for the other kind."""
    claims = claimed(token) if is_signed(token) else {}

    def text(name: str) -> str:
        value = claims.get(name)
        return value[:256] if isinstance(value, str) else ""

    def time_ms(name: str) -> int:
        value = claims.get(name)
        is_time = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**11
        return round(value * 1000) if is_time else 0  # type: ignore[operator]  # known by now

    role: Any = text("role")
    credential = Credential(
        text("sub"), role if role in _ROLES else None, text("sid"), text("jti") or "?", time_ms("iat"), time_ms("exp")
    )
    return Opened(credential if claims else Credential(""), key_id=text("kid"))


def _roles(credential: Credential, mode: str) -> list[str]:
    """For which paths it is good."""
    if not credential.is_legacy:
        return [credential.role] if credential.role else []
    return [role for role in _ROLES if _is_admitted(credential, role, mode)]


def _is_admitted(credential: Credential, role: Any, mode: str) -> bool:
    try:
        admit(credential, role, credential.server_id, mode)
    except TokenProblem:
        return False
    return True


def _which_key(keyring: Keyring, key_id: str) -> str | None:
    """Which of GATEWAY_KEY it is: the first signs."""
    if not key_id:
        return None
    ids = keyring.key_ids
    return f"{ids.index(key_id) + 1}/{len(ids)}" if key_id in ids else "unknown"


async def _look_up(books: Bookkeeper, credential: Credential, seen: dict[str, Any], settings: Settings) -> None:
    """Add what people have decided: revocations, and legacy tokens switched off for the agent."""
    entries = (await books.read_book(revocations.BOOK)).entries
    seen["revoked"] = False
    for name in (revocations.of_token(credential.token_id), revocations.of_agent(credential.agent)):
        alone = Revocations()
        alone.put(name, entries[name].text or None if name in entries else None)
        if alone.is_revoked(credential):
            seen.update(revoked=True, revoked_by=name)
    found = Policies()
    for name, entry in (await books.read_book(policies.BOOK)).entries.items():
        if name in (DEFAULT, credential.agent):
            found.put(name, entry.text or None)
    seen["roles"] = _roles(credential, found.of(credential.agent).legacy_tokens_mode(settings.legacy_tokens))


def _seen_text(seen: Mapping[str, Any]) -> str:
    unproven = "" if seen["verified"] else "（自称，未验证 / it says so, unproven）"
    kind = "签名 / signed" if seen["kind"] == "signed" else "旧式 / legacy"
    revoked = {True: f"是 / yes: {seen['revoked_by']}", False: "否 / no", None: "未知 / not known"}[seen["revoked"]]
    which = "，不在 GATEWAY_KEY 里 / , not in GATEWAY_KEY" if seen["key"] == "unknown" else f" ({seen['key']})"
    lines = [
        ("种类 / kind", kind),
        ("智能体 / agent", seen["agent"]),
        ("角色 / role", " + ".join(seen["roles"]) or "无，已停用 / none: switched off"),
        ("server_id", seen["server_id"]),
        ("编号 / id", seen["id"]),
        ("签发 / issued", seen["issued"]),
        ("过期 / expires", f"{seen['expires']} ({seen['expires_in']})" if seen["expires"] else "从不 / never"),
        ("密钥编号 / key id", f"{seen['key_id']}{which}" if seen["key_id"] else None),
        ("有效 / valid", "是 / yes" if seen["valid"] else f"否 / no: {seen['problem']['text']}"),
        ("吊销 / revoked", revoked if seen["valid"] else None),
    ]
    if not seen["agent"]:
        lines = [lines[0], lines[8]]
    says = ("智能体", "角色", "server_id", "编号", "签发", "过期")
    return "".join(
        f"{name}: {tables.printable(str(value))}{unproven if name.startswith(says) else ''}\n"
        for name, value in lines
        if value
    )


# Revoke


async def _revoke(settings: Settings, arguments: Namespace, write: Write) -> int:
    agent, token_id, expires_ms = arguments.agent, arguments.id, 0
    if arguments.token:
        credential = _own(_read(arguments.token), settings)
        token_id, expires_ms = credential.token_id, credential.expires_ms
    name = _entry_name(token_id, agent)
    async with opened(settings) as books:
        now_ms = books.now_ms
        slow_seconds = round((now_ms - _now_ms()) / 1000)
        # Without the token its expiry isn't known: that of the longest that could have been issued until now.
        until_ms = max(now_ms, expires_ms or now_ms + LIFETIME_DAYS_MAX * _DAY_MS) + _SPARE_DAYS * _DAY_MS
        times = {"before_ms": now_ms} if agent else {"until_ms": until_ms}
        await books.write_entry(revocations.BOOK, name, orjson.dumps({**times, "reason": arguments.reason}))
    write(f"{_REVOKED}{tables.printable(name)}\n")
    if agent:
        write(_AGENT_REVOKED.format(agent=shlex.quote(agent), now=iso(now_ms)))
        write(_SLOW.format(slow_seconds) if slow_seconds > 0 else "")
    write(_where(settings))
    return 0


def _where(settings: Settings) -> str:
    """Where it was written, which people must know who have several gateways, or stand in the wrong directory."""
    if settings.redis_url:
        return f"写入 Redis，前缀 {settings.redis_prefix} / written to Redis, prefix {settings.redis_prefix}\n"
    path = Path(settings.data_dir).absolute() / f"{revocations.BOOK}.json"
    return f"写入 {path}，只对用这个目录的网关有效 / written to {path}, for the gateway with this directory\n"


def _own(token: str, settings: Settings) -> Credential:
    """What the token says, if it is one of ours that can be revoked by its id. Raises CannotOperate."""
    try:
        credential = Keyring(settings.key).opened(token).credential
    except TokenProblem as problem:
        raise CannotOperate(
            f"这个令牌在这里本来就无效 / this token is not good here anyway: {problem.cause.value}"
        ) from None
    if credential.is_legacy:
        agent = tables.printable(credential.agent)
        raise CannotOperate(
            f"旧式令牌没有编号，只能按智能体吊销 / a legacy token has no id, and is revoked with its agent:\n"
            f"  mcp-gateway token revoke --agent {shlex.quote(agent)}"
        )
    return credential


async def _restore(settings: Settings, arguments: Namespace, write: Write) -> int:
    name = _entry_name(arguments.id, arguments.agent)
    async with opened(settings) as books:
        entry = (await books.read_book(revocations.BOOK)).entries.get(name)
        if entry is None or not entry.text:
            write(f"没有吊销过 / is not revoked: {tables.printable(name)}\n")
            return 1
        await books.write_entry(revocations.BOOK, name, b"")
    write(f"已撤回吊销，两秒内处处生效 / restored, everywhere within two seconds: {tables.printable(name)}\n")
    write(_where(settings))
    return 0


def _entry_name(token_id: str, agent: str) -> str:
    """The entry's name in the book. Raises CannotOperate for what can be neither an id nor an agent."""
    if agent:
        if not is_agent_id(agent):
            raise CannotOperate(f"--agent: {AGENT_RULE}")
        return revocations.of_agent(agent)
    if not is_token_id(token_id):
        raise CannotOperate(f"--id: {TOKEN_ID_RULE}")
    return revocations.of_token(token_id)


# List


async def _list(settings: Settings, arguments: Namespace, write: Write) -> int:
    async with opened(settings) as books:
        edition = await books.read_book(revocations.BOOK)
    newest = sorted(edition.entries.items(), key=lambda item: (-item[1].version, item[0]))
    found = [_listed(name, entry) for name, entry in newest if entry.text]
    shown = found[: arguments.limit]
    if arguments.json:
        data = {"revoked": shown, "more": len(found) - len(shown)}
        write(tables.as_json(data))
        return 0
    for one in shown:
        times = [f"{word} {one[word]}" for word in ("before", "until") if one[word]]
        write(tables.printable("  ".join([f"{one['kind']} {one['name']}", *times, one["reason"]]).rstrip()) + "\n")
    if len(found) > len(shown):
        write(f"… 还有 {len(found) - len(shown)} 个 / {len(found) - len(shown)} more (--limit)\n")
    if not found:
        write("没有吊销任何令牌 / nothing is revoked\n")
    return 0


def _listed(name: str, entry: Entry) -> dict[str, Any]:
    kind, _, rest = name.partition(":")
    try:
        content = orjson.loads(entry.text)
    except orjson.JSONDecodeError:  # an operator's hand; it refuses all that it could mean
        content = None
    fields = content if isinstance(content, dict) else {}

    def moment(field: str) -> str | None:
        value = fields.get(field)
        return iso(round(value)) if isinstance(value, int | float) else None

    reason = fields.get("reason")
    return {
        "kind": kind,
        "name": rest,
        "since": iso(entry.version),
        "before": moment("before_ms"),
        "until": moment("until_ms"),
        "reason": reason if isinstance(reason, str) else "",
    }


# Reading


def _read(argument: str) -> str:
    """The token: the argument, or what is piped or typed in; a whole URL will do. Raises CannotOperate."""
    text = argument
    if argument == "-":
        text = getpass.getpass("令牌或网址，不显示 / token or URL, not shown: ") if sys.stdin.isatty() else _piped()
    text = text.strip().removeprefix("Bearer ").strip().strip("\"'")
    _, is_url, query = text.partition("token=")
    token = query.partition("&")[0] if is_url else text
    if not token:
        raise CannotOperate("没有令牌 / no token")
    return token


def _piped() -> str:
    try:
        return sys.stdin.read(_TEXT_CHARS_MAX)
    except UnicodeDecodeError:
        raise CannotOperate("标准输入不是文本 / standard input is no text") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
