"""The gateway's paths: from an ASGI scope to an accepted connection, or to an answer.

A token is checked before the WebSocket handshake is answered: 400 without one, 401 for a bad one. A bridge that is
accepted and then closed knocks for ever (`xiaozhi-ecosystem.md` §2.3). What exactly is wrong is for the log alone.
"""

import logging
from typing import Any, TypedDict

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from gateway import __version__, health
from gateway.admin import drain_answer, key_needed
from gateway.auth import TokenProblem, is_bearer, is_key, verify
from gateway.backplane.base import BackplaneUnavailable
from gateway.connection import Connection, Kind
from gateway.enquiry import Enquiries, TooOften
from gateway.errors import Code
from gateway.instance import why_unready
from gateway.meters import Meters
from gateway.probes import Instance
from gateway.rates import Rate
from gateway.settings import Settings
from gateway.worker import Worker

logger = logging.getLogger(__name__)

SERVER_ID_CHARS_MAX = 64
RETRY_SECONDS = 5
STATUS_PER_SECOND = 50
"""Enquiries that one worker answers; each asks the store three things."""
SUBPROTOCOL = "mcp"


class State(TypedDict):
    """What the lifespan gives to every request."""

    door: "Door"
    meters: Meters


class Refused(Exception):
    """The handshake is answered with an HTTP status instead of an upgrade. `cause` is for the log alone.

    `kind` is the word under which it is counted (`meters.REFUSALS`).
    """

    def __init__(self, status: int, kind: str, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind
        self.text = text
        self.cause = cause or text

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_SECONDS)} if self.status == 503 else {}


