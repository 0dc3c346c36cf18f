"""Holds what tool servers here offer against their pins, as far as their agents want that, and reports what differs.

A finding is reported by the worker whose commit has noted it: once in the cluster, and again when something else is
offered. It is a log line, a line in the event log, and a count; `mcp-gateway pins` shows what waits.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson

from gateway import pins
from gateway.agents import Agents
from gateway.backplane.base import Backplane, Change, Snapshot
from gateway.pins import Bounds, Finding
from gateway.settings import Settings
from gateway.toollink import ToolLink
from gateway.toolsession import printable

logger = logging.getLogger(__name__)

NAMES_TOLD = 10
NAME_CHARS_TOLD = 64


class Pinning:
    """What this worker has to say about pins of tool servers that are connected here."""

    def __init__(self, settings: Settings, backplane: Backplane, agents: Agents) -> None:
        self._backplane = backplane
        self._agents = agents
        self._bounds = Bounds(
            tools_per_server=2 * settings.tools_per_server,
            tools_per_agent=2 * settings.tools_per_agent,
            servers=2 * settings.servers_per_agent,
        )
        self._judged: dict[str, _Judged] = {}
        """By connection."""

    def mode(self, agent: str) -> str:
        """`off`, `warn` or `block`, as it is in force for the agent now."""
        return self._agents.pin_modes.of(agent)

    def wants(self, link: ToolLink) -> bool:
        """Whether the link has to be judged since its agent's mode is another one than when it was last."""
        known, mode = self._judged.get(link.connection.id), self.mode(link.connection.agent)
        before = known.mode if known is not None else "off"
        if known is not None and mode == "off":
            known.mode = mode
        return mode not in ("off", before)

    def judge(self, link: ToolLink, toolset: str, snapshot: Snapshot, server_id: str, change: Change) -> Change:
        """The change, and with it what has to be noted of the link's pins."""
        mode = self.mode(link.connection.agent)
        if mode == "off":
            return change
        judged = self._judged.setdefault(link.connection.id, _Judged())
        judged.mode = mode
        found = pins.judge(snapshot, server_id, self._fingerprints(judged, link, toolset), self._bounds)
        if found.pins is None:
            # A commit may have been taken without this worker hearing so: what it noted still wants to be reported.
            judged.found = judged.found or found
            return change
        judged.found = found
        return replace(change, pins={**pins.faded(snapshot), **change.pins, server_id: found.pins})

    def _fingerprints(self, judged: "_Judged", link: ToolLink, toolset: str) -> Mapping[str, str]:
        if judged.toolset != toolset:
            toolsets = self._agents.toolsets
            if toolset not in toolsets:  # nobody shows it, so it was let go of
                toolsets.keep(toolset, orjson.loads(link.toolset), len(link.toolset))
            judged.toolset, judged.fingerprints = toolset, toolsets.fingerprints(toolset)
        return judged.fingerprints

    def restored(self, stored: Snapshot, believed: Snapshot, change: Change) -> Change:
        """The change, and with it the pins that the store has forgotten."""
        if believed.pins is stored.pins:
            return change
        return replace(change, pins={**pins.missing(stored.pins, believed.pins), **change.pins})

    def forget(self, link: ToolLink) -> None:
        """Its connection has gone."""
        self._judged.pop(link.connection.id, None)

    def report(self, link: ToolLink) -> None:
        """What was found has been noted: tell people."""
        judged = self._judged.get(link.connection.id)
        if judged is None or judged.found is None:
            return
        found, judged.found = judged.found, None
        told = {"changed": found.changed, "new": found.new, "removed": found.removed}
        counts = {kind: len(tools) for kind, tools in told.items() if tools}
        if counts:
            names = {f"{kind}_tools": _shown(tools) for kind, tools in told.items() if tools}
            self._tell_different(link, judged.mode, counts, names)
        elif found.is_first:
            self._tell_first(link, found)
        if found.unpinned and not judged.is_full_told:
            judged.is_full_told = True
            counts["full"] = found.unpinned
            text = "tools not pinned: the agent has as many pins as it may have"
            self._log(link, logging.WARNING, text, event="pins_full", mode=judged.mode, unpinned=found.unpinned)
        counts |= {"new_server": 1} if found.is_new_server else {}
        for kind in counts:
            self._backplane.meters.pin_reports_total.add(kind)
        if counts:
            of_link = {"agent": link.connection.agent, "server": link.server_id, "conn": link.connection.id}
            self._backplane.note_event("pins", {**of_link, "mode": judged.mode, **counts})

    def _tell_different(self, link: ToolLink, mode: str, counts: dict[str, int], names: dict[str, list[str]]) -> None:
        if counts.keys() == {"removed"}:
            level, text = logging.INFO, "pinned tools have gone"
        else:
            level, text = logging.WARNING, "tools differ from their pins"
        self._log(link, level, text, event="pins_differ", mode=mode, **counts, **names)

    def _tell_first(self, link: ToolLink, found: Finding) -> None:
        count = len(found.pins.tools) if found.pins is not None else 0
        if found.is_new_server:
            text = "a new tool server beside pinned ones: its tools are pinned"
            self._log(link, logging.WARNING, text, event="new_server_pinned", tools=count)
        else:
            self._log(link, logging.INFO, "tools pinned", event="tools_pinned", tools=count)

    def _log(self, link: ToolLink, level: int, message: str, **fields: object) -> None:
        extra = {"agent": link.connection.agent, "server_id": link.server_id, "conn": link.connection.id, **fields}
        logger.log(level, message, extra=extra)


@dataclass(slots=True)
class _Judged:
    """What is known of one connection."""

    mode: str = "off"
    toolset: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    found: Finding | None = None
    """What was found, until the commit that notes it is known to have been taken."""
    is_full_told: bool = False


def _shown(tools: tuple[str, ...]) -> list[str]:
    """Names of tools for a log line: strangers chose them."""
    return [printable(tool)[:NAME_CHARS_TOLD] for tool in tools[:NAMES_TOLD]]
