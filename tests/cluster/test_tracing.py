"""Calls as spans: one trace from the robot over both workers to the tool server; and nothing of it where it is off."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway import tracing
from gateway.backplane.memory import MemoryBackplane, MemoryStore
from gateway.settings import Settings
from gateway.trail import Trail
from tests.cluster.inside import id_of, worker_of
from tests.conftest import StartCluster
from tests.peers.tools import answering, echo, failing, held, text_of
from tests.support.gateway import Gateway
from tests.support.waiting import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
on_memory = pytest.mark.parametrize("cluster", ["memory"], indirect=True)


class Collector:
    """A receiver of spans, as far as OTLP over HTTP needs one."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = dict(line.lower().split(": ", 1) for line in head.decode().splitlines()[1:] if line)
                body = await reader.readexactly(int(lines["content-length"]))
                self._take(ExportTraceServiceRequest.FromString(body))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for of_resource in request.resource_spans:
            self.services |= {value for key, value in _read(of_resource.resource).items() if key.startswith("service")}
            for of_scope in of_resource.scope_spans:
                self.spans += of_scope.spans

    async def until(self, count: int, *workers: Gateway) -> list[Span]:
        """So many spans, once the workers have sent them; in the order in which they began."""
        for worker in workers:
            provider = worker_of(worker)._tracer._provider
            await asyncio.to_thread(provider.force_flush, 5000)
        await wait_until(lambda: len(self.spans) >= count, f"{count} spans came")
        assert len(self.spans) == count, [span.name for span in self.spans]
        return sorted(self.spans, key=lambda span: span.start_time_unix_nano)


def _read(owner: Any) -> dict[str, str]:
    return {item.key: item.value.string_value for item in owner.attributes}


@pytest.fixture
async def collector() -> AsyncGenerator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.answer, "127.0.0.1", 0)
    collector.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield collector
    server.close()


async def test_a_call_over_two_workers_is_one_trace(cluster: StartCluster, collector: Collector) -> None:
    a, b = await cluster(2, trace_url=collector.url)
    server = await b.tool_server("lamp", [echo()])
    robot = await a.robot()
    await robot.sees("echo")
    meta = {"traceparent": SAMPLED, "tracestate": "vendor=1", "baggage": "key=value"}
    assert text_of(await robot.call("echo", {"text": "the cellar"}, _meta=meta, id="sum")) == "the cellar"
    call, dispatch, run = await collector.until(3, a, b)

    assert {span.trace_id.hex() for span in (call, dispatch, run)} == {TRACE}
    assert call.parent_span_id.hex() == PARENT
    assert (dispatch.parent_span_id, run.parent_span_id) == (call.span_id, dispatch.span_id)
    kinds = (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CLIENT)
    assert (call.kind, dispatch.kind, run.kind) == kinds
    assert [span.name for span in (call, run)] == ["tools/call echo"] * 2

    got = server.calls[0].params["_meta"]
    assert got["traceparent"] == f"00-{TRACE}-{run.span_id.hex()}-01"
    assert (got["tracestate"], got["baggage"]) == ("vendor=1", "key=value")

    told = _read(call)
    assert told["mcp.method.name"] == "tools/call"
    assert (told["gen_ai.operation.name"], told["gen_ai.tool.name"]) == ("execute_tool", "echo")
    assert told["jsonrpc.request.id"] == "sum"
    assert (told["mcpgw.outcome"], told["mcpgw.owner"], told["mcpgw.agent"]) == ("result", id_of(b), "home")
    assert told["mcpgw.call"] == _read(run)["mcpgw.call"] == _read(dispatch)["mcpgw.attempt"]
    assert collector.services >= {id_of(a), id_of(b), "xiaozhi-mcp-gateway"}
    assert not any("cellar" in str(span) for span in collector.spans)


