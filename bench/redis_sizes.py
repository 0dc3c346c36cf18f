"""How much memory Redis needs for a cluster of a given size: `python -m bench.redis_sizes [connections]`.

Written by the backplane itself, in the form that it has with connected tool servers and robots: half of the connections
are tool servers with ten tools each, half are robots, and each agent has one of both.
Prints the table of docs/redis.md.
"""

import asyncio
import sys
from typing import Any

import orjson
import redis

from gateway import registry
from gateway.backplane.base import Dispatch, RobotRow, Verdict, WorkerRow
from gateway.backplane.envelope import Envelope
from gateway.backplane.redis import RedisBackplane
from gateway.registration import Admitted, Newcomer, Rules
from gateway.tools import digest
from tests.support.redis_server import engines, running
from tests.support.waiting import wait_until

TOOLS = 10
CALLS = 1000
ARGUMENTS_BYTES = 200
WORKERS = ("gw-7c9f6d5b8-abcde-5b1f09aa", "gw-7c9f6d5b8-fghij-c07d4e21")
RULES = Rules(hold_ms=86_400_000, handshake_ms=60_000, servers_max=64, tools_max=2000)


class Deaf:
    """Hears nothing that matters here."""

    def on_envelope(self, envelope: Envelope) -> None: ...

    def on_catalog(self, agent: str, revision: int) -> None: ...

    def on_book(self, book: str) -> None: ...

    def on_gap(self) -> None: ...


def tool(number: int) -> dict[str, Any]:
    return {
        "name": f"home.device_{number}.set",
        "description": "Switches the device on or off, and sets how bright it is and of which colour.",
        "inputSchema": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}, "brightness": {"type": "integer", "minimum": 0, "maximum": 100}},
            "required": ["on"],
        },
    }


async def main(connections: int) -> None:
    """Fill a server of its own and say what it took."""
    with running(next(iter(engines().values()))) as server, server.client() as client:
        row = WorkerRow("gw-7c9f6d5b8-abcde", 1, "0.1.0", 1)
        a, b = (RedisBackplane(server.url, worker) for worker in WORKERS)
        async with a.session(Deaf()), b.session(Deaf()):
            for backplane in (a, b):
                await backplane.beat(row, 600)
            empty = used(client)
            agents = connections // 2
            await fill_servers(a, agents)
            own = used(client) - empty
            say("tool server: row, names, memory, revision, with its tools", own / agents)
            sample = "agent-0000001"
            for kind in ("servers", "names", "seen", "rev"):
                say(f"  of these, `{kind}`", memory(client, f"mcpgw:{kind}:{{{sample}}}"))
            toolsets = [memory(client, key.decode()) for key in client.scan_iter("mcpgw:toolset:*", count=1000)]
            say(f"  of these, the list of its {TOOLS} tools (equal lists share one)", sum(toolsets) / agents)
            before = used(client)
            await a.put_robots({(name(at), f"{a.worker_id}.{at}"): robot(a) for at in range(agents)})
            say("robot", (used(client) - before) / agents)
            say(f"ALL: {connections} connections", used(client) - empty)
            say("ALL, if every tool server had the same tools", used(client) - empty - sum(toolsets[1:]))
            before = used(client)
            await fill_calls(a, b)
            say(f"call in flight, {ARGUMENTS_BYTES} bytes of arguments", (used(client) - before) / CALLS)


def used(client: "redis.Redis") -> int:
    return int(client.info("memory")["used_memory"])


def memory(client: "redis.Redis", key: str) -> int:
    return int(client.memory_usage(key, samples=0) or 0)


def say(what: str, size_bytes: float) -> None:
    print(f"{what:<70} {size_bytes:>12,.0f} B")


def name(at: int) -> str:
    return f"agent-{at:07}"


def robot(backplane: RedisBackplane) -> RobotRow:
    return RobotRow(backplane.worker_id, "xiaozhi-mcp-client 1.0.0", backplane.now_ms)


async def fill_servers(backplane: RedisBackplane, agents: int) -> None:
    for at in range(agents):
        tools = [tool(number) for number in range(TOOLS)]
        tools[0]["description"] += f" {at}"
        encoded = orjson.dumps(tools)
        toolset = digest(encoded)
        await backplane.put_toolsets({toolset: encoded})
        snapshot = await backplane.snapshot(name(at))
        names = tuple(str(one["name"]) for one in tools)
        peer = Newcomer(backplane.worker_id, f"{backplane.worker_id}.{at}", "", "Home", "1.0.0", toolset, names)
        admitted = registry.register(snapshot, peer, RULES, dead=(), ghosts=(), twins=())
        assert isinstance(admitted, Admitted)
        assert await backplane.commit(name(at), snapshot.revision, admitted.change) is not None


async def fill_calls(sender: RedisBackplane, owner: RedisBackplane) -> None:
    verdicts: list[Verdict] = []
    for at in range(CALLS):
        envelope = Envelope("req", f"5b1f09aa-{at}", sender.worker_id, name(at), "Home", 1, f"{owner.worker_id}.{at}")
        envelope.tool, envelope.ms, envelope.due = "home.device_1.set", 27_000, sender.now_ms + 27_000
        envelope.body = b"x" * ARGUMENTS_BYTES
        sender.dispatch(Dispatch(owner.worker_id, envelope, 330.0), verdicts.append)
    await wait_until(lambda: len(verdicts) == CALLS, "all calls are dispatched")
    assert set(verdicts) == {Verdict.OK}, verdicts[0]


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
