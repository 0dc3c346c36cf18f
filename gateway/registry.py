"""Who an agent's tool servers are, and who holds which name: decisions over one snapshot of the shared directory.

Theory of operation
-------------------
Every function takes what is shared about one agent (`Snapshot`) and returns what is to change, or why not. Nothing
here waits, looks at a clock or talks to anybody: the caller offers the change to the backplane, which takes it only
if the snapshot still holds, and asks again otherwise (ADR 0003). The same policy therefore serves one process
without Redis and any number with it.

*Identity* (design §4.3, §4.4). With an explicit `server_id` the newest connection wins. Without one: an offline row of
equal name and tools, else an offline row of equal name, else a new id made from the name. A *live* row of equal name
and tools may be a half-open ghost of the newcomer: `ProbeFirst` asks the caller to find out.

*Names* (design §6.2). A claim with `until == 0` is in use. It gets an end (now + hold) when its holder goes offline or
drops the tool; until then a newcomer of the same name is listed under its prefixed form.

*Epoch*: larger than every earlier one of the row, so that whatever an old connection still does can be told from the
new one.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from gateway import hygiene, names, seen
from gateway.backplane.base import Change, Snapshot
from gateway.directory import Claim, Row, Seen
from gateway.registration import Admitted, Newcomer, ProbeFirst, Registration, Rules, Superseded, TooMany

TAKEOVER_WINDOW_MS = 60_000
TAKEOVERS_TO_NAME = 3
"""So many takeovers within the window are said aloud: two bridges share one server_id."""


def handshake_key(conn: str) -> str:
    return f"~{conn}"


def begin_handshake(snapshot: Snapshot, worker: str, conn: str, rules: Rules) -> Change:
    """A tool server has dialled in: lists wait for it from now on, on any worker."""
    rows: dict[str, Row | None] = {}
    running = 0
    for key, row in snapshot.rows.items():
        if row.state == "handshake":
            is_over = snapshot.now_ms - row.since > 2 * rules.handshake_ms
            rows |= {key: None} if is_over else {}
            running += not is_over
    if running < rules.servers_max:  # more would be no real agent's; their lists just don't wait
        rows[handshake_key(conn)] = Row("handshake", worker, conn, snapshot.now_ms)
    return Change(rows=rows)


def end_handshake(snapshot: Snapshot, conn: str, server_id: str, error: str, rules: Rules) -> Change:
    """The handshake came to nothing. What it died of is remembered, unless the error is empty: it was not its fault.

    A row of this connection that was written without its worker hearing of it goes offline.
    """
    unheard = {name: row for name, row in snapshot.rows.items() if row.conn == conn and row.state == "up"}
    change = _offline(snapshot, unheard, error[: seen.ERROR_CHARS_MAX], rules)
    key = handshake_key(conn)
    rows: dict[str, Row | None] = {**change.rows, **({key: None} if key in snapshot.rows else {})}
    if not error:
        return Change(rows, change.claims, change.seen)
    name = server_id or seen.UNNAMED
    told = seen.failed(snapshot, name, error, change.seen.get(name))
    return Change(rows, change.claims, {**_seen_to_drop(snapshot, name, rules), **change.seen, name: told})


def register(
    snapshot: Snapshot,
    newcomer: Newcomer,
    rules: Rules,
    *,
    dead: Collection[str],
    ghosts: Collection[str],
    twins: Collection[str],
) -> Registration:
    """Admit a tool server whose tools are in.

    `dead` are workers without a lease: their rows count as offline. `ghosts` and `twins` are connections that were
    probed and found silent, or alive.
    """
    live = {
        server_id: row
        for server_id, row in snapshot.rows.items()
        if row.state == "up" and row.worker not in dead and row.conn not in ghosts
    }
    chosen = _identity(snapshot, newcomer, live, ghosts, twins)
    if isinstance(chosen, ProbeFirst):
        return chosen
    others = [row for server_id, row in live.items() if server_id != chosen]
    if len(others) >= rules.servers_max:
        return TooMany(f"GATEWAY_SERVERS_PER_AGENT={rules.servers_max}", 0)
    return _beyond(others, newcomer, rules) or _admit(snapshot, newcomer, chosen, rules)


def _beyond(others: Collection[Row], newcomer: Newcomer, rules: Rules) -> TooMany | None:
    """The limit that the newcomer's tools would exceed, beside those of the others."""
    count = len(newcomer.originals)
    room = max(0, rules.tools_max - sum(row.tools for row in others))
    if count > room:
        return TooMany(f"GATEWAY_TOOLS_PER_AGENT={rules.tools_max}", room)
    room_bytes = max(0, rules.catalog_bytes - sum(row.toolset_bytes for row in others))
    if count and newcomer.toolset_bytes > room_bytes:
        return TooMany(f"GATEWAY_CATALOG_BYTES={rules.catalog_bytes}", count, room_bytes)
    return None