class Door:
    """Who may come in, and what passers-by are told."""

    def __init__(self, settings: Settings, worker: Worker, instance: Instance) -> None:
        self._settings = settings
        self._worker = worker
        self._instance = instance
        self._rate = Rate(settings.handshakes_per_second)
        self._status_rate = Rate(STATUS_PER_SECOND)
        self._enquiries = Enquiries(worker.backplane, worker.agents, grace_seconds=settings.grace_seconds)

    # WebSocket

    async def serve(self, websocket: WebSocket[State], kind: Kind) -> None:
        """One connection, from its handshake to its end."""
        try:
            connection = self._admit(websocket, kind)
        except Refused as refused:
            self._worker.meters.handshakes_refused_total.add(refused.kind)
            self._log_refused(websocket, kind, refused)
            await websocket.send_denial_response(PlainTextResponse(refused.text, refused.status, refused.headers))
            return
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        if kind is Kind.TOOL_SERVER:
            await self._serve_tool_server(websocket, connection)
        else:
            await self._serve_robot(websocket, connection)

    def _admit(self, websocket: WebSocket[State], kind: Kind) -> Connection:
        self._check_room()
        agent = self._agent(websocket.query_params.get("token", ""))
        self._check_agent_room(agent, kind)
        return Connection(
            id=self._worker.new_connection_id(),
            kind=kind,
            agent=agent,
            wire=websocket.scope["extensions"]["gateway.wire"],
            address=_address(websocket),
            opened_ms=self._worker.backplane.now_ms,
            server_id=self._server_id(websocket) if kind is Kind.TOOL_SERVER else "",
        )

    def _check_room(self) -> None:
        worker = self._worker
        if not worker.is_ready:
            kind = "not_ready" if worker.state in ("up", "starting") else "draining"
            raise Refused(503, kind, "网关未就绪 / the gateway is not ready", why_unready(worker))
        if len(worker.hub) >= self._settings.connections:
            limit = f"GATEWAY_CONNECTIONS={self._settings.connections}"
            raise Refused(503, "full", "网关已满 / the gateway is full", limit)
        if not self._rate.take(worker.now()):
            limit = f"GATEWAY_HANDSHAKES_PER_SECOND={self._settings.handshakes_per_second}"
            raise Refused(503, "rate", "握手过于频繁 / too many handshakes", limit)

    def _agent(self, token: str) -> str:
        try:
            return verify(token, self._settings.key)
        except TokenProblem as problem:
            if problem.is_missing:
                raise Refused(400, "no_token", "缺少令牌 / Missing token", problem.cause.value) from None
            raise Refused(401, "bad_token", "令牌无效 / Invalid token", problem.cause.value) from None

    def _check_agent_room(self, agent_id: str, kind: Kind) -> None:
        agent = self._worker.agents.get(agent_id)
        if agent is None:
            return
        if kind is Kind.ROBOT and len(agent.robots) >= self._settings.robots_per_agent:
            limit = f"GATEWAY_ROBOTS_PER_AGENT={self._settings.robots_per_agent}"
            raise Refused(503, "agent_full", "该智能体的连接已满 / this agent has too many connections", limit)
        # A few more than may register: those that replace others are on their way out.
        if kind is Kind.TOOL_SERVER and len(agent.tool_servers) >= 2 * self._settings.servers_per_agent:
            limit = f"GATEWAY_SERVERS_PER_AGENT={self._settings.servers_per_agent}"
            raise Refused(503, "agent_full", "该智能体的连接已满 / this agent has too many connections", limit)

    def _server_id(self, websocket: WebSocket[State]) -> str:
        server_id = websocket.query_params.get("server_id", "").strip()
        if len(server_id) > SERVER_ID_CHARS_MAX or not server_id.isprintable() or server_id.startswith("~"):
            raise Refused(
                400,
                "bad_server_id",
                "server_id 须为至多 64 个可打印字符，不以 ~ 开头 / at most 64 printable characters, the first no ~",
            )
        return server_id

    async def _serve_tool_server(self, websocket: WebSocket[State], connection: Connection) -> None:
        link = self._worker.open_tool_server(connection)
        self._log_opened(connection)
        code, reason = 1006, "aborted"
        try:
            code, reason = await _closed(websocket)
        finally:
            cause = f"{code} {reason}".strip()
            self._worker.tool_server_closed(link, cause)
            self._log_closed(connection, code, link.cause or reason, link.server_id)

    async def _serve_robot(self, websocket: WebSocket[State], connection: Connection) -> None:
        link = self._worker.open_robot(connection)
        self._log_opened(connection)
        code, reason = 1006, "aborted"
        try:
            code, reason = await _closed(websocket)
        finally:
            self._worker.robot_closed(link)
            self._log_closed(connection, code, reason, link.session.client_name)

    def _log_opened(self, connection: Connection) -> None:
        logger.info("connection opened", extra={"event": "connection_opened", **_fields(connection)})

    def _log_closed(self, connection: Connection, code: int, cause: str, peer: str) -> None:
        self._worker.meters.connections_closed_total.add(connection.kind.name.lower(), str(code))
        seconds = round((self._worker.backplane.now_ms - connection.opened_ms) / 1000, 1)
        fields = {**_fields(connection), "code": code, "cause": cause, "peer": peer, "seconds": seconds}
        logger.info("connection closed", extra={"event": "connection_closed", **fields})

    def _log_refused(self, websocket: WebSocket[State], kind: Kind, refused: Refused) -> None:
        fields = {"kind": kind.name.lower(), "status": refused.status, "cause": refused.cause}
        fields |= {"event": "connection_refused", "address": _address(websocket)}
        logger.warning("connection refused", extra=fields)

    # HTTP

    async def health(self, request: Request[State]) -> Response:
        """The cluster's connections and tools, for whoever has a key."""
        if not is_key(request.query_params.get("key", ""), self._settings.key):
            logger.warning("health refused", extra={"event": "health_refused", "address": _address(request)})
            message = "密钥验证失败 / the key is wrong"
            return _json(
                {"jsonrpc": "2.0", "error": {"code": int(Code.NOT_ALLOWED), "message": message}, "id": None}, 401
            )
        agent = request.query_params.get("agent") or request.query_params.get("agentid")
        backplane = self._worker.backplane
        try:
            overview = await backplane.overview(limit=self._settings.health_agents, agent=agent)
            toolsets = await backplane.toolsets(health.digests(overview))
        except BackplaneUnavailable as error:
            message = f"共享存储不可用 / the shared store is unavailable: {error}"
            body = {"jsonrpc": "2.0", "error": {"code": int(Code.NOT_SENT), "message": message}, "id": None}
            return _json(body, 503, {"Retry-After": str(RETRY_SECONDS)})
        connections = health.answer(overview, toolsets, (backplane.worker_id, self._worker.describe()))
        return _json({"jsonrpc": "2.0", "result": {"status": "success", "connections": connections}, "id": None})

    async def status(self, request: Request[State]) -> Response:
        """Why an agent's tools are there or not, for whoever has its token."""
        try:
            told = await self._status(request.query_params.get("token", ""))
        except Refused as refused:
            self._worker.meters.handshakes_refused_total.add(refused.kind)
            fields = {"event": "status_refused", "address": _address(request), "cause": refused.cause}
            logger.warning("status refused", extra={**fields, "status": refused.status})
            return PlainTextResponse(refused.text, refused.status, refused.headers)
        except BackplaneUnavailable:  # where the store is, and what ails it, is for the log alone
            text = "共享存储不可用 / the shared store is unavailable\n"
            return PlainTextResponse(text, 503, {"Retry-After": str(RETRY_SECONDS)})
        return _json(told, headers={"Cache-Control": "no-store"})

    async def _status(self, token: str) -> dict[str, Any]:
        agent, now = self._agent(token), self._worker.now()  # first of all: a flood without a token refuses nobody
        try:
            if not self._status_rate.take(now):
                raise TooOften
            return await self._enquiries.status_of(agent, now)
        except TooOften:
            raise Refused(503, "rate", "查询过于频繁 / too many enquiries") from None

    async def about(self, request: Request[State]) -> Response:
        """What listens here."""
        result = {"message": "MCP Endpoint Server", "version": __version__, "status": "running"}
        return _json({"jsonrpc": "2.0", "result": result, "id": None})

    async def root(self, request: Request[State]) -> Response:
        return RedirectResponse("/mcp_endpoint/")

    async def livez(self, request: Request[State]) -> Response:
        """The event loop turns. Nothing outside this process is asked: a Redis outage must not restart workers."""
        return PlainTextResponse(f"{(await self._instance.livez()).text}\n")

    async def readyz(self, request: Request[State]) -> Response:
        """200 while connections are taken; 503 otherwise. Strangers are not told where Redis is; the log says it."""
        worker = self._worker
        if worker.is_ready:
            return PlainTextResponse("ready\n")
        reason = worker.state if worker.state != "up" else "lease not renewed"
        if reason == "starting" and worker.trouble != reason:
            reason = "starting; Redis can't be reached, see the log"
        return PlainTextResponse(f"not ready: {reason}\n", 503, {"Retry-After": str(RETRY_SECONDS)})

    async def drain(self, request: Request[State]) -> Response:
        """POST begins this worker's drain, GET tells how far it is; for whoever has the admin key.

        Not here where there is an admin port: it has a `/drain`.
        """
        if not self._settings.admin_key or self._settings.admin_port:
            return PlainTextResponse("Not Found", 404)
        if not is_bearer(request.headers.get("Authorization", ""), self._settings.admin_key):
            return key_needed(request, "GATEWAY_ADMIN_KEY")
        return await drain_answer(self._instance, request)


