"""What exporters get beside calls that ended well: failed calls, time on workers, when a series began, other events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pool_monitor import Monitor, PoolError, telemetry
from pool_monitor.clock import ManualClock
from pool_monitor.config import MonitorConfig, ServiceConfig
from pool_monitor.events import OPERATION_EXCEPTION, OPERATION_STOP
from pool_monitor.export.prometheus import render
from pool_monitor.metrics import Collector
from pool_monitor.metrics.event_counters import COLUMNS, COUNTERS, by_counter
from pool_monitor.metrics.failure_histograms import LIMIT, FailureHistograms
from pool_monitor.metrics.histogram import bucket_of
from pool_monitor.metrics.totals import Totals
from tests.helpers.support import eventually, ops_pool

MS = 1_000_000
START = 1_699_999_980.0
NO_SOCKET = MonitorConfig(service=ServiceConfig(socket=False))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def collector(clock: ManualClock) -> Iterator[Collector]:
    yield from attached(Collector(["p"], clock))


def attached(collector: Collector) -> Iterator[Collector]:
    collector.attach()
    yield collector
    collector.detach()


def stop(operation: str = "work", worker: str = "p-0", pool: str = "p", execution: int = 9 * MS) -> None:
    times = {"duration": 10 * MS, "queue_duration": MS, "execution_duration": execution, "attempts": 1}
    about = {"pool": pool, "operation": operation, "worker": worker, "call_id": 1, "session_kind": "none"}
    telemetry.execute(OPERATION_STOP.name, times, about)


def fail(outcome: str, duration: int, operation: str = "work", worker: str | None = "p-0") -> None:
    about = {"pool": "p", "operation": operation, "outcome": outcome, "error": "ValueError", "call_id": 1}
    about |= {} if worker is None else {"worker": worker}
    telemetry.execute(OPERATION_EXCEPTION.name, {"duration": duration, "queue_duration": MS, "attempts": 1}, about)


def failed(totals: Totals) -> dict[tuple[str, str, str], tuple[int, int]]:
    """How many calls, and their time in ns."""
    found = totals.failures
    return {
        key: (int(counts.sum()), total)
        for key, counts, total in zip(found.keys, found.counts, found.sums.tolist(), strict=True)
    }


def occurred(totals: Totals) -> dict[str, dict[str, int]]:
    """By counter and label, those above 0, of the first pool."""
    assert totals.occurrences is not None
    return {
        counted.name: {value: number for value, number in zip(counted.columns, first, strict=True) if number}
        for counted, (first, *_others) in by_counter(totals.occurrences)
        if any(first)
    }


# -- calls that did not end well --------------------------------------------------------------------------------------


def test_the_durations_of_failed_calls_are_kept_by_outcome_apart_from_the_others(collector: Collector) -> None:
    stop()
    for outcome, duration in (("error", 20), ("error", 40), ("timeout", 1000), ("cancelled", 7), ("worker_lost", 8)):
        fail(outcome, duration * MS)
    fail("rejected", 3 * MS, worker=None)
    totals = collector.totals()
    assert failed(totals) == {
        ("p", "work", "error"): (2, 60 * MS),
        ("p", "work", "timeout"): (1, 1000 * MS),
        ("p", "work", "cancelled"): (1, 7 * MS),
        ("p", "work", "worker_lost"): (1, 8 * MS),
        ("p", "work", "rejected"): (1, 3 * MS),
    }
    of_errors = totals.failures.counts[totals.failures.keys.index(("p", "work", "error"))]
    assert [of_errors[bucket_of(ns)] for ns in (20 * MS, 40 * MS)] == [1, 1]
    assert int(totals.counts[:, 0].sum()) == 1


def test_a_failed_call_that_stands_for_several_counts_as_many(collector: Collector) -> None:
    telemetry.configure(sample={"pool.operation.exception": 3})
    try:
        for _ in range(200):
            fail("error", MS)
        ((calls, total),) = failed(collector.totals()).values()
    finally:
        telemetry.configure()
    assert calls % 3 == 0
    assert total == calls * MS


def test_past_the_limit_failed_calls_are_counted_under_other(clock: ManualClock) -> None:
    collector = Collector(["p"], clock, series_limit=24)
    collector.attach()
    try:
        for number in range(40):
            fail("error", MS, operation=f"op{number}")
            fail("timeout", MS, operation=f"op{number}")
        found, view = failed(collector.totals()), collector.self_view()
    finally:
        collector.detach()
    assert sum(calls for calls, _total in found.values()) == 80
    assert len(found) <= 8 + 5
    assert found["p", "other", "error"][0] > 30
    assert view.memory_bytes <= view.memory_limit_bytes


def test_failed_calls_take_no_more_memory_than_is_set_aside_for_them() -> None:
    store = FailureHistograms(3, 10_000)
    assert store.nbytes == 0
    assert FailureHistograms.most_bytes(3, 10_000) < (LIMIT + 15) * 9000


def test_operations_that_are_given_up_are_given_up_here_too(clock: ManualClock) -> None:
    collector = Collector(["p"], clock, series_limit=24)
    collector.attach()
    try:
        for number in range(6):
            fail("error", MS, operation=f"old{number}")
        assert len(failed(collector.totals())) == 6
        clock.advance(2 * 3600)
        collector.tick()
        for number in range(6):
            fail("error", 2 * MS, operation=f"new{number}")
        found = failed(collector.totals())
    finally:
        collector.detach()
    assert set(found) == {("p", f"new{number}", "error") for number in range(6)}
    assert set(found.values()) == {(1, 2 * MS)}


def test_time_on_workers_is_that_of_all_calls_however_they_ended(collector: Collector) -> None:
    stop(execution=9 * MS)
    fail("error", 51 * MS)  # a millisecond of it in the queue
    totals = collector.totals()
    assert totals.busy is not None
    busy = dict(zip(totals.names.rows, totals.busy.tolist(), strict=True))
    assert busy["p", "work", "p-0"] == 59 * MS
    workers = totals.by_worker()
    assert workers.names.rows == (("p", "", "p-0"),)
    assert workers.busy is not None
    assert workers.busy.tolist() == [59 * MS]


# -- when a series began ----------------------------------------------------------------------------------------------


def test_a_series_began_when_its_first_call_ended(collector: Collector, clock: ManualClock) -> None:
    clock.advance(5)
    stop("early")
    clock.advance(5)
    collector.tick()  # as once a second
    stop("late")
    fail("error", MS, operation="late")
    clock.advance(50)
    stop("early")
    totals = collector.totals()
    assert totals.born is not None
    born = {operation: at for (_pool, operation, _worker), at in zip(totals.names.rows, totals.born, strict=True)}
    assert born["early"] == pytest.approx(START + 5, abs=0.01)
    assert born["late"] == pytest.approx(START + 10, abs=0.01)
    assert born["other"] == totals.since
    assert totals.failures.born.tolist() == pytest.approx([START + 10], abs=0.01)


def test_nothing_began_before_counting_did(collector: Collector, clock: ManualClock) -> None:
    stop()
    clock.advance(60)
    collector.attach()  # anew
    stop()
    totals = collector.totals()
    assert totals.born is not None
    assert min(totals.born) == totals.since == pytest.approx(START + 60, abs=0.01)


# -- other events -----------------------------------------------------------------------------------------------------


def example(counted: Any, value: str, pool: str = "p") -> None:
    """Execute the event as the catalogue says it is."""
    measurements = dict.fromkeys(counted.spec.measurements, 2)
    metadata = {
        key: {"int": 1, "dict": {}}.get(kind.split(":")[0].rstrip("?"), "x")
        for key, kind in counted.spec.metadata.items()
    }
    metadata |= {"pool": pool, **({counted.label: value} if counted.label else {})}
    assert counted.spec.problems(measurements, metadata) == []
    telemetry.execute(counted.spec.name, measurements, metadata)


@pytest.mark.parametrize("counted", COUNTERS, ids=lambda counted: counted.name)
def test_each_counter_counts_its_event_by_what_it_says(counted: Any, collector: Collector) -> None:
    once = 2 if counted.amount else 1
    for value in counted.columns:
        example(counted, value)
    example(counted, counted.columns[0], pool="not ours")
    assert occurred(collector.totals()) == {counted.name: dict.fromkeys(counted.columns, once)}


def test_what_targets_make_up_adds_no_counters(collector: Collector) -> None:
    (lines,) = (counted for counted in COUNTERS if counted.name == "worker_log_lines")
    for number in range(100):
        example(lines, f"level {number}")
    totals = collector.totals()
    assert occurred(totals) == {"worker_log_lines": {"other": 100}}
    assert totals.occurrences is not None
    assert totals.occurrences.shape == (1, COLUMNS)


def test_an_event_that_cannot_be_read_is_left_out_and_counted(collector: Collector) -> None:
    for counted in COUNTERS:
        telemetry.execute(counted.spec.name, {}, {})
    assert occurred(collector.totals()) == {}
    assert collector.self_view().dropped == len(COUNTERS)
    assert collector.collecting


def test_an_event_that_no_snapshot_needs_may_be_denied_without_a_notice(collector: Collector) -> None:
    telemetry.configure(deny=["pool.worker.log", "pool.worker.health_check"])
    try:
        assert collector.self_view().weights == {}
        telemetry.configure(deny=["pool.operation.stop"])
        assert collector.self_view().weights == {"pool.operation.stop": 0}
    finally:
        telemetry.configure()


def test_names_of_counters_are_all_different() -> None:
    assert len({counted.name for counted in COUNTERS}) == len(COUNTERS)


# -- a pool's -----------------------------------------------------------------------------------------------------


async def test_what_happens_to_a_pool_is_on_the_page() -> None:
    async with (
        ops_pool(breaker_failures=0, retry_budget=0.0, recycle_calls=3) as pool,
        Monitor(pool, config=NO_SOCKET) as monitor,
    ):
        async with pool.session("s") as session:
            for _ in range(4):
                await session.run("remember", "x")
        await eventually(lambda: "recycles" in str(occurred(monitor.metrics.totals())))
        with pytest.raises(PoolError):
            await pool.run("fail")
        with pytest.raises(PoolError):
            await pool.options(idempotent=True).run("die")
        found = occurred(monitor.metrics.totals())
        assert found["sessions_started"] == {"": 1}
        assert found["worker_recycles"]["calls"] >= 1
        assert pool.status().retries_refused == 1
        page = render(monitor.snapshot(), monitor.metrics.totals()).decode()
    for line in (
        'pool_monitor_failed_call_latency_seconds_count{pool="ops",operation="fail",outcome="error"} 1',
        'pool_monitor_failed_call_latency_seconds_count{pool="ops",operation="die",outcome="worker_lost"} 1',
        'pool_monitor_retries_refused_total{pool="ops"} 1',
        'pool_monitor_sessions_expired_total{pool="ops",reason="ttl"} 0',
        f'pool_monitor_pool_info{{pool="ops",target="{pool.target}"}} 1',
    ):
        assert line in page