def _identity(
    snapshot: Snapshot, newcomer: Newcomer, live: Mapping[str, Row], ghosts: Collection[str], twins: Collection[str]
) -> str | ProbeFirst:
    if newcomer.server_id:
        return newcomer.server_id
    own = (key for key, row in snapshot.rows.items() if row.conn == newcomer.conn and row.state != "handshake")
    known = next(own, None)
    if known is not None:  # admitted before, but its worker did not hear of it
        return known
    equals = [
        (server_id, row)
        for server_id, row in snapshot.rows.items()
        if _is_alike(row, newcomer, is_live=server_id in live)
    ]
    for server_id, row in equals:
        if row.conn in ghosts:
            return server_id
        if server_id in live and row.conn not in twins:
            return ProbeFirst(server_id, row)
    offline = [(server_id, row) for server_id, row in equals if server_id not in live]
    exact = [entry for entry in offline if entry[1].toolset == newcomer.toolset]
    if exact or offline:
        return max(exact or offline, key=lambda entry: (entry[1].offline_since or snapshot.now_ms, entry[0]))[0]
    return _new_id(newcomer.name, snapshot.rows)


def _is_alike(row: Row, newcomer: Newcomer, *, is_live: bool) -> bool:
    """An anonymous row of the same name; a live one must have the same version and tools as well."""
    if not row.anonymous or row.name != newcomer.name or row.state == "handshake":
        return False
    return not is_live or (row.version == newcomer.version and row.toolset == newcomer.toolset)


def _new_id(name: str, rows: Mapping[str, Row]) -> str:
    plain = names.server_name(name)
    if plain not in rows:
        return plain
    return next(f"{plain}-{n}" for n in range(2, len(rows) + 3) if f"{plain}-{n}" not in rows)


def _admit(snapshot: Snapshot, newcomer: Newcomer, server_id: str, rules: Rules) -> Admitted:
    now, old = snapshot.now_ms, snapshot.rows.get(server_id)
    displaced = old if old is not None and old.state == "up" and old.conn != newcomer.conn else None
    takeovers = tuple(at for at in (old.takeovers if old else ()) if at > now - TAKEOVER_WINDOW_MS)
    if displaced is not None and newcomer.server_id:
        takeovers = (*takeovers, now)[-10:]
    row = Row(
        state="up",
        worker=newcomer.worker,
        conn=newcomer.conn,
        since=now,
        epoch=max((old.epoch if old else 0) + 1, now),
        anonymous=not newcomer.server_id,
        name=newcomer.name,
        version=newcomer.version,
        toolset=newcomer.toolset,
        tools=len(newcomer.originals),
        takeovers=takeovers,
        toolset_bytes=newcomer.toolset_bytes,
    )
    claims = _claims(snapshot, server_id, newcomer.originals, rules)
    rows: dict[str, Row | None] = {server_id: row, **_rows_to_drop(snapshot, server_id, rules)}
    if handshake_key(newcomer.conn) in snapshot.rows:
        rows[handshake_key(newcomer.conn)] = None
    told = {
        **_seen_to_drop(snapshot, server_id, rules),
        server_id: seen.came(snapshot, server_id, now, newcomer.trouble),
    }
    return Admitted(server_id, row, Change(rows, claims, told), displaced, _held(claims, server_id))


