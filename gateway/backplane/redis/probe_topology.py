"""Which servers a URL leads to by way of Sentinels or a Cluster, and what those who know say about each other."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from redis.exceptions import ResponseError

from gateway.backplane.redis.address import Address, Node
from gateway.backplane.redis.probe_rights import SlotRanges
from gateway.backplane.redis.probe_server import TROUBLE, Server, cure_of, paired
from gateway.backplane.redis.probe_settings import Standing
from gateway.backplane.redis.sentinel import Answer, choose
from gateway.finding import Finding, Level

SLOTS = 16384

_SENTINELS_LEAST = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A server, and what it is there for."""

    server: Server
    is_primary: bool = True
    slots: SlotRanges = ()
    standing: Standing = field(default_factory=Standing)


@dataclass(slots=True)
class Landscape:
    """What was found out, and the servers to be looked at; none where that has failed."""

    findings: list[Finding] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    def fail(self, subject: str, text: str, cure: str = "") -> None:
        self.findings.append(Finding(Level.FAIL, subject, text, cure))

    def warn(self, subject: str, text: str, cure: str = "") -> None:
        self.findings.append(Finding(Level.WARN, subject, text, cure))


@dataclass(frozen=True, slots=True)
class _Word:
    """What one Sentinel says."""

    server: Server
    trouble: str = ""
    cure: str = ""
    primary: Node | None = None
    epoch: int = 0
    flags: str = ""
    others: int = 0
    replicas: Sequence[Node] = ()
    no_quorum: str = ""


async def find(address: Address, timeout_seconds: float, stack: AsyncExitStack) -> Landscape:
    """Find the servers. Their clients are closed with the stack."""
    if address.kind == "sentinel":
        return await _ask_sentinels(address, timeout_seconds, stack)
    if address.kind == "cluster":
        return await _ask_cluster(address, timeout_seconds, stack)
    node = address.nodes[0] if address.nodes else None
    return Landscape(members=[Member(_opened(Server(address, node, timeout_seconds), stack))])


def _opened(server: Server, stack: AsyncExitStack) -> Server:
    stack.push_async_callback(server.close)
    return server


# -- Sentinel


async def _ask_sentinels(address: Address, timeout_seconds: float, stack: AsyncExitStack) -> Landscape:
    land = Landscape()
    sentinels = [_opened(Server(address, node, timeout_seconds, is_sentinel=True), stack) for node in address.nodes]
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_word(sentinel, address.service)) for sentinel in sentinels]
    words = [task.result() for task in asked]
    for word in words:
        if word.trouble:
            land.warn("Sentinel", f"{word.server.where}: {word.trouble}", word.cure)
    good = [word for word in words if word.primary is not None]
    if not good:
        text = (
            f"没有 Sentinel 知道服务 {address.service} / no Sentinel knows a primary of the service {address.service}"
        )
        land.fail("Sentinel", text, "见上 / see above")
        return land
    _judge_sentinels(land, good, len(words))
    _name_servers(land, good, address, timeout_seconds, stack)
    return land


async def _word(sentinel: Server, service: str) -> _Word:
    try:
        async with asyncio.timeout(sentinel.timeout_seconds * 3):
            return await _listen(sentinel, service)
    except ResponseError as error:
        if "unknown command" in str(error):
            cure = "Sentinel 的端口通常是 26379 / Sentinels usually listen on port 26379"
            return _Word(sentinel, "这不是 Sentinel / this is no Sentinel", cure)
        return _Word(sentinel, sentinel.reason(error), cure_of(error))
    except TROUBLE as error:
        return _Word(sentinel, f"连不上 / can't be reached: {sentinel.reason(error)}", cure_of(error))


async def _listen(sentinel: Server, service: str) -> _Word:
    place = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    if not place:
        known = [str(paired(one).get("name")) for one in await sentinel.ask("SENTINEL", "MASTERS")]
        cure = f"它知道的服务 / it knows: {', '.join(known) or '-'}"
        return _Word(sentinel, f"不认识服务 {service} / does not know the service {service}", cure)
    word = _Word(sentinel, primary=Node(place[0], int(place[1])))
    details = await sentinel.pairs("SENTINEL", "MASTER", service) or {}
    replicas = [paired(one) for one in await _list(sentinel, "SENTINEL", "REPLICAS", service)]
    no_quorum = ""
    try:
        await sentinel.ask("SENTINEL", "CKQUORUM", service)
    except ResponseError as error:
        no_quorum = sentinel.reason(error) if "NOQUORUM" in str(error) else ""
    return replace(
        word,
        epoch=int(details.get("config-epoch", 0)),
        flags=str(details.get("flags", "")),
        others=int(details.get("num-other-sentinels", 0)),
        replicas=[Node(str(one["ip"]), int(one["port"])) for one in replicas if "down" not in str(one.get("flags"))],
        no_quorum=no_quorum,
    )


async def _list(server: Server, *words: str) -> list[Any]:
    try:
        answer = await server.ask(*words)
    except ResponseError:
        return []
    return answer if isinstance(answer, list) else []


