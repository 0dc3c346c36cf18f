"""What other workers, and people, have to say to this one: every envelope goes to the room that it is for."""

from gateway.backplane.base import Backplane
from gateway.backplane.envelope import Envelope
from gateway.desk import Desk
from gateway.drain import Drain
from gateway.errors import CloseCode
from gateway.executor import Executor
from gateway.hub import Hub
from gateway.lease import Lease
from gateway.registrar import Registrar

KICKED = "运维人员断开 / kicked by an operator"


class Mailroom:
    """Hands envelopes on. Nothing here waits."""

    def __init__(
        self,
        backplane: Backplane,
        hub: Hub,
        rooms: tuple[Desk, Executor, Registrar, Lease, Drain],
    ) -> None:
        self._backplane, self._hub = backplane, hub
        self._desk, self._executor, self._registrar, self._lease, self._drain = rooms

    def on_envelope(self, envelope: Envelope) -> None:
        """Hand it to whom it is for."""
        # A `nack` is understood in every version: else nobody would learn that he was not.
        match envelope.type if envelope.is_supported or envelope.type == "nack" else "unsupported":
            case "unsupported":
                self._on_unsupported(envelope)
            case "req" | "cancel" | "query" | "probe":
                self._executor.on_envelope(envelope)
            case "status" if envelope.reason in ("alive", "ghost"):
                self._registrar.on_probed(envelope.id, is_alive=envelope.reason == "alive")
            case "kick":
                self._on_kick(envelope)
            case "drain":
                self._on_drain(envelope)
            case "bye":
                self._lease.worker_lost(envelope.sender)
            case _:
                self._desk.on_envelope(envelope)

    def _on_unsupported(self, envelope: Envelope) -> None:
        """Never dropped: a newer or older worker must learn that it was not understood (design §7)."""
        if envelope.type == "req":
            self._executor.on_request(envelope)  # which refuses it for good: it is on record
        elif envelope.sender:  # people have none
            self._backplane.send(envelope.sender, Envelope("nack", id=envelope.id, reason="unsupported"))

    def _on_kick(self, envelope: Envelope) -> None:
        link = self._hub.tool_servers.get(envelope.conn)
        if link is None:
            return
        if envelope.sender:
            if link.connection.agent == envelope.agent:  # else somebody has written it into another agent's row
                link.close(CloseCode.REPLACED, envelope.reason, "replaced")
            return
        # People have no mailbox. Theirs is not to go, but to come again.
        link.close(CloseCode.RESTART, envelope.reason or KICKED, KICKED)
        of_link = {"agent": link.connection.agent, "server": link.server_id, "conn": link.connection.id}
        self._backplane.note_event("kick", {**of_link, "reason": envelope.reason})

    def _on_drain(self, envelope: Envelope) -> None:
        """Somebody wants a worker to leave; all of them hear it."""
        if envelope.worker == self._backplane.worker_id:
            self._drain.begin("ctl")
