"""The robots' calls on this worker: admitted, placed, and each ended exactly once.

Theory of operation
-------------------
A call goes WAITING → (PARKED ⇄) → DISPATCHED → SENT → DONE. `_place` looks it up in the catalog and sends it: straight
to the socket if the tool server is connected here, else by the courier to the worker that has it. Whatever becomes of
it comes back to `_end`, which gives up the robot to be answered once; a second end finds the call done.

Three nets under a call that is away: nobody subscribed (milliseconds), the owner's lease lost, its own deadline
(`tick`). A call that waits or is parked has not been sent, so its deadline ends it with `executed: false`.

What the agent's policy forbids is in the catalog, and each placing looks there: also that of a call that has waited.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from gateway import errors, jsonrpc, results, routing
from gateway.agent import Agent
from gateway.agents import Agents
from gateway.backplane.base import Backplane
from gateway.backplane.envelope import Envelope
from gateway.calls import Call, Deadlines, Job, Stage
from gateway.catalog import UNBOUND, Bounds, Route
from gateway.courier import Courier
from gateway.errors import Failure
from gateway.guarded import for_each
from gateway.hub import Hub
from gateway.jsonrpc import RpcId
from gateway.porter import Porter
from gateway.robotlink import RobotLink
from gateway.robotsession import RouteCall
from gateway.routing import Decision, Deliver, Park, Refuse
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.trail import Trail

XIAOZHI_SECONDS_MAX = 27.0
"""No tool's timeout goes beyond that for a robot which gives up at 30 s by itself."""
PARK_MARGIN_SECONDS = 1.0
"""A parked call is given up this long before its deadline: there must be time left to run it."""


