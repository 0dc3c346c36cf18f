"""Whether a run kept the gateway's promises, from what peers saw and what is in Redis at the end."""

from collections.abc import Iterable
from typing import Any

from gateway.backplane import rows
from gateway.backplane.keys import AgentTag, Keys
from gateway.credential import Credential
from tests.simulation.journal import Request
from tests.simulation.node import Node
from tests.simulation.peers import SLOWEST_SECONDS, Device
from tests.simulation.store import Store
from tests.simulation.world import AGENT, BANNED, World

ANSWER_SPARE_SECONDS = 2.0
RUN_SPARE_SECONDS = 1.0
"""A worker may know the time of Redis by a reply that took so long."""
TASKS_MAX = 60
"""So many tasks may a worker have at rest."""

_KEYS = Keys()
_TAG = AgentTag(AGENT)


def check_calls(world: World, *, is_strict: bool) -> list[str]:
    """One answer each, in time; nothing run twice, nothing that was called not executed."""
    found: list[str] = []
    for request in world.journal.requests.values():
        found += [f"{request}: {text}" for text in _check_call(world, request, is_strict)]
    return found + world.journal.complaints


def _check_call(world: World, request: Request, is_strict: bool) -> Iterable[str]:
    executions = world.journal.executions.get(request.number, [])
    if len(executions) > 1:
        places = ", ".join(f"{one.device} at {one.at:.3f}" for one in executions)
        yield f"was run {len(executions)} times: {places}"
    if len(request.answers) > 1:
        yield f"was answered {len(request.answers)} times"
    process = world.node(request.worker).process
    limit = request.deadline + ANSWER_SPARE_SECONDS
    limit += process.frozen_seconds(request.sent_at, limit + 60)
    for at, answer in request.answers:
        if at > limit:
            yield f"was answered {at - limit:.2f} s too late"
        # Where the tool server had been away for long, there may be no time left to answer in.
        is_late = any(one.at > request.deadline - SLOWEST_SECONDS for one in executions)
        yield from _check_answer(request, answer, len(executions), is_strict and not is_late)
    is_waiting = not request.answers and request.cancelled_at is None and request.robot_gone_at is None
    if is_waiting and world.loop.time() > limit:
        yield "was never answered"
    end = limit - ANSWER_SPARE_SECONDS + RUN_SPARE_SECONDS
    yield from (f"was run {one.at - end:.2f} s after its end" for one in executions if one.at > end)


def _check_answer(request: Request, answer: dict[str, Any], executions: int, is_strict: bool) -> Iterable[str]:
    if "result" in answer:
        if not executions:
            yield "has a result and was never run"
        return
    data = answer["error"].get("data") or {}
    if data.get("executed") is False and executions:
        yield f"was called not executed ({data.get('reason')}), and was run"
    if data.get("executed") is True and not executions:
        yield f"was called executed ({data.get('reason')}), and was never run"
    if is_strict and data.get("executed") is not False and not request.tool.endswith("never"):
        yield f"was lost, although nobody was who could run it or answer it: {data}"


def check_rest(world: World) -> list[str]:
    """What must be true some time after everything has healed."""
    store = world.redis.store
    found = [f"{key.decode()} has no TTL" for key in store.all_keys() if _is_endless(store, key)]
    found += [f"no worker takes connections: {node.worker!r}" for node in world.nodes if not node.takes_connections]
    for node in world.nodes:
        tasks = node.worker._tasks if node.worker is not None else ()
        if len(tasks) > TASKS_MAX:
            found.append(f"{node.process.name} has {len(tasks)} tasks")
    found += [line for device in world.devices for line in _check_device(world, device)]
    return found + _check_rows(world) + _check_books(world)


def _is_endless(store: Store, key: bytes) -> bool:
    return key not in store.ends_ms and not _KEYS.is_durable(key.decode())


def _check_books(world: World) -> list[str]:
    """Who lives has not forgotten, and has told the others and the store. (If nobody is left, nobody can.)"""
    banned = Credential(BANNED.decode().partition(":")[2])
    workers = {node.process.name: node.worker for node in world.nodes if node.worker is not None}
    books = {name: worker.rulebook for name, worker in workers.items() if worker.rulebook.is_loaded}
    know = {name: book.revocations.is_revoked(banned) for name, book in books.items()}
    book = world.redis.store.find(_KEYS.book("revoked").encode(), dict) or {}
    know["redis"] = BANNED in book and bool(book.get(b""))
    return [f"not everybody knows whose tokens are revoked: {know}"] if len(set(know.values())) > 1 else []


def _check_device(world: World, device: Device) -> Iterable[str]:
    sockets = device.open_sockets
    if len(sockets) != 1:
        yield f"{device.name} has {len(sockets)} sockets"
        return
    [socket] = sockets
    texts = store_hash(world, _KEYS.servers(_TAG))
    mine = {name: row for name, row in texts.items() if row is not None and row.conn == socket.connection_id}
    if [row.state for row in mine.values()] != ["up"]:
        yield f"{device.name} ({socket.connection_id}) has the rows {mine}, of {texts}"
        return
    [server_id] = mine
    if device.server_id and server_id != device.server_id:
        yield f"{device.name} is registered as {server_id}"
    if mine[server_id].worker != world.node(socket.worker_name).worker_id:
        yield f"{device.name} is registered on another worker: {mine}"
    claimed = {claim.original for claim in _claims(world).values() if claim is not None and claim.server == server_id}
    if not set(device.tools) <= claimed:
        yield f"{device.name} has no names for {set(device.tools) - claimed}"


def _check_rows(world: World) -> list[str]:
    there = {socket.connection_id for device in world.devices for socket in device.open_sockets}
    return [
        f"the row {name} names a connection that is gone: {row}"
        for name, row in store_hash(world, _KEYS.servers(_TAG)).items()
        if row is not None and row.state != "offline" and row.conn not in there
    ]


def store_hash(world: World, key: str) -> dict[str, Any]:
    fields = world.redis.store.find(key.encode(), dict) or {}
    return {name.decode(): rows.load_row(text) for name, text in fields.items()}


def _claims(world: World) -> dict[str, Any]:
    fields = world.redis.store.find(_KEYS.names(_TAG).encode(), dict) or {}
    return {name.decode(): rows.load_claim(text) for name, text in fields.items()}


def check_nodes(nodes: Iterable[Node]) -> list[str]:
    """Workers that were stopped in order have ended."""
    return [f"{node.process.name} was stopped and has not ended" for node in nodes if not node.is_over]
