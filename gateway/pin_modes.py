"""What becomes of tools that are not as pinned, agent by agent: the mode that is in force now."""

from gateway.backplane.base import Snapshot
from gateway.policies import Policies
from gateway.policy import Policy

AWAITED_SECONDS = 1.9
"""So long a change to `block` waits for the pins of what is connected: it is in force within two seconds."""


class PinModes:
    """Agent → `off`, `warn` or `block`: as its policy says, else as the setting does."""

    def __init__(self, setting: str, policies: Policies) -> None:
        self._setting = setting
        self._policies = policies
        self._awaited: dict[str, float] = {}
        """Agents whose pins are being written for the first time; until when that is waited for."""

    def of(self, agent: str) -> str:
        return self._policies.of(agent).pins_mode(self._setting)

    def begins_to_block(self, agent: str, before: Policy, now: float) -> bool:
        """Whether the agent had no pins under the policy of before, and now wants tools blocked."""
        if self.of(agent) != "block" or before.pins_mode(self._setting) != "off":
            return False
        self._awaited = {name: until for name, until in self._awaited.items() if until > now}
        self._awaited[agent] = now + AWAITED_SECONDS
        return True

    def of_catalog(self, agent: str, facts: Snapshot, now: float) -> str:
        """The mode for a catalog of these facts: conversations go on while the tools in them are being pinned."""
        mode = self.of(agent)
        is_awaited = mode == "block" and not facts.pins and now < self._awaited.get(agent, 0.0)
        return "warn" if is_awaited else mode
