"""`mcp-gateway policy`: what an agent may use, looked at and changed.

What is written is written on top of what was read, and only if nobody else has written meanwhile: `set` reads again
then and makes its changes once more, `apply` and `reset` say so.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from gateway import names
from gateway.ages import iso
from gateway.assignments import assigned
from gateway.auth import AGENT_RULE, is_agent_id
from gateway.backplane.base import Entry
from gateway.bookkeeping import Bookkeeper, opened
from gateway.operating import CannotOperate
from gateway.policies import BOOK, DEFAULT, Policies
from gateway.policy import TEXT_BYTES_MAX, Policy, PolicyProblem, checked, parse
from gateway.policy_options import agent_and_rest
from gateway.settings import Settings
from gateway.tables import as_json, printable

TRIES = 5

Write: TypeAlias = Callable[[str], None]

_SAVED = "{name}：已写入，两秒内处处生效 / written, in force everywhere within two seconds (version {version})\n"
_CONFLICT = (
    "{name}：其间有人改了，没有写入；再看一次 / somebody has changed it meanwhile, nothing was written; look again: "
    "mcp-gateway policy show"
)


async def run(settings: Settings, arguments: Namespace, write: Write) -> int:
    """Return the exit code: 0 done, or the tool is allowed; 1 it is not. Raises CannotOperate."""
    name, rest = ("", []) if arguments.verb == "list" else agent_and_rest(arguments, DEFAULT)
    if name and not is_agent_id(name):
        raise CannotOperate(f"AGENT: {AGENT_RULE}")
    try:
        async with opened(settings) as books:
            desk = _Desk(books, name, write, as_json=arguments.json)
            match arguments.verb:
                case "list":
                    return await desk.tell_all()
                case "show":
                    return await desk.show()
                case "set":
                    return await desk.change(rest)
                case "apply":
                    return await desk.apply(_read(rest[0]))
                case "reset":
                    return await desk.reset()
                case _:
                    return await desk.test(rest[0])
    except PolicyProblem as problem:
        raise CannotOperate(str(problem)) from None


class _Desk:
    """One command's business with the book."""

    def __init__(self, books: Bookkeeper, name: str, write: Write, *, as_json: bool) -> None:
        self._books = books
        self._name = name
        self._write = write
        self._as_json = as_json

    async def tell_all(self) -> int:
        entries = await self._entries()
        policies = [
            {"agent": name, "version": entry.version, "changed": iso(entry.version), "policy": _shown(entry)}
            for name, entry in sorted(entries.items())
            if entry.text
        ]
        if self._as_json:
            self._json({"policies": policies})
            return 0
        for one in policies:
            who = "默认 / default" if one["agent"] == DEFAULT else printable(str(one["agent"]))
            self._write(f"{who}  {one['changed']}\n  {orjson.dumps(one['policy']).decode()}\n")
        if not policies:
            self._write("没有策略，什么都不限制 / there is no policy: nothing is restricted\n")
        return 0

    async def show(self) -> int:
        entries = await self._entries()
        entry = entries.get(self._name, Entry(0, b""))
        told = {
            "agent": self._name,
            "version": entry.version,
            "policy": _shown(entry),
            "in_force": _policy(entries, self._name).as_json(),
        }
        if self._as_json:
            self._json(told)
            return 0
        own = "（没有自己的策略 / none of its own）" if not entry.text else ""
        self._write(f"智能体 / agent: {printable(self._name)}  version {entry.version} {own}\n".replace(" \n", "\n"))
        for title, policy in (("自己的 / its own", told["policy"]), ("生效的 / in force", told["in_force"])):
            self._write(f"{title}:\n{_indented(policy)}\n")
        return 0

    async def change(self, assignments: list[str]) -> int:
        for _ in range(TRIES):
            entry = (await self._entries()).get(self._name, Entry(0, b""))
            before = _fields(entry)
            fields = assigned(before, assignments)
            checked(fields)
            if fields == before:
                self._write(f"{printable(self._name)}：没有变化 / nothing to change\n")
                return 0
            if await self._put(fields, entry.version):
                return 0
        raise CannotOperate(_CONFLICT.format(name=printable(self._name)))

    async def apply(self, text: bytes) -> int:
        fields, version = _document(text)
        if version is None:
            version = (await self._entries()).get(self._name, Entry(0, b"")).version
        checked(fields)
        return await self._put_or_refuse(fields, version)

    async def reset(self) -> int:
        entry = (await self._entries()).get(self._name, Entry(0, b""))
        if not entry.text:
            self._write(f"{printable(self._name)}：没有策略 / has no policy\n")
            return 0
        return await self._put_or_refuse({}, entry.version)

    async def test(self, tool: str) -> int:
        policy = _policy(await self._entries(), self._name)
        server_id, slash, original = tool.partition("/")
        if not slash:
            server_id, original = "", tool
        known_as = names.usual(server_id, original) if server_id else ()
        ruling = policy.ruling(server_id, original, *known_as)
        told: dict[str, Any] = {
            "allowed": ruling.is_allowed,
            "rule": ruling.rule or None,
            "timeout_seconds": policy.timeout_seconds(server_id, original, *known_as),
            "result_bytes": policy.result_bytes(server_id, original, *known_as),
        }
        if self._as_json:
            self._json(told)
        else:
            word = "允许 / allowed" if ruling.is_allowed else "不允许 / not allowed"
            self._write(f"{word}: {ruling.rule or '没有规则说到它 / no rule is about it'}\n")
            if not server_id and (policy.servers_allow or policy.servers_deny) is not None:
                self._write(
                    "  没有看工具服务器的规则 / without the rules on tool servers: policy test AGENT SERVER/TOOL\n"
                )
            bounds = (("timeouts", "timeout_seconds", "s"), ("result_bytes", "result_bytes", "bytes"))
            for title, key, unit in bounds:
                if told[key] is not None:
                    self._write(f"  {title}: {told[key]:g} {unit}\n")
        return 0 if ruling.is_allowed else 1

    async def _entries(self) -> Mapping[str, Entry]:
        return (await self._books.read_book(BOOK)).entries

    async def _put_or_refuse(self, fields: Mapping[str, Any], expected: int) -> int:
        if not await self._put(fields, expected):
            raise CannotOperate(_CONFLICT.format(name=printable(self._name)))
        return 0

    async def _put(self, fields: Mapping[str, Any], expected: int) -> bool:
        """Write the policy (empty: take it back) unless somebody was faster."""
        text = orjson.dumps(fields) if fields else b""
        version = await self._books.write_entry(BOOK, self._name, text, expected)
        if version is None:
            return False
        if self._as_json:
            self._json({"agent": self._name, "version": version, "policy": fields})
        else:
            self._write(_SAVED.format(name=printable(self._name), version=version))
        return True

    def _json(self, value: Mapping[str, Any]) -> None:
        self._write(as_json(value))


