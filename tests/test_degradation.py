"""A monitor that is short of memory keeps less, says so, returns by itself, and never hurts the pool."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor import Monitor, telemetry
from pool_monitor.clock import ManualClock
from pool_monitor.config import MetricsConfig, MonitorConfig, ServiceConfig
from pool_monitor.errors import ConfigError
from pool_monitor.events import MONITOR_DEGRADE, MONITOR_SELF, OPERATION_STOP
from pool_monitor.metrics import WINDOWS, Collector, Mode
from pool_monitor.metrics.fold import code_of, fold
from pool_monitor.metrics.ladder import ONE_IN
from tests.helpers.support import ops_pool
from tests.test_monitor import Gauges

ROWS, LIMIT = 300, 9_000_000
FULL_MINUTE = 1_699_999_980.0
QUIET = {"service": ServiceConfig(socket=False)}


class Load:
    """Calls of many operations whose durations spread over *spread*: from a microsecond to a quarter of an hour."""

    def __init__(self, pool: str = "p", operations: int = 250, spread: tuple[float, float] = (1e3, 1e12)) -> None:
        self._rng, self._pool, self._operations = np.random.default_rng(7), pool, operations
        self._spread = np.log(spread)
        self.counted = self.missed = 0

    def second(self, calls: int) -> None:
        spread = self._rng.uniform(*self._spread, calls)
        for number, duration in enumerate(np.exp(spread).astype(int).tolist()):
            series = OPERATION_STOP.event.series
            if series is None:
                self.missed += 1
            else:
                self.counted += 1
                series[self._pool, f"op{number % self._operations}", "p-0", "none"](duration, 1000, duration)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(FULL_MINUTE)


@pytest.fixture
def collector(clock: ManualClock) -> Iterator[Collector]:
    collector = Collector(["p"], clock, series_limit=ROWS * 3, memory_limit=LIMIT)
    collector.attach()
    yield collector
    collector.detach()


def test_an_overload_walks_down_to_off_and_back_and_no_count_is_wrong(collector: Collector, clock: ManualClock) -> None:
    load, changes = Load(), []
    collector.memory.listener = lambda before, mode, why: changes.append((before, mode, why))
    for second in range(150):
        if second < 12:
            load.second(2000)
        clock.advance(1)
        collector.tick()
        assert collector.memory_bytes() <= LIMIT
        assert collector.collecting == (collector.memory.mode is not Mode.OFF)
        if second < 12 or second % 10 == 0:
            assert int(collector.totals().outcomes.sum()) == load.counted
    modes = [mode for _before, mode, _why in changes]
    assert modes[:3] == [Mode.SAMPLED, Mode.COUNTERS, Mode.OFF]
    assert modes[-3:] == [Mode.COUNTERS, Mode.SAMPLED, Mode.FULL]
    assert all("MiB" in why or "no room" in why for _before, _mode, why in changes)
    view = collector.self_view()
    assert (view.mode, view.collecting, load.missed > 0) == ("full", True, True)
    assert view.off_seconds >= 30
    assert view.reduced_age is not None
    assert 0 < view.reduced_age < 150
    load.second(100)
    assert collector.pool_stats("p", WINDOWS["1m"]).total.calls == 100


def test_a_load_within_the_budget_never_leaves_the_mode_full(clock: ManualClock) -> None:
    collector, load = Collector(["p"], clock), Load(operations=20)
    collector.attach()
    for _ in range(200):
        load.second(400)
        clock.advance(1)
        collector.tick()
    view = collector.self_view()
    assert (view.mode, view.reduced_age, view.off_seconds) == ("full", None, 0.0)
    collector.detach()


def test_a_burst_of_half_a_minute_does_not_count_as_an_hour_of_it(clock: ManualClock) -> None:
    load, limit = Load(operations=100, spread=(1e6, 1e9)), 16_000_000
    collector = Collector(["p"], clock, memory_limit=limit)
    collector.attach()
    for second in range(90):
        if 30 <= second < 60:
            load.second(2000)
        clock.advance(1)
        collector.tick()
        if second == 59:
            windows = collector._stores.windows
            step = windows[WINDOWS["1m"]].block_bytes / 30
            assert step * sum(window.steps for window in WINDOWS.values()) > windows.room_for_steps
    assert collector.self_view().mode == "full"
    collector.detach()


def test_while_off_nothing_counts_as_measured(collector: Collector, clock: ManualClock) -> None:
    load, seconds = Load(), 0
    measured: list[int] = []
    collector.on_second(lambda _start, block, *_: measured.append(int(block.tallies.sum())))
    while collector.memory.mode is not Mode.OFF:
        load.second(3000)
        clock.advance(1)
        collector.tick()
        seconds += 1
        assert seconds < 60
    before = len(measured)
    clock.advance(20)
    collector.tick()
    stats = collector.pool_stats("p", WINDOWS["5m"])
    assert (stats.covered_seconds, stats.total.calls, stats.total.rate) == (0.0, 0, None)
    assert len(measured) == before
    assert collector.totals().outcomes.sum() == load.counted
    while collector.memory.mode is Mode.OFF:
        clock.advance(1)
        collector.tick()
    clock.advance(5)
    assert collector.pool_stats("p", WINDOWS["5m"]).covered_seconds == pytest.approx(5, abs=1)


def test_what_is_held_elsewhere_takes_room_from_the_windows_but_not_all_of_it(clock: ManualClock) -> None:
    collector, load = Collector(["p"], clock, series_limit=ROWS * 3, memory_limit=LIMIT), Load(operations=20)
    collector.attach()
    collector.memory.hold_elsewhere(10**12)
    for _ in range(30):
        load.second(200)
        clock.advance(1)
        collector.tick()
        assert collector.memory_bytes() < LIMIT
    view = collector.self_view()
    assert view.memory_bytes == collector.memory_bytes() + 10**12
    assert collector.pool_stats("p", WINDOWS["5m"]).total.calls == 30 * 200
    collector.detach()


def test_a_memory_limit_that_is_too_low_is_refused_with_one_that_is_enough(clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match=r"set memory_limit in \[metrics\] to [\d,]+ or more, or lower series") as no:
        Monitor(Gauges("p"), config=MonitorConfig(metrics=MetricsConfig(memory_limit=2**20)))
    enough = int(str(no.value).partition("to ")[2].partition(" or")[0].replace(",", ""))
    Monitor(Gauges("p"), config=MonitorConfig(metrics=MetricsConfig(memory_limit=enough)))


# -- samples ----------------------------------------------------------------------------------------------------------


@given(
    durations=st.lists(st.tuples(st.integers(0, 4), st.integers(1000, 10**12)), max_size=200),
    one_in=st.integers(1, 20),
    phase=st.integers(0, 19),
)
@settings(deadline=None)
def test_a_sample_stands_for_every_duration(durations: list[tuple[int, int]], one_in: int, phase: int) -> None:
    records: list[int] = []
    for row, duration in durations:
        records += (code_of(row), duration, 0, duration)
    pools = np.zeros(5, np.intp)
    exact, sampled = fold(records, pools, 1), fold(records, pools, 1, one_in=one_in, phase=phase)
    for field in ("tallies", "maxima", "pool_sums"):
        assert (getattr(exact, field) == getattr(sampled, field)).all()
    assert (exact.events, exact.clamped, exact.dropped) == (sampled.events, sampled.clamped, sampled.dropped)
    weights = np.broadcast_to(sampled.weight, sampled.keys.shape)
    count = lambda batch, weight: np.bincount(batch.keys >> 10, weight, minlength=15).tolist()  # noqa: E731
    assert count(sampled, weights) == count(exact, np.ones(len(exact.keys)))
    assert set(sampled.keys.tolist()) <= set(exact.keys.tolist())
    assert len(sampled.keys) <= len(durations) * 3 / one_in + 15


def test_percentiles_of_a_sample_are_near_those_of_all_durations() -> None:
    rng = np.random.default_rng(3)
    durations = rng.lognormal(17, 1, 40_000).astype(int)
    records = [number for each in durations.tolist() for number in (code_of(0), each, 0, each)]
    sampled = fold(records, np.zeros(1, np.intp), 1, one_in=ONE_IN, phase=5)
    histogram = np.bincount(
        sampled.keys[sampled.keys < 1024],
        np.broadcast_to(sampled.weight, sampled.keys.shape)[sampled.keys < 1024],
        minlength=1024,
    )
    exact = fold(records, np.zeros(1, np.intp), 1)
    of_all = np.bincount(exact.keys[exact.keys < 1024], minlength=1024)
    for share in (0.5, 0.9, 0.99):
        place = [int(np.searchsorted(np.cumsum(counts), share * len(durations))) for counts in (histogram, of_all)]
        assert abs(place[0] - place[1]) <= 6  # buckets of 2.2 %: the standard error of p99 of 2,500 durations is 6 %


def test_without_durations_the_counts_are_exact_and_the_rest_is_empty() -> None:
    records = [*(code_of(0), 10**6, 0, 10**6) * 50, *(code_of(0, "error"), 10**6, 0, 10**6) * 5]
    batch, exact = (fold(records, np.zeros(1, np.intp), 1, one_in=one_in) for one_in in (0, 1))
    assert (batch.tallies[:, :6] == exact.tallies[:, :6]).all()
    assert (batch.pool_sums == exact.pool_sums).all()
    assert (len(batch.keys), batch.maxima.sum(), batch.unsuccessful) == (0, 0, None)
    assert batch.tallies[0, 9] == exact.tallies[0, 9]  # the time on the worker


def test_a_window_that_begins_in_counters_and_ends_in_full_has_the_mean_of_what_was_recorded(collector, clock) -> None:
    def calls(number: int, duration: int) -> None:
        for _ in range(number):
            series = OPERATION_STOP.event.series
            assert series is not None
            series["p", "op", "p-0", "none"](duration, 0, duration)

    calls(10, 10**9)
    collector.memory._change(Mode.SAMPLED, "test")
    collector.memory._change(Mode.COUNTERS, "test")
    calls(1000, 5 * 10**9)
    total = collector.pool_stats("p", WINDOWS["1m"]).total
    assert (total.calls, total.ok, total.latency.count) == (1010, 1010, 10)
    assert (total.latency.mean, total.latency.max) == (1.0, 1.0)
    collector.memory._change(Mode.SAMPLED, "test")
    calls(160, 10**9)
    total = collector.pool_stats("p", WINDOWS["1m"]).total
    assert (total.calls, total.latency.count, total.latency.mean) == (1170, 170, 1.0)


# -- figures ----------------------------------------------------------------------------------------------------------


def test_the_lag_is_the_time_from_a_call_to_its_being_counted(collector: Collector, clock: ManualClock) -> None:
    load = Load(operations=3)
    assert collector.self_view().lag is None
    load.second(5)
    clock.advance(0.25)
    view = collector.self_view()
    assert (view.buffered, view.lag, view.lag_median) == (5, 0.25, 0.25)
    load.second(5)
    clock.advance(0.75)
    view = collector.self_view()
    assert (view.buffered, view.lag, view.lag_median) == (5, 0.75, 0.5)
    clock.advance(10.5)
    assert collector.self_view().lag is None


def test_the_memory_that_is_told_is_near_what_the_process_takes(clock: ManualClock) -> None:
    """Within 40 %: arrays that are reserved and not touched take none, and the estimates per block are upper ones."""
    tracemalloc.start()
    try:
        collector, load = Collector(["p"], clock, memory_limit=24_000_000), Load(operations=100)
        collector.attach()
        before, told = tracemalloc.get_traced_memory()[0], collector.memory_bytes()
        for _ in range(70):
            load.second(300)
            clock.advance(1)
            collector.tick()
        grown = tracemalloc.get_traced_memory()[0] - before
        held = sum(store.block_bytes for store in collector._stores.windows.stores())
        shared = {id(block): block.nbytes for store in collector._stores.windows.stores() for block in store.blocks()}
        assert collector.memory_bytes() > told
        assert sum(shared.values()) < grown < held * 1.4
        collector.detach()
    finally:
        tracemalloc.stop()


# -- in a monitor -----------------------------------------------------------------------------------------------------


def small_monitor(pools: Any, clock: ManualClock | None = None) -> Monitor:
    metrics = MetricsConfig(series_limit=ROWS * 3, memory_limit=LIMIT)
    return Monitor(pools, config=MonitorConfig(metrics=metrics, **QUIET), clock=clock)


async def test_each_step_is_an_event_and_the_snapshot_says_what_is_kept(clock: ManualClock, monkeypatch) -> None:
    load = Load("other")
    monitor = small_monitor(Gauges(), clock)
    monkeypatch.setattr(monitor._collector, "until_tick", lambda: 3600.0)
    with telemetry.capture(("monitor",)) as events:
        async with monitor:
            for second in range(150):
                if second < 12:
                    load.second(2000)
                clock.advance(1)
                await monitor._collect()
                if second > 12 and second % 10:
                    continue
                snapshot = monitor.snapshot()
                assert snapshot.monitor.degraded.keys() == (set() if snapshot.monitor.mode == "full" else {"collector"})
                assert monitor.readiness().mode == snapshot.monitor.mode
                assert monitor.readiness().ready
    steps = [event for event in events if event.name == MONITOR_DEGRADE.name and event.metadata["part"] == "collector"]
    modes = [event.metadata["mode"] for event in steps]
    assert modes[:3] == ["sampled", "counters", "off"]
    assert modes[-3:] == ["counters", "sampled", "full"]
    assert {event.metadata["state"] for event in steps[:-1]} == {"degraded"}
    assert steps[-1].metadata["state"] == "recovered"
    told = [event for event in events if event.name == MONITOR_SELF.name]
    assert len(told) == 150
    assert {event.metadata["mode"] for event in told} == {"full", "sampled", "counters", "off"}
    for event in events:
        spec = MONITOR_SELF if event.name == MONITOR_SELF.name else MONITOR_DEGRADE
        assert spec.problems(*event[1:]) == []


async def test_handlers_and_stores_that_fail_cost_the_pool_nothing(monkeypatch) -> None:
    """Every handler of the collector raises, and so does every handler of the monitor's own events."""

    def broken(*_args: Any, **_more: Any) -> Any:
        raise RuntimeError("broken")

    async with ops_pool(name="ops", size=1) as pool:
        monitor = Monitor(pool, config=MonitorConfig(**QUIET))
        monkeypatch.setattr(monitor._collector, "until_tick", lambda: 0.005)
        for name in ("_count", "_batch"):
            monkeypatch.setattr(monitor._collector._intake, name, broken)
        monkeypatch.setattr(monitor._collector._stores.__class__, "nbytes", property(broken))
        telemetry.attach("broken self", MONITOR_SELF.name, broken)
        telemetry.attach("broken degrade", MONITOR_DEGRADE.name, broken)
        async with monitor:
            assert [await pool.run("echo", number) for number in range(50)] == list(range(50))
            monitor._report("degraded", "otlp", "test")
            await asyncio.sleep(0.03)
            assert [await pool.run("echo", number) for number in range(50)] == list(range(50))
        assert pool.status().completed == 100


