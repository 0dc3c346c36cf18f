"""Counters, histograms and their table: what is counted, how it is read, and how several workers become one."""

from collections.abc import Iterator
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.counting import OTHER, Counter, Histogram, Metric, Peak, Spread
from gateway.errors import Executed, Failure
from gateway.meters import ENDS, METRICS, Meters, Reading, dump, load, merge
from gateway.trail import EXECUTED

COUNTERS = [name for name, metric in METRICS.items() if metric.kind == "counter"]
HISTOGRAMS = [name for name, metric in METRICS.items() if metric.kind == "histogram"]


def test_names_say_what_they_are() -> None:
    """The conventions of Prometheus, as promtool checks them."""
    for name, metric in METRICS.items():
        assert (metric.kind == "counter") == name.endswith("_total"), name
        assert metric.help.endswith("."), name
        assert metric.full_name == f"mcpgw_{name}"


def test_no_label_can_grow_without_bound() -> None:
    assert not {"agent", "server", "server_id", "tool", "conn", "worker"} & {
        label for metric in METRICS.values() for label in metric.labels
    }
    for name, metric in METRICS.items():
        if name != "build_info":
            assert all(metric.labels.values()), f"{name}: a label without a list of its values"


def test_every_counter_and_histogram_of_the_table_is_kept() -> None:
    reading = Meters().read({})
    assert list(reading) == list(METRICS)
    for name in COUNTERS + HISTOGRAMS:
        assert reading[name], name
        assert all(len(labels) == len(METRICS[name].labels) for labels in reading[name])


@pytest.mark.parametrize("name", COUNTERS)
def test_a_counter_shows_a_zero_before_it_is_first_moved(name: str) -> None:
    meters = Meters()
    assert set(meters.read({})[name].values()) == {0}
    first = next(iter(meters.read({})[name]))
    getattr(meters, name).add(*first)
    assert meters.read({})[name][first] == 1


def test_a_value_that_is_not_in_the_table_is_other_or_a_fault() -> None:
    meters = Meters()
    meters.connections_closed_total.add("robot", "4711")
    assert meters.connections_closed_total.of("robot", OTHER) == 1
    with pytest.raises(KeyError):
        meters.connections_opened_total.add("toaster")
    with pytest.raises(KeyError):
        meters.gaps_total.add("more")


def test_a_pair_that_was_not_foreseen_is_counted_all_the_same() -> None:
    meters = Meters()
    meters.calls_total.add("offline", "unknown", "remote")
    assert meters.calls_total.of("offline") == meters.calls_total.of("offline", "unknown", "remote") == 1


def test_a_series_counts_for_its_counter() -> None:
    meters = Meters()
    meters.calls_total.series("result", "true", "local").count += 3
    meters.calls_total.add("result", "true", "local")
    assert meters.calls_total.of("result") == 4


@given(st.lists(st.floats(0, 20), max_size=50))
def test_a_histogram_puts_each_value_below_its_bound(values: list[float]) -> None:
    histogram = Histogram((1.0, 5.0, 10.0))
    for value in values:
        histogram.observe(value)
    spread = histogram.spread()
    below = [sum(spread.counts[: number + 1]) for number in range(4)]
    assert below == [sum(value <= bound for value in values) for bound in (1.0, 5.0, 10.0, 99.0)]
    assert histogram.count == len(values)
    assert spread.sum == pytest.approx(sum(values))


def test_what_was_observed_is_counted_once_however_often_it_is_looked_at() -> None:
    histogram = Histogram((1.0,))
    for value in (0.5, 2.0):
        histogram.observe(value)
        histogram.fold()
        assert histogram.spread() == histogram.spread()
    assert histogram.spread() == Spread((1, 1), 2.5)


def test_bounds_rise() -> None:
    for name in HISTOGRAMS:
        assert METRICS[name].bounds == tuple(sorted(set(METRICS[name].bounds))) != ()


def test_a_peak_is_forgotten_after_its_time() -> None:
    peak = Peak(30.0)
    peak.note(0.5, now=100.0)
    peak.note(0.2, now=110.0)
    assert [peak.value(now) for now in (100.0, 124.9, 136.0, 145.0)] == [0.5, 0.5, 0.2, 0.0]


def a_reading(**gauges: float) -> Reading:
    meters = Meters()
    meters.gaps_total.add()
    meters.calls_total.add("result", "true", "local")
    meters.local_call_seconds.observe(0.003)
    return meters.read({name: {(): value} for name, value in gauges.items()})


def test_a_reading_survives_the_way_to_another_process() -> None:
    reading = a_reading(ready=1.0, agents=3)
    assert load(orjson.loads(orjson.dumps(dump(reading)))) == reading


def test_a_metric_of_another_version_is_left_out() -> None:
    assert load([["of_tomorrow", [], 1]]) == {name: {} for name in METRICS}


def test_several_workers_become_one_as_the_table_says() -> None:
    one = a_reading(ready=1.0, agents=3, lease_age_seconds=0.5, redis_connected=1.0)
    other = a_reading(ready=0.0, agents=4, lease_age_seconds=7.5, redis_connected=0.0)
    merged = merge([one, other])
    told = {name: merged[name][()] for name in ("ready", "agents", "lease_age_seconds", "redis_connected")}
    assert told == {"ready": 0.0, "agents": 7, "lease_age_seconds": 7.5, "redis_connected": 0.0}
    assert merged["gaps_total"][()] == 2
    assert merged["calls_total"]["result", "true", "local"] == 2
    spread = merged["call_seconds"]["local",]
    assert isinstance(spread, Spread)
    assert sum(spread.counts) == 2
    assert spread.sum == pytest.approx(0.006)


def failures() -> Iterator[Failure]:
    """One of each that the table of errors can make."""
    given: dict[str, Any] = {"zh": "", "en": "", "seconds": 1.0, "retry_after_seconds": 1.0, "executed": False}
    for name, make in vars(errors).items():
        if callable(make) and getattr(make, "__annotations__", {}).get("return") is Failure:
            arguments = {key: given.get(key, "x") for key in make.__annotations__ if key != "return"}
            yield make(**arguments) if "executed" not in arguments or name != "internal_error" else make(False)


def test_every_error_about_a_call_has_an_outcome_that_is_counted() -> None:
    told = [failure for failure in failures() if failure.executed is not None]
    assert len(told) > 15
    for failure in told:
        assert failure.executed is not None
        assert EXECUTED[failure.executed] in ENDS[failure.outcome], failure


def test_what_is_known_of_an_execution_has_a_word_each() -> None:
    assert set(EXECUTED) == set(get_args(Executed))
    assert set(EXECUTED.values()) == set(METRICS["calls_total"].labels["executed"])


def test_a_counter_of_one_series_needs_no_labels() -> None:
    counter = Counter(Metric("x_total", "counter", "X."))
    counter.add()
    assert counter.values == {(): 1}