def _policy(entries: Mapping[str, Entry], name: str) -> Policy:
    """What is in force for the agent, or by default."""
    policies = Policies()
    for one in {DEFAULT, name}:
        if one in entries:
            parse(entries[one].text or b"{}")  # what can't be read is said here, and not stood in for
            policies.put(one, entries[one].text)
    return policies.of(name)


def _fields(entry: Entry) -> dict[str, Any]:
    """The fields as they stand there. Raises PolicyProblem where that is nothing that could be changed."""
    if not entry.text:
        return {}
    parse(entry.text)
    fields: dict[str, Any] = orjson.loads(entry.text)
    return fields


def _shown(entry: Entry) -> Any:
    """What stands there, readable or not."""
    try:
        return orjson.loads(entry.text or b"{}")
    except orjson.JSONDecodeError:
        return entry.text.decode("utf-8", "replace")[:200]


def _read(file: str) -> bytes:
    try:
        if file == "-":
            return sys.stdin.buffer.read(TEXT_BYTES_MAX + 1)
        with Path(file).open("rb") as stream:
            return stream.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise CannotOperate(f"{file}: {error.strerror}") from None


def _document(text: bytes) -> tuple[dict[str, Any], int | None]:
    """The policy in a file, and the version that it was read at; None where the file has the policy alone."""
    parse(text)
    fields: dict[str, Any] = orjson.loads(text)
    version, policy = fields.get("version"), fields.get("policy")
    if type(version) is int and type(policy) is dict:
        return policy, version
    return fields, None


def _indented(policy: Any) -> str:
    return "\n".join(f"  {line}" for line in as_json(policy).splitlines())