class Desk:
    """Where robots' calls begin and end. Is the `Caller` of the jobs that its calls become on this worker."""

    def __init__(
        self, settings: Settings, backplane: Backplane, hub: Hub, agents: Agents, tasks: Tasks, trail: Trail
    ) -> None:
        self._settings = settings
        self._backplane = backplane
        self._hub = hub
        self._agents = agents
        self._tasks = tasks
        self._trail = trail
        self._porter = Porter(settings, backplane, hub, tasks, trail)
        self._courier = Courier(settings, backplane, tasks, agents.dead_workers, trail)
        self._grace_ms = round(settings.grace_seconds * 1000)
        self._id_prefix = backplane.worker_id.rpartition("-")[2]
        self._count = 0
        self._deadlines: Deadlines[Call] = Deadlines()
        self._parked: dict[Call, None] = {}
        self.open_calls = 0
        self._open_bytes = 0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Desk [{self.open_calls} calls, {len(self._courier)} remote, {len(self._parked)} parked]>"

    @property
    def owners(self) -> set[str]:
        """The workers that we wait for."""
        return self._courier.owners

    @property
    def parked_calls(self) -> int:
        """How many calls wait for a tool server to come back."""
        return len(self._parked)

    @property
    def running_calls(self) -> int:
        """How many calls are open and do not wait for a tool server to come back."""
        return self.open_calls - len(self._parked)

    @property
    def jobs_here(self) -> list[Job]:
        """What tool servers of this worker execute for robots of this worker."""
        return [call.job for call in self._deadlines if call.job is not None]

    # A call begins

    def submit(self, robot: RobotLink, agent: Agent, asked: RouteCall, frame: bytes, now: float) -> None:
        """Take a robot's call. It is answered by its deadline, whatever happens."""
        is_extendable = not robot.session.is_xiaozhi  # it gives up at 30 s, progress or not
        call = Call(
            id=self._new_id(),
            robot=robot.connection.id,
            rpc_id=asked.id,
            agent=agent.id,
            name=asked.name,
            frame=frame,
            params=asked.params,
            started=now,
            deadline=now + self._settings.call_seconds,
            deadline_max=now + (self._settings.call_max_seconds if is_extendable else self._settings.call_seconds),
            is_extendable=is_extendable,
            progress_token=asked.progress_token,
        )
        if self._trail.is_tracing:
            self._trail.began(call)
        refusal = self._refusal(robot, agent, call, now)
        if refusal is not None:
            robot.fail(asked.id, refusal, call.id)
            self._trail.failed(call, refusal, now)
            self._after_answer(robot, asked.id)
            return
        robot.calls[call] = None
        self.open_calls += 1
        self._open_bytes += len(frame)
        self._deadlines.add(call)
        self._place(call, agent, now)

    def _refusal(self, robot: RobotLink, agent: Agent, call: Call, now: float) -> Failure | None:
        if self._is_closed:
            return errors.shutting_down()
        if len(robot.calls) >= self._settings.calls_per_connection:
            return errors.overloaded(f"GATEWAY_CALLS_PER_CONNECTION={self._settings.calls_per_connection}")
        if self.open_calls >= self._settings.calls_per_worker:
            return errors.overloaded(f"GATEWAY_CALLS_PER_WORKER={self._settings.calls_per_worker}")
        if self._open_bytes + len(call.frame) > self._settings.calls_bytes:
            return errors.overloaded(f"GATEWAY_CALLS_BYTES={self._settings.calls_bytes}")
        route = agent.catalog.routes.get(call.name)
        wait_seconds = self._agents.quotas.take_call(agent, "" if route is None else route.server_id, now)
        if wait_seconds is not None:
            return errors.over_quota(self._agents.quotas.call_limits(agent.policy), wait_seconds)
        return None

    def _place(self, call: Call, agent: Agent, now: float) -> None:
        """Send the call where the catalog says, or let it wait."""
        if not agent.is_loaded:
            agent.waiting[call] = None
            return
        decision = routing.decide(
            agent.catalog,
            call.name,
            now_ms=self._backplane.now_ms,
            grace_ms=self._grace_ms,
            lost=agent.lost,
        )
        if agent.catalog.bounds and not self._bound(call, agent.catalog.bounds, decision, now):
            return
        match decision:
            case Deliver(route, worker, conn, epoch):
                call.route, call.worker, call.conn, call.epoch = route, worker, conn, epoch
                if worker == self._backplane.worker_id:
                    self._porter.run(call, self, now)
                else:
                    self._courier.dispatch(call, self)
            case Park(route):
                call.route = route
                self.park(call, now)
            case Refuse() if agent.is_makeshift:
                agent.waiting[call] = None
            case Refuse(failure):
                self.fail(call, failure)

    def _bound(self, call: Call, bounds: Mapping[Route, Bounds], decision: Decision, now: float) -> bool:
        """Give the call what its tool may have of time and bytes. False: its time is over, and it has ended."""
        if isinstance(decision, Refuse):
            return True
        mine = bounds.get(decision.route, UNBOUND)
        call.result_bytes = min(mine.result_bytes or 0, self._settings.result_bytes)
        if mine.timeout_seconds is not None:
            seconds_max = self._settings.call_max_seconds if call.is_extendable else XIAOZHI_SECONDS_MAX
            self._deadlines.discard(call)
            call.allow(min(mine.timeout_seconds, seconds_max))
            self._deadlines.add(call)
        if call.deadline <= now:
            self.fail(call, errors.not_sent_in_time(call.call_seconds))
        return not call.is_done

    def park(self, call: Call, now: float) -> None:
        """Let the call wait for its tool server, for a while."""
        agent = self._agents.get(call.agent)
        if agent is None:
            return
        if not call.parked_until:
            call.parked_until = min(now + self._settings.park_seconds, call.deadline - PARK_MARGIN_SECONDS)
        call.stage = Stage.PARKED
        self._trail.parked(call, now)
        agent.waiting[call] = None
        self._parked[call] = None

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._id_prefix}-{self._count}"

    def note_gap(self) -> None:
        self._courier.note_gap()

    # What calls wait for

    def on_catalog(self, agent: Agent, now: float) -> None:
        """The agent's catalog is another one: calls that waited for that are placed again."""
        waiting, agent.waiting = agent.waiting, {}
        for call in waiting:
            self._parked.pop(call, None)
            if not call.is_done:
                self._place(call, agent, now)

    def on_trouble(self, agent: Agent, now: float) -> None:
        """The agent's facts can't be read now: its last catalog must do. Without one, nothing has been sent."""
        if agent.is_loaded:
            self.on_catalog(agent, now)
            return
        for call in [call for call in agent.waiting if call.stage is Stage.WAITING]:
            self.fail(call, errors.backplane_unavailable(executed=False))

    def place_again(self, call: Call) -> None:
        """Place a call that is certain not to be on its way."""
        agent = self._agents.get(call.agent)
        if agent is not None and not call.is_done:
            self._place(call, agent, self._tasks.now())

    def find_again(self, call: Call) -> None:
        """Place a call that is certain not to be on its way, after the catalog has been read again.

        Not to the same connection: that has proved to be gone.
        """
        agent = self._agents.get(call.agent)
        if agent is not None and not call.is_done:
            agent.lost_conns.add(call.conn)
            call.stage, call.parked_until = Stage.WAITING, 0.0  # it was on its way: the time to wait begins anew
            agent.waiting[call] = None
            self._agents.refresh(agent)

    # What becomes of a call

    def on_answer(self, job: Job, message: dict[str, Any], frame: bytes) -> None:
        self._porter.forget_record(job)
        if job.call is not None:
            self.answer(job.call, message)

    def on_lost(self, job: Job) -> None:
        self._porter.forget_record(job)
        if job.call is not None:
            self.fail(job.call, errors.lost_in_call(job.call.server_id))

    def on_unsent(self, job: Job) -> None:
        if job.call is not None:
            self._trail.unsent(job)
            job.call.job = None
            self.find_again(job.call)

    def on_progress(self, job: Job, params: dict[str, Any]) -> None:
        now = self._tasks.now()
        job.extend(now, self._settings.call_seconds)
        if job.call is not None and job.may_tell_progress(now):
            self.progress(job.call, params)

    def on_envelope(self, envelope: Envelope) -> None:
        """Another worker says something about a call of ours."""
        self._courier.on_envelope(envelope, self)

    def progress(self, call: Call, params: dict[str, Any]) -> None:
        """Move the call's deadline, and tell the robot if it asked for that."""
        self._backplane.meters.progress_total.add()
        call.extend(self._tasks.now(), self._settings.call_seconds)
        robot = self._hub.robots.get(call.robot)
        value = params.get("progress")
        if robot is None or call.progress_token is None or not isinstance(value, int | float):
            return
        # "MUST increase with each notification" (MCP, Progress); a bool is an int to Python only
        if type(value) is not bool and value > call.last_progress:
            call.last_progress = value
            with suppress(jsonrpc.Undumpable):  # nested too deep to be told; the deadline has moved all the same
                limit_bytes = call.result_bytes or robot.limit_bytes
                robot.send(results.progress_frame(call.progress_token, params, limit_bytes))

    def answer(self, call: Call, message: dict[str, Any]) -> None:
        """End the call with its tool server's response."""
        robot = self._end(call)
        if robot is not None:
            shape = robot.shape
            if call.result_bytes:
                shape = replace(shape, limit_bytes=call.result_bytes)
            frame = results.answer(call.rpc_id, message, shape)
            robot.send(frame)
            self._trail.answered(call, message, len(frame), self._tasks.now())
            self._after_answer(robot, call.rpc_id)

    def fail(self, call: Call, failure: Failure) -> None:
        """End the call with an error of ours."""
        robot = self._end(call)
        if robot is not None:
            robot.fail(call.rpc_id, failure, call.id)
            self._trail.failed(call, failure, self._tasks.now())
            self._after_answer(robot, call.rpc_id)

    def _end(self, call: Call) -> RobotLink | None:
        """Forget the call: the robot to answer, None if there is none or the call has ended before."""
        if call.is_done:
            return None
        call.stage = Stage.DONE
        self._deadlines.discard(call)
        self.open_calls -= 1
        self._open_bytes -= len(call.frame)
        if call.ledger_id:
            self._courier.forget(call)
        if call.parked_until:
            self._parked.pop(call, None)
        agent = self._agents.get(call.agent)
        if agent is not None and agent.waiting:
            agent.waiting.pop(call, None)
        robot = self._hub.robots.get(call.robot)
        if robot is not None:
            robot.calls.pop(call, None)
        return robot

    def _after_answer(self, robot: RobotLink, rpc_id: RpcId) -> None:
        """An answer to a call may free the id that a changed list is pushed under."""
        robot.session.on_answered(rpc_id)
        if robot.session.is_xiaozhi:
            agent = self._agents.get(robot.connection.agent)
            if agent is not None:
                robot.tell_change(agent.catalog)
        if robot.is_leaving:
            robot.leave_if_idle()

    # A call is given up

    def cancel(self, robot: RobotLink, rpc_id: RpcId, reason: str) -> None:
        """The robot wants no answer any more: tell the tool server, answer nothing (MCP, Cancellation)."""
        for call in [call for call in robot.calls if call.rpc_id == rpc_id and type(call.rpc_id) is type(rpc_id)]:
            self._trail.given_up(call, "cancelled", self._tasks.now())
            self._give_up(call, reason)
            self._end(call)

    def robot_gone(self, robot: RobotLink) -> None:
        """Nobody is left to answer: its calls are cancelled upstream."""
        for call in list(robot.calls):
            self._trail.given_up(call, "robot_gone", self._tasks.now())
            self._give_up(call, "robot disconnected")
            self._end(call)

    def close(self) -> None:
        """The worker stops: no call is taken any more, and every open one ends now."""
        self._is_closed = True
        calls = [call for robot in self._hub.robots.values() for call in robot.calls]
        for_each(calls, self._stop, "ending a call of a stopping worker")
        self._trail.tick(self._tasks.now(), at_once=True)

    def _stop(self, call: Call) -> None:
        is_sent = call.stage in (Stage.SENT, Stage.DISPATCHED)
        self._give_up(call, "gateway restarting")
        self.fail(call, errors.stopped_in_call() if is_sent else errors.shutting_down())

    def tick(self, now: float) -> None:
        """End what is due: calls at their deadline, parked ones whose tool server did not come back."""
        for_each(self._deadlines.due(now), self._end_late, "ending a call at its deadline")
        parked = [call for call in self._parked if call.parked_until <= now]
        for_each(parked, self._end_parked, "ending a parked call")
        self._trail.tick(now)

    def _end_late(self, call: Call) -> None:
        seconds = call.call_seconds
        if call.stage in (Stage.WAITING, Stage.PARKED):
            self.fail(call, errors.not_sent_in_time(seconds))
        else:
            self._give_up(call, "deadline exceeded")
            self.fail(call, errors.deadline_exceeded(call.server_id, seconds))

    def _end_parked(self, call: Call) -> None:
        agent = self._agents.get(call.agent)
        row = agent.catalog.rows.get(call.server_id) if agent else None
        self.fail(call, routing.offline(call.server_id, row))

    def _give_up(self, call: Call, reason: str) -> None:
        if call.stage not in (Stage.SENT, Stage.DISPATCHED):
            return
        if call.job is None:
            self._courier.withdraw(call, reason)
            return
        self._porter.withdraw(call.job, call.conn, reason)

    # Other workers

    async def owner_lost(self, worker: str) -> None:
        """The worker is gone: what it was executing for us ends, in its result where that is recorded."""
        await self._courier.owner_lost(worker, self)

    async def recover(self) -> None:
        """Messages may have been missed: find out what became of the calls that are away."""
        await self._courier.recover(self)
