"""What can be wrong with a cluster: rules over what was read of it, each naming what exactly it found.

Pure: nothing here waits or looks at a clock. Several rules name things that are there for a moment in every healthy
cluster (a worker that has just died, a call that is just ending): who asks looks twice and believes what stays.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gateway import names
from gateway.ages import age, span
from gateway.backplane.facts import AgentFacts, ClusterFacts, EventFacts
from gateway.finding import Level
from gateway.registry import TAKEOVERS_TO_NAME
from gateway.settings import Settings

CLOCK_SPARE_MS = 1000
FLAP_JOINS = 5
FLAP_WINDOW_MS = 600_000
BURIAL_SPARE_MS = 10_000
CALL_SPARE_MS = 5000
BUFFER_SHARE = 0.5
MEMORY_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Symptom:
    """One thing that is not as it should be. Two looks that find the same `item` have found it to last."""

    level: Level
    item: str
    detail: str = ""
    """What changes from look to look: an age, a number."""


Symptoms = Iterator[Symptom]
Rule = Callable[[ClusterFacts, Settings], Symptoms]


def orphans(facts: ClusterFacts, settings: Settings) -> Symptoms:
    """Tool servers and robots whose worker has no lease, and that nobody cleans up."""
    someone_lives = any(worker.row is not None for worker in facts.workers.values())
    for agent in facts.agents:
        held = [(name, row.worker) for name, row in agent.rows.items() if row.state != "offline"]
        held += [(conn, row.worker) for conn, row in agent.robots.items()]
        for name, worker in held:
            known = facts.workers.get(worker)
            if known is not None and known.row is not None:
                continue
            ended_ms = known.listed_until_ms if known is not None else 0
            is_being_buried = someone_lives and facts.now_ms - ended_ms < _burial_ms(settings)
            level = Level.NOTE if is_being_buried else Level.WARN
            yield Symptom(level, f"{agent.id}/{name} ({worker})")


def _burial_ms(settings: Settings) -> float:
    """A dead worker is cleaned up by then: the first in turn has one lease for it, then anybody."""
    return 3000 * settings.lease_seconds + BURIAL_SPARE_MS


def mailboxes(facts: ClusterFacts, _: Settings) -> Symptoms:
    """A worker with a lease whose mailbox nobody, or more than one, listens to."""
    for worker in facts.workers.values():
        if worker.row is not None and worker.listeners == 0:
            yield Symptom(Level.FAIL, worker.id)
        elif worker.listeners is not None and worker.listeners > 1:
            yield Symptom(Level.WARN, worker.id, f"×{worker.listeners}")


def leases(facts: ClusterFacts, settings: Settings) -> Symptoms:
    """The list of workers and the leases don't say the same."""
    for worker in facts.workers.values():
        ended_ms = facts.now_ms - worker.listed_until_ms
        if worker.row is not None and not worker.listed_until_ms:
            yield Symptom(Level.WARN, f"{worker.id}: 有租约，不在列表 / has a lease, is not on the list")
        elif worker.row is None and worker.listed_until_ms > facts.now_ms:
            yield Symptom(Level.WARN, f"{worker.id}: 在列表，租约没了 / is on the list, its lease is gone")
        elif worker.row is None and worker.listed_until_ms and worker.owned:
            level = Level.WARN if ended_ms > _burial_ms(settings) else Level.NOTE
            yield Symptom(level, f"{worker.id}: 已死，未清理 / dead, not cleaned up", span(ended_ms / 1000))