@on_memory
async def test_a_call_within_one_worker_is_two_spans_and_its_errors_are_told(
    cluster: StartCluster, collector: Collector
) -> None:
    (a,) = await cluster(1, trace_url=collector.url)
    tools = [failing("broken", -32000, "no"), answering("wrong", {"isError": True, "content": []}), held("slow")]
    server, robot = await a.tool_server(tools=tools), await a.robot()
    await robot.sees("broken", "wrong", "slow")
    for name in ("broken", "wrong", "nothing"):
        await robot.call(name)
    await robot.start_call("slow", id="given up")
    await server.until_called(3)
    await robot.cancel("given up")
    await robot.ping()
    spans = await collector.until(7, a)
    servers = [_read(span) for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert [(told["mcpgw.outcome"], told.get("error.type")) for told in servers] == [
        ("rpc_error", "rpc_error"),
        ("tool_error", "tool_error"),
        ("unknown_tool", "unknown_tool"),
        ("cancelled", None),
    ]
    assert servers[2]["rpc.response.status_code"] == "-32602"
    assert [span.status.code for span in spans if span.kind == Span.SPAN_KIND_SERVER] == [2, 2, 2, 0]
    assert len({span.trace_id for span in spans}) == 4, "each call without a parent is a trace of its own"


@on_memory
@pytest.mark.parametrize("traceparent", ["00-1-2-01", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "", 7])
async def test_a_traceparent_that_is_none_begins_a_new_trace(
    cluster: StartCluster, collector: Collector, traceparent: Any
) -> None:
    """What came beside it goes no further (W3C Trace Context)."""
    (a,) = await cluster(1, trace_url=collector.url)
    server, robot = await a.tool_server(), await a.robot()
    await robot.sees("echo")
    await robot.call("echo", _meta={"traceparent": traceparent, "tracestate": "vendor=1", "kept": True})
    call, run = await collector.until(2, a)
    got = server.calls[0].params["_meta"]
    assert call.parent_span_id == b""
    assert got["traceparent"].startswith(f"00-{call.trace_id.hex()}-{run.span_id.hex()}-0")
    assert "tracestate" not in got
    assert got["kept"] is True


@on_memory
async def test_a_robot_that_does_not_sample_is_not_traced_and_its_trace_goes_on(
    cluster: StartCluster, collector: Collector
) -> None:
    a, b = await cluster(2, trace_url=collector.url, trace_share=1.0)
    server = await b.tool_server()
    robot = await a.robot()
    await robot.sees("echo")
    await robot.call("echo", _meta={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await robot.call("echo")
    spans = await collector.until(3, a, b)
    assert TRACE not in {span.trace_id.hex() for span in spans}
    version, trace, _, flags = server.calls[0].params["_meta"]["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")


@on_memory
async def test_how_many_calls_without_a_parent_are_traced_is_a_setting(
    cluster: StartCluster, collector: Collector
) -> None:
    (a,) = await cluster(1, trace_url=collector.url, trace_share=0.0)
    await a.tool_server()
    robot = await a.robot()
    await robot.sees("echo")
    await robot.call("echo")
    await robot.call("echo", _meta={"traceparent": SAMPLED})
    call, _ = await collector.until(2, a)
    assert call.trace_id.hex() == TRACE


@on_memory
async def test_a_worker_without_a_tracer_passes_the_trace_on(cluster: StartCluster, collector: Collector) -> None:
    a, b = await cluster(1, trace_url=collector.url) + await cluster(1)
    server = await b.tool_server()
    robot = await a.robot()
    await robot.sees("echo")
    await robot.call("echo", _meta={"traceparent": SAMPLED})
    _, dispatch = await collector.until(2, a)
    assert server.calls[0].params["_meta"]["traceparent"] == f"00-{TRACE}-{dispatch.span_id.hex()}-01"


@on_memory
async def test_a_collector_that_is_away_costs_no_call(cluster: StartCluster) -> None:
    (a,) = await cluster(1, trace_url="http://127.0.0.1:1")
    await a.tool_server()
    robot = await a.robot()
    await robot.sees("echo")
    for number in range(20):
        assert text_of(await robot.call("echo", {"text": str(number)})) == str(number)


async def test_without_a_url_a_traceparent_passes_untouched(gateway: Gateway) -> None:
    server, robot = await gateway.tool_server(), await gateway.robot()
    await robot.sees("echo")
    meta = {"traceparent": "00-1-2-01", "tracestate": "vendor=1"}
    await robot.call("echo", _meta=meta)
    got = server.calls[0].params["_meta"]
    assert {name: got[name] for name in meta} == meta


def test_without_a_url_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, gateway.app, gateway.tracing as t; from gateway.settings import Settings\n"
        "assert t.make_tracer(Settings(), 'w') is None\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 0


def test_a_missing_extra_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(tracing.TracingUnavailable, match=r"xiaozhi-mcp-gateway\[otel\]"):
        tracing.make_tracer(Settings(trace_url="http://127.0.0.1:1"), "w")


def test_without_a_tracer_a_call_carries_no_span() -> None:
    backplane = MemoryBackplane(MemoryStore(), "w")
    assert Trail(Settings(), backplane)._tracer is None


@pytest.mark.parametrize(
    ("url", "posted_to"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_spans_are_posted_to_otlps_own_path_unless_another_is_given(url: str, posted_to: str) -> None:
    assert tracing.endpoint(url) == posted_to
