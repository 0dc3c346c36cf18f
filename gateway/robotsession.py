"""The MCP conversation with one robot, where the gateway is the server.

Theory of operation
-------------------
`on_message` takes one message and returns what is to be done about it: answers the gateway gives itself, a list to
be fetched, a call to be routed, a cancellation. The session keeps what a robot has told of itself (version, client,
whether it is ready) and knows nothing of catalogs, sockets or other workers. The protocol's revision stays in here.

The push of id 2 (design §5.5, `xiaozhi-ecosystem.md` §8): xiaozhi-server takes an unasked result with id 2 as an
addition to its tools. It numbers its calls from 1 again after the handshake, so the push is safe only while no call
was ever seen, or after the gateway has answered a call with an id of 2 or more and none of id 2 is open.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway import errors, jsonrpc
from gateway.errors import Failure
from gateway.jsonrpc import Garbage, Invalid, Message, Notification, Request, Response, RpcId

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
BATCH_VERSION = "2025-03-26"
BATCH_MAX = 64
XIAOZHI_CLIENT = "XiaozhiMCPEndpointClient"
PUSH_ID = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """A frame that the gateway answers itself; in the order of the requests."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class AnswerList:
    """tools/list: to be answered from the catalog, in the order of the requests."""

    id: RpcId
    cursor: str | None


@dataclass(frozen=True, slots=True)
class RouteCall:
    """tools/call, its shape checked."""

    id: RpcId
    name: str
    params: dict[str, Any]
    progress_token: RpcId | None


@dataclass(frozen=True, slots=True)
class CancelCall:
    """The robot no longer wants the answer to its request `id`."""

    id: RpcId
    reason: str


@dataclass(frozen=True, slots=True)
class BecameReady:
    """The robot has ended the handshake: it may be told of changes now."""


Step: TypeAlias = Answer | AnswerList | RouteCall | CancelCall | BecameReady


