"""Tools' definitions, pinned on first use: what a tool server says of a tool later is held against that.

Theory of operation
-------------------
A language model does what a tool's description says, and a tool server may change the description after people have
looked at it. So the first list of a `server_id` is pinned: of each tool the SHA-256 over its definition as robots get
it (under the tool server's own name for it). What differs from then on is *offered*, noted beside the pins, and waits
for somebody to approve it. Pins never change by themselves; only people's decisions do that, and `Pins.outranks` says
which of two workers' pins is to be believed. All of it is decided from one `Snapshot`, as in `registry`.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gateway.backplane.base import Snapshot
from gateway.directory import Pins

PARTS = ("description", "inputSchema", "outputSchema", "annotations", "title")
"""What is pinned of a tool beside its name. Of each the fingerprint keeps a little, to say what has changed."""
_OBJECT = ("annotations", "description", "inputSchema", "name", "outputSchema", "title")
_HASH_DIGITS = 64
_PART_DIGITS = 8
KEY_CHARS_MAX = 128
OFFER_DIGITS = 12
FORGOTTEN_MS = 24 * 3_600_000
"""How long it is remembered that pins were forgotten: every worker has heard of it long before."""

Fingerprints = Callable[[str], Mapping[str, str]]
"""Digest of a tool set → tool → fingerprint; empty for one that nobody could give."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept. Pins have no end, so somebody must not be able to make more and more of them."""

    tools_per_server: int
    tools_per_agent: int
    servers: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What a list is against its pins. `pins`: what is to be kept from now on; None where nothing is new.

    `changed`, `new` and `removed` name the tools in which it is news, as `pin_key` has them.
    """

    pins: Pins | None = None
    changed: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    is_first: bool = False
    """These are its first pins."""
    is_new_server: bool = False
    """These are the first pins of a tool server of an agent that has pins of others."""
    unpinned: int = 0
    """So many tools could not be pinned, since the agent has as many pins as it may."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One tool that waits for approval. `kind` is changed, new or removed."""

    tool: str
    kind: str
    parts: tuple[str, ...] = ()
    """What of a changed one is different."""
    like: str = ""
    """The removed tool that a new one is equal to but for its name."""
    fingerprint: str = ""
    """Of what is offered, shortened; empty for a removed one."""


def pin_key(tool: str) -> str:
    """The tool as it is known in the pins: its own name, or the hash of a very long one."""
    if len(tool) <= KEY_CHARS_MAX:
        return tool
    return "sha256:" + hashlib.sha256(tool.encode("utf-8", "surrogatepass")).hexdigest()


def canonical(tool: Mapping[str, Any]) -> bytes:
    """What is pinned of a tool, as JSON text that equal definitions have equal: sorted keys, no blanks."""
    texts = {part: orjson.dumps(tool[part], option=orjson.OPT_SORT_KEYS) for part in _OBJECT if part in tool}
    return b"{" + b",".join(b'"%s":%s' % (part.encode(), text) for part, text in texts.items()) + b"}"


def fingerprint(tool: Mapping[str, Any]) -> str:
    """The SHA-256 of `canonical`, and after it, only to say what has changed, a few digits for each of `PARTS`."""
    parts = (_short(tool[part]) if part in tool else "-" for part in PARTS)
    return " ".join((hashlib.sha256(canonical(tool)).hexdigest(), *parts))


