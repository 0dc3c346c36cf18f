"""Who may come in: everything that is decided about a handshake, before it is answered.

Theory of operation
-------------------
`gateway.intake` asks with nothing but the request's head in its hands, before there is a WebSocket, a task or a scope;
so a refusal costs less than an admission, whatever its cause. The questions come in the order of their price, and so
that nobody's flood uses up what is somebody else's:

1. Is this a path that takes WebSockets; is the worker ready, and has it room?
2. May this web page dial (`GATEWAY_ORIGINS`)?
3. Has this source address knocked too often? Before any cryptography, and out of a bucket of its own.
4. Is the token good: read, verified, not revoked, for this role and this server_id? One answer for all causes.
5. Has this agent come too often, has it room? Only whoever has its token can use that up.
6. Its turn, where tool servers queue (`gateway.intake`), and the worker's rate: strangers never get here. Who had to
   wait is asked 1. and 5. once more.

Nothing waits, and nothing is asked outside this process.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from gateway.audit import ACCEPTED, Handshake
from gateway.auth import TokenCause, TokenProblem
from gateway.connection import Kind
from gateway.credential import SERVER_ID_RULE, Credential, Role, is_server_id
from gateway.instance import why_unready
from gateway.knock import parameter, role_of, token_of
from gateway.origins import Origins
from gateway.policy import Policy
from gateway.rates import Rate
from gateway.refused import Refused
from gateway.settings import Settings
from gateway.sources import Proxies
from gateway.tokens import admit
from gateway.worker import Worker

HeaderList: TypeAlias = Sequence[tuple[bytes, bytes]]
T = TypeVar("T")
_KNOWN = ("kind", "address", "agent", "server_id")
_KINDS: dict[Role, Kind] = {"mcp": Kind.TOOL_SERVER, "call": Kind.ROBOT}

TOO_OFTEN = "握手过于频繁 / too many handshakes"
AGENT_FULL = "该智能体的连接已满 / this agent has too many connections"


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who may come in, and what is known of him from his handshake."""

    kind: Kind
    credential: Credential
    server_id: str
    source: str

    @property
    def about(self) -> dict[str, str]:
        """For the log."""
        told = {"kind": self.kind.label, "address": self.source, "agent": self.credential.agent}
        return {**told, "server_id": self.server_id} if self.server_id else told


