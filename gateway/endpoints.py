"""The gateway's paths that are answered by HTTP. WebSockets never get here (`gateway.intake`).

Every path has a credential of its own, and none opens another: tokens the WebSockets and the status of their agent,
GATEWAY_KEY and GATEWAY_HEALTH_KEY the health answer, GATEWAY_ADMIN_KEY the drain, GATEWAY_METRICS_KEY the metrics. A
path that is switched off is not there at all: it gets the answer of any path that never was.
"""

import logging
from typing import Any, TypedDict

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway import __version__, health
from gateway.admin import drain_answer, key_needed
from gateway.admission import Admission
from gateway.auth import is_bearer, is_key
from gateway.backplane.base import BackplaneUnavailable
from gateway.banner import health_keys
from gateway.enquiry import Enquiries, TooOften
from gateway.errors import Code
from gateway.hall import Hall
from gateway.knock import bearer
from gateway.meters import Meters
from gateway.probes import Instance
from gateway.rates import Rate
from gateway.refused import RETRY_SECONDS, RefusalLog, Refused
from gateway.settings import Settings
from gateway.worker import Worker

logger = logging.getLogger(__name__)

STATUS_PER_SECOND = 50
"""Enquiries that one worker answers; each asks the store three things."""


class State(TypedDict):
    """What the lifespan gives to every request, and to `gateway.intake`."""

    door: "Door"
    gate: Admission
    hall: Hall
    meters: Meters


class Door:
    """Answers passers-by."""

    def __init__(self, settings: Settings, worker: Worker, instance: Instance, admission: Admission) -> None:
        self._settings = settings
        self._worker = worker
        self._instance = instance
        self._admission = admission
        self._status_rate = Rate(STATUS_PER_SECOND)
        self._enquiries = Enquiries(
            worker.backplane, worker.agents, grace_seconds=settings.grace_seconds, pins=settings.pins
        )
        self._health_keys = health_keys(settings)
        self._refusal_log = RefusalLog(logger)

    # HTTP

    async def health(self, request: Request[State]) -> Response:
        """The cluster's connections and tools, for whoever has a key."""
        given = request.query_params.get("key") or bearer(request.headers.get("Authorization", ""))
        if not is_key(given, self._health_keys):
            fields = {"address": self._source(request)}
            self._refusal_log.tell(logging.WARNING, "health refused", fields, event="health_refused")
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
            told = await self._status(request)
        except Refused as refused:
            self._worker.meters.handshakes_refused_total.add(refused.kind)
            fields = {"address": self._source(request), "cause": refused.cause, "status": refused.status}
            self._refusal_log.tell(
                logging.WARNING, "status refused", {**fields, **refused.about}, event="status_refused"
            )
            return PlainTextResponse(refused.text + "\n", refused.status, refused.headers)
        except BackplaneUnavailable:  # where the store is, and what ails it, is for the log alone
            text = "共享存储不可用 / the shared store is unavailable\n"
            return PlainTextResponse(text, 503, {"Retry-After": str(RETRY_SECONDS)})
        return _json(told, headers={"Cache-Control": "no-store"})

    async def _status(self, request: Request[State]) -> dict[str, Any]:
        # First of all who he is: a flood without a token refuses nobody.
        credential = self._admission.identify(request.scope["query_string"], request.scope["headers"])
        now = self._worker.now()
        try:
            if not self._status_rate.take(now):
                raise TooOften
            return await self._enquiries.status_of(credential, now)
        except TooOften:
            raise Refused(503, "rate", "查询过于频繁 / too many enquiries") from None

    def _source(self, request: Request[State]) -> str:
        peer = request.client.host if request.client else ""
        return self._admission.source_of(request.scope["headers"], peer)

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
        """POST begins this worker's drain, GET tells how far it is; for whoever has the admin key."""
        if not is_bearer(request.headers.get("Authorization", ""), self._settings.admin_key):
            return key_needed(self._refusal_log, request, "GATEWAY_ADMIN_KEY", self._source(request))
        return await drain_answer(self._instance, request)


def routes(settings: Settings) -> list[BaseRoute]:
    """Every path; whatever stands before `/mcp_endpoint` is accepted, since proxies put it there."""
    paths: list[BaseRoute] = [
        Route(f"{before}/mcp_endpoint{path}", _http(name))
        for before in ("", "/{prefix:path}")
        for path, name in (("/health", "health"), ("/status", "status"), ("/", "about"), ("", "about"))
    ]
    paths += [Route(path, _http(name)) for path, name in (("/", "root"), ("/livez", "livez"), ("/readyz", "readyz"))]
    if settings.admin_key and not settings.admin_port:  # the admin port has a `/drain` of its own
        paths.append(Route("/drain", _http("drain"), methods=["GET", "POST"]))
    return paths


def _http(name: str) -> Any:
    async def endpoint(request: Request[State]) -> Response:
        response: Response = await getattr(request.state["door"], name)(request)
        return response

    return endpoint


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type="application/json")
