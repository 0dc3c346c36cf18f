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
from gateway.auth import TokenProblem, is_key, verify
from gateway.backplane.base import BackplaneUnavailable
from gateway.connection import Connection, Kind
from gateway.errors import Code
from gateway.rates import Rate
from gateway.settings import Settings
from gateway.worker import Worker

logger = logging.getLogger(__name__)

SERVER_ID_CHARS_MAX = 64
RETRY_SECONDS = 5
SUBPROTOCOL = "mcp"


class State(TypedDict):
    """What the lifespan gives to every request."""

    door: "Door"


class Refused(Exception):
    """The handshake is answered with an HTTP status instead of an upgrade. `cause` is for the log alone."""

    def __init__(self, status: int, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.cause = cause or text


class Door:
    """Who may come in, and what passers-by are told."""

    def __init__(self, settings: Settings, worker: Worker) -> None:
        self._settings = settings
        self._worker = worker
        self._rate = Rate(settings.handshakes_per_second)

    # WebSocket

    async def serve(self, websocket: WebSocket[State], kind: Kind) -> None:
        """One connection, from its handshake to its end."""
        try:
            connection = self._admit(websocket, kind)
        except Refused as refused:
            self._log(
                "connection refused", websocket, kind=kind.name.lower(), status=refused.status, cause=refused.cause
            )
            headers = {"Retry-After": str(RETRY_SECONDS)} if refused.status == 503 else {}
            await websocket.send_denial_response(PlainTextResponse(refused.text, refused.status, headers))
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
            raise Refused(503, "网关未就绪 / the gateway is not ready", self._unready())
        if len(worker.hub) >= self._settings.connections:
            limit = f"GATEWAY_CONNECTIONS={self._settings.connections}"
            raise Refused(503, "网关已满 / the gateway is full", limit)
        if not self._rate.take(worker.now()):
            limit = f"GATEWAY_HANDSHAKES_PER_SECOND={self._settings.handshakes_per_second}"
            raise Refused(503, "握手过于频繁 / too many handshakes", limit)

    def _agent(self, token: str) -> str:
        try:
            return verify(token, self._settings.key)
        except TokenProblem as problem:
            if problem.is_missing:
                raise Refused(400, "缺少令牌 / Missing token", problem.cause.value) from None
            raise Refused(401, "令牌无效 / Invalid token", problem.cause.value) from None

    def _check_agent_room(self, agent_id: str, kind: Kind) -> None:
        agent = self._worker.agents.get(agent_id)
        if agent is None:
            return
        if kind is Kind.ROBOT and len(agent.robots) >= self._settings.robots_per_agent:
            limit = f"GATEWAY_ROBOTS_PER_AGENT={self._settings.robots_per_agent}"
            raise Refused(503, "该智能体的连接已满 / this agent has too many connections", limit)
        # A few more than may register: those that replace others are on their way out.
        if kind is Kind.TOOL_SERVER and len(agent.tool_servers) >= 2 * self._settings.servers_per_agent:
            limit = f"GATEWAY_SERVERS_PER_AGENT={self._settings.servers_per_agent}"
            raise Refused(503, "该智能体的连接已满 / this agent has too many connections", limit)

    def _server_id(self, websocket: WebSocket[State]) -> str:
        server_id = websocket.query_params.get("server_id", "").strip()
        if len(server_id) > SERVER_ID_CHARS_MAX or not server_id.isprintable() or server_id.startswith("~"):
            raise Refused(
                400,
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
        logger.info("connection opened", extra=_fields(connection))

    def _log_closed(self, connection: Connection, code: int, cause: str, peer: str) -> None:
        seconds = round((self._worker.backplane.now_ms - connection.opened_ms) / 1000, 1)
        fields = {**_fields(connection), "code": code, "cause": cause, "peer": peer, "seconds": seconds}
        logger.info("connection closed", extra=fields)

    def _log(self, message: str, websocket: WebSocket[State], **fields: object) -> None:
        logger.warning(message, extra={"address": _address(websocket), **fields})

    # HTTP

    async def health(self, request: Request[State]) -> Response:
        """The cluster's connections and tools, for whoever has a key."""
        if not is_key(request.query_params.get("key", ""), self._settings.key):
            logger.warning("health refused", extra={"address": _address(request)})
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

    async def about(self, request: Request[State]) -> Response:
        """What listens here."""
        result = {"message": "MCP Endpoint Server", "version": __version__, "status": "running"}
        return _json({"jsonrpc": "2.0", "result": result, "id": None})

    async def root(self, request: Request[State]) -> Response:
        return RedirectResponse("/mcp_endpoint/")

    async def livez(self, request: Request[State]) -> Response:
        """The event loop turns. Nothing outside this process is asked: a Redis outage must not restart workers."""
        return PlainTextResponse("alive\n")

    async def readyz(self, request: Request[State]) -> Response:
        """200 while connections are taken; 503 with the reason otherwise."""
        if self._worker.is_ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"not ready: {self._unready()}\n", 503, {"Retry-After": str(RETRY_SECONDS)})

    def _unready(self) -> str:
        worker = self._worker
        return worker.state if worker.state != "up" else worker.trouble or "lease not renewed"

    async def drain(self, request: Request[State]) -> Response:
        """POST begins this worker's drain, GET tells how far it is; for whoever has the admin key."""
        if not self._settings.admin_key:
            return PlainTextResponse("Not Found", 404)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not is_key(given.strip(), (self._settings.admin_key,)):
            logger.warning("drain refused", extra={"address": _address(request)})
            text = "需要 GATEWAY_ADMIN_KEY / GATEWAY_ADMIN_KEY is needed: Authorization: Bearer …\n"
            return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})
        drain = self._worker.drain
        if request.method == "POST":
            drain.begin("POST /drain")
        return _json(drain.report(), 202 if request.method == "POST" else 200)


def routes() -> list[BaseRoute]:
    """Every path; whatever stands before `/mcp_endpoint` is accepted, since proxies put it there."""
    before = "/{prefix:path}mcp_endpoint"
    return [
        *(WebSocketRoute(f"{before}/{kind.value}{slash}", _websocket(kind)) for kind in Kind for slash in ("/", "")),
        Route(f"{before}/health", _http("health")),
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