def swap_tools(
    snapshot: Snapshot, server_id: str, newcomer: Newcomer, rules: Rules
) -> Admitted | Superseded | TooMany | None:
    """The tool server `server_id` has other tools now. None if its row is not there or not this connection's."""
    row = snapshot.rows.get(server_id)
    if row is None or row.conn != newcomer.conn or row.state != "up":
        return None if row is None or row.conn == newcomer.conn else Superseded(row)
    others = [other for key, other in snapshot.rows.items() if key != server_id and other.state == "up"]
    beyond = _beyond(others, newcomer, rules)
    if beyond is not None:
        return beyond
    originals, size = newcomer.originals, newcomer.toolset_bytes
    fresh = replace(row, toolset=newcomer.toolset, tools=len(originals), toolset_bytes=size)
    claims = _claims(snapshot, server_id, originals, rules)
    is_news = fresh != row or any(snapshot.claims.get(name) != claim for name, claim in claims.items())
    change = Change({server_id: fresh}, claims) if is_news else Change()
    return Admitted(server_id, fresh, change, None, _held(claims, server_id))


def restore(snapshot: Snapshot, server_id: str, row: Row, claims: Mapping[str, Claim]) -> Change | Superseded:
    """Put back what a live connection had registered, after the store may have forgotten it.

    Writes only over nothing, its own row or a lower epoch. Of two claims to one name the older wins.
    """
    stored = snapshot.rows.get(server_id)
    if stored is not None and stored.conn != row.conn and stored.epoch >= row.epoch:
        return Superseded(stored)
    back: dict[str, Claim | None] = {}
    for name, claim in claims.items():
        held = snapshot.claims.get(name)
        if held is None or (held != claim and (held.server == server_id or claim.claimed < held.claimed)):
            back[name] = claim
    rows: dict[str, Row | None] = {} if stored == row else {server_id: row}
    return Change(rows, back, {server_id: seen.came(snapshot, server_id, row.since)} if rows else {})


def go_offline(snapshot: Snapshot, server_id: str, conn: str, cause: str, rules: Rules) -> Change:
    """The connection is gone: its row stays, offline. An empty change if the row is somebody else's by now."""
    row = snapshot.rows.get(server_id)
    if row is None or row.conn != conn or row.state != "up":
        return Change()
    return _offline(snapshot, {server_id: row}, cause, rules)


def bury(snapshot: Snapshot, worker: str, cause: str, rules: Rules) -> Change:
    """Everything that a dead worker had of this agent goes offline; its unfinished handshakes go."""
    mine = {key: row for key, row in snapshot.rows.items() if row.worker == worker}
    up = {key: row for key, row in mine.items() if row.state == "up"}
    change = _offline(snapshot, up, cause, rules)
    handshakes: dict[str, Row | None] = {key: None for key, row in mine.items() if row.state == "handshake"}
    return Change({**change.rows, **handshakes}, change.claims, change.seen)


def _offline(snapshot: Snapshot, rows: Mapping[str, Row], cause: str, rules: Rules) -> Change:
    now = snapshot.now_ms
    return Change(
        rows={key: replace(row, state="offline", offline_since=now, cause=cause) for key, row in rows.items()},
        claims={
            name: replace(claim, until=now + rules.hold_ms)
            for name, claim in snapshot.claims.items()
            if claim.server in rows and claim.until == 0
        },
        seen={key: seen.left(snapshot, key, cause) for key in rows},
    )


def _seen_to_drop(snapshot: Snapshot, newcomer: str, rules: Rules) -> dict[str, Seen | None]:
    return seen.to_drop(snapshot, newcomer, rules.seen_max)


def _rows_to_drop(snapshot: Snapshot, server_id: str, rules: Rules) -> dict[str, Row | None]:
    """Offline rows whose names are free by now, and the longest gone ones beyond twice the limit."""
    gone = {key: row for key, row in snapshot.rows.items() if row.state == "offline" and key != server_id}
    rows: dict[str, Row | None] = {
        key: None for key, row in gone.items() if snapshot.now_ms - row.offline_since > rules.hold_ms
    }
    left = sorted((row.offline_since, key) for key, row in gone.items() if key not in rows)
    surplus = len(left) - rules.servers_max
    return {**rows, **{key: None for _, key in left[: max(0, surplus)]}}


def _held(claims: Mapping[str, Claim | None], server_id: str) -> dict[str, Claim]:
    return {name: claim for name, claim in claims.items() if claim is not None and _in_use(claim, server_id)}


def _in_use(claim: Claim, server_id: str) -> bool:
    return claim.server == server_id and claim.until == 0


