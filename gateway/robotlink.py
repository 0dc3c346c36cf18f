"""A robot's connection: its conversation, its answers in order, its calls in flight.

Theory of operation
-------------------
What the gateway answers itself (`initialize`, `ping`, `tools/list`) leaves in the order of the requests: a list that
still waits for its catalog holds back the answers behind it. Answers to calls overtake freely.
"""

from collections import deque
from typing import Protocol

from gateway import errors, jsonrpc, robotsession
from gateway.calls import Call
from gateway.catalog import Catalog
from gateway.connection import Connection
from gateway.errors import RESTART_REASON, CloseCode, Failure
from gateway.jsonrpc import RpcId
from gateway.results import Shape
from gateway.robotsession import Answer, AnswerList, BecameReady, CancelCall, RobotSession, RouteCall

LINE_MAX = 256
"""So many answers may wait behind a list; a robot that asks on is not one of the real ones."""


class RobotEvents(Protocol):
    """Who answers a robot's lists and routes its calls."""

    def on_list(self, link: "RobotLink") -> None:
        """The robot waits for its list; `serve_lists` is wanted as soon as the catalog may be told."""

    def on_call(self, link: "RobotLink", call: RouteCall, frame: bytes) -> None:
        """`frame` is the request's text; empty where that was one of several in a batch."""

    def on_cancel(self, link: "RobotLink", cancel: CancelCall) -> None: ...

    def on_ready(self, link: "RobotLink") -> None: ...


class RobotLink:
    """One robot, connected here."""

    __slots__ = ("_events", "_line", "calls", "connection", "is_leaving", "limit_bytes", "listed", "session")

    def __init__(self, connection: Connection, session: RobotSession, events: RobotEvents, *, limit_bytes: int) -> None:
        self.connection = connection
        self.session = session
        self.calls: dict[Call, None] = {}
        self.listed: tuple[bytes, ...] | None = None
        """The pages that the robot was last given or told of; None before its first list."""
        self.limit_bytes = limit_bytes
        self.is_leaving = False
        """Whether it is to be closed as soon as no call of it is open: the worker drains."""
        self._events = events
        self._line: deque[bytes | AnswerList] = deque()

    def __repr__(self) -> str:
        client = self.session.client_name or "?"
        return f"<RobotLink {self.connection.id} {client} [{len(self.calls)} calls]>"

    @property
    def shape(self) -> Shape:
        return Shape(self.limit_bytes, with_error_text=self.session.came_by_initialize)

    def leave_if_idle(self) -> None:
        """Close the connection, unless a call of it is open or a list is awaited."""
        if self.is_idle:
            self.connection.wire.close(int(CloseCode.RESTART), RESTART_REASON)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for nothing: no call, and no list."""
        return not self.calls and not self._line

    def on_frame(self, frame: bytes) -> None:
        message = jsonrpc.parse(frame)
        for step in self.session.on_message(message):
            match step:
                case RouteCall():
                    self._events.on_call(self, step, b"" if isinstance(message, list) else frame)
                case Answer(answer):
                    self._answer(answer)
                case AnswerList():
                    self._queue(step)
                    if len(self._line) == 1:
                        self._events.on_list(self)
                case CancelCall():
                    self._events.on_cancel(self, step)
                case BecameReady():
                    self._events.on_ready(self)

    def send(self, frame: bytes) -> None:
        self.connection.wire.send(frame)

    def fail(self, rpc_id: RpcId, failure: Failure, call: str) -> None:
        """Answer the request with an error of ours; `call` is the id that the call has in logs and records."""
        self.connection.wire.answer(self.session.failure(rpc_id, failure, call))

    def _answer(self, frame: bytes) -> None:
        if not self._line:
            self.connection.wire.answer(frame)
        else:
            self._queue(frame)

    def _queue(self, entry: bytes | AnswerList) -> None:
        self._line.append(entry)
        if len(self._line) > LINE_MAX:
            self._line.clear()
            reason = "排队的请求过多 / too many requests wait for the tool list"
            self.connection.wire.close(int(CloseCode.POLICY), reason)

    def serve_lists(self, catalog: Catalog) -> None:
        """Answer every list that waits, and whatever waited behind it."""
        while self._line:
            head = self._line.popleft()
            if not self.connection.wire.answer(head if isinstance(head, bytes) else self._list_frame(head, catalog)):
                self._line.clear()  # nobody is there to read them

    def _list_frame(self, wanted: AnswerList, catalog: Catalog) -> bytes:
        page = catalog.page(wanted.cursor)
        if page is None:
            failure = errors.bad_params("cursor 无效，请从头读取列表", "unknown cursor; read the list from its start")
            return self.session.failure(wanted.id, failure)
        self.session.has_listed = True
        if wanted.cursor is None or self.listed is None:
            self.listed = catalog.pages  # with a later page the robot may hold an earlier one of another catalog
        return list_frame(wanted.id, page)

    def tell_change(self, catalog: Catalog) -> None:
        """Tell the robot, in the way it understands, that its tools are others now; once for each change."""
        if catalog.pages == self.listed or self._line or self.listed is None:
            return
        if self.session.is_xiaozhi:
            if self.session.may_push:
                self.listed = catalog.pages
                self.send(list_frame(robotsession.PUSH_ID, catalog.pages[0]))
        elif self.session.is_ready:
            self.listed = catalog.pages
            self.send(jsonrpc.notification("notifications/tools/list_changed"))


def list_frame(rpc_id: RpcId, page: bytes) -> bytes:
    """An answer to tools/list around a page that is JSON text already."""
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (jsonrpc.dumps(rpc_id), page)
