"""The MCP conversation with one tool server, where the gateway is the client.

Theory of operation
-------------------
`start`, `on_message` and `on_time` take what happens and return what is to be done; `due` says when `on_time` is
wanted next. Times are seconds of any clock that only goes forward. The stages:

    HELLO ──pause──▶ INITIALIZING ──result──▶ LISTING ──last page──▶ READY ⟲ (ping, read again)
                         │ error: once more with 2024-11-05, then close 1013

The first frame waits for a pause (50 ms): one that shares a packet with the 101 reaches some bridges before they
think they are open. There is no probe before `initialize`: old servers die of one. Ids toward a tool server are
integers 0…2³¹−1 from one counter, shared with the calls (`take_id`), since some clients read nothing else.

Alive (design §4.6): a bridge counts as dead after two pings and then a list unanswered, but only while no call runs,
because a serial bridge answers nothing during a call. Any frame it sends is a sign of life.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from gateway import jsonrpc, tools
from gateway.errors import CloseCode, Code
from gateway.jsonrpc import Garbage, Invalid, Message, Notification, Request, Response, RpcId
from gateway.quantities import KIB
from gateway.rates import Allowance
from gateway.robotsession import VERSIONS
from gateway.tools import Tool

OFFERS = ("2025-11-25", "2024-11-05")
ID_LIMIT = 2**31
PAGES_MAX = 100
PINGS_BEFORE_LIST = 2
DEAD_LIST_SECONDS = 30.0
CHANGES_AT_ONCE = 6
"""So many times a list is read as soon as it is said to have changed, then once in the seconds below."""
CHANGE_SECONDS = 10.0


class Stage(Enum):
    HELLO = "hello"
    INITIALIZING = "initializing"
    LISTING = "listing"
    READY = "ready"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the session keeps to; each is a setting."""

    hello_pause_seconds: float
    handshake_seconds: float
    ping_seconds: float
    reread_seconds: float
    tools_max: int
    toolset_bytes: int
    tool_bytes: int = 128 * KIB
    schema_depth: int = 64

    @property
    def of_tools(self) -> tools.Bounds:
        return tools.Bounds(self.tools_max, self.toolset_bytes, self.tool_bytes, self.schema_depth)


@dataclass(frozen=True, slots=True)
class Send:
    frame: bytes


@dataclass(frozen=True, slots=True)
class ToolsRead:
    """The tool server's whole list is in. `is_first`: its handshake is done with that."""

    tools: list[Tool]
    encoded: bytes
    is_first: bool


@dataclass(frozen=True, slots=True)
class Progress:
    token: RpcId
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class End:
    """The session is over: close with this code and reason; `cause` is for log and status."""

    code: CloseCode
    reason: str
    cause: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Something odd that it did and that was survived; for the log, once per kind."""

    kind: str
    text: str


Step: TypeAlias = Send | ToolsRead | Progress | End | Remark


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request of ours in flight: what it was, when it was sent, when it counts as unanswered."""

    kind: str
    sent: float
    until: float


