"""What the gateway says once at its start: the two URLs that people paste."""

import os
import socket
import sys

from gateway import __version__, urls
from gateway.settings import Settings


def show(settings: Settings) -> None:
    """Print the banner for people. Where nobody reads it, the gateway serves all the same."""
    if settings.log_format == "json":
        return  # machines would keep it, key and all, and can't read it
    try:
        sys.stdout.write(banner(settings))
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # else the interpreter tries once more at its end, and complains
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def banner(settings: Settings) -> str:
    """Return the text for standard output. It holds the key and a token: it must not go through logging."""
    base = base_of(settings)
    lines = [
        f"小智 MCP 网关 {__version__} / xiaozhi MCP gateway {__version__}",
        "",
        "  智控台参数 server.mcp_endpoint / the console's parameter server.mcp_endpoint:",
        f"    {urls.health_url(base, health_keys(settings)[0])}",
        *_bridge(base, settings),
        "  请勿泄露以上地址 / keep these URLs to yourself",
    ]
    lines += [f"  ! {warning}" for warning in urls.base_warnings(base)]
    if not settings.public_url:
        lines.append(
            "  地址是猜的；在容器里或有域名时请设置 GATEWAY_PUBLIC_URL / "
            "the address is a guess: set GATEWAY_PUBLIC_URL in a container, or if you have a name"
        )
    return "\n".join(lines) + "\n\n"


def _bridge(base: str, settings: Settings) -> list[str]:
    """The URL of the agent that is there without a console; how to make one where legacy tokens don't do for it."""
    title = (
        "  单模块部署和桥接（智能体 single_module） / a bridge, or a xiaozhi-server without console (single_module):"
    )
    if settings.legacy_tokens == "all":
        url = urls.bridge_url(base, urls.paste_safe_token(urls.SINGLE_MODULE, settings.key[0]))
        return [title, f"    {url}", "", "  其他智能体 / for other agents: mcp-gateway token --agent ID"]
    return [
        title,
        f"    旧式令牌已停用 / legacy tokens are switched off: GATEWAY_LEGACY_TOKENS={settings.legacy_tokens}",
        f"    mcp-gateway token --agent {urls.SINGLE_MODULE} --role mcp | call",
        "",
    ]


def health_keys(settings: Settings) -> tuple[str, ...]:
    """What opens the health answer; the first is the one to hand out.

    The server key does, since consoles have nothing else; unless no legacy token counts any more and there is a key of
    its own: then nobody needs to hand out what signs tokens.
    """
    own = (settings.health_key,) if settings.health_key else ()
    return own if own and settings.legacy_tokens == "none" else (*settings.key, *own)


def base_of(settings: Settings) -> str:
    """Return the URL before `/mcp_endpoint` as others reach this gateway, as far as that can be known from here."""
    return urls.base_url(settings.public_url, settings.host, settings.port, lan_address())


def lan_address() -> str:
    """Return this machine's address on the way to the outside, or 127.0.0.1. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation: only the route to it is looked up
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
