"""`mcp-gateway token --agent …`: makes a token of either kind, and the URLs that people paste.

Without `--role` it is a legacy token, as it always was: what people have in their notes and scripts goes on working,
and the console makes the same token for the same agent. A signed one is asked for by its role.
"""

import secrets
import time
from argparse import Namespace
from typing import Any

from gateway import urls
from gateway.ages import iso
from gateway.banner import base_of, health_keys
from gateway.credential import Credential
from gateway.settings import Settings
from gateway.tokens import Keyring, refused_words

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # nothing that people mistake for another, or that curses


def issue(settings: Settings, arguments: Namespace) -> dict[str, Any]:
    """Return what was asked for, by names for machines. Raises ValueError, with a text for people."""
    if arguments.role:
        return _signed(settings, arguments)
    if arguments.server_id or arguments.expires:
        raise ValueError(
            "--server-id 和 --expires 只用于签名令牌，请加 --role mcp 或 --role call / "
            "--server-id and --expires are for signed tokens: add --role mcp or --role call"
        )
    base = base_of(settings)
    token = urls.paste_safe_token(arguments.agent, settings.key[0])
    return {
        "agent": arguments.agent,
        "token": token,
        "bridge_url": urls.bridge_url(base, token),
        "robot_url": urls.robot_url(base, token),
        "health_url": urls.health_url(base, health_keys(settings)[0]),
    }


def warnings(settings: Settings, answer: dict[str, Any]) -> list[str]:
    """What will go wrong with what was issued, a sentence for people each."""
    found = urls.base_warnings(base_of(settings))
    mode = settings.legacy_tokens
    if "role" not in answer and mode != "all":
        found.append(
            f"旧式令牌已停用（GATEWAY_LEGACY_TOKENS={mode}），这个令牌不能用或只能部分使用；请加 --role / "
            f"legacy tokens are switched off (GATEWAY_LEGACY_TOKENS={mode}): this one opens "
            f"{'nothing' if mode == 'none' else f'/{mode}/ only'}; add --role mcp or --role call"
        )
    if refused_words(answer["token"]):
        found.append(
            "xiaozhi-server 会拒绝这个网址 / xiaozhi-server refuses this URL: the agent's id is too long for another"
        )
    return found


def as_text(answer: dict[str, Any]) -> str:
    """For people."""
    return _signed_text(answer) if "role" in answer else _legacy_text(answer)


def _signed(settings: Settings, arguments: Namespace) -> dict[str, Any]:
    keyring, base = Keyring(settings.key), base_of(settings)
    now_ms = time.time_ns() // 1_000_000
    expires_ms = (now_ms + (arguments.expires or arguments.default_ms)) // 1000 * 1000
    wanted = Credential(
        arguments.agent,
        arguments.role,
        arguments.server_id or "",
        issued_ms=now_ms,
        expires_ms=max(expires_ms, now_ms + 1),
    )
    token = urls.paste_safe_signed_token(keyring, wanted, _drawn)
    credential = keyring.opened(token).credential
    answer = {
        "agent": credential.agent,
        "role": credential.role,
        "server_id": credential.server_id,
        "id": credential.token_id,
        "issued": iso(credential.issued_ms),
        "expires": iso(credential.expires_ms),
        "key_id": keyring.key_ids[0],
        "token": token,
    }
    if credential.role == "mcp":
        return {**answer, "bridge_url": urls.bridge_url(base, token)}
    return {**answer, "mcp_endpoint": urls.bridge_url(base, token), "robot_url": urls.robot_url(base, token)}


def _drawn(size: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(size))


def _legacy_text(answer: dict[str, Any]) -> str:
    return (
        f"智能体 / agent: {answer['agent']}\n"
        f"令牌 / token:\n  {answer['token']}\n"
        f"工具服务器和桥接，单模块的 mcp_endpoint / tool servers and bridges, and mcp_endpoint of a single module:\n"
        f"  {answer['bridge_url']}\n"
        f"小智端 / robots:\n  {answer['robot_url']}\n"
        f"智控台参数 server.mcp_endpoint / the console's parameter server.mcp_endpoint:\n  {answer['health_url']}\n"
    )


def _signed_text(answer: dict[str, Any]) -> str:
    lines = [
        f"智能体 / agent: {answer['agent']}",
        f"角色 / role: {answer['role']}",
        *([f"server_id: {answer['server_id']}"] if answer["server_id"] else []),
        f"编号，吊销时用 / id, to revoke it by: {answer['id']}",
        f"过期 / expires: {answer['expires']}",
        f"密钥编号 / key id: {answer['key_id']}",
        f"令牌 / token:\n  {answer['token']}",
    ]
    if answer["role"] == "mcp":
        lines += [f"工具服务器和桥接 / tool servers and bridges:\n  {answer['bridge_url']}"]
    else:
        lines += [
            "单模块 xiaozhi-server 的 mcp_endpoint，它自己把 /mcp/ 换成 /call/；不要给桥接 / "
            "mcp_endpoint of a xiaozhi-server without console, which puts /call/ for /mcp/ itself; not for bridges:\n"
            f"  {answer['mcp_endpoint']}",
            f"自己拨入的小智端 / robots that dial in themselves:\n  {answer['robot_url']}",
        ]
    return "\n".join(lines) + "\n"
