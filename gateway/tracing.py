"""Spans of calls, for who has asked for them with `GATEWAY_TRACE_URL`; nothing of it is even imported otherwise.

Theory of operation
-------------------
A call is up to three spans of one trace: the call itself on its robot's worker (kind server), each handing over to the
backplane (producer), and the execution on the worker that has the tool server (client). A robot that sends a W3C
`traceparent` in the `_meta` of its call has its trace joined, and the tool server gets that of the execution, so that
its own spans hang below ours (MCP, SEP-414). A `traceparent` that is none begins a new trace, and the `tracestate`
beside it goes no further (W3C Trace Context §3.3); `baggage` and the rest of `_meta` pass as they are.

Between workers the trace travels in the envelope's header. A worker without a tracer passes it on to the tool server.

Names and attributes are those of OpenTelemetry's conventions for MCP, beside our own `mcpgw.*`. Arguments and results
are never among them. A thread of the SDK exports in batches from a queue with a bound: a collector that can't be
reached costs spans, not calls.
"""

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway import __version__
from gateway.calls import Call, Job, call_of
from gateway.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

QUEUE_SPANS = 4096
"""What waits for the exporter; beyond that spans are dropped."""
BATCH_SPANS = 512
EXPORT_PAUSE_SECONDS = 2.0
EXPORT_SECONDS = 5.0
"""For one batch, tries included."""
CLOSE_SECONDS = 0.4
"""A worker's end has half a second to spare for this (`gateway.server`)."""
METHOD = "tools/call"
KEYS = ("traceparent", "tracestate")
NAME_CHARS_MAX = 64
FINE = frozenset({"result", "cancelled", "robot_gone", "unsent", "ok"})
"""Ends that are no error of anybody."""


class TracingUnavailable(Exception):
    """Spans are wanted, and what makes them is not installed; the text says what to do."""


def require(settings: Settings) -> None:
    """Raise TracingUnavailable if spans are wanted and can't be had."""
    if not settings.trace_url:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401 - only whether it can be had
    except ImportError as error:
        raise TracingUnavailable(
            "GATEWAY_TRACE_URL 需要安装 otel 组件：pip install 'xiaozhi-mcp-gateway[otel]' / "
            f"GATEWAY_TRACE_URL needs the extra otel: pip install 'xiaozhi-mcp-gateway[otel]' ({error})"
        ) from error


def make_tracer(settings: Settings, worker_id: str) -> "Tracer | None":
    """The worker's tracer; None unless one is wanted. Raises TracingUnavailable."""
    require(settings)
    return Tracer(_provider(settings, worker_id)) if settings.trace_url else None


