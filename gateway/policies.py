"""The policies of all agents, as this worker knows them."""

import logging
from collections.abc import Set

from gateway.policy import NOTHING, UNSET, Policy, PolicyProblem, parse

logger = logging.getLogger(__name__)

BOOK = "policy"
"""The book that they stand in."""
DEFAULT = "*"
"""The name of the policy that holds for every agent, where its own says nothing."""


class Policies:
    """Agent → policy. Where nothing is set all agents share one object."""

    def __init__(self) -> None:
        self._default = UNSET
        self._own: dict[str, Policy] = {}
        self._merged: dict[str, Policy] = {}

    def of(self, agent: str) -> Policy:
        """The policy that holds for the agent now."""
        own = self._own.get(agent)
        if own is None:
            return self._default
        merged = self._merged.get(agent)
        if merged is None:
            merged = self._merged[agent] = own.over(self._default)
        return merged

    def put(self, name: str, text: bytes | None) -> Set[str] | None:
        """Take over an agent's own policy, or the default one (`*`); None or an empty text: there is none any more.

        Returns the agents whose policy may be another one now; None: all of them. One that can't be read is logged,
        and leaves what was read last; if there is nothing, nothing is allowed.
        """
        is_default = name == DEFAULT
        try:
            policy = parse(text) if text else None
        except PolicyProblem as problem:
            fields = {"event": "policy_unread", "agent": name, "cause": str(problem)}
            logger.error("a policy can't be read; the last one that could be stays in force", extra=fields)
            last = self._default if is_default else self._own.get(name, UNSET)
            policy = NOTHING if last == UNSET else last
        if is_default:
            self._default = policy or UNSET
            self._merged.clear()
            return None
        self._merged.pop(name, None)
        if policy is None:
            self._own.pop(name, None)
        else:
            self._own[name] = policy
        return {name}