class Admission:
    """The decisions of one worker's door."""

    def __init__(self, settings: Settings, worker: Worker) -> None:
        self._settings = settings
        self._worker = worker
        self._proxies = Proxies(settings.trusted_proxies)
        self._origins = Origins(settings.origins)
        self._rate = Rate(settings.handshakes_per_second)
        self._queued: Counter[str] = Counter()
        """Agent → how many of its tool servers wait for their turn."""

    # Handshakes

    def examine(self, target: bytes, headers: HeaderList, peer: str) -> Visit:
        """Return who that is, if he may come in as far as he himself is concerned. Raises Refused."""
        source, role = self.source_of(headers, peer), role_of(target)
        try:
            return self._examine(target, headers, source, role)
        except Refused as refused:
            kind = _KINDS[role].label if role else ""
            raise self._noted(refused, {"kind": kind, "address": source}) from None

    def enter(self, visit: Visit, *, has_waited: bool) -> None:
        """Count him in: his turn has come. Raises Refused if there is no room, for anybody or for his agent."""
        try:
            if has_waited:  # else all this has just been looked at
                self._check_worker()
                self._check_agent_room(visit.credential.agent, visit.kind, self._policy(visit.credential.agent))
            if not self._rate.take(self._worker.now()):
                limit = f"GATEWAY_HANDSHAKES_PER_SECOND={self._settings.handshakes_per_second}"
                raise Refused(503, "rate", TOO_OFTEN, limit)
        except Refused as refused:
            raise self._noted(refused, visit.about) from None

    def queues(self, visit: Visit) -> bool:
        """Whether he is one of those who wait for their turn: tool servers, by whatever spelling of their path."""
        return visit.kind is Kind.TOOL_SERVER

    def queue(self, visit: Visit) -> None:
        """He waits for his turn; one token's crowd may fill its own agent's room with that, and no more."""
        self._queued[visit.credential.agent] += 1

    def unqueue(self, visit: Visit) -> None:
        """He waits no more: his turn has come, or he is gone."""
        self._queued[visit.credential.agent] -= 1
        if self._queued[visit.credential.agent] <= 0:
            del self._queued[visit.credential.agent]

    def note_refused(self, visit: Visit, refused: Refused) -> None:
        """He was refused elsewhere, after he had passed here."""
        self._noted(refused, visit.about)

    def note_accepted(self, visit: Visit, connection_id: str) -> None:
        """The handshake has been answered with 101."""
        audit = self._worker.audit
        if audit.is_on:
            kind, agent = visit.kind.label, visit.credential.agent
            audit.handshake(
                Handshake(kind, visit.source, ACCEPTED, agent, visit.credential, visit.server_id, connection_id)
            )

    def _noted(self, refused: Refused, about: dict[str, str]) -> Refused:
        refused.about = {**about, **refused.about}
        audit = self._worker.audit
        if audit.is_on:
            kind, address, agent, server_id = (refused.about.get(name, "") for name in _KNOWN)
            token_id = refused.about.get("token_id")  # of one that is good, and not for this
            credential = None if token_id is None else Credential(agent, token_id=token_id)
            audit.handshake(Handshake(kind, address, refused.kind, agent, credential, server_id, cause=refused.cause))
        return refused

    # Parts of it, for plain requests

    def source_of(self, headers: HeaderList, peer: str) -> str:
        """Where the peer is, seen past the proxies that are trusted."""
        return self._proxies.source(peer, headers)

    def identify(self, query: bytes, headers: HeaderList) -> Credential:
        """Return what the token says, if it is a good one, not revoked, and of a kind that still counts somewhere.

        Raises Refused: 400 without a token, 401 for every other cause.
        """

        def judge(credential: Credential) -> Credential:
            if credential.is_legacy and self._legacy_mode(credential.agent) == "none":
                raise TokenProblem(TokenCause.LEGACY_OFF)
            return credential

        return self._judged(query, headers, judge)

    # The questions

    def _examine(self, target: bytes, headers: HeaderList, source: str, role: Role | None) -> Visit:
        if role is None:
            raise Refused(404, "not_found", "Not Found")
        self._check_worker()
        if not self._origins.allow(headers):
            raise Refused(403, "origin", "来源网页不被允许 / this web page may not connect", "GATEWAY_ORIGINS")
        self._take_source(source)
        query = target.partition(b"?")[2]
        credential, server_id = self._known(query, headers, role)
        visit = Visit(_KINDS[role], credential, server_id, source)
        try:
            self._check_agent(visit)
        except Refused as refused:
            refused.about = visit.about
            raise
        return visit

    def _check_worker(self) -> None:
        worker = self._worker
        if not worker.is_ready:
            kind = "not_ready" if worker.state in ("up", "starting") else "draining"
            raise Refused(503, kind, "网关未就绪 / the gateway is not ready", why_unready(worker))
        if len(worker.hub) >= self._settings.connections:
            limit = f"GATEWAY_CONNECTIONS={self._settings.connections}"
            raise Refused(503, "full", "网关已满 / the gateway is full", limit)

    def _take_source(self, source: str) -> None:
        wait_seconds = self._worker.quotas.take_source(source, self._worker.now())
        if wait_seconds is not None:
            limit = f"GATEWAY_SOURCE_HANDSHAKES_PER_MINUTE={self._settings.source_handshakes_per_minute}"
            raise Refused(429, "source_rate", TOO_OFTEN, limit, retry_seconds=wait_seconds)

    def _known(self, query: bytes, headers: HeaderList, role: Role) -> tuple[Credential, str]:
        """The credential, and the server_id to use."""
        asked = parameter(query, "server_id").strip() if role == "mcp" else ""

        def judge(credential: Credential) -> tuple[Credential, str]:
            if not is_server_id(asked):
                raise Refused(400, "bad_server_id", SERVER_ID_RULE)
            return credential, admit(credential, role, asked, self._legacy_mode(credential.agent))

        return self._judged(query, headers, judge)

    def _judged(self, query: bytes, headers: HeaderList, judge: Callable[[Credential], T]) -> T:
        """What `judge` says of a credential that is verified and not revoked. One answer for all causes against it."""
        credential: Credential | None = None
        try:
            credential = self._worker.keyring.verify(token_of(query, headers), self._worker.backplane.now_ms)
            if self._worker.rulebook.revocations.is_revoked(credential):
                raise TokenProblem(TokenCause.REVOKED)
            return judge(credential)
        except TokenProblem as problem:
            if problem.is_missing:
                raise Refused(400, "no_token", "缺少令牌 / Missing token", problem.cause.value) from None
            raise _bad_token(problem, credential) from None

    def _check_agent(self, visit: Visit) -> None:
        agent = visit.credential.agent
        policy = self._policy(agent)
        wait_seconds = self._worker.quotas.take_handshake(agent, policy, self._worker.now())
        if wait_seconds is not None:
            per_minute = policy.limit("agent_handshakes_per_minute", self._settings.agent_handshakes_per_minute)
            limit = f"GATEWAY_AGENT_HANDSHAKES_PER_MINUTE={per_minute}"
            raise Refused(429, "agent_rate", TOO_OFTEN, limit, retry_seconds=wait_seconds)
        self._check_agent_room(agent, visit.kind, policy, queued=self._queued.get(agent, 0))

    def _check_agent_room(self, agent_id: str, kind: Kind, policy: Policy, *, queued: int = 0) -> None:
        agent = self._worker.agents.get(agent_id)
        if kind is Kind.ROBOT:
            most = policy.limit("robots_per_agent", self._settings.robots_per_agent)
            if agent is not None and len(agent.robots) + agent.robots_elsewhere(self._worker.now()) >= most:
                raise Refused(503, "agent_full", AGENT_FULL, f"GATEWAY_ROBOTS_PER_AGENT={most}")
            return
        most = policy.limit("servers_per_agent", self._settings.servers_per_agent)
        here = queued + (len(agent.tool_servers) if agent is not None else 0)
        if here >= 2 * most:  # a few more than may register: those that replace others are on their way out
            raise Refused(503, "agent_full", AGENT_FULL, f"GATEWAY_SERVERS_PER_AGENT={most}")

    def _policy(self, agent: str) -> Policy:
        return self._worker.rulebook.policies.of(agent)

    def _legacy_mode(self, agent: str) -> str:
        return self._policy(agent).legacy_tokens_mode(self._settings.legacy_tokens)


def _bad_token(problem: TokenProblem, credential: Credential | None) -> Refused:
    # Made here: a frame that has a name for what it raises is a cycle, and a flood of them work for the collector.
    refused = Refused(401, "bad_token", "令牌无效 / Invalid token", problem.cause.value)
    if credential is not None:
        refused.about = {"agent": credential.agent, "token_id": credential.token_id}
    return refused