def is_held(claim: Claim, rows: Mapping[str, Row], now_ms: int, hold_ms: int) -> bool:
    """Whether nobody else may take the name yet."""
    if claim.until:
        return claim.until > now_ms
    row = rows.get(claim.server)
    return (row is not None and row.state == "up") or claim.claimed + hold_ms > now_ms


def bare_name(claim: Claim, name: str) -> str | None:
    """The local name that a claim to a listed name tells, None if the listed name is the prefixed one."""
    return name if names.is_local(name, claim.original) else None


def kept_names(claims: Mapping[str, Claim]) -> dict[str, str]:
    """Original → local name, as the claims of one tool server tell it, those in use before those that have ended.

    A tool that is listed under its prefixed name keeps its local name too: else that prefixed name would lead to
    another tool as soon as one appears whose name folds into the same.
    """
    kept: dict[str, str] = {}
    for name, claim in sorted(claims.items(), key=lambda entry: (entry[1].until == 0, entry[1].until, entry[0])):
        rest = name.removeprefix(f"{names.fold(claim.server)}__")
        local = bare_name(claim, name) or bare_name(claim, rest)
        if local is not None:
            kept[claim.original] = local
    return kept


def _claims(snapshot: Snapshot, server_id: str, originals: Iterable[str], rules: Rules) -> dict[str, Claim | None]:
    """The claims to write so that each of the tools is listed: new ones, ended ones, and those to forget."""
    now = snapshot.now_ms
    mine = {name: claim for name, claim in snapshot.claims.items() if claim.server == server_id}
    foreign = {
        name: claim
        for name, claim in snapshot.claims.items()
        if claim.server != server_id and is_held(claim, snapshot.rows, now, rules.hold_ms)
    }
    local = names.local_names(originals, kept_names(mine))
    own = {names.prefixed(server_id, name, original) for original, name in local.items()}
    reserved = {
        names.prefixed(claim.server, bare_name(claim, name) or names.fold(claim.original), claim.original)
        for name, claim in foreign.items()
    }
    # Who holds a name already keeps it, also where it became the prefixed form of a later tool.
    theirs = foreign.keys() | (reserved - mine.keys())
    suspects = {original for original, name in local.items() if _is_suspect(original, name, rules)}
    skeletons = {names.skeleton(name) for name in foreign} if suspects else set[str]()
    change: dict[str, Claim | None] = {}
    for original, name in local.items():
        is_free = name not in theirs and name not in own and name not in change
        if original in suspects and names.skeleton(name) in skeletons and not _holds(mine, name, original):
            is_free = False  # it would be taken for another tool server's
        listed = name if is_free else names.prefixed(server_id, name, original, taken=theirs | change.keys())
        old = mine.get(listed)
        claimed = old.claimed if old is not None and old.original == original else now
        change[listed] = Claim(server_id, original, claimed, 0)
    for name, claim in mine.items():
        if name not in change and claim.until == 0:
            change[name] = replace(claim, until=now + rules.hold_ms)
    return {**_claims_to_drop(snapshot, change, rules), **change}


def _is_suspect(original: str, name: str, rules: Rules) -> bool:
    """Whether the tool must not have a name that is taken for another tool server's."""
    return rules.tells_alike_apart or (name != original and hygiene.clean(original) != original)


def _holds(mine: Mapping[str, Claim], name: str, original: str) -> bool:
    return name in mine and mine[name].original == original


def _claims_to_drop(snapshot: Snapshot, change: Mapping[str, Claim | None], rules: Rules) -> dict[str, Claim | None]:
    """Claims whose hold is over, and of those beyond the bound the oldest of whoever has ended most.

    So nobody who names ever other tools pushes out a name that is held for somebody else.
    """
    ended = sorted((claim.until, name) for name, claim in snapshot.claims.items() if claim.until and name not in change)
    free: dict[str, Claim | None] = {name: None for until, name in ended if until <= snapshot.now_ms}
    surplus = len(snapshot.claims.keys() | change.keys()) - len(free) - rules.claims_max
    if surplus <= 0:
        return free
    counts = Counter(claim.server for claim in change.values() if claim is not None and claim.until)
    ranked: list[tuple[int, int, str]] = []
    for until, name in reversed(ended):
        if name not in free:
            server = snapshot.claims[name].server
            counts[server] += 1
            ranked.append((-counts[server], until, name))
    return {**free, **{name: None for _, _, name in sorted(ranked)[:surplus]}}
