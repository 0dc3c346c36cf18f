"""Where accepted peers arrive and leave: from a visit to a connection of the worker, counted and told to the log."""

import logging
from functools import partial

from gateway.admission import Admission, Visit
from gateway.connection import Connection, Kind, OnEnd, Wire
from gateway.robotlink import RobotLink
from gateway.toollink import ToolLink
from gateway.worker import Worker

logger = logging.getLogger(__name__)


class Hall:
    """Leads each peer to its side of the worker."""

    def __init__(self, worker: Worker, admission: Admission) -> None:
        self._worker = worker
        self._admission = admission

    def receive(self, visit: Visit, wire: Wire) -> OnEnd:
        """The handshake has been answered with 101. Returns what is to be called when the socket has ended."""
        connection = Connection(
            id=self._worker.new_connection_id(),
            kind=visit.kind,
            agent=visit.credential.agent,
            wire=wire,
            credential=visit.credential,
            address=visit.source,
            opened_ms=self._worker.backplane.now_ms,
            server_id=visit.server_id,
        )
        self._admission.note_accepted(visit, connection.id)
        on_end: OnEnd
        if visit.kind is Kind.TOOL_SERVER:
            on_end = partial(self._tool_server_left, self._worker.open_tool_server(connection))
        else:
            on_end = partial(self._robot_left, self._worker.open_robot(connection))
        if logger.isEnabledFor(logging.INFO):
            logger.info("connection opened", extra={"event": "connection_opened", **_fields(connection)})
        return on_end

    def _tool_server_left(self, link: ToolLink, code: int, reason: str) -> None:
        self._worker.tool_server_closed(link, f"{code} {reason}".strip())
        self._note_closed(link.connection, code, link.cause or reason, link.server_id)

    def _robot_left(self, link: RobotLink, code: int, reason: str) -> None:
        self._worker.robot_closed(link)
        self._note_closed(link.connection, code, reason, link.session.client_name)

    def _note_closed(self, connection: Connection, code: int, cause: str, peer: str) -> None:
        self._worker.meters.connections_closed_total.add(connection.kind.label, str(code))
        if logger.isEnabledFor(logging.INFO):
            seconds = round((self._worker.backplane.now_ms - connection.opened_ms) / 1000, 1)
            fields = {**_fields(connection), "code": code, "cause": cause, "peer": peer, "seconds": seconds}
            logger.info("connection closed", extra={"event": "connection_closed", **fields})


def _fields(connection: Connection) -> dict[str, object]:
    fields: dict[str, object] = {
        "kind": connection.kind.label,
        "agent": connection.agent,
        "conn": connection.id,
        "address": connection.address,
    }
    return {**fields, "server_id": connection.server_id} if connection.server_id else fields
