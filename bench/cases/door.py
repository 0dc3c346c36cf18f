"""What it costs to refuse a handshake, compared with accepting one."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import quote

from bench.case import Case, Figures, Ground, Promise, Round
from bench.processes import generating
from bench.targets import FAST_DIALLERS, KEY, agents, start_gateway
from gateway.auth import issue
from gateway.credential import Credential, Role
from gateway.tokens import Keyring

STRANGE_KEY = "ffeeddccbbaa99887766554433221100"
SETTINGS = {
    **FAST_DIALLERS,
    "GATEWAY_AGENT_HANDSHAKES_PER_MINUTE": "10000000",
    "GATEWAY_ORIGINS": "https://console.example.com",
}
_DAY_MS = 86_400_000
STATUSES = {
    "accepted": 101,
    "unknown_path": 404,
    "foreign_page": 403,
    "no_token": 400,
    "strange_token": 401,
    "forged_token": 401,
    "expired_token": 401,
    "wrong_role": 401,
}


def _signed(role: Role, key: str = KEY, *, age_ms: int = 0) -> str:
    """A token that is good for a day."""
    issued_ms = time.time_ns() // 1_000_000 - age_ms
    return Keyring((key,)).issue(Credential("bench-0", role, "", "bench", issued_ms, issued_ms + _DAY_MS))


def _head(token: str = "", path: str = "/mcp_endpoint/call/", header: str = "X-Bench: yes") -> str:
    query = f"?token={quote(token, safe='')}" if token else ""
    return (
        f"GET {path}{query} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{header}\r\n\r\n"
    )


def _heads() -> dict[str, list[str]]:
    """What each kind of peer sends. Those that are accepted come with tokens of both kinds, in turns."""
    head, claims, _ = _signed("call").split(".")
    good = [token for name in agents(10) for token in (issue(name, KEY), _signed("call"))]
    return {
        "accepted": [_head(token) for token in good],
        "unknown_path": [_head(good[0], path="/elsewhere/")],
        "foreign_page": [_head(good[0], header="Origin: https://elsewhere.example")],
        "no_token": [_head()],
        "strange_token": [_head(issue(name, STRANGE_KEY)) for name in agents(10)],
        "forged_token": [_head(f"{head}.{claims}.{'A' * 43}")],
        "expired_token": [_head(_signed("call", age_ms=2 * _DAY_MS))],
        "wrong_role": [_head(_signed("mcp"))],
    }


@contextmanager
def knocking(ground: Ground) -> Iterator[Round]:
    """Robots that dial and leave, and strangers that are turned away, eight at a time; one kind after the other."""
    with ExitStack() as stack:
        gateway = start_gateway(stack, ground, **SETTINGS)
        plan = {"port": gateway.port, "heads": _heads(), "statuses": STATUSES, "pids": [gateway.pid]}
        load = stack.enter_context(generating("knocks", plan, ground.folder))

        def measure() -> Figures:
            found: Figures = {}
            for name in STATUSES:
                report = load.ask({"name": name, "seconds": ground.seconds / 2}, ground.seconds + 30)
                found |= {f"{name}.{figure}": value for figure, value in report.items()}
            return found

        yield measure


CASES = (
    Case(
        "door",
        "handshake refused, against one accepted",
        tuple(
            Promise(f"CPU per refusal: {name.replace('_', ' ')}", f"{name}.cpu_us", "µs", "accepted.cpu_us", 1.0)
            for name in STATUSES
            if name != "accepted"
        ),
        knocking,
    ),
)
