"""What was measured, as Prometheus reads it: text, in the format that the scraper asks for.

The numbers are those of `gateway.meters`, with what prometheus-client knows of a process (`process_*`, `python_gc_*`).
Of several processes those of a process stay apart, by a label `slot`: a sum of start times tells nobody anything, and a
limit on open files is one of each process. No worker process is named by anything that changes at its restart.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from gateway.counting import Labels, Spread
from gateway.meters import METRICS, Reading

ProcessFacts: TypeAlias = list[list[Any]]
"""Families of one process as plain data: name, kind, help, samples (name, labels, value)."""

_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_NO_LIMIT_BYTES = 2**60  # what the older of the two files says without one


class Exposition:
    """Prometheus text. One for each process: it knows the numbers of this very one."""

    def __init__(self) -> None:
        self._own = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._own)
        GCCollector(registry=self._own)

    def process(self) -> ProcessFacts:
        """The numbers of this process, as plain data, which JSON can carry to another one."""
        return [
            [family.name, family.type, family.documentation, [list(sample[:3]) for sample in family.samples]]
            for family in self._own.collect()
        ]

    def text(self, reading: Reading, processes: Mapping[str, ProcessFacts], accept: str) -> tuple[bytes, str]:
        """The text and its content type. `processes`: slot → numbers; the slot "" stands for the only one there is."""
        families = _Families(
            [*_measured({**reading, "memory_limit_bytes": {**memory_limit_bytes()}}), *_processes(processes)]
        )
        if _takes_openmetrics(accept):
            text: bytes = openmetrics.generate_latest(families)  # type: ignore[no-untyped-call]  # it has no types
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(families), CONTENT_TYPE_PLAIN_0_0_4


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _takes_openmetrics(accept: str) -> bool:
    """Whether the scraper reads it in a version that is written here; else the older text, which everybody reads."""
    for offer in accept.split(","):
        kind, *parameters = (part.strip().replace(" ", "") for part in offer.split(";"))
        if kind == "application/openmetrics-text" and "version=0.0.1" not in parameters and "q=0" not in parameters:
            return True
    return False


def memory_limit_bytes(files: Iterable[Path] = _LIMIT_FILES) -> dict[Labels, float]:
    """What this process' container may use, as a gauge; empty where there is no limit, or nobody says one."""
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < _NO_LIMIT_BYTES:
            return {(): float(text)}
    return {}


def _measured(reading: Reading) -> Iterable[Metric]:
    for name, metric in METRICS.items():
        if not reading.get(name):
            continue
        of: tuple[str, str, list[str]] = (metric.full_name, metric.help, list(metric.labels))
        match metric.kind:
            case "counter":
                yield _filled(CounterMetricFamily(*of[:2], labels=of[2]), reading[name])
            case "gauge":
                yield _filled(GaugeMetricFamily(*of[:2], labels=of[2]), reading[name])
            case "histogram":
                yield _spread(HistogramMetricFamily(*of[:2], labels=of[2]), reading[name], metric.bounds)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, series: Mapping[Labels, float | Spread]
) -> CounterMetricFamily | GaugeMetricFamily:
    for labels, value in series.items():
        assert not isinstance(value, Spread)
        family.add_metric(labels, value)
    return family


def _spread(
    family: HistogramMetricFamily, series: Mapping[Labels, float | Spread], bounds: tuple[float, ...]
) -> HistogramMetricFamily:
    bucket_names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    for labels, value in series.items():
        assert isinstance(value, Spread)
        buckets, total = [], 0
        for name, count in zip(bucket_names, value.counts, strict=True):
            total += count
            buckets.append((name, total))
        family.add_metric(labels, buckets, value.sum)
    return family


def _processes(processes: Mapping[str, ProcessFacts]) -> Iterable[Metric]:
    families: dict[str, Metric] = {}
    for slot, facts in processes.items():
        for name, kind, text, samples in facts:
            family = families.setdefault(name, Metric(name, text, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "slot": slot} if slot else labels, value)
    return families.values()
