"""Pinned definitions in the memory of one process, and in a file that outlives it.

Commands write that file too, and have no other way to reach the process: it is looked at every second.
"""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from gateway.backplane import rows
from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.memory_store import KeptAgent, MemoryCore
from gateway.directory import Pins

logger = logging.getLogger(__name__)

PINS_FILE = "pins.json"


class MemoryPins(MemoryCore):
    """The part of the directory that keeps pins."""

    _pins_trouble = ""
    """Why the file could not be read last time."""
    _are_pins_known = False

    @abstractmethod
    def _revise(self, agent: str, state: KeptAgent) -> int: ...

    def read_pins(self) -> None:
        """Take over what was decided beside this process; to be called every second."""
        file, kept = self._store.pins_file, self._store.pins
        if file is None:
            return
        try:
            told = pins_of(file.read()) if file.has_changed() else {}
        except BackplaneUnavailable as error:
            if str(error) != self._pins_trouble:
                self._pins_trouble = str(error)
                logger.warning("pins not read", extra={"event": "pins_unread", "cause": self._pins_trouble})
            return
        self._pins_trouble, self._are_pins_known = "", True
        for agent, its_pins in told.items():
            ours = kept.setdefault(agent, {})
            better = {name: pins for name, pins in its_pins.items() if name not in ours or pins.outranks(ours[name])}
            ours |= better
            if better:
                self._revise(agent, self._store.agent(agent))

    def check_pins(self) -> None:
        """Raise BackplaneUnavailable as long as nobody knows what is pinned: everything would count as new."""
        if self._pins_trouble and not self._are_pins_known:
            raise BackplaneUnavailable(self._pins_trouble)

    def _put_pins(self, agent: str, change: Mapping[str, Pins | None]) -> None:
        if not change:
            return
        kept = self._store.pins.setdefault(agent, {})
        for name, pins in change.items():
            if pins is None:
                kept.pop(name, None)
            else:
                kept[name] = pins
        if self._store.pins_file is None:
            return
        self.read_pins()  # what somebody decided a moment ago must not be overwritten
        try:
            with self._store.pins_file.changing() as content:
                write_pins(content, agent, {name: kept.get(name) for name in change})
        except BackplaneUnavailable as error:
            logger.warning("pins not written", extra={"event": "pins_unwritten", "cause": str(error)})


def pins_of(content: Mapping[str, Any]) -> dict[str, dict[str, Pins]]:
    """What the file says: agent → server_id → pins. What can't be read is left out."""
    told: dict[str, dict[str, Pins]] = {}
    for agent, servers in content.items():
        for name, raw in servers.items() if isinstance(servers, dict) else ():
            pins = rows.pins_of(raw) if isinstance(raw, dict) else None
            if pins is not None:
                told.setdefault(agent, {})[name] = pins
    return told


def write_pins(content: dict[str, Any], agent: str, change: Mapping[str, Pins | None]) -> None:
    """Put these pins of an agent into what the file holds; None removes them."""
    servers = content.setdefault(agent, {})
    for name, pins in change.items():
        if pins is None:
            servers.pop(name, None)
        else:
            servers[name] = rows.pins_as_data(pins)
    if not servers:
        del content[agent]