def _judge_sentinels(land: Landscape, good: list[_Word], asked: int) -> None:
    primaries = sorted({str(word.primary) for word in good})
    if len(primaries) > 1:
        land.warn(
            "Sentinel",
            f"意见不一 / they don't agree: {', '.join(primaries)}",
            "正在切换？稍后再试，或 SENTINEL RESET / is a failover going on? Try again, or SENTINEL RESET",
        )
    for word in good:
        if word.no_quorum:
            land.warn(
                "Sentinel quorum",
                f"{word.server.where}: 不会发生故障切换 / no failover would happen: {word.no_quorum}",
                "启动缺少的 Sentinel，或检查 quorum / start the missing Sentinels, or look at the quorum",
            )
        if "down" in word.flags:
            land.warn("Sentinel", f"{word.server.where}: 主节点 {word.flags} / it considers the primary {word.flags}")
    total = max(word.others for word in good) + 1
    if total < _SENTINELS_LEAST:
        land.warn(
            "Sentinel",
            f"只有 {total} 个：其主机故障时不会切换 / only {total}: no failover when the host of one is lost",
            "在不同主机上运行 3 个 / run 3, on different hosts",
        )
    if total > asked:
        cure = "在 GATEWAY_REDIS_URL 中列出全部 / name all of them in GATEWAY_REDIS_URL"
        land.warn("Sentinel", f"URL 中有 {asked} 个，共 {total} 个 / the URL names {asked} of {total}", cure)
    if not any(finding.level is not Level.OK for finding in land.findings):
        land.findings.append(Finding(Level.OK, "Sentinel", f"{total} 个，主节点 / {total}, primary {primaries[0]}"))


def _name_servers(
    land: Landscape, good: list[_Word], address: Address, timeout_seconds: float, stack: AsyncExitStack
) -> None:
    said = choose([Answer(word.primary, word.epoch, 0) for word in good if word.primary], None, len(good))
    primary = said.primary if said else None
    replicas = sorted({node for word in good for node in word.replicas} - {primary})
    if not replicas:
        land.warn("Sentinel", "没有可用的副本 / there is no replica to fail over to", "增加副本 / add a replica")
    standing = Standing(len(replicas), is_watched=True)
    for node in (primary, *replicas):
        server = _opened(Server(address, node, timeout_seconds), stack)
        land.members.append(Member(server, node == primary, standing=standing))


# -- Cluster


async def _ask_cluster(address: Address, timeout_seconds: float, stack: AsyncExitStack) -> Landscape:
    land = Landscape()
    for node in address.nodes:
        server = _opened(Server(address, node, timeout_seconds), stack)
        if failure := await server.reach():
            land.warn("集群 Cluster", failure.text, failure.cure)
            continue
        try:
            ranges = await server.ask("CLUSTER", "SLOTS")
        except ResponseError as error:
            text = f"{server.where} 不能给出槽 / does not tell its slots: {server.reason(error)}"
            land.fail("集群 Cluster", text, _no_cluster(error))
            return land
        _name_nodes(land, ranges, node, address, timeout_seconds, stack)
        await _judge_cluster(land, server, ranges)
        return land
    land.fail("集群 Cluster", "没有节点可以连接 / no node can be reached", "见上 / see above")
    return land


def _no_cluster(error: ResponseError) -> str:
    if "disabled" in str(error):
        return "这是单机 Redis，请用 redis:// / this is no Cluster, use redis://"
    return "授予 +cluster|slots 权限 / grant +cluster|slots"


def _name_nodes(
    land: Landscape, ranges: Any, asked: Node, address: Address, timeout_seconds: float, stack: AsyncExitStack
) -> None:
    slots: dict[Node, list[tuple[int, int]]] = {}
    replicas: dict[Node, set[Node]] = {}
    for first, last, *nodes in ranges:
        primary, *others = (Node(str(node[0] or asked.host), int(node[1])) for node in nodes)
        slots.setdefault(primary, []).append((int(first), int(last)))
        replicas.setdefault(primary, set()).update(others)
    for primary, ours in slots.items():
        standing = Standing(len(replicas[primary]), is_in_cluster=True)
        server = _opened(Server(address, primary, timeout_seconds), stack)
        land.members.append(Member(server, slots=ours, standing=standing))
        for node in sorted(replicas[primary]):
            server = _opened(Server(address, node, timeout_seconds), stack)
            land.members.append(Member(server, is_primary=False, standing=standing))


async def _judge_cluster(land: Landscape, server: Server, ranges: Any) -> None:
    covered = sum(int(last) - int(first) + 1 for first, last, *_ in ranges)
    if covered < SLOTS:
        land.fail(
            "集群 Cluster",
            f"{SLOTS - covered} 个槽没有节点 / {SLOTS - covered} slots have no node",
            "redis-cli --cluster fix <host:port>",
        )
        return
    try:
        lines = str(await server.ask("CLUSTER", "INFO")).split()
    except ResponseError:
        lines = []  # +cluster|info is not needed: the writes that are tried next say the same
    if "cluster_state:fail" in lines:
        cure = "redis-cli --cluster check <host:port>"
        land.fail("集群 Cluster", f"{server.where}: cluster_state:fail", cure)
        return
    primaries = sum(member.is_primary for member in land.members)
    text = f"{primaries} 个主节点，覆盖全部槽 / {primaries} primaries, all slots covered"
    land.findings.append(Finding(Level.OK, "集群 Cluster", text))