def _short(part: Any) -> str:
    return hashlib.sha256(orjson.dumps(part, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_PART_DIGITS]


def is_equal(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same definition."""
    return one[:_HASH_DIGITS] == other[:_HASH_DIGITS]


# Decisions over a snapshot


def blocked(snapshot: Snapshot, fingerprints: Fingerprints, mode: str) -> frozenset[tuple[str, str]]:
    """The (server_id, tool)s that are neither listed nor called: none unless `mode` is `block`.

    Those are all tools of connected tool servers that are not exactly as pinned, also where that can't be known.
    """
    if mode != "block":
        return frozenset()
    wanted = {(claim.server, claim.original) for claim in snapshot.claims.values() if _is_up(snapshot, claim.server)}
    approved: set[tuple[str, str]] = set()
    for server_id, row in snapshot.rows.items():
        pinned = snapshot.pins[server_id].tools if server_id in snapshot.pins else {}
        for tool, offered in fingerprints(row.toolset).items():
            is_approved = is_equal(pinned.get(pin_key(tool), ""), offered)
            (approved if is_approved else wanted).add((server_id, tool))
    return frozenset(wanted - approved)


def waiting(snapshot: Snapshot, server_id: str, tools: Collection[str]) -> set[str]:
    """Which of the tools of a tool server's list are not as pinned, by what has been noted of it."""
    kept = snapshot.pins.get(server_id, Pins())
    return {tool for tool in tools if pin_key(tool) not in kept.tools or kept.offered.get(pin_key(tool))}


def _is_up(snapshot: Snapshot, server_id: str) -> bool:
    row = snapshot.rows.get(server_id)
    return row is not None and row.state == "up"


def changes(pinned: Mapping[str, str], listed: Mapping[str, str]) -> dict[str, str]:
    """What of a list is to be offered: other fingerprints, those of new tools, and "" for tools that have gone."""
    different = {tool: told for tool, told in listed.items() if not is_equal(pinned.get(tool, ""), told)}
    return {**different, **{tool: "" for tool in pinned if tool not in listed}}


def judge(snapshot: Snapshot, server_id: str, listed: Mapping[str, str], bounds: Bounds) -> Finding:
    """Hold the list of a tool server against its pins. Its first list makes them; an empty one says nothing.

    `listed`: tool → fingerprint, in the tool server's order.
    """
    listed = {pin_key(tool): told for tool, told in listed.items()}
    known = snapshot.pins.get(server_id)
    if not listed:
        return Finding()
    if known is None or known.is_forgotten:
        return _first(snapshot, server_id, listed, bounds)
    room = max(0, _room(snapshot, server_id, bounds) - len(known.tools))
    wanted = changes(known.tools, listed)
    offered = dict(sorted(wanted.items())[:room])
    if offered == known.offered:
        return Finding(unpinned=len(wanted) - len(offered))
    news = [tool for tool, told in offered.items() if known.offered.get(tool) != told]
    return Finding(
        pins=replace(known, offered=offered),
        changed=tuple(tool for tool in news if offered[tool] and tool in known.tools),
        new=tuple(tool for tool in news if tool not in known.tools),
        removed=tuple(tool for tool in news if not offered[tool]),
        unpinned=len(wanted) - len(offered),
    )


def _first(snapshot: Snapshot, server_id: str, listed: Mapping[str, str], bounds: Bounds) -> Finding:
    others = [name for name, pins in snapshot.pins.items() if name != server_id and not pins.is_forgotten]
    room = _room(snapshot, server_id, bounds) if len(others) < bounds.servers else 0
    kept = dict(list(listed.items())[:room])
    told = Finding(is_new_server=bool(others), unpinned=len(listed) - len(kept))
    if not kept:
        return told
    known = snapshot.pins.get(server_id, Pins())
    return replace(told, is_first=True, pins=Pins(since=snapshot.now_ms, decided=known.decided, tools=kept))


def _room(snapshot: Snapshot, server_id: str, bounds: Bounds) -> int:
    """How many fingerprints this tool server may have in all."""
    others = sum(len(pins.tools) + len(pins.offered) for name, pins in snapshot.pins.items() if name != server_id)
    return max(0, min(bounds.tools_per_server, bounds.tools_per_agent - others))


def faded(snapshot: Snapshot) -> dict[str, None]:
    """What need not be remembered any more: that pins were forgotten, long ago."""
    oldest = snapshot.now_ms - FORGOTTEN_MS
    return {name: None for name, pins in snapshot.pins.items() if pins.is_forgotten and pins.decided < oldest}


# What several workers know


def merged(stored: Mapping[str, Pins], known: Mapping[str, Pins]) -> Mapping[str, Pins]:
    """The pins of an agent as the store has them, and where `known` are to be believed instead, those."""
    better = missing(stored, known)
    return {**stored, **better} if better else stored


def missing(stored: Mapping[str, Pins], known: Mapping[str, Pins]) -> dict[str, Pins]:
    """What the store has forgotten."""
    return {name: pins for name, pins in known.items() if name not in stored or pins.outranks(stored[name])}


# What people decide


class CannotApprove(Exception):
    """It can't be approved as asked; the text says why, in Chinese and English."""


def approved(pins: Pins, tools: Collection[str], offer: str, now_ms: int) -> Pins:
    """The pins with what is offered, all of it or of these tools, in place of what was pinned. Raises CannotApprove.

    `offer`: only if that is what is offered (`offer_id`), in case it changed while somebody looked at it.
    """
    if offer and offer != offer_id(pins):
        raise CannotApprove(
            f"提供的内容已变，现在是 {offer_id(pins)}，请重新查看 / "
            f"what is offered has changed, it is {offer_id(pins)} now: look at it again"
        )
    keys = [pin_key(tool) for tool in tools] or list(pins.offered)
    unknown = [key for key in keys if key not in pins.offered]
    if unknown:
        names = ", ".join(repr(key) for key in unknown[:5])
        raise CannotApprove(f"没有待批准的 / nothing waits for approval under {names}")
    taken = {key: pins.offered[key] for key in keys}
    tools_now = {key: told for key, told in {**pins.tools, **taken}.items() if told}
    left = {key: told for key, told in pins.offered.items() if key not in taken}
    return Pins(pins.since, max(now_ms, pins.decided + 1), tools_now, left)


def forgotten(pins: Pins, now_ms: int) -> Pins:
    """What says that there are no pins any more: the next list is pinned as if it were the first."""
    return Pins(since=0, decided=max(now_ms, pins.decided + 1))


def offer_id(pins: Pins) -> str:
    """A short name of exactly what is offered; empty if nothing is."""
    if not pins.offered:
        return ""
    text = orjson.dumps(dict(pins.offered), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:OFFER_DIGITS]


def differences(pins: Pins) -> Iterator[Difference]:
    """What waits for approval, tool by tool: those that have gone come last."""
    gone = {_parts(pins.tools[tool]): tool for tool, told in pins.offered.items() if not told and tool in pins.tools}
    for tool, told in sorted(pins.offered.items(), key=lambda entry: (not entry[1], entry[0])):
        if not told:
            yield Difference(tool, "removed")
        elif tool in pins.tools:
            before, now = _parts(pins.tools[tool]), _parts(told)
            different = tuple(part for part, one, other in zip(PARTS, before, now, strict=False) if one != other)
            yield Difference(tool, "changed", parts=different, fingerprint=told[:OFFER_DIGITS])
        else:
            yield Difference(tool, "new", like=gone.get(_parts(told), ""), fingerprint=told[:OFFER_DIGITS])


def _parts(told: str) -> tuple[str, ...]:
    return tuple(told.split(" ")[1:])
