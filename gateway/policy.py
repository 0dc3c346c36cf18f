"""What an agent's people have decided: which tool servers and tools it may use, how long and how much of each.

Theory of operation
-------------------
A policy is a JSON object whose fields are all optional. An agent's own is laid over the default one, field by field:
a list takes the place of the default's list, in the tables (`timeouts`, `result_bytes`, `limits`) entries do.

A glob has `*` and `?`; everything else is itself. One without a slash matches the tool's own name or one of the names
that robots know it by. In `server/tool` what stands before the first slash must be the tool server's id, whatever
tools call themselves: a stranger can't talk itself into somebody else's allow list. A deny list also looks at names
that have a slash in them; it would rather match too much. Deny wins over allow. Of several globs in a table the one
with the most characters that are no wildcards holds, of equal ones the one with the smaller value.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import orjson

Duplicates: TypeAlias = Literal["prefix", "hide", "prefix_all"]

TEXT_BYTES_MAX = 65_536
GLOBS_MAX = 256
GLOB_CHARACTERS_MAX = 256
SECONDS_MIN, SECONDS_MAX = 0.1, 3600.0
RESULT_BYTES_MIN, RESULT_BYTES_MAX = 4096, 983_040

LISTS = ("servers", "tools")
SIDES = ("allow", "deny")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "duplicates": ("prefix", "hide", "prefix_all"),
    "pins": ("off", "warn", "block"),
    "legacy_tokens": ("all", "mcp", "call", "none"),
}
LIMITS: Mapping[str, tuple[int, int]] = {
    "calls_per_second": (1, 10_000_000),
    "server_calls_per_second": (0, 10_000_000),
    "agent_handshakes_per_minute": (0, 10_000_000),
    "robots_per_agent": (1, 10_000_000),
    "servers_per_agent": (1, 10_000_000),
    "tools_per_agent": (1, 10_000_000),
    "catalog_bytes": (65_536, 268_435_456),
}
"""The settings that a policy may set otherwise for its agent, each with its range."""
FIELDS = (*LISTS, "timeouts", "result_bytes", *CHOICES, "limits")


class PolicyProblem(ValueError):
    """A policy that can't be used; the message is for people, and names the field."""


def _matcher(globs: Sequence[str]) -> Callable[[str], Any]:
    """Whether a text matches one of the globs, as one regular expression that can't be made to run for long."""
    # fnmatch's stars are atomic groups; its [sets] are switched off: brackets stand for themselves here.
    return re.compile("|".join(fnmatch.translate(glob.replace("[", "[[]")) for glob in globs) or r"(?!)").match