def _provider(settings: Settings, worker_id: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    resource = Resource.create(
        {
            "service.name": "xiaozhi-mcp-gateway",
            "service.version": __version__,
            "service.instance.id": worker_id,
        }
    )
    provider = TracerProvider(
        resource=resource, sampler=ParentBasedTraceIdRatio(settings.trace_share), shutdown_on_exit=False
    )
    processor = BatchSpanProcessor(
        OTLPSpanExporter(endpoint=endpoint(settings.trace_url), timeout=EXPORT_SECONDS),
        max_queue_size=QUEUE_SPANS,
        max_export_batch_size=BATCH_SPANS,
        schedule_delay_millis=round(EXPORT_PAUSE_SECONDS * 1000),
    )
    provider.add_span_processor(processor)
    return provider


def endpoint(url: str) -> str:
    """Where spans are posted to: the URL itself, with OTLP's own path where it has none."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1/traces"


class Tracer:
    """Makes one worker's spans."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import context, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._api = trace
        self._tracer = provider.get_tracer("gateway", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._nothing = context.Context()
        """Not the current one: whatever a library has put there is none of a call's business."""
        self._dispatches: dict[Call, Span] = {}

    def begin_call(self, call: Call) -> None:
        attributes = {**_attributes(call.name, call.agent, call.id), "jsonrpc.request.id": str(call.rpc_id)}
        kind = self._api.SpanKind.SERVER
        call.span = self._tracer.start_span(_name(call.name), self._extract(call.params), kind, attributes)

    def end_call(self, call: Call, outcome: str, executed: str, code: int) -> None:
        """End the call's span, and what is still open below it on this worker."""
        if call in self._dispatches:
            self.end_dispatch(call, "unheard")
        if call.job is not None:
            self.end_job(call.job, outcome)
        span, call.span = call.span, None
        if span is None:
            return
        span.set_attributes({"mcpgw.executed": executed, "mcpgw.server_id": call.server_id, "mcpgw.owner": call.worker})
        if code:
            span.set_attribute("rpc.response.status_code", str(code))
        self._end(span, outcome)

    def begin_dispatch(self, call: Call) -> str:
        """The call is handed to the backplane. Returns where its trace has come to, for the other worker."""
        span = self._tracer.start_span(
            "mcpgw dispatch",
            self._below(call.span),
            self._api.SpanKind.PRODUCER,
            {"mcpgw.call": call.id, "mcpgw.attempt": call.ledger_id, "mcpgw.owner": call.worker},
        )
        self._dispatches[call] = span
        return _traceparent(span)

    def end_dispatch(self, call: Call, verdict: str) -> None:
        span = self._dispatches.pop(call, None)
        if span is not None:
            self._end(span, verdict)

    def begin_job(self, job: Job, trace: str) -> str:
        """The job is about to be sent. Returns the `traceparent` for the tool server."""
        above = self._extract(job.params, trace) if job.call is None else self._below(job.call.span)
        attributes = _attributes(job.tool, job.agent, call_of(job.call_id))
        job.span = self._tracer.start_span(_name(job.tool), above, self._api.SpanKind.CLIENT, attributes)
        self._drop_foreign_state(job)
        return _traceparent(job.span)

    def end_job(self, job: Job, outcome: str) -> None:
        """End the job's span, unless that has happened."""
        span, job.span = job.span, None
        if span is not None:
            span.set_attribute("jsonrpc.request.id", str(job.upstream_id))
            self._end(span, outcome)

    async def close(self) -> None:
        """Send what there is, as far as that is possible at once."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)  # an exporter may hang for long
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_SECONDS)

    def _end(self, span: "Span", outcome: str) -> None:
        span.set_attribute("mcpgw.outcome", outcome)
        if outcome not in FINE:
            span.set_attribute("error.type", outcome)
            span.set_status(self._api.StatusCode.ERROR, outcome)
        span.end()

    def _below(self, span: "Span | None") -> "Context | None":
        return None if span is None else self._api.set_span_in_context(span, self._nothing)

    def _extract(self, params: Mapping[str, Any], traceparent: str = "") -> "Context":
        """The context that the peer's `_meta` names, or `traceparent` in its place; an empty one if that is none."""
        meta = params.get("_meta")
        given = {name: meta[name] for name in KEYS if type(meta.get(name)) is str} if type(meta) is dict else {}
        if traceparent:
            given["traceparent"] = traceparent
        return self._propagator.extract(given, self._nothing)

    def _drop_foreign_state(self, job: Job) -> None:
        """A `tracestate` means nothing without the `traceparent` that it came with."""
        meta = job.params.get("_meta")
        if type(meta) is not dict or "tracestate" not in meta:
            return
        came = self._api.get_current_span(self._extract(job.params)).get_span_context()
        if came.trace_id != job.span.get_span_context().trace_id:
            kept = {name: value for name, value in meta.items() if name != "tracestate"}
            job.params = {**job.params, "_meta": kept}


def _traceparent(span: "Span") -> str:
    of = span.get_span_context()
    return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"


def _name(tool: str) -> str:
    return f"{METHOD} {tool[:NAME_CHARS_MAX]}"


def _attributes(tool: str, agent: str, call: str) -> dict[str, str]:
    return {
        "mcp.method.name": METHOD,
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool[:NAME_CHARS_MAX],
        "network.transport": "tcp",
        "network.protocol.name": "websocket",
        "mcpgw.agent": agent,
        "mcpgw.call": call,
    }
