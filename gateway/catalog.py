"""The tools of one agent as its robots see them: which names are listed, and where each name leads.

Theory of operation
-------------------
A catalog is built whole from the shared facts and never changed. Names come from the claims (who may take which is
decided in `registry`); a tool whose claim went missing is listed under its prefixed name, which needs none. Every
tool can also be called by its prefixed name, and a name is always looked up whole, never taken apart.

What the agent's policy forbids, and what is blocked until somebody approves of it, is in no list and no route; its
names are kept, so that a call of them is refused and told why (ADR 0025).

The list's pages are encoded once, when the catalog is built, and handed to every robot as bytes.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import orjson

from gateway import names
from gateway.backplane.base import Snapshot
from gateway.directory import Claim, Row
from gateway.policy import UNSET, Duplicates, Policy
from gateway.registry import bare_name, kept_names
from gateway.tools import Tool

CURSOR_PREFIX = "page-"

Refusal: TypeAlias = Literal["policy", "pins"]
"""Why a tool is kept from robots: its people forbid it; its definition changed and nobody has approved of that."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a name leads: tool `original` of tool server `server_id`."""

    server_id: str
    original: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a call of a tool may take, and how large the frame with its result may be; None: as any other."""

    timeout_seconds: float | None = None
    result_bytes: int | None = None


UNBOUND = Bounds()


class _Entry(NamedTuple):
    """A tool that may be listed: `name` is its listed name, `local` the one that it would like to have."""

    name: str
    local: str
    route: Route
    tool: Tool


@dataclass(frozen=True, slots=True)
class Catalog:
    """All of an agent's tools at one revision. `pages` are values of `result` of tools/list, as JSON text."""

    revision: int = 0
    rows: Mapping[str, Row] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    """Names of tools that robots may not call; none of them is in `routes`."""
    bounds: Mapping[Route, Bounds] = field(default_factory=dict)
    """The tools with a timeout or a result cap of their own."""
    pages: tuple[bytes, ...] = (b'{"tools":[]}',)
    omitted: tuple[str, ...] = ()
    """Listed names of tools that alone exceed a page, and so can't be shown to any robot."""
    missing: frozenset[str] = frozenset()
    """Digests of tool sets that rows point to and nobody could give."""
    listed_until_ms: int = 0
    """When the next tool server's grace ends and its tools leave the list; 0: none is in its grace."""

    def handshakes_since(self, since_ms: int) -> bool:
        """Whether a tool server that dialled in at `since_ms` or later is still in its handshake."""
        return any(row.state == "handshake" and row.since >= since_ms for row in self.rows.values())

    def page(self, cursor: str | None) -> bytes | None:
        """The page that the cursor names (None: the first); None for a cursor that never was one."""
        if cursor is None:
            return self.pages[0]
        number = cursor.removeprefix(CURSOR_PREFIX)
        if number == cursor or not number.isdecimal() or len(number) > 6 or int(number) == 0:
            return None
        # The list may have shrunk since the robot began to read it: it has then seen all there is.
        return self.pages[int(number)] if int(number) < len(self.pages) else b'{"tools":[]}'


def is_in_grace(row: Row, now_ms: int, grace_ms: int) -> bool:
    """Whether the tools of an offline tool server are still listed."""
    return row.state == "offline" and now_ms < row.offline_since + grace_ms


def build(
    snapshot: Snapshot,
    toolsets: Mapping[str, Sequence[Tool]],
    *,
    grace_ms: int,
    page_bytes: int,
    policy: Policy = UNSET,
    blocked: Set[tuple[str, str]] = frozenset(),
) -> Catalog:
    """The catalog of these facts. Order: by server_id, then the tool server's own order.

    `blocked` are the tools (server_id, its own name of the tool) that are kept back until somebody approves of them.
    """
    rows = snapshot.rows
    # A connected tool server's ended claims are of tools that it no longer has.
    known = {
        name: Route(claim.server, claim.original)
        for name, claim in snapshot.claims.items()
        if claim.until == 0 or claim.server not in rows or rows[claim.server].state != "up"
    }
    listed_rows = [
        (server_id, row)
        for server_id, row in sorted(rows.items())
        if row.state == "up" or is_in_grace(row, snapshot.now_ms, grace_ms)
    ]
    entries = _entries(snapshot.claims, known, listed_rows, toolsets)
    # Where two server_ids fold into one, the prefixed name belongs to the tool that holds the bare one.
    for _name, local, route, _tool in sorted(entries, key=lambda entry: entry[0] != entry[1]):
        _add_alias(known, route, local)
    routes, refused = known, dict[str, Refusal]()
    if policy.has_lists or blocked:
        refused = _refused(known, policy, blocked)
        entries = [entry for entry in entries if entry.name not in refused]
        routes = {name: route for name, route in known.items() if name not in refused}
    if policy.duplicates != "prefix":
        entries = _told_apart(entries, known, policy.duplicates)
    listed = [
        (name, orjson.dumps({**tool, "name": name, "server_id": route.server_id})) for name, _, route, tool in entries
    ]
    pages, omitted = paginate(listed, page_bytes)
    graces = [row.offline_since + grace_ms for _, row in listed_rows if row.state == "offline"]
    return Catalog(
        revision=snapshot.revision,
        rows=dict(rows),
        routes=routes,
        refused=refused,
        bounds=_bounds(routes, policy) if policy.has_bounds else {},
        pages=pages,
        omitted=omitted,
        missing=frozenset(row.toolset for _, row in listed_rows if row.toolset not in toolsets),
        listed_until_ms=min(graces, default=0),
    )


