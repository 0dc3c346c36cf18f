"""Who plays in a run: the agents of the attackers, the innocent ones, and the handshakes of both."""

from random import Random
from urllib.parse import quote

from tests.peers.token import console_token

KEY = "0123456789abcdef0123456789abcdef"
SHARED, OTHER = "shared", "elsewhere"
"""Agents of the innocent: on one of them attackers are at home as well."""
OWN = [f"mallory-{number}" for number in range(24)]
STAGES = [f"own-{number}" for number in range(100)]
"""Agents with no more on them than a case or two at a time, so that its tool is on the first page of the list."""
ROBOT, TOOL_SERVER = "call", "mcp"
SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def token(agent: str) -> str:
    return console_token(agent, KEY)


TOKENS = [token(agent) for agent in (SHARED, OTHER, *OWN, *STAGES)]


def some_agent(chance: Random) -> str:
    """An agent of the attackers; now and then the one that an innocent robot and its tool server have."""
    return SHARED if chance.random() < 0.1 else chance.choice(OWN)


def some_stage(chance: Random) -> str:
    return chance.choice(STAGES)


def target(kind: str, agent: str, server_id: str = "") -> str:
    """Path and query of a peer of the agent."""
    more = f"&server_id={quote(server_id)}" if server_id else ""
    return f"/mcp_endpoint/{kind}/?token={quote(token(agent), safe='')}{more}"


def handshake(path: str, *lines: str) -> bytes:
    """A good one."""
    fixed = ["Host: gateway", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([f"GET {path} HTTP/1.1", *fixed, f"Sec-WebSocket-Key: {SAMPLE_KEY}", *lines, "", ""]).encode()