def routes() -> list[BaseRoute]:
    """Every path; whatever stands before `/mcp_endpoint` is accepted, since proxies put it there."""
    before = "/{prefix:path}mcp_endpoint"
    return [
        *(WebSocketRoute(f"{before}/{kind.value}{slash}", _websocket(kind)) for kind in Kind for slash in ("/", "")),
        Route(f"{before}/health", _http("health")),
        Route(f"{before}/status", _http("status")),
        Route(f"{before}/", _http("about")),
        Route(before, _http("about")),
        Route("/", _http("root")),
        Route("/livez", _http("livez")),
        Route("/readyz", _http("readyz")),
        Route("/drain", _http("drain"), methods=["GET", "POST"]),
        WebSocketRoute("/{path:path}", _not_found),
    ]


def _websocket(kind: Kind) -> Any:
    async def endpoint(websocket: WebSocket[State]) -> None:
        prefix = websocket.path_params["prefix"]
        if prefix and not prefix.endswith("/"):
            await _not_found(websocket)
        else:
            await websocket.state["door"].serve(websocket, kind)

    return endpoint


async def _not_found(websocket: WebSocket[State]) -> None:
    websocket.state["meters"].handshakes_refused_total.add("not_found")
    await websocket.send_denial_response(PlainTextResponse("Not Found", 404))


def _http(name: str) -> Any:
    async def endpoint(request: Request[State]) -> Response:
        prefix = request.path_params.get("prefix", "")
        if prefix and not prefix.endswith("/"):
            return PlainTextResponse("Not Found", 404)
        response: Response = await getattr(request.state["door"], name)(request)
        return response

    return endpoint


async def _closed(websocket: WebSocket[State]) -> tuple[int, str]:
    """Wait for the socket's end: code and reason. Frames don't come this way (`gateway.wire`)."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return message.get("code", 1006), message.get("reason") or ""


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _address(connection: WebSocket[State] | Request[State]) -> str:
    return connection.client.host if connection.client else "?"


def _fields(connection: Connection) -> dict[str, object]:
    fields: dict[str, object] = {
        "kind": connection.kind.name.lower(),
        "agent": connection.agent,
        "conn": connection.id,
        "address": connection.address,
    }
    return {**fields, "server_id": connection.server_id} if connection.server_id else fields
