"""What a worker counts: the table of its metrics, and those of one worker under its names.

Theory of operation
-------------------
`METRICS` is the one source: exposition, documentation and dashboards read names, labels and allowed label values from
it; `gateway.counting` does the counting. Gauges are not kept at all: the worker is asked when `/metrics` is read
(`Panel.gauges`), and `Meters.read` puts both together as one `Reading`.

Every label has few values, all known here, and none names an agent, a tool server or a tool. A value that is not
in the table is counted as `other`, where the table has that, else it is a fault of ours and raises.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from gateway.counting import OTHER, Counter, Histogram, Labels, Merge, Metric, Peak, Spread

# A fast answer of a tool server, a slow one, the deadline (27 s), and the hard maximum (300 s). The event loop's clock
# counts milliseconds.
CALL_BOUNDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 27.0, 30.0, 60.0, 300.0)
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PARK_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
HANDSHAKE_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

KINDS = ("tool_server", "robot")
SIDES = ("robot", "tool_server")
STATES = ("starting", "up", "draining", "stopping")
CLOSE_CODES = ("1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1011", "1012", "1013", OTHER)
REFUSALS = (
    *("no_token", "bad_token", "bad_server_id", "origin", "source_rate", "agent_rate"),
    *("not_ready", "draining", "full", "rate", "agent_full"),
    *("not_found", "turnstile", "late", "head_too_large", "body_too_large", "pipelined", "bad_request", OTHER),
)
ENDS: Mapping[str, Labels] = {
    # The tool server's own words: a result, one with isError, a JSON-RPC error.
    "result": ("true",),
    "tool_error": ("true",),
    "rpc_error": ("true",),
    # Ours (`errors.py`).
    "bad_params": ("false",),
    "unknown_tool": ("false",),
    "not_allowed": ("false",),
    "no_tool_server": ("false",),
    "offline": ("false",),
    "tool_server_lost": ("unknown",),
    "owner_lost": ("unknown",),
    "worker_unreachable": ("false",),
    "versions_differ": ("false",),
    "timed_out": ("false", "unknown"),
    "overloaded": ("false",),
    "over_quota": ("false",),
    "backplane_unavailable": ("false", "unknown"),
    "draining": ("false", "unknown"),
    "bad_answer": ("true",),
    "internal_error": ("false", "unknown"),
    # The robot's: it wants no answer any more, or is gone.
    "cancelled": ("false", "unknown"),
    "robot_gone": ("false", "unknown"),
}
"""How a call can end, and what can be known then of its having run."""
OUTCOMES = tuple(ENDS)
EXECUTED = ("true", "false", "unknown")
PATHS = ("local", "remote", "none")
"""Both connections on this worker; the tool server on another one; never placed."""
NACKS = ("moved", "early", "busy", "fenced", "late", "bad", "lost", "unsupported", OTHER)
VERDICTS = ("ok", "gone", "nosub", "late", "dup", "refused", "unavailable", "unknown")
HANDSHAKES = ("ready", "failed", "left")
"""Registered; given up by the gateway; its connection went before."""
PIN_REPORTS = ("changed", "new", "removed", "new_server", "full")
LINKS = ("commands", "subscriber")
COMMAND_ERRORS = ("refused", "misdirected", "unsent", "unanswered")
FORGERIES = ("unsigned", "wrong")
AUDIT_FATES = ("written", "lost", "suppressed")
LEVELS = ("debug", "info", "warning", "error", "critical")

_TABLE = (
    # What is
    Metric(
        "build_info",
        "gauge",
        "Always 1; which build this is.",
        {"version": (), "python": (), "backplane": ("memory", "redis")},
        merge="max",
    ),
    Metric("ready", "gauge", "Whether the worker takes connections (of several workers: all of them).", merge="min"),
    Metric("worker_state", "gauge", "1 for the worker's present state (of several: any of them).", {"state": STATES},
           merge="max"),
    Metric("workers", "gauge", "Worker processes of this instance, by state.",
           {"state": ("ready", "unready", "silent", "starting")}),
    Metric("connections", "gauge", "Open WebSocket connections.", {"kind": KINDS}),
    Metric("connections_limit", "gauge", "So many connections may be open (GATEWAY_CONNECTIONS)."),
    Metric("tool_server_handshakes", "gauge", "Tool servers that are connected and not registered yet."),
    Metric("agents", "gauge", "Agents looked after by this worker."),
    Metric("catalog_tools", "gauge", "Tools in the catalogs of this worker's agents."),
    Metric("catalog_bytes", "gauge", "Size of the list pages of these catalogs."),
    Metric("calls_in_flight", "gauge", "Open calls of robots here, and calls running on tool servers here.",
           {"side": SIDES}),
    Metric("calls_overdue", "gauge", "Calls of robots here more than 2 s past their deadline; always 0."),
    Metric("calls_parked", "gauge", "Calls that wait for their tool server to come back."),
    Metric("outbox_bytes", "gauge", "Bytes written to peers that they have not read, all connections together."),
    Metric("outbox_bytes_max", "gauge", "The same of the connection with the most.", merge="max"),
    Metric("lease_age_seconds", "gauge", "Since when the lease has not been renewed.", merge="max"),
    Metric("redis_connected", "gauge", "Whether the shared store can be reached (memory backplane: always 1).",
           merge="min"),
    Metric("redis_pending_commands", "gauge", "Commands that wait for Redis to answer."),
    Metric("loop_lag_max_seconds", "gauge", "The event loop's longest delay within the last 30 s.", merge="max"),
    Metric("memory_limit_bytes", "gauge", "What the container may use; absent without a limit.", merge="max"),
    Metric("drain_connections", "gauge", "Connections that a drain still waits for; 0 without a drain."),
    Metric("drain_seconds_left", "gauge", "What is left of the drain's window; 0 without a drain.", merge="max"),
    # What has happened: connections
    Metric("connections_opened_total", "counter", "Connections accepted.", {"kind": KINDS}),
    Metric("connections_closed_total", "counter", "Connections ended, by WebSocket close code.",
           {"kind": KINDS, "code": CLOSE_CODES}),
    Metric("handshakes_refused_total", "counter", "Handshakes and requests answered with an error instead.",
           {"cause": REFUSALS}),
    Metric("tool_server_handshakes_total", "counter", "MCP handshakes with tool servers that have ended.",
           {"outcome": HANDSHAKES}),
    Metric("tool_server_handshake_seconds", "histogram", "From the connection to the registered tools.",
           bounds=HANDSHAKE_BOUNDS),
    Metric("takeovers_total", "counter", "Tool servers whose row went to a newer connection of the same server_id."),
    Metric("slow_peers_total", "counter", "Connections dropped because the peer did not read what it was sent."),
    # Calls
    Metric("calls_total", "counter", "Calls of robots here that have ended.",
           {"outcome": OUTCOMES, "executed": EXECUTED, "path": PATHS},
           shown=tuple((end, known, path) for end in ENDS for known in ENDS[end] for path in PATHS)),
    Metric("call_seconds", "histogram", "From a robot's request to its answer, calls that were placed.",
           {"path": PATHS[:2]}, bounds=CALL_BOUNDS),
    Metric("calls_parked_total", "counter", "Calls that had to wait for their tool server to come back."),
    Metric("park_seconds", "histogram", "How long such calls waited.", bounds=PARK_BOUNDS),
    Metric("progress_total", "counter", "Progress notifications heard for calls of robots here."),
    # Between workers
    Metric("dispatches_total", "counter", "Calls handed to the backplane, by verdict; nosub: nobody listened.",
           {"verdict": VERDICTS}),
    Metric("nacks_total", "counter", "Calls that another worker sent back, by reason.", {"reason": NACKS}),
    Metric("mailbox_lag_seconds", "histogram", "From the other worker's dispatch to its handling here.",
           bounds=LAG_BOUNDS),
    Metric("gaps_total", "counter", "Times at which messages from other workers may have been missed."),
    Metric("calls_recovered_total", "counter",
           "Calls found in the ledger after a gap: their answers (robot), themselves (tool_server).", {"side": SIDES}),
    Metric("forged_total", "counter",
           "Messages of other workers, also in records, that were dropped: unsigned, or signed with no key of ours.",
           {"cause": FORGERIES}),
    Metric("workers_reaped_total", "counter", "Dead workers that this one has cleaned up after."),
    Metric("catalog_changes_total", "counter", "Catalogs rebuilt with other tools than before."),
    Metric("pin_reports_total", "counter", "Tools found to differ from their pins (docs/pins.md), by kind.",
           {"kind": PIN_REPORTS}),
    # Redis
    Metric("redis_reconnects_total", "counter", "Connections to Redis that had to be made anew.", {"link": LINKS}),
    Metric("redis_command_errors_total", "counter",
           "Commands that failed: refused by Redis, by a server that was not the right one, never sent, no answer.",
           {"kind": COMMAND_ERRORS}),
    Metric("redis_probe_failures_total", "counter", "Messages to this worker itself that did not arrive."),
    # This process
    Metric("loop_lag_seconds", "histogram", "How much later than asked for the event loop woke the clock.",
           bounds=LAG_BOUNDS),
    Metric("log_records_total", "counter", "Log records, by level.", {"level": LEVELS}),
    Metric("audit_records_total", "counter",
           "Audit records: written, lost (the store did not take them), suppressed (one of a flood of refusals).",
           {"fate": AUDIT_FATES}),
)  # fmt: skip

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _TABLE}
"""Every metric by its name without prefix."""


Gauges: TypeAlias = Mapping[str, Mapping[Labels, float]]
"""What is, now: metric → label values → value."""
Reading: TypeAlias = dict[str, dict[Labels, float | Spread]]
"""All metrics of one worker, by name without prefix, or of several after `merge`."""


class Meters:
    """The counters and histograms of one worker, under the names of the table."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        self.connections_opened_total = self._counter("connections_opened_total")
        self.connections_closed_total = self._counter("connections_closed_total")
        self.handshakes_refused_total = self._counter("handshakes_refused_total")
        self.tool_server_handshakes_total = self._counter("tool_server_handshakes_total")
        self.tool_server_handshake_seconds = self._histogram("tool_server_handshake_seconds")
        self.takeovers_total = self._counter("takeovers_total")
        self.slow_peers_total = self._counter("slow_peers_total")
        self.calls_total = self._counter("calls_total")
        self.local_call_seconds = self._histogram("call_seconds", "local")
        self.remote_call_seconds = self._histogram("call_seconds", "remote")
        self.calls_parked_total = self._counter("calls_parked_total")
        self.park_seconds = self._histogram("park_seconds")
        self.progress_total = self._counter("progress_total")
        self.dispatches_total = self._counter("dispatches_total")
        self.nacks_total = self._counter("nacks_total")
        self.mailbox_lag_seconds = self._histogram("mailbox_lag_seconds")
        self.gaps_total = self._counter("gaps_total")
        self.calls_recovered_total = self._counter("calls_recovered_total")
        self.workers_reaped_total = self._counter("workers_reaped_total")
        self.catalog_changes_total = self._counter("catalog_changes_total")
        self.redis_reconnects_total = self._counter("redis_reconnects_total")
        self.redis_command_errors_total = self._counter("redis_command_errors_total")
        self.redis_probe_failures_total = self._counter("redis_probe_failures_total")
        self.loop_lag_seconds = self._histogram("loop_lag_seconds")
        self.log_records_total = self._counter("log_records_total")
        self.forged_total, self.pin_reports_total, self.audit_records_total = (
            self._counter(name) for name in ("forged_total", "pin_reports_total", "audit_records_total")
        )
        self.loop_lag_peak = Peak()

    def _counter(self, name: str) -> Counter:
        return self._counters.setdefault(name, Counter(METRICS[name]))

    def _histogram(self, name: str, *labels: str) -> Histogram:
        return self._histograms.setdefault(name, {}).setdefault(labels, Histogram(METRICS[name].bounds))

    def fold(self) -> None:
        """Keep the histograms' notes short; at every tick."""
        for series in self._histograms.values():
            for histogram in series.values():
                histogram.fold()

    def read(self, gauges: Gauges) -> Reading:
        """Everything as it is now, in the order of the table."""
        reading: Reading = {}
        for name, metric in METRICS.items():
            if metric.kind == "counter":
                reading[name] = dict(self._counters[name].values)
            elif metric.kind == "gauge":
                reading[name] = dict(gauges.get(name, {}))  # some are known to the whole instance only
            else:
                reading[name] = {labels: series.spread() for labels, series in self._histograms[name].items()}
        return reading