async def test_a_monitor_measures_its_own_processor_time(monkeypatch) -> None:
    """A process that does nothing but make Snapshots and tick: the share told is within 25 % of the process's own."""
    monitor = Monitor([Gauges(f"g{number}") for number in range(20)], config=MonitorConfig(**QUIET))
    monkeypatch.setattr(monitor._collector, "until_tick", lambda: 0.0)
    async with monitor:
        monitor.work.turn()
        began, began_cpu = time.monotonic(), time.thread_time()
        while time.monotonic() - began < 0.4:
            with monitor.work.measure("tick"):
                pass
            monitor.snapshot()
        spent = time.thread_time() - began_cpu
        told_before = monitor.work._cpu_s
        assert monitor.snapshot().monitor.snapshot_seconds
    assert told_before == pytest.approx(spent, rel=0.25)
    assert monitor.work.cpu_ratio is not None


async def test_a_tick_tells_how_long_it_took_and_how_late_it_was() -> None:
    async with Monitor(Gauges(), config=MonitorConfig(**QUIET)) as monitor:
        assert await monitor.ticked()
        assert await monitor.ticked()
        view = monitor.snapshot().monitor
        assert all(number is not None for number in (view.tick_seconds, view.tick_late, view.cpu_ratio))
        assert min(view.tick_seconds, view.cpu_ratio) > 0