def _entries(
    claims: Mapping[str, Claim],
    routes: dict[str, Route],
    listed_rows: Sequence[tuple[str, Row]],
    toolsets: Mapping[str, Sequence[Tool]],
) -> list[_Entry]:
    """The tools of these rows, each with a name that leads to it: `routes` gets those that are missing."""
    claimed = _claimed_names(claims)
    entries: list[_Entry] = []
    for server_id, row in listed_rows:
        tools = toolsets.get(row.toolset, ())
        holds = claimed.get(server_id, {})
        kept = kept_names({name: claims[name] for name in holds.values()})
        local = names.local_names([tool["name"] for tool in tools], kept)
        for tool in tools:
            original = tool["name"]
            route = Route(server_id, original)
            name = holds.get(original, "")
            if name not in routes:  # it holds none, or only one that has ended, which by rights can't be
                name = _add_alias(routes, route, local[original])
            entries.append(_Entry(name, local[original], route, tool))
    return entries


def _known_as(routes: Mapping[str, Route]) -> dict[Route, list[str]]:
    """Each tool's names. A rule that holds for one of them holds for the tool: nobody gets around it by another."""
    known: dict[Route, list[str]] = {}
    for name, route in routes.items():
        known.setdefault(route, []).append(name)
    return known


def _refused(routes: Mapping[str, Route], policy: Policy, blocked: Set[tuple[str, str]]) -> dict[str, Refusal]:
    """The names of the tools that are kept from robots."""
    refused: dict[str, Refusal] = {}
    for route, known in _known_as(routes).items():
        if not policy.allows(route.server_id, route.original, *known):
            refused.update(dict.fromkeys(known, "policy"))
        elif (route.server_id, route.original) in blocked:
            refused.update(dict.fromkeys(known, "pins"))
    return refused


def _bounds(routes: Mapping[str, Route], policy: Policy) -> dict[Route, Bounds]:
    bounds = {
        route: Bounds(
            policy.timeout_seconds(route.server_id, route.original, *known),
            policy.result_bytes(route.server_id, route.original, *known),
        )
        for route, known in _known_as(routes).items()
    }
    return {route: bound for route, bound in bounds.items() if bound != UNBOUND}


def _told_apart(entries: Sequence[_Entry], known: dict[str, Route], rule: Duplicates) -> list[_Entry]:
    """The entries under prefixed names only, or without those whose own name is listed for another tool."""
    if rule == "prefix_all":  # the names are there already, so they are the same ones again
        return [entry._replace(name=_add_alias(known, entry.route, entry.local)) for entry in entries]
    bare = {entry.name for entry in entries if entry.name == entry.local}
    return [entry for entry in entries if entry.name == entry.local or entry.local not in bare]


def _claimed_names(claims: Mapping[str, Claim]) -> dict[str, dict[str, str]]:
    """server_id → original → listed name. Of several claims the one in use counts, else the one that ended last."""
    entries = [
        (claim.until == 0, claim.until, bool(bare_name(claim, name)), name, claim) for name, claim in claims.items()
    ]
    claimed: dict[str, dict[str, str]] = {}
    for _, _, _, name, claim in sorted(entries, key=lambda entry: entry[:4]):
        claimed.setdefault(claim.server, {})[claim.original] = name
    return claimed


def _add_alias(routes: dict[str, Route], route: Route, local: str) -> str:
    """Make the tool callable by its prefixed name, marked further where that already leads to another tool."""
    taken: set[str] = set()
    name = names.prefixed(route.server_id, local, route.original)
    while routes.setdefault(name, route) != route:
        taken.add(name)
        name = names.prefixed(route.server_id, local, route.original, taken)
    return name


def paginate(listed: Sequence[tuple[str, bytes]], page_bytes: int) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The tools as pages of at most `page_bytes` each, and the names of those too large for any page."""
    room = page_bytes - 256  # the frame around a page: id, keys, cursor
    pages: list[list[bytes]] = [[]]
    size = 0
    omitted = []
    for name, text in listed:
        if len(text) > room:
            omitted.append(name)
            continue
        if size + len(text) + 1 > room and pages[-1]:
            pages.append([])
            size = 0
        pages[-1].append(text)
        size += len(text) + 1
    last = len(pages) - 1
    return tuple(_page(page, number, last) for number, page in enumerate(pages)), tuple(omitted)


def _page(tools: Sequence[bytes], number: int, last: int) -> bytes:
    cursor = b"" if number == last else b',"nextCursor":"%s%d"' % (CURSOR_PREFIX.encode(), number + 1)
    return b'{"tools":[' + b",".join(tools) + b"]" + cursor + b"}"