class ToolSession:
    """One tool server's side of the conversation."""

    def __init__(self, limits: Limits, server_info: dict[str, Any]) -> None:
        self._limits = limits
        self._server_info = server_info
        self.stage = Stage.HELLO
        self.name = ""
        self.version = ""
        self.due = 0.0
        self._next_id = 0
        self._offer = 0
        self._asked: dict[int, _Asked] = {}
        self._read: list[Any] = []
        self._cursors: set[str] = set()
        self._has_read = False
        self._list_again = False
        self._changes = Allowance(CHANGES_AT_ONCE, 1 / CHANGE_SECONDS)
        self._last_sent = 0.0
        self._last_list = 0.0
        self._last_heard = 0.0
        self._silent_pings = 0
        self._read_bytes = 0
        self._remarked: set[str] = set()

    def take_id(self, is_taken: Callable[[int], bool] = lambda _: False) -> int:
        """The next id toward this tool server; skips those still in use after the counter has gone round."""
        while True:
            rpc_id = self._next_id
            self._next_id = (rpc_id + 1) % ID_LIMIT
            if rpc_id not in self._asked and not is_taken(rpc_id):
                return rpc_id

    def note_sent(self, now: float) -> None:
        """A frame has gone out that this session did not make: the next ping can wait."""
        self._last_sent = now

    def note_heard(self, now: float) -> None:
        """It has said something: a sign of life."""
        self._last_heard = now
        self._silent_pings = 0

    def start(self, now: float) -> None:
        """The socket is open; `due` says from when on `on_time` is wanted."""
        self.due = now + self._limits.hello_pause_seconds

    # What it says

    def on_message(self, message: Message, now: float) -> list[Step]:
        """What is to be done about one frame; answers to calls are the caller's affair and never come here."""
        self.note_heard(now)
        match message:
            case Response():
                return self._on_response(message, now)
            case Request():
                return [self._answer(message)]
            case Notification():
                return self._on_notification(message, now)
            case Invalid(rpc_id, what) if rpc_id is not None:
                return [Send(jsonrpc.error(rpc_id, {"code": int(Code.INVALID_REQUEST), "message": what}))]
            case Garbage(_, is_blank) if is_blank:
                return []
            case _:
                return self._remark("noise", "a frame that is no JSON-RPC message")

    def _answer(self, request: Request) -> Step:
        """Its own requests. The gateway declares no capabilities, so there is little that it may ask."""
        match request.method:
            case "ping":
                return Send(jsonrpc.result(request.id, {}))
            case "roots/list":
                return Send(jsonrpc.result(request.id, {"roots": []}))
            case "initialize":
                params = request.params if type(request.params) is dict else {}
                asked = params.get("protocolVersion")
                version = asked if type(asked) is str and asked in VERSIONS else OFFERS[-1]
                result = {"protocolVersion": version, "capabilities": {}, "serverInfo": self._server_info}
                return Send(jsonrpc.result(request.id, result))
            case method:
                error = {"code": int(Code.METHOD_NOT_FOUND), "message": f"method not supported: {method[:64]}"}
                return Send(jsonrpc.error(request.id, error))

    def _on_notification(self, notification: Notification, now: float) -> list[Step]:
        params = notification.params if type(notification.params) is dict else {}
        if notification.method == "notifications/progress":
            token = jsonrpc.usable_id(params.get("progressToken"))
            return [] if token is None else [Progress(token, params)]
        if notification.method == "notifications/tools/list_changed":
            self._list_again = self.stage in (Stage.READY, Stage.LISTING)
            if self.stage is Stage.READY and not self._is_listing:
                steps = self._list_if_wanted(now)
                self._schedule(now)
                return steps
        return []

    def _on_response(self, response: Response, now: float) -> list[Step]:
        asked = self._asked.pop(own_id(response.id), None)
        if asked is None:
            return self._remark("foreign id", "an answer to nothing that was asked")
        match asked.kind:
            case "initialize":
                return self._on_initialized(response, now)
            case "list":
                return self._on_page(response, now)
            case _:
                self._schedule(now)
                return []

    def _on_initialized(self, response: Response, now: float) -> list[Step]:
        if response.is_error:
            self._offer += 1
            if self._offer < len(OFFERS):
                return self._initialize(now)
            error = jsonrpc.excerpt(response.message.get("error"), 200)
            return self._end(CloseCode.TRY_AGAIN_LATER, "initialize refused", f"initialize refused: {error}")
        result = response.message["result"]
        info = result.get("serverInfo") if type(result) is dict else None
        info = info if type(info) is dict else {}
        self.name = printable(jsonrpc.excerpt(info.get("name"), 128))
        self.version = printable(jsonrpc.excerpt(info.get("version"), 64))
        self.stage = Stage.LISTING
        return [Send(jsonrpc.notification("notifications/initialized")), *self._start_list(now)]

    # Its list

    @property
    def _is_listing(self) -> bool:
        return any(asked.kind == "list" for asked in self._asked.values())

    def _start_list(self, now: float) -> list[Step]:
        self._read, self._read_bytes, self._cursors = [], 0, set()
        seconds = DEAD_LIST_SECONDS if self._has_read else self._limits.handshake_seconds
        return self._ask("list", list_request(None), now, seconds)

    def _on_page(self, response: Response, now: float) -> list[Step]:
        if response.is_error:
            return self._on_list_refused(response, now)
        result = response.message["result"]
        page = result.get("tools") if type(result) is dict else None
        self._read.extend(page if type(page) is list else [])
        cursor = result.get("nextCursor") if type(result) is dict else None
        if type(cursor) is not str:
            return self._on_last_page(now)
        if cursor in self._cursors or self._has_read_enough(page):
            return [
                *self._remark("pages", "its list has no end; read as far as the limits go"),
                *self._on_last_page(now),
            ]
        self._cursors.add(cursor)
        return self._ask("list", list_request(cursor), now, self._limits.handshake_seconds)

    def _has_read_enough(self, page: Any) -> bool:
        """Whether one of the limits ends the reading of a paged list."""
        try:
            self._read_bytes += len(jsonrpc.dumps(page))
        except jsonrpc.Undumpable:
            return True
        is_long = len(self._cursors) >= PAGES_MAX or len(self._read) >= self._limits.tools_max
        return is_long or self._read_bytes > self._limits.toolset_bytes

    def _on_list_refused(self, response: Response, now: float) -> list[Step]:
        """No list is an empty list for a newcomer (a server without tools), and the old one later on."""
        error = jsonrpc.excerpt(response.message.get("error"), 200)
        remarks = self._remark("list refused", f"tools/list refused: {error}")
        if not self._has_read:
            return [*remarks, *self._on_last_page(now)]
        self._last_list = now
        self._schedule(now)
        return [*remarks, *self._list_if_wanted(now)]

    def _on_last_page(self, now: float) -> list[Step]:
        bounds = self._limits.of_tools
        taken, self._read = tools.take(self._read, bounds), []
        steps = [step for kind, text in taken.oddities(bounds) for step in self._remark(kind, text)]
        is_first = not self._has_read
        self._has_read, self.stage, self._last_list = True, Stage.READY, now
        self._schedule(now)
        return [*steps, ToolsRead(taken.tools, taken.encoded, is_first), *self._list_if_wanted(now)]

    def _list_if_wanted(self, now: float) -> list[Step]:
        """Read once more if it said in the meantime that its list has changed; later, if it says so all the time."""
        if not self._list_again or not self._changes.take(1.0, now):
            return []
        self._list_again = False
        return self._start_list(now)

    # Time

    def on_time(self, now: float, *, is_busy: bool) -> list[Step]:
        """What is due. `is_busy`: a call runs on this connection, so silence means nothing."""
        if now < self.due or self.stage is Stage.CLOSED:
            return []
        if self.stage is Stage.HELLO:
            self.stage = Stage.INITIALIZING
            return self._initialize(now)
        late = [rpc_id for rpc_id, asked in self._asked.items() if asked.until <= now]
        for rpc_id in late:
            steps = self._on_silence(self._asked.pop(rpc_id), now, is_busy)
            if steps:
                return steps
        steps = self._upkeep(now, is_busy) if self.stage is Stage.READY else []
        self._schedule(now)
        return steps

    def _on_silence(self, asked: _Asked, now: float, is_busy: bool) -> list[Step]:
        if self.stage is not Stage.READY:
            what = "tools/list" if self.stage is Stage.LISTING else "initialize"
            return self._end(CloseCode.TRY_AGAIN_LATER, f"{what} unanswered", f"{what} unanswered")
        if asked.kind == "list":
            self._last_list = now  # pings have their turn again: they tell whether it lives
        if is_busy or self._last_heard > asked.sent:
            return []
        self._silent_pings += asked.kind == "ping"
        if asked.kind == "list" and self._silent_pings >= PINGS_BEFORE_LIST:
            reason = "MCP 服务器无响应 / silent: pings and tools/list unanswered"
            return self._end(CloseCode.TRY_AGAIN_LATER, reason, "silent")
        return []

    def _upkeep(self, now: float, is_busy: bool) -> list[Step]:
        """The ping that bridges die without, and the list that most never announce to have changed."""
        if self._is_listing:
            return []
        if not is_busy:
            if steps := self._list_if_wanted(now):
                return steps
            is_old = now - self._last_list >= self._limits.reread_seconds
            if is_old or self._silent_pings >= PINGS_BEFORE_LIST:
                self._list_again = False
                return self._start_list(now)
        if now - self._last_sent >= self._limits.ping_seconds:
            return self.ping(now)
        return []

    def _schedule(self, now: float) -> None:
        times = [asked.until for asked in self._asked.values()]
        if self.stage is Stage.READY and not self._is_listing:
            times.append(max(self._last_sent + self._limits.ping_seconds, now + 0.01))
            times.append(max(self._last_list + self._limits.reread_seconds, now + 1.0))
            times += [now + 1.0] * self._list_again
        self.due = min(times, default=now + self._limits.handshake_seconds)

    # Frames of ours

    def ping(self, now: float) -> list[Step]:
        """Ask for a sign of life now."""
        return self._ask("ping", ("ping", None), now, self._limits.ping_seconds)

    def _initialize(self, now: float) -> list[Step]:
        params = {"protocolVersion": OFFERS[self._offer], "capabilities": {}, "clientInfo": self._server_info}
        return self._ask("initialize", ("initialize", params), now, self._limits.handshake_seconds)

    def _ask(self, kind: str, what: tuple[str, dict[str, Any] | None], now: float, seconds: float) -> list[Step]:
        rpc_id = self.take_id()
        self._asked[rpc_id] = _Asked(kind, now, now + seconds)
        self._last_sent = now
        self._schedule(now)
        return [Send(jsonrpc.request(rpc_id, *what))]

    def _end(self, code: CloseCode, reason: str, cause: str) -> list[Step]:
        self.stage, self.due = Stage.CLOSED, float("inf")
        return [End(code, reason, cause)]

    def _remark(self, kind: str, text: str) -> list[Step]:
        if kind in self._remarked:
            return []
        self._remarked.add(kind)
        return [Remark(kind, text)]


def list_request(cursor: str | None) -> tuple[str, dict[str, Any] | None]:
    return "tools/list", None if cursor is None else {"cursor": cursor}


def own_id(rpc_id: RpcId) -> int:
    """The integer that we sent, also where it came back as a string; -1 for what can't be ours."""
    if type(rpc_id) is int:
        return rpc_id
    return int(rpc_id) if type(rpc_id) is str and rpc_id.isdecimal() and len(rpc_id) <= 10 else -1


def printable(text: str) -> str:
    """The text without control and other unprintable characters."""
    return "".join(character for character in text if character.isprintable())
