"""The tools of one agent as its robots see them: which names are listed, and where each name leads.

Theory of operation
-------------------
A catalog is built whole from the shared facts and never changed. Names come from the claims (who may take which is
decided in `registry`); a tool whose claim went missing is listed under its prefixed name, which needs none. Every
tool can also be called by its prefixed name, and a name is always looked up whole, never taken apart.

The list's pages are encoded once, when the catalog is built, and handed to every robot as bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from gateway import names
from gateway.backplane.base import Snapshot
from gateway.directory import Claim, Row
from gateway.registry import bare_name, kept_names
from gateway.tools import Tool

CURSOR_PREFIX = "page-"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a name leads: tool `original` of tool server `server_id`."""

    server_id: str
    original: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """All of an agent's tools at one revision. `pages` are values of `result` of tools/list, as JSON text."""

    revision: int = 0
    rows: Mapping[str, Row] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
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


def build(snapshot: Snapshot, toolsets: Mapping[str, Sequence[Tool]], *, grace_ms: int, page_bytes: int) -> Catalog:
    """The catalog of these facts. Order: by server_id, then the tool server's own order."""
    rows = snapshot.rows
    # A connected tool server's ended claims are of tools that it no longer has.
    routes = {
        name: Route(claim.server, claim.original)
        for name, claim in snapshot.claims.items()
        if claim.until == 0 or claim.server not in rows or rows[claim.server].state != "up"
    }
    claimed = _claimed_names(snapshot.claims)
    listed_rows = [
        (server_id, row)
        for server_id, row in sorted(rows.items())
        if row.state == "up" or is_in_grace(row, snapshot.now_ms, grace_ms)
    ]
    listed: list[tuple[str, bytes]] = []
    aliases: list[tuple[bool, str, str, str]] = []
    for server_id, row in listed_rows:
        tools = toolsets.get(row.toolset, ())
        holds = claimed.get(server_id, {})
        kept = kept_names({name: snapshot.claims[name] for name in holds.values()})
        local = names.local_names([tool["name"] for tool in tools], kept)
        for tool in tools:
            original = tool["name"]
            name = holds.get(original, "")
            if name not in routes:  # it holds none, or only one that has ended, which by rights can't be
                name = _add_alias(routes, server_id, local[original], original)
            aliases.append((name != local[original], server_id, local[original], original))
            listed.append((name, orjson.dumps({**tool, "name": name, "server_id": server_id})))
    # Where two server_ids fold into one, the prefixed name belongs to the tool that holds the bare one.
    for _, server_id, name, original in sorted(aliases, key=lambda alias: alias[0]):
        _add_alias(routes, server_id, name, original)
    pages, omitted = paginate(listed, page_bytes)
    graces = [row.offline_since + grace_ms for _, row in listed_rows if row.state == "offline"]
    return Catalog(
        revision=snapshot.revision,
        rows=dict(rows),
        routes=routes,
        pages=pages,
        omitted=omitted,
        missing=frozenset(row.toolset for _, row in listed_rows if row.toolset not in toolsets),
        listed_until_ms=min(graces, default=0),
    )


def _claimed_names(claims: Mapping[str, Claim]) -> dict[str, dict[str, str]]:
    """server_id → original → listed name. Of several claims the one in use counts, else the one that ended last."""
    entries = [
        (claim.until == 0, claim.until, bool(bare_name(claim, name)), name, claim) for name, claim in claims.items()
    ]
    claimed: dict[str, dict[str, str]] = {}
    for _, _, _, name, claim in sorted(entries, key=lambda entry: entry[:4]):
        claimed.setdefault(claim.server, {})[claim.original] = name
    return claimed


def _add_alias(routes: dict[str, Route], server_id: str, local: str, original: str) -> str:
    """Make the tool callable by its prefixed name, marked further where that already leads to another tool."""
    route = Route(server_id, original)
    taken: set[str] = set()
    name = names.prefixed(server_id, local, original)
    while routes.setdefault(name, route) != route:
        taken.add(name)
        name = names.prefixed(server_id, local, original, taken)
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
