"""`mcp-gateway pins`: what differs from its pinned definition, and what people decide about that."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeAlias

from gateway import pins
from gateway.ages import iso
from gateway.backplane.base import Change, Snapshot
from gateway.bookkeeping import Bookkeeper, opened
from gateway.directory import Pins
from gateway.operating import CannotOperate
from gateway.pins import CannotApprove, Difference
from gateway.settings import Settings
from gateway.tables import as_json, printable

TRIES = 20

Write: TypeAlias = Callable[[str], None]
Decide: TypeAlias = Callable[[Pins, int], Pins]

_KINDS = {"changed": "变了 / changed", "new": "新的 / new", "removed": "没有了 / gone"}
_PARTS = {
    "description": "描述 / description",
    "inputSchema": "参数 / inputSchema",
    "outputSchema": "结果 / outputSchema",
    "annotations": "注解 / annotations",
    "title": "标题 / title",
}
_DONE = "{server}：{what}，两秒内处处生效 / {what_en}, in force everywhere within two seconds\n"


async def run(settings: Settings, arguments: Namespace, write: Write) -> int:
    """Return the exit code: 0 done, and nothing waits for approval; 1 something does. Raises CannotOperate."""
    async with opened(settings) as books:
        match arguments.verb:
            case "show":
                return await _show(books, arguments, write)
            case "approve":
                return await _approve(books, arguments, write)
            case _:
                return await _forget(books, arguments, write)


# Looking


async def _show(books: Bookkeeper, arguments: Namespace, write: Write) -> int:
    snapshot = await books.snapshot(arguments.agent)
    chosen = {name: kept for name, kept in sorted(snapshot.pins.items()) if arguments.server in ("", name)}
    if arguments.server and not chosen:
        raise CannotOperate(_unknown(snapshot, arguments.agent, arguments.server))
    if arguments.json:
        write(as_json({"agent": arguments.agent, "servers": [_as_data(name, kept) for name, kept in chosen.items()]}))
    else:
        lines = [line for name, kept in chosen.items() for line in _lines(name, kept)]
        nothing = "没有记住任何定义（pins=off？）/ nothing is pinned (pins=off?)"
        write("\n".join(lines or [nothing]) + "\n")
    return int(any(kept.offered for kept in chosen.values()))


def _as_data(name: str, kept: Pins) -> dict[str, Any]:
    return {
        "server_id": name,
        "pinned": len(kept.tools),
        "since": iso(kept.since),
        "decided": iso(kept.decided),
        "offer": pins.offer_id(kept),
        "differences": [asdict(difference) for difference in pins.differences(kept)],
    }


def _lines(name: str, kept: Pins) -> list[str]:
    name = printable(name)
    if kept.is_forgotten:
        return [f"{name}  已忘掉，下一份列表会被记住 / forgotten: its next list will be pinned"]
    pinned = f"{name}  {len(kept.tools)} 个工具 / tools pinned, {iso(kept.since)}"
    if not kept.offered:
        return [f"{pinned}，一致 / as they were"]
    return [
        f"{pinned}，{len(kept.offered)} 个待批准 / wait for approval (--offer {pins.offer_id(kept)}):",
        *(f"  {_told(difference)}" for difference in pins.differences(kept)),
    ]


def _told(difference: Difference) -> str:
    text = f"{printable(difference.tool)}  {_KINDS[difference.kind]}"
    if difference.parts:
        text += f": {', '.join(_PARTS[part] for part in difference.parts)}"
    if difference.like:
        text += f"; 与没有了的 {printable(difference.like)} 只差名称 / but for its name it is the one that has gone"
    return text


# Deciding


async def _approve(books: Bookkeeper, arguments: Namespace, write: Write) -> int:
    def decide(kept: Pins, now_ms: int) -> Pins:
        return pins.approved(kept, arguments.tools, arguments.offer, now_ms)

    before, after = await _decide(books, arguments.agent, arguments.server, decide)
    tools = sorted(before.offered.keys() - after.offered.keys())
    # The fingerprints say exactly what was approved, should somebody ask later.
    said = ", ".join(f"{printable(tool)[:64]} {before.offered[tool][:12] or '-'}" for tool in tools[:20])
    await books.tell("pins", f"{arguments.agent}/{arguments.server}", f"approved {len(tools)}: {said}")
    if arguments.json:
        write(as_json({"agent": arguments.agent, "server_id": arguments.server, "approved": tools}))
    else:
        what = {"what": f"批准了 {len(tools)} 个", "what_en": f"{len(tools)} approved"}
        write(_DONE.format(server=printable(arguments.server), **what))
    return int(bool(after.offered))


async def _forget(books: Bookkeeper, arguments: Namespace, write: Write) -> int:
    await _decide(books, arguments.agent, arguments.server, pins.forgotten)
    await books.tell("pins", f"{arguments.agent}/{arguments.server}", "forgotten")
    if arguments.json:
        write(as_json({"agent": arguments.agent, "server_id": arguments.server, "forgotten": True}))
    else:
        write(_DONE.format(server=printable(arguments.server), what="已忘掉", what_en="forgotten"))
    return 0


async def _decide(books: Bookkeeper, agent: str, server_id: str, decide: Decide) -> tuple[Pins, Pins]:
    """The pins before and after, once that is committed."""
    for _ in range(TRIES):
        snapshot = await books.snapshot(agent)
        before = snapshot.pins.get(server_id)
        if before is None:
            raise CannotOperate(_unknown(snapshot, agent, server_id))
        try:
            after = decide(before, snapshot.now_ms)
        except CannotApprove as problem:
            raise CannotOperate(str(problem)) from None
        if await books.commit(agent, snapshot.revision, Change(pins={server_id: after})) is not None:
            return before, after
    raise CannotOperate(f"{agent} 一直在变，请重试 / {agent} changes all the time; try again")


def _unknown(snapshot: Snapshot, agent: str, server_id: str) -> str:
    known = ", ".join(printable(name) for name in sorted(snapshot.pins)[:20]) or "—"
    return (
        f"{printable(agent)} 没有记住 {printable(server_id)} 的定义，有的是 / "
        f"nothing is pinned of {printable(server_id)}; there are: {known}"
    )