@dataclass(frozen=True, slots=True)
class Globs:
    """The globs of one list, compiled once. `is_wide`: those with a slash are matched against whole names, too."""

    patterns: tuple[str, ...]
    is_wide: bool = False
    _names: Callable[[str], Any] = field(init=False, repr=False, compare=False)
    _tools: tuple[tuple[Callable[[str], Any], Callable[[str], Any]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plain = [glob for glob in self.patterns if self.is_wide or "/" not in glob]
        tools: dict[str, list[str]] = {}
        for glob in self.patterns:
            server, slash, tool = glob.partition("/")
            if slash:
                tools.setdefault(server, []).append(tool)
        object.__setattr__(self, "_names", _matcher(plain))
        object.__setattr__(self, "_tools", tuple((_matcher([one]), _matcher(all)) for one, all in tools.items()))

    def match_server(self, server_id: str) -> bool:
        return bool(self._names(server_id))

    def match_tool(self, server_id: str, names: Sequence[str]) -> bool:
        """Whether one of the globs is for the tool of this tool server that goes by these names."""
        if any(map(self._names, names)):
            return True
        return any(server(server_id) and any(map(tool, names)) for server, tool in self._tools)

    def first(self, is_match: Callable[["Globs"], bool]) -> str:
        """The first of the globs that matches by itself; for people, who want to know which."""
        return next((glob for glob in self.patterns if is_match(Globs((glob,), self.is_wide))), "")


@dataclass(frozen=True, slots=True)
class Bound:
    """A number for the tools that a glob matches."""

    globs: Globs
    value: float

    @property
    def glob(self) -> str:
        return self.globs.patterns[0]

    @property
    def rank(self) -> tuple[int, float, str]:
        return -len(self.glob.replace("*", "").replace("?", "")), self.value, self.glob


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whether a tool may be used, and the rule that says so: `tools.deny: GLOB`; empty where no rule does."""

    is_allowed: bool
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """One agent's policy, or the part of it that was set. None, an empty text or table: not set."""

    servers_allow: Globs | None = None
    servers_deny: Globs | None = None
    tools_allow: Globs | None = None
    tools_deny: Globs | None = None
    timeouts: tuple[Bound, ...] = ()
    result_caps: tuple[Bound, ...] = ()
    duplicates_rule: str = ""
    pins: str = ""
    legacy_tokens: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_lists(self) -> bool:
        """Whether any tool server or tool may be forbidden."""
        return not (self.servers_allow is self.servers_deny is self.tools_allow is self.tools_deny is None)

    @property
    def has_bounds(self) -> bool:
        """Whether any tool may have a timeout or a result cap of its own."""
        return bool(self.timeouts or self.result_caps)

    @property
    def duplicates(self) -> Duplicates:
        """What is listed of tools that have the same name; see docs/policy.md."""
        return cast(Duplicates, self.duplicates_rule or "prefix")

    def allows_server(self, server_id: str) -> bool:
        if self.servers_deny is not None and self.servers_deny.match_server(server_id):
            return False
        return self.servers_allow is None or self.servers_allow.match_server(server_id)

    def allows(self, server_id: str, original: str, *listed: str) -> bool:
        """Whether robots may see and call the tool; `listed` are the names that they may know it by."""
        if not self.allows_server(server_id):
            return False
        names = (original, *listed)
        if self.tools_deny is not None and self.tools_deny.match_tool(server_id, names):
            return False
        return self.tools_allow is None or self.tools_allow.match_tool(server_id, names)

    def ruling_on_server(self, server_id: str) -> Ruling:
        """As `allows_server`, with the rule that decides."""
        return replace(self, tools_allow=None, tools_deny=None).ruling(server_id, "")

    def ruling(self, server_id: str, original: str, *listed: str) -> Ruling:
        """As `allows`, with the rule that decides. Without a `server_id` the lists of tool servers are left out."""
        names = (original, *listed)
        by_server = partial(Globs.match_server, server_id=server_id) if server_id else None
        by_tool = partial(Globs.match_tool, server_id=server_id, names=names)
        allowing = ""
        for key, is_match in (("servers", by_server), ("tools", by_tool)):
            if is_match is None:
                continue
            deny: Globs | None = getattr(self, f"{key}_deny")
            if deny is not None and is_match(deny):
                return Ruling(False, f"{key}.deny: {deny.first(is_match)}")
            allow: Globs | None = getattr(self, f"{key}_allow")
            if allow is not None:
                if not is_match(allow):
                    return Ruling(False, f"{key}.allow")
                allowing = f"{key}.allow: {allow.first(is_match)}"
        return Ruling(True, allowing)

    def timeout_seconds(self, server_id: str, original: str, *listed: str) -> float | None:
        """How long a call of the tool may take; None: as long as any other."""
        return _bound(self.timeouts, server_id, (original, *listed))

    def result_bytes(self, server_id: str, original: str, *listed: str) -> int | None:
        """How large the frame with the tool's result may be; None: as large as any other."""
        value = _bound(self.result_caps, server_id, (original, *listed))
        return None if value is None else int(value)

    def limit(self, name: str, default: int) -> int:
        """The agent's limit of this name (`LIMITS`), `default` where it has none of its own."""
        return self.limits.get(name, default)

    def pins_mode(self, default: str) -> str:
        return self.pins or default

    def legacy_tokens_mode(self, default: str) -> str:
        return self.legacy_tokens or default

    def over(self, base: "Policy") -> "Policy":
        """This policy where it says something, `base` everywhere else; `base` itself where it says nothing."""
        if self == UNSET:
            return base
        merged = {
            spec.name: own if own not in (None, "") else getattr(base, spec.name)
            for spec in fields(Policy)
            for own in (getattr(self, spec.name),)
        }
        for name in ("timeouts", "result_caps"):
            bounds = {bound.glob: bound for bound in (*getattr(base, name), *getattr(self, name))}
            merged[name] = tuple(sorted(bounds.values(), key=lambda bound: bound.rank))
        return Policy(**{**merged, "limits": {**base.limits, **self.limits}})

    def as_json(self) -> dict[str, Any]:
        """The policy as the JSON object that `parse` reads."""
        lists: dict[str, dict[str, list[str]]] = {}
        for key in LISTS:
            for side in SIDES:
                globs: Globs | None = getattr(self, f"{key}_{side}")
                if globs is not None:
                    lists.setdefault(key, {})[side] = list(globs.patterns)
        rest = {
            "timeouts": {bound.glob: bound.value for bound in self.timeouts},
            "result_bytes": {bound.glob: int(bound.value) for bound in self.result_caps},
            "duplicates": self.duplicates_rule,
            "pins": self.pins,
            "legacy_tokens": self.legacy_tokens,
            "limits": dict(self.limits),
        }
        return {**lists, **{key: value for key, value in rest.items() if value}}


UNSET = Policy()
"""Nothing is set: everything is as the settings of the gateway say."""

NOTHING = Policy(servers_allow=Globs((), is_wide=True))
"""Nothing is allowed: stands for a policy that exists and can't be read."""


def _bound(bounds: Sequence[Bound], server_id: str, names: Sequence[str]) -> float | None:
    return next((bound.value for bound in bounds if bound.globs.match_tool(server_id, names)), None)


def parse(text: bytes, base: Policy = UNSET, *, is_strict: bool = False) -> Policy:
    """The policy that the JSON object says, over `base`.

    Fields that are not known are left out, as a newer version may have written them; `is_strict` is for what people
    write. Raises PolicyProblem.
    """
    if len(text) > TEXT_BYTES_MAX:
        raise PolicyProblem(f"策略超过 {TEXT_BYTES_MAX} 字节 / the policy is larger than {TEXT_BYTES_MAX} bytes")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PolicyProblem(f"不是有效的 JSON：{error} / not valid JSON: {error}") from None
    if type(value) is not dict:
        raise PolicyProblem("策略必须是一个 JSON 对象 / a policy is a JSON object")
    return checked(value, is_strict=is_strict).over(base)


def checked(value: Mapping[str, Any], *, is_strict: bool = True) -> Policy:
    """The policy that a JSON object says by itself. Raises PolicyProblem."""
    if is_strict:
        _check_keys("", value, FIELDS)
    lists = {
        f"{key}_{side}": _globs(f"{key}.{side}", sides[side], is_wide=key == "servers" or side == "deny")
        for key in LISTS
        for sides in (_table(key, value, SIDES if is_strict else ()),)
        for side in SIDES
        if sides.get(side) is not None
    }
    choices = {key: _choice(key, value[key]) for key in CHOICES if value.get(key) is not None}
    limits = _table("limits", value, tuple(LIMITS) if is_strict else ())
    return Policy(
        **lists,
        timeouts=_bounds("timeouts", value, SECONDS_MIN, SECONDS_MAX, is_whole=False),
        result_caps=_bounds("result_bytes", value, RESULT_BYTES_MIN, RESULT_BYTES_MAX, is_whole=True),
        duplicates_rule=choices.get("duplicates", ""),
        pins=choices.get("pins", ""),
        legacy_tokens=choices.get("legacy_tokens", ""),
        limits={key: int(_number(f"limits.{key}", limits[key], *LIMITS[key])) for key in LIMITS if key in limits},
    )


def _check_keys(prefix: str, value: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in value:
        if key not in known:
            raise unknown_key(prefix + key, [prefix + name for name in known])


def unknown_key(key: str, known: Sequence[str]) -> PolicyProblem:
    """The problem of a key that is none, with the nearest good one."""
    nearest = get_close_matches(key, known, n=1)
    zh, en = (f"；是否指 {nearest[0]}？", f"; did you mean {nearest[0]}?") if nearest else ("", "")
    return PolicyProblem(
        f"{key[:80]} 不是策略的字段{zh}（可用：{'、'.join(known)}） / "
        f"{key[:80]} is not a field of a policy{en} (there are: {', '.join(known)})"
    )


def _table(key: str, value: Mapping[str, Any], known: Sequence[str] = ()) -> Mapping[str, Any]:
    table = value.get(key)
    if table is None:
        return {}
    if type(table) is not dict:
        raise PolicyProblem(f"{key} 必须是一个 JSON 对象 / {key} is a JSON object")
    if known:
        _check_keys(f"{key}.", table, known)
    return table


def _globs(key: str, value: Any, *, is_wide: bool) -> Globs:
    if type(value) is not list or len(value) > GLOBS_MAX:
        raise PolicyProblem(
            f"{key} 必须是通配符的列表，最多 {GLOBS_MAX} 个 / {key} is a list of globs, {GLOBS_MAX} at most"
        )
    return Globs(tuple(dict.fromkeys(_glob(key, glob) for glob in value)), is_wide)


def _glob(key: str, glob: Any) -> str:
    is_good = type(glob) is str and glob.isprintable() and 0 < len(glob) <= GLOB_CHARACTERS_MAX
    if not is_good or glob.startswith("/") or glob.endswith("/"):
        raise PolicyProblem(
            f"{key}：{glob!r:.80} 不能用作通配符，例如 calc/*、delete_* / "
            f"{key}: {glob!r:.80} can't be a glob; examples: calc/*, delete_*"
        )
    return cast(str, glob)


def _bounds(key: str, value: Mapping[str, Any], low: float, high: float, *, is_whole: bool) -> tuple[Bound, ...]:
    table = _table(key, value)
    if len(table) > GLOBS_MAX:
        raise PolicyProblem(f"{key} 最多 {GLOBS_MAX} 项 / {key} has {GLOBS_MAX} entries at most")
    bounds = [
        Bound(Globs((_glob(key, glob),)), _number(f"{key}.{glob}", number, low, high, is_whole=is_whole))
        for glob, number in table.items()
    ]
    return tuple(sorted(bounds, key=lambda bound: bound.rank))


def _number(key: str, value: Any, low: float, high: float, *, is_whole: bool = True) -> float:
    is_number = type(value) is int or (type(value) is float and not is_whole)
    if not is_number or not low <= value <= high:
        raise PolicyProblem(
            f"{key[:80]} 必须是 {low:.10g} 到 {high:.10g} 之间的{'整数' if is_whole else '数'} / "
            f"{key[:80]} is a {'whole ' if is_whole else ''}number from {low:.10g} to {high:.10g}"
        )
    return cast(float, value)


def _choice(key: str, value: Any) -> str:
    if value not in CHOICES[key]:
        raise PolicyProblem(f"{key} 只能是 {'、'.join(CHOICES[key])} / {key} is one of {', '.join(CHOICES[key])}")
    return cast(str, value)
