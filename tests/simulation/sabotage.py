"""Protections of the gateway, switched off one at a time: a simulation that does not notice is worth nothing."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from gateway import registration, registry
from gateway.backplane.base import Change, Snapshot
from gateway.backplane.envelope import Envelope
from gateway.backplane.redis import scripts
from gateway.directory import Claim, Row
from gateway.executor import Executor
from gateway.worker import Worker
from tests.simulation.lua import digest


def _in_script(name: str, text: str, instead: str) -> Any:
    """The script with a part of it replaced."""
    load = scripts.load

    def changed(asked: str) -> scripts.Script:
        script = load(asked)
        if asked != name:
            return script
        assert text.encode() in script.text, f"{name}.lua has changed: {text!r} is not in it"
        other = script.text.replace(text.encode(), instead.encode())
        return dataclasses.replace(script, text=other, digest=digest(other).decode())

    return patch.object(scripts, "load", changed)


def _run_every_request() -> list[Any]:
    """No ledger of what was run: neither the record nor the worker's memory stops a second one."""
    return [
        _in_script("dispatch", "if redis.call('EXISTS', key) == 1 then return 'dup' end", ""),
        patch.object(Executor, "_note_seen", lambda self, *_: None),
    ]


def _restore_always() -> list[Any]:
    """No fencing: an old connection puts its row back over that of a newer one."""

    def restore(_: Snapshot, server_id: str, row: Row, claims: Mapping[str, Claim]) -> Change:
        return Change({server_id: row}, claims)

    return [patch.object(registry, "restore", restore)]


def _unregister_blindly() -> list[Any]:
    """Without the comparison an old connection's clean-up takes the newer one's row offline."""
    go_offline = registry.go_offline

    def blindly(snapshot: Snapshot, server_id: str, conn: str, cause: str, rules: registration.Rules) -> Change:
        row = snapshot.rows.get(server_id)
        return go_offline(snapshot, server_id, row.conn if row else conn, cause, rules)

    return [patch.object(registry, "go_offline", blindly)]


def _ignore_gaps() -> list[Any]:
    """What was published while nobody listened is not looked for."""
    return [patch.object(Worker, "on_gap", lambda self: None)]


def _commit_blindly() -> list[Any]:
    """Without the comparison of revisions two decisions overwrite each other."""
    return [_in_script("commit", "~= expected then", "~= expected and false then")]


def _ignore_deadlines() -> list[Any]:
    """Nobody looks at the time before a call is run, nor at the lease: a frozen worker runs what is long over."""
    run = Executor._run

    def run_at_any_time(self: Executor, envelope: Envelope) -> str | None:
        self._is_fenced = lambda: False
        envelope.due, envelope.ms = 0, 5000
        return run(self, envelope)

    return [
        _in_script("dispatch", "if due > 0 and due <= now then return 'late' end", ""),
        patch.object(Executor, "_run", run_at_any_time),
    ]


SABOTAGES: dict[str, Callable[[], list[Any]]] = {
    "ledger": _run_every_request,
    "fencing": _restore_always,
    "comparison": _unregister_blindly,
    "gaps": _ignore_gaps,
    "revision": _commit_blindly,
    "deadline": _ignore_deadlines,
}


@contextmanager
def sabotage(name: str) -> Iterator[None]:
    """Inside, the protection is off; with no name everything is as it should be."""
    with ExitStack() as patches:
        for one in SABOTAGES[name]() if name else ():
            patches.enter_context(one)
        yield
