"""How a supervisor asks its workers: lines of JSON over a socket pair that a worker inherits at its start.

Theory of operation
-------------------
No path, no port: nobody else can ask, a read-only file system does not matter, and the line is dead when either end is.
The worker answers from its event loop, so that silence means what a probe wants to know. It says hello once, and on its
way out a last goodbye with all that it has counted; what a killed worker counted since it was last asked is lost.
"""

import asyncio
import itertools
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import orjson

from gateway import meters
from gateway.meters import Reading
from gateway.probes import Said
from gateway.tasks import Tasks

logger = logging.getLogger(__name__)

LINE_BYTES_MAX = 4 * 1024 * 1024
UNREAD_BYTES_MAX = 16 * 1024
"""So many bytes of questions may wait for a worker that reads none; then it is not asked any more."""
GOODBYE_SECONDS = 1.0

STATE, METRICS, DRAIN = "state", "metrics", "drain"


class Answering(Protocol):
    """What a worker can tell its supervisor."""

    @property
    def worker_id(self) -> str: ...

    async def readyz(self) -> Said: ...

    async def drain(self, *, begins: bool) -> dict[str, Any]: ...

    def reading(self) -> Reading: ...

    async def process(self) -> list[list[Any]]: ...


# The worker's end


@asynccontextmanager
async def answering(worker: Answering, channel: socket.socket) -> AsyncGenerator[None]:
    """Answer the supervisor inside this block, from the first moment to the last."""
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    writer.write(_line({"hello": worker.worker_id}))
    try:
        async with Tasks() as tasks:
            tasks.spawn(_answer_all(worker, reader, writer), "intercom")
            yield
    finally:
        with suppress(TimeoutError, OSError):  # a supervisor that is gone wants no goodbye
            async with asyncio.timeout(GOODBYE_SECONDS):
                writer.write(_line({"bye": meters.dump(worker.reading())}))
                await writer.drain()
                writer.close()
                await writer.wait_closed()


async def _answer_all(worker: Answering, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        question = orjson.loads(line)
        said = await _answer(worker, question["ask"])
        writer.write(_line({"id": question["id"], "said": said}))


async def _answer(worker: Answering, question: str) -> Any:
    match question:
        case "metrics":
            is_ready, process = (await worker.readyz()).is_ok, await worker.process()
            return {"is_ready": is_ready, "reading": meters.dump(worker.reading()), "process": process}
        case "drain":
            return await worker.drain(begins=False)
        case _:
            said = await worker.readyz()
            return {"is_ready": said.is_ok, "text": said.text}


# The supervisor's end


class Line:
    """The supervisor's end of the line to one worker process."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self.worker_id = ""
        """Empty until it has said hello: it is starting."""
        self.goodbye: Reading | None = None
        """All that it had counted, once it has ended in order."""
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}

    async def listen(self) -> None:
        """Hear the worker until its end of the line is closed."""
        self.theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=self._ours, limit=LINE_BYTES_MAX)
        self._writer = writer
        try:
            while text := await reader.readline():
                self._on_line(orjson.loads(text))
        except (OSError, ValueError) as error:  # ValueError: what comes is no line of ours
            logger.error("a worker can't be understood", extra={"event": "intercom_failed", "cause": str(error)})
        finally:
            self._writer = None
            writer.close()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_result(None)

    async def ask(self, question: str, seconds: float) -> Any:
        """What the worker says, None if it does not within the time, or is not there."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            return None
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                writer.write(_line({"id": number, "ask": question}))
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._asked[number]

    def _on_line(self, said: dict[str, Any]) -> None:
        if "hello" in said:
            self.worker_id = said["hello"]
        elif "bye" in said:
            self.goodbye = meters.load(said["bye"])
        else:
            answer = self._asked.get(said["id"])
            if answer is not None and not answer.done():
                answer.set_result(said["said"])


def _line(said: dict[str, Any]) -> bytes:
    return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
