"""Is a registered connection still alive, or a ghost that its peer has left? Asked of whichever worker has it."""

import asyncio
import random

from gateway.backplane.base import Backplane
from gateway.backplane.envelope import Envelope
from gateway.directory import Row
from gateway.hub import Hub
from gateway.settings import Settings
from gateway.toollink import ToolLink

PROBES_MAX = 2


class Ghosts:
    """The probes that this worker has sent (design §4.4)."""

    def __init__(self, settings: Settings, backplane: Backplane, hub: Hub) -> None:
        self._settings = settings
        self._backplane = backplane
        self._hub = hub
        self._probes: dict[str, asyncio.Future[bool]] = {}

    def __repr__(self) -> str:
        return f"<Ghosts [{len(self._probes)} probes]>"

    async def is_alive(self, row: Row) -> bool:
        """Whether the connection of this row still answers, on whichever worker it is."""
        here = self._hub.tool_servers.get(row.conn)
        if row.worker == self._backplane.worker_id and here is None:
            return False
        for _ in range(PROBES_MAX):
            verdict = await self._probe(row, here)
            if verdict is not None:
                return verdict
            if not await self._backplane.alive({row.worker}):
                break
        return False

    async def _probe(self, row: Row, here: ToolLink | None) -> bool | None:
        """What its worker says of the connection; None if it says nothing: a message may have been lost."""
        number = f"{row.conn}?{random.getrandbits(32):08x}"
        verdict: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._probes[number] = verdict
        try:
            if here is not None:
                here.probe(lambda is_alive: self.on_probed(number, is_alive=is_alive))
            else:
                envelope = Envelope("probe", id=number, conn=row.conn)
                self._backplane.send(row.worker, envelope, lambda receivers: self._on_receivers(number, receivers))
            # The other side needs its own time to find out; a second more for the way.
            async with asyncio.timeout(self._settings.ghost_seconds + 1.0):
                return await verdict
        except TimeoutError:
            return None
        finally:
            del self._probes[number]

    def _on_receivers(self, number: str, receivers: int) -> None:
        if receivers == 0:
            self.on_probed(number, is_alive=False)

    def on_probed(self, number: str, *, is_alive: bool) -> None:
        """The verdict on one probe of ours."""
        verdict = self._probes.get(number)
        if verdict is not None and not verdict.done():
            verdict.set_result(is_alive)

    def give_up(self) -> None:
        """Every connection that is being asked counts as alive."""
        for number in self._probes:
            self.on_probed(number, is_alive=True)
