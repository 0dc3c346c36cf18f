"""The names under which robots see and call tools (design §6.2).

A listed name survives the robots' sanitiser unchanged (`xiaozhi-ecosystem.md` finding 10; CJK stays) and has at most
64 characters. Within one tool server every tool has its own *local* name; the *prefixed* name of a tool,
`<server_id>__<local>`, belongs to that tool server alone.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

NAME_CHARACTERS_MAX = 64
_FOLDED = re.compile(r"[^a-zA-Z0-9_\-\u4e00-\u9fff]")


def fold(name: str) -> str:
    """The name as robots' sanitiser leaves it; `_` for an empty one."""
    return _FOLDED.sub("_", name) or "_"


def skeleton(name: str) -> str:
    """What people and language models tell a listed name by: equal for names that are easily taken for each other.

    That is: case, hyphen or underscore, how many of them, and those at either end, where the sanitiser leaves one for
    each character that nobody sees.
    """
    return "_".join(filter(None, name.replace("-", "_").split("_"))).casefold() or name


def mark(original: str, digits: int = 4) -> str:
    """The first hex digits of the original's SHA-256: what tells two tools apart whose names fold into one."""
    return hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def cut(name: str, original: str) -> str:
    """The name within 64 characters; a longer one ends in `_` and the original's mark."""
    return name if len(name) <= NAME_CHARACTERS_MAX else marked(name, original)


def marked(name: str, original: str, digits: int = 4) -> str:
    """The name with `_` and the original's mark at its end, within 64 characters."""
    return f"{name[: NAME_CHARACTERS_MAX - 1 - digits]}_{mark(original, digits)}"


def local_names(originals: Iterable[str], kept: Mapping[str, str]) -> dict[str, str]:
    """A name for each tool of one tool server, unique within it.

    `kept` (original → local name) are names from before, which stay. Then tools go first whose name needs no change,
    then the rest in the order of their names: neither the server's own order nor that of arrival decides.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for original in sorted(set(originals), key=lambda name: (name not in kept, fold(name) != name, name)):
        name = kept.get(original, "")
        if not name or name in taken:
            name = _free(cut(fold(original), original), original, taken)
        names[original] = name
        taken.add(name)
    return names


def _free(plain: str, original: str, taken: Collection[str]) -> str:
    """`plain` itself, or the first of its marked forms that is not taken."""
    name, digits = plain, 4
    while name in taken:
        name = marked(plain, original, digits)
        digits += 4
        if digits > 48:  # somebody has named tools after all of these
            original, digits = mark(original, 64), 4
    return name


def is_local(name: str, original: str) -> bool:
    """Whether this is a local name that the tool may have been given."""
    plain = cut(fold(original), original)
    return name in (plain, marked(plain, original, len(name.rpartition("_")[2])))


def prefixed(server_id: str, local: str, original: str, taken: Collection[str] = ()) -> str:
    """`<server_id>__<local>`, cut to 64 characters; marked further where `taken` holds that already."""
    whole = f"{server_id}\n{original}"
    return _free(cut(f"{fold(server_id)}__{local}", whole), whole, taken)


def usual(server_id: str, original: str) -> tuple[str, str]:
    """The bare and the prefixed name of a tool, where it shares neither with another one."""
    local = cut(fold(original), original)
    return local, prefixed(server_id, local, original)


def server_name(name: str) -> str:
    """A tool server's self-given name as a server_id: folded, at most 32 characters, `server` if nothing is left."""
    return fold(name)[:32].strip("_-") or "server"