def dump(reading: Reading) -> list[list[Any]]:
    """The reading as plain data, which JSON can carry to another process; `load` is the way back."""
    return [
        [name, list(labels), [list(value.counts), value.sum] if isinstance(value, Spread) else value]
        for name, series in reading.items()
        for labels, value in series.items()
    ]


def load(dumped: Sequence[Sequence[Any]]) -> Reading:
    """The reading that was dumped; metrics that this version does not know are left out."""
    reading: Reading = {name: {} for name in METRICS}
    for name, labels, value in dumped:
        if name in reading:
            reading[name][tuple(labels)] = Spread(tuple(value[0]), value[1]) if isinstance(value, list) else value
    return reading


def merge(readings: Iterable[Reading]) -> Reading:
    """The readings of several workers as one, as the table says."""
    merged: Reading = {name: {} for name in METRICS}
    for reading in readings:
        for name, series in reading.items():
            for labels, value in series.items():
                known = merged[name].get(labels)
                merged[name][labels] = value if known is None else _join(METRICS[name].merge, known, value)
    return merged


def _join(how: Merge, one: float | Spread, other: float | Spread) -> float | Spread:
    if isinstance(one, Spread) and isinstance(other, Spread):
        counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
        return Spread(counts, one.sum + other.sum)
    assert not isinstance(one, Spread)
    assert not isinstance(other, Spread)
    match how:
        case "sum":
            return one + other
        case "max":
            return max(one, other)
        case "min":
            return min(one, other)
