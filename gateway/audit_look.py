"""The audit as `mcp-gateway inspect audit` shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.ages import age, iso
from gateway.backplane.facts import AuditFacts
from gateway.backplane.redis.window import Window
from gateway.look import Look, Table, Wish, cut_note

_PAGE = 1000
_PAGES_MAX = 200
"""One agent's records are looked for in so many pages: two times what is kept by default."""
_COLUMNS = ("when", "record", "agent", "who", "what", "outcome", "more")
_TOLD = frozenset({"record", "n", "ms", "worker", "agent", "outcome", "call", "conn", "seconds"})
_SAID: Mapping[str, frozenset[str]] = {
    "handshake": frozenset({"address", "kind", "server_id"}),
    "call": frozenset({"client", "server_id", "tool", "executed"}),
    "change": frozenset({"by", "book", "entry", "what"}),
}


async def audit(window: Window, wish: Wish) -> Look:
    """The newest records, newest first."""
    found: list[AuditFacts] = []
    page, before = _PAGE if wish.agent else wish.limit + 1, ""
    for _ in range(_PAGES_MAX):
        lately = await window.audit(page, before)
        found += [record for record in lately if not wish.agent or _is_of(record, wish.agent)]
        if len(lately) < page or len(found) > wish.limit:
            break
        before = lately[-1].id
    records, is_cut, now_ms = found[: wish.limit], len(found) > wish.limit, await window.now_ms()
    data = [{"id": one.id, "time": iso(one.at_ms), **one.fields} for one in records]
    lines = [_line(one, now_ms) for one in records]
    title = f"审计记录，最新的在前 / audit records, the newest first: {len(lines)}"
    notes = cut_note(is_cut) + ([] if found else [_EMPTY])
    return Look(title, now_ms, {"audit": data, "truncated": is_cut}, [Table(_COLUMNS, lines)], notes)


_EMPTY = (
    "没有记录：GATEWAY_AUDIT=stream 才会写到这里 / "
    "none: only with GATEWAY_AUDIT=stream are they written here (docs/audit.md)"
)


def _is_of(record: AuditFacts, agent: str) -> bool:
    """Whether it is about the agent; a revocation names it with a word before it."""
    return record.fields.get("agent") == agent or record.fields.get("entry") in (agent, f"agent:{agent}")


def _line(record: AuditFacts, now_ms: int) -> Sequence[str]:
    fields = record.fields
    kind = _word(fields, "record")
    match kind:
        case "handshake":
            who, what = _word(fields, "address"), f"{_word(fields, 'kind')} {_word(fields, 'server_id')}"
        case "call":
            who, what = _word(fields, "client"), f"{_word(fields, 'server_id')}/{_word(fields, 'tool')}"
        case "change":
            who, what = (
                _word(fields, "by"),
                f"{_word(fields, 'book')} {_word(fields, 'entry')}: {_word(fields, 'what')}",
            )
        case _:
            who = what = ""
    outcome = _word(fields, "outcome")
    if kind == "call":
        outcome += {"False": " (not executed)", "unknown": " (executed?)"}.get(_word(fields, "executed"), "")
    rest = fields.keys() - _TOLD - _SAID.get(kind, frozenset())
    more = " ".join(f"{name}={fields[name]}" for name in fields if name in rest)
    return (
        age(record.at_ms, now_ms),
        kind,
        _word(fields, "agent"),
        who or _word(fields, "conn"),
        what.strip(),
        outcome,
        more,
    )


def _word(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else str(value)