def endless(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Keys without a time to live."""
    yield from (Symptom(Level.WARN, key) for key in facts.keys_without_end)


def strangers(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Keys under the prefix that no gateway writes."""
    yield from (Symptom(Level.NOTE, key) for key in facts.keys_unknown)


def epochs(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Epochs, revisions and times that can't be."""
    latest_ms = facts.now_ms + CLOCK_SPARE_MS
    for agent in facts.agents:
        if agent.snapshot.revision > latest_ms:
            yield Symptom(Level.WARN, f"{agent.id}: 版本在未来 / its revision is in the future")
        holders = Counter(row.conn for row in agent.rows.values() if row.state == "up")
        for name, row in agent.rows.items():
            what = f"{agent.id}/{name}"
            if max(row.epoch, row.since, row.offline_since) > latest_ms:
                yield Symptom(Level.WARN, f"{what}: 在未来 / in the future")
            if row.state != "handshake" and row.epoch < row.since:
                yield Symptom(Level.WARN, f"{what}: epoch 小于 since / its epoch is smaller than since")
            if row.state == "up" and holders[row.conn] > 1:
                yield Symptom(Level.WARN, f"{what}: 连接 {row.conn} 有几行 / its connection has several rows")


def claims(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Names in use by a tool server that is not there."""
    for agent in facts.agents:
        for name, claim in agent.snapshot.claims.items():
            row = agent.rows.get(claim.server)
            if claim.until == 0 and (row is None or row.state != "up"):
                yield Symptom(Level.WARN, f"{agent.id}: {name} ({claim.server})")


def beats(facts: ClusterFacts, settings: Settings) -> Symptoms:
    """Workers whose last beat is late, or in the future."""
    late_ms = 1000 * max(2.5 * settings.beat_seconds, settings.lease_seconds / 2)
    for worker in facts.workers.values():
        since_ms = facts.now_ms - worker.beat_ms
        if worker.row is not None and worker.beat_ms and (since_ms > late_ms or since_ms < -CLOCK_SPARE_MS):
            yield Symptom(Level.WARN, worker.id, age(worker.beat_ms, facts.now_ms))


def buffers(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Subscribers that read too slowly."""
    for one in facts.buffers:
        if one.limit_bytes and one.waiting_bytes > BUFFER_SHARE * one.limit_bytes:
            share = f"{one.waiting_bytes / one.limit_bytes:.0%} / {one.limit_bytes} B"
            yield Symptom(Level.WARN, one.name, share)


def memory(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Servers that are nearly full, or have evicted keys."""
    for one in facts.memory:
        if one.limit_bytes and one.used_bytes > MEMORY_SHARE * one.limit_bytes:
            yield Symptom(Level.WARN, one.where, f"{one.used_bytes / one.limit_bytes:.0%} maxmemory")
        if one.evicted_keys:
            yield Symptom(Level.WARN, f"{one.where}: 淘汰过键 / has evicted keys", str(one.evicted_keys))


def flapping(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Tool servers that come and go."""
    lately = [event for event in facts.events if event.at_ms > facts.now_ms - FLAP_WINDOW_MS]
    joins = Counter(_of(event) for event in lately if event.kind == "join")
    for (agent, server), count in joins.items():
        if count >= FLAP_JOINS:
            gone = [one for one in lately if one.kind == "leave" and _of(one) == (agent, server)]
            cause = gone[0].field("cause") if gone else ""
            yield Symptom(Level.WARN, f"{agent}/{server}", f"×{count} in {span(FLAP_WINDOW_MS / 1000)}: {cause}")


def twins(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Two programs that call themselves by one server_id."""
    told: dict[str, int] = {}
    for agent in facts.agents:
        for name, row in agent.rows.items():
            recent = sum(at > facts.now_ms - FLAP_WINDOW_MS for at in row.takeovers)
            if recent >= TAKEOVERS_TO_NAME:
                told[f"{agent.id}/{name}"] = recent
    for event in facts.events:
        count = event.field("within_a_minute")
        is_recent = event.kind == "takeover" and event.at_ms > facts.now_ms - FLAP_WINDOW_MS
        if is_recent and count.isdigit() and int(count) >= TAKEOVERS_TO_NAME:
            told.setdefault("/".join(_of(event)), int(count))
    yield from (Symptom(Level.WARN, item, f"×{count} / min") for item, count in told.items())


def _of(event: EventFacts) -> tuple[str, str]:
    return event.field("agent"), event.field("server")


def collisions(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Tools that are listed under a prefixed name, because another tool server has the plain one."""
    for agent in facts.agents:
        for name, claim in agent.snapshot.claims.items():
            if claim.until == 0 and not names.is_local(name, claim.original):
                plain = names.cut(names.fold(claim.original), claim.original)
                other = agent.snapshot.claims.get(plain)
                yield Symptom(Level.NOTE, f"{agent.id}: {name}", f"{plain} → {other.server}" if other else "")


def calls(facts: ClusterFacts, settings: Settings) -> Symptoms:
    """Calls that should have ended."""
    longest_ms = 1000 * settings.call_max_seconds
    for call in facts.calls:
        if call.state not in ("sent", "local") or call.due_ms + CALL_SPARE_MS > facts.now_ms:
            continue
        worker = facts.workers.get(call.worker)
        is_alive = worker is not None and worker.row is not None
        may_go_on = is_alive and call.sent_ms + longest_ms + CALL_SPARE_MS > facts.now_ms
        what = f"{call.id}: {call.agent}/{call.server_id} {call.tool} ({call.worker})"
        yield Symptom(Level.NOTE if may_go_on else Level.WARN, what, f"due {age(call.due_ms, facts.now_ms)}")


def toolsets(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Connected tool servers whose tools are not in Redis."""
    for agent in facts.agents:
        for name, row in agent.rows.items():
            if row.state == "up" and row.toolset not in facts.toolsets:
                yield Symptom(Level.WARN, f"{agent.id}/{name}", row.toolset)


def versions(facts: ClusterFacts, _: Settings) -> Symptoms:
    """Workers of several versions."""
    found = Counter(worker.row.version for worker in facts.workers.values() if worker.row is not None)
    if len(found) > 1:
        yield from (Symptom(Level.NOTE, version or "?", f"×{count}") for version, count in sorted(found.items()))


def limits(facts: ClusterFacts, settings: Settings) -> Symptoms:
    """Agents that have reached a limit: newcomers are refused, or their tools left out."""
    for agent in facts.agents:
        for limit, count, most in _loads(agent, settings):
            if count >= most:
                yield Symptom(Level.WARN, f"{agent.id}: {limit}={most}", str(count))


def _loads(agent: AgentFacts, settings: Settings) -> Iterator[tuple[str, int, int]]:
    up = [row for row in agent.rows.values() if row.state == "up"]
    yield "GATEWAY_SERVERS_PER_AGENT", len(up), settings.servers_per_agent
    yield "GATEWAY_TOOLS_PER_AGENT", sum(row.tools for row in up), settings.tools_per_agent
    yield "GATEWAY_CATALOG_BYTES", sum(row.toolset_bytes for row in up), settings.catalog_bytes
    yield "GATEWAY_ROBOTS_PER_AGENT", len(agent.robots), settings.robots_per_agent


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        *(orphans, mailboxes, leases, beats, calls, toolsets, claims, epochs, endless, strangers),
        *(flapping, twins, collisions, limits, versions, buffers, memory),
    )
}