class RobotSession:
    """One robot's side of the conversation. `agent` goes into error data, `server_info` into initialize."""

    __slots__ = (
        *("_agent", "_has_called", "_push_id_is_free", "_push_id_is_open", "_server_info", "client_name"),
        *("client_version", "has_listed", "is_ready", "version"),
    )

    def __init__(self, agent: str, server_info: dict[str, Any]) -> None:
        self._agent = agent
        self._server_info = server_info
        self.version = ""
        self.client_name = ""
        self.client_version = ""
        self.is_ready = False
        self.has_listed = False
        self._has_called = False
        self._push_id_is_free = True
        self._push_id_is_open = False

    @property
    def came_by_initialize(self) -> bool:
        return self.version != ""

    @property
    def is_xiaozhi(self) -> bool:
        return self.client_name == XIAOZHI_CLIENT

    @property
    def may_push(self) -> bool:
        """Whether an unasked result with id 2 can't be taken for the answer to a call."""
        return self.is_xiaozhi and self.has_listed and self._push_id_is_free and not self._push_id_is_open

    def on_message(self, message: Message) -> list[Step]:
        """What is to be done about one frame. Every request in it leads to exactly one answer."""
        match message:
            case Request():
                return self._on_request(message)
            case Notification():
                return self._on_notification(message)
            case Response():
                return []  # the gateway asks robots nothing
            case Invalid(rpc_id, what, is_answer):
                return [] if is_answer else [self._refuse(rpc_id, errors.invalid_request(what))]
            case Garbage():
                return [self._refuse(None, errors.parse_error())]
            case list():
                return self._on_batch(message)

    def on_answered(self, rpc_id: RpcId) -> None:
        """A call of this robot has been answered with this id."""
        if type(rpc_id) is int and rpc_id >= PUSH_ID:
            self._push_id_is_free = True
        if rpc_id == PUSH_ID:
            self._push_id_is_open = False

    def failure(self, rpc_id: RpcId | None, failure: Failure, call: str = "") -> bytes:
        return jsonrpc.error(rpc_id, failure.as_error(self._agent, call))

    def _refuse(self, rpc_id: RpcId | None, failure: Failure) -> Answer:
        return Answer(self.failure(rpc_id, failure))

    def _on_batch(self, members: list[Any]) -> list[Step]:
        """Arrays belong to one revision only; `initialize` must not be in one (2025-03-26, Batching)."""
        if self.version != BATCH_VERSION or not members:
            return [self._refuse(None, errors.invalid_request("batch"))]
        if len(members) > BATCH_MAX:
            return [self._refuse(None, errors.invalid_request(f"batch of more than {BATCH_MAX}"))]
        steps: list[Step] = []
        for member in members:
            message = jsonrpc.classify(member)
            if isinstance(message, Request) and message.method == "initialize":
                steps.append(self._refuse(message.id, errors.invalid_request("initialize in a batch")))
            else:
                steps.extend(self.on_message(message))
        return steps

    def _on_request(self, request: Request) -> list[Step]:
        match request.method:
            case "tools/call":
                step = self._call(request)
                if isinstance(step, Answer):
                    self.on_answered(request.id)
                return [step]
            case "tools/list":
                return [self._list(request)]
            case "initialize":
                return [self._initialize(request)]
            case "ping":
                return [Answer(jsonrpc.result(request.id, {}))]
            case method:
                return [self._refuse(request.id, errors.method_not_found(method))]

    def _on_notification(self, notification: Notification) -> list[Step]:
        params = notification.params if type(notification.params) is dict else {}
        if notification.method == "notifications/initialized":
            self.is_ready = True
            return [BecameReady()]
        if notification.method == "notifications/cancelled":
            rpc_id = jsonrpc.usable_id(params.get("requestId"))
            if rpc_id == PUSH_ID:
                self._push_id_is_open = False
            return [] if rpc_id is None else [CancelCall(rpc_id, jsonrpc.excerpt(params.get("reason"), 200))]
        return []

    def _initialize(self, request: Request) -> Answer:
        params = request.params if type(request.params) is dict else {}
        asked = params.get("protocolVersion")
        self.version = asked if type(asked) is str and asked in VERSIONS else VERSIONS[-1]
        client = params.get("clientInfo")
        client = client if type(client) is dict else {}
        self.client_name = jsonrpc.excerpt(client.get("name"), 64)
        self.client_version = jsonrpc.excerpt(client.get("version"), 32)
        self.is_ready = False
        result = {
            "protocolVersion": self.version,
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": self._server_info,
        }
        return Answer(jsonrpc.result(request.id, result))

    def _list(self, request: Request) -> Step:
        params = request.params
        if params is not None and type(params) is not dict:
            return self._refuse(request.id, errors.bad_params("params 必须是对象", "params must be an object"))
        cursor = params.get("cursor") if params else None
        if cursor is not None and type(cursor) is not str:
            return self._refuse(request.id, errors.bad_params("cursor 必须是字符串", "cursor must be a string"))
        return AnswerList(request.id, cursor)

    def _call(self, request: Request) -> Step:
        self._note_call(request.id)
        params = request.params
        if type(params) is not dict:
            return self._refuse(request.id, errors.bad_params("params 必须是对象", "params must be an object"))
        name = params.get("name")
        if type(name) is not str:
            return self._refuse(request.id, errors.bad_params("name 必须是字符串", "name must be a string"))
        arguments = params.get("arguments")
        if arguments is not None and type(arguments) is not dict:
            return self._refuse(request.id, errors.bad_params("arguments 必须是对象", "arguments must be an object"))
        meta = params.get("_meta")
        if meta is not None and type(meta) is not dict:
            return self._refuse(request.id, errors.bad_params("_meta 必须是对象", "_meta must be an object"))
        token = jsonrpc.usable_id(meta.get("progressToken")) if meta else None
        return RouteCall(request.id, name, params, token)

    def _note_call(self, rpc_id: RpcId) -> None:
        """From the first call on, id 2 may be in flight until an answer shows that the robot is past it.

        Calls run side by side: an answer to the third does not mean that the second is answered.
        """
        if not self._has_called:
            self._has_called = True
            self._push_id_is_free = False
        if rpc_id == PUSH_ID:
            self._push_id_is_open = True
