"""The latest readings of resources: checked, never older than three samples, and bounded."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as read_text

from pool_monitor import ConfigError, Monitor, telemetry
from pool_monitor.clock import ManualClock
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.errors import UnknownName
from pool_monitor.events import (
    LOOP_LAG,
    LOOP_RESUME,
    MONITOR_DEGRADE,
    RESOURCE_GPU,
    RESOURCE_HOST,
    RESOURCE_LIMIT,
    RESOURCE_LOOP,
    RESOURCE_PROCESS,
    RESOURCE_WORKER,
)
from pool_monitor.metrics import Collector, LiveMetrics
from pool_monitor.metrics.open_faults import LIMIT as FAULTS_MAX
from pool_monitor.metrics.resource_readings import GAUGE_BYTES, GPUS_MAX, LAGS_MAX, STACK_MAX
from pool_monitor.metrics.window import parse_window
from pool_monitor.metrics.worker_readings import LIMIT as WORKERS_MAX
from pool_monitor.service import client
from pool_monitor.snapshot import ResourceView, Snapshot, WorkerView
from tests.helpers import samples
from tests.helpers.support import eventually, ops_pool

SECOND = 10**9
RESOURCE_EVENTS = (
    RESOURCE_HOST, RESOURCE_PROCESS, RESOURCE_WORKER, RESOURCE_GPU, RESOURCE_LOOP, LOOP_RESUME, LOOP_LAG,
    RESOURCE_LIMIT,
)  # fmt: skip


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def collector(clock: ManualClock) -> Iterator[Collector]:
    made = Collector(["p"], clock)
    made.attach()
    yield made
    made.detach()


def view(collector: Collector, window: str = "1m") -> ResourceView:
    return collector.readings.view(parse_window(window))


def host(interval: int = SECOND, **measurements: Any) -> None:
    RESOURCE_HOST.event.emit({"interval": interval, **measurements}, {"missing": {}, "disk_path": "/"})


def slot(number: int = 0, pid: int | None = 11, **fields: Any) -> WorkerView:
    known: dict[str, Any] = {"state": "ready", "state_age": 1.0, "age": 1.0, "restarts": 0, "operation": None}
    return WorkerView(id=f"p-{number}", pid=pid, **{**known, **fields})


def reading(number: int = 0, pid: int = 11, letter: str = "S", pool: str = "p", **measurements: Any) -> None:
    metadata = {"pool": pool, "worker": f"p-{number}", "pid": pid, "missing": {}, "state_letter": letter}
    RESOURCE_WORKER.event.emit({"interval": SECOND, **measurements}, metadata)


def figures(collector: Collector, worker: WorkerView | None = None) -> WorkerView:
    [found] = collector.readings.workers("p", [worker or slot()])
    return found


def blocked(duration: int, state: str = "blocked", stack: str = "") -> None:
    if state == "over":
        LOOP_RESUME.event.emit({"duration": duration}, {})
    else:
        RESOURCE_LOOP.event.emit({"duration": duration}, {"stack": stack})


def fault(state: str = "reached", kind: str = "memory", subject: str = "host", **more: Any) -> None:
    measurements = {"system_time": 1_700_000_000 * SECOND, "value": 0.9, "limit": 0.85}
    about = {"kind": kind, "state": state, "level": "warn", "subject": subject, "reason": "90 % of 85 %"}
    RESOURCE_LIMIT.event.emit({**measurements, **more}, {**about, **more})


# -- the latest reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [SECOND, 5 * SECOND])
def test_a_reading_is_unknown_once_three_samples_were_missed(
    collector: Collector, clock: ManualClock, interval: int
) -> None:
    host(interval, load1=0.5)
    RESOURCE_PROCESS.event.emit({"interval": interval, "rss": 5}, {"missing": {}, "pid": 1})
    clock.advance(3 * interval / SECOND)
    found = view(collector)
    assert (found.host.load1, found.process.rss, found.process.pid) == (0.5, 5, 1)
    clock.advance(0.001)
    found = view(collector)
    assert (found.host.load1, found.process.rss, found.process.pid) == (None, None, None)
    assert found.missing["host"] == found.missing["process"] == "not measured since 2023-11-14 22:13:20 UTC"
    host(interval, load1=0.25)
    assert view(collector).host.load1 == 0.25
    assert "host" not in view(collector).missing


def test_what_was_never_measured_says_so(collector: Collector) -> None:
    assert view(collector).missing == dict.fromkeys(("host", "process", "gpus", "loop"), "not measured yet")
    assert view(collector).sampled_age is None


def test_switched_off_the_reason_is_the_setting_and_workers_keep_their_own_report(clock: ManualClock) -> None:
    collector = Collector(["p"], clock, unmeasured="[resources] enabled = false")
    assert set(view(collector).missing.values()) == {"[resources] enabled = false"}
    assert collector.readings.workers("p", [slot(rss=7)]) == [slot(rss=7)]


def test_a_degraded_part_is_the_reason_and_its_open_faults_stay(collector: Collector, clock: ManualClock) -> None:
    host(load1=1.0)
    fault()
    assert len(view(collector).faults) == 1
    about = {"service": "s", "part": "resources", "state": "degraded", "reason": "a sample hangs"}
    MONITOR_DEGRADE.event.emit({"system_time": 0}, about)
    clock.advance(4)
    assert view(collector).missing["host"] == "not measured since 2023-11-14 22:13:20 UTC: a sample hangs"
    assert len(view(collector).faults) == 1  # no other event tells when the part has recovered
    clock.advance(7)
    assert view(collector).faults == ()  # nothing is sampled


def test_what_another_monitor_of_the_process_measures_is_not_shown(collector: Collector, clock: ManualClock) -> None:
    host(load1=1.0)
    fault()
    RESOURCE_LOOP.event.emit({"duration": SECOND}, {"stack": "", "monitor": "another"})
    LOOP_LAG.event.emit({"duration": SECOND}, {"monitor": "another"})
    RESOURCE_HOST.event.emit({"load1": 9.0}, {"missing": {}, "disk_path": "/", "monitor": "another"})
    about = {"service": "s", "part": "resources", "state": "degraded", "reason": "it broke", "monitor": "another"}
    MONITOR_DEGRADE.event.emit({"system_time": 0}, about)
    fault(state="left", monitor="another")
    fault(kind="disk", monitor="another")
    found = view(collector)
    assert [fault.kind for fault in found.faults] == ["memory"]
    assert (found.host.load1, found.loop.blocks, found.loop.lag.count) == (1.0, None, 0)
    clock.advance(4)
    assert "it broke" not in view(collector).missing["host"]
    fault(state="left", monitor=collector.monitor)
    assert view(collector).faults == ()


def test_pressure_and_reasons_reach_the_view(collector: Collector) -> None:
    RESOURCE_HOST.event.emit(
        {"pressure_cpu": 0.5, "pressure_io": 0.0, "memory_total": 1 << 34},
        {"missing": {"shm_free": "no /dev/shm"}, "cgroup": "v2", "disk_path": "/var/\udce9"},
    )
    found = view(collector).host
    assert found.pressure is not None
    assert (found.pressure.cpu, found.pressure.memory, found.pressure.io) == (0.5, None, 0.0)
    assert (found.memory_total, found.cgroup, found.disk_path) == (1 << 34, "v2", "/var/\\udce9")
    assert found.missing == {"shm_free": "no /dev/shm"}


@pytest.mark.parametrize("value", [-1, "5", True, 1 << 63, 5.5, [], math.nan, object()])
def test_a_value_that_cannot_be_bytes_is_left_out_and_counted(collector: Collector, value: Any) -> None:
    host(memory_total=value, memory_used=3)
    assert (view(collector).host.memory_total, view(collector).host.memory_used) == (None, 3)
    assert collector.self_view().dropped == 1


@pytest.mark.parametrize("interval", [0, -5, 1.5, "1", 10**15])
def test_an_impossible_interval_counts_as_a_second(collector: Collector, clock: ManualClock, interval: Any) -> None:
    host(interval, load1=1.0)
    clock.advance(3)
    assert view(collector).host.load1 == 1.0
    clock.advance(0.1)
    assert view(collector).host.load1 is None


def test_the_longest_pause_of_the_collector_in_the_window_is_shown(collector: Collector, clock: ManualClock) -> None:
    for pause in (2_000_000, 90_000_000, 1_000_000):
        RESOURCE_PROCESS.event.emit(
            {"gc_pause_duration": pause, "gc_duration": 250_000_000, "oldest_task_duration": 3 * SECOND},
            {"missing": {}, "pid": 1},
        )
        clock.advance(1)
    assert view(collector).process.gc_pause == 0.09
    assert view(collector).process.gc_ratio == 0.25
    assert view(collector).process.oldest_task == 3.0
    clock.advance(60)
    RESOURCE_PROCESS.event.emit({"gc_pause_duration": 0}, {"missing": {}, "pid": 1})
    assert view(collector, "1m").process.gc_pause == 0.0
    assert view(collector, "5m").process.gc_pause == 0.09


# -- workers ------------------------------------------------------------------------------------------------------


def test_a_worker_has_the_figures_of_its_process(collector: Collector) -> None:
    reading(rss=100, uss=60, cpu_ratio=0.5, fds=8, threads=2, children=1, zombies=0, time_to_limit_duration=9 * SECOND)
    found = figures(collector, slot(rss=5))
    assert (found.rss, found.uss, found.cpu_ratio, found.fds, found.threads, found.children, found.zombies) == (
        100, 60, 0.5, 8, 2, 1, 0,
    )  # fmt: skip
    assert (found.state_letter, found.figures_missing, found.time_to_limit) == ("S", None, 9.0)


def test_without_a_reading_a_measured_worker_shows_no_memory_rather_than_its_own_old_report(
    collector: Collector, clock: ManualClock
) -> None:
    assert (figures(collector, slot(rss=5)).rss, figures(collector).figures_missing) == (None, "not measured yet")
    reading(rss=100)
    clock.advance(3)
    assert figures(collector).rss == 100
    clock.advance(1)
    assert (figures(collector).rss, figures(collector).figures_missing) == (None, "no reading for 4 s")


def test_a_reading_of_an_earlier_process_is_never_shown_for_the_next_one(collector: Collector) -> None:
    reading(pid=11, rss=100)
    assert figures(collector, slot(pid=12)).rss is None
    assert figures(collector, slot(pid=None)).rss is None
    reading(pid=12, rss=200)
    assert figures(collector, slot(pid=12)).rss == 200
    assert figures(collector, slot(pid=11)).rss is None


@pytest.mark.parametrize(("letter", "why"), [("T", "stopped by a signal"), ("t", "stopped by a debugger"), ("Z", "it")])
def test_a_process_that_does_not_run_has_a_state_and_no_figures(collector: Collector, letter: str, why: str) -> None:
    reading(letter=letter, rss=100, cpu_ratio=0.0)
    found = figures(collector)
    assert (found.rss, found.cpu_ratio, found.state_letter) == (None, None, letter)
    assert (found.figures_missing or "").startswith(why)


def test_slots_that_are_gone_are_forgotten_and_pools_of_others_ignored(collector: Collector) -> None:
    reading(0, rss=100)
    reading(1, rss=100)
    reading(2, rss=100, pool="of another monitor")
    before = collector.memory_bytes()
    collector.readings.workers("p", [slot(0)])
    assert collector.memory_bytes() < before
    assert figures(collector, slot(1)).rss is None


def test_at_most_ten_thousand_workers_have_readings(collector: Collector) -> None:
    for number in range(WORKERS_MAX + 5):
        reading(number, rss=1)
    assert WORKERS_MAX == 10_000
    workers = collector.readings.workers("p", [slot(number) for number in range(WORKERS_MAX + 5)])
    assert [worker.rss for worker in workers] == [1] * WORKERS_MAX + [None] * 5
    assert collector.self_view().dropped == 5


def test_what_the_processes_of_a_slot_used_adds_up_over_restarts(collector: Collector) -> None:
    for pid, cpu_ns, read_bytes in ((11, 2, 100), (11, 5, 100), (12, 1, 7), (12, 4, 7), (12, 3, 0)):
        reading(pid=pid, cpu_duration=cpu_ns * SECOND, read_bytes=read_bytes)
    reading(1, pid=13, rss=5)
    first, second = collector.totals().processes
    assert (first.pool, first.worker, first.numbers) == ("p", "p-0", (5.0 + 4.0 + 3.0, 107, None))
    assert (second.worker, second.numbers) == ("p-1", (None, None, None))


# -- the event loop -----------------------------------------------------------------------------------------------


def test_a_block_grows_until_it_is_over(collector: Collector, clock: ManualClock) -> None:
    blocked(SECOND // 2, stack="outer\ninner")
    clock.advance(2)
    found = view(collector).loop
    assert (found.blocked, found.stack, found.stack_age, found.blocks) == (2.5, "outer\ninner", 2.0, 1)
    blocked(3 * SECOND, "over")
    clock.advance(1)
    found = view(collector).loop
    assert (found.blocked, found.stack, found.stack_age, found.blocks) == (None, "outer\ninner", 3.0, 1)
    blocked(SECOND, stack="another")
    assert (view(collector).loop.stack, view(collector).loop.blocks) == ("another", 2)


def test_a_loop_that_runs_again_is_not_blocked_even_if_nobody_says_so(collector: Collector) -> None:
    blocked(SECOND)
    LOOP_LAG.event.emit({"duration": SECOND}, {})
    assert view(collector).loop.blocked is None


def test_of_a_long_stack_the_innermost_frames_are_kept(collector: Collector) -> None:
    blocked(SECOND, stack="outer " * STACK_MAX + "innermost")
    stack = view(collector).loop.stack
    assert stack is not None
    assert len(stack) == STACK_MAX
    assert stack.endswith("innermost")


def test_lag_is_a_distribution_of_the_window(collector: Collector, clock: ManualClock) -> None:
    rng = np.random.default_rng(5)
    durations = (rng.lognormal(13, 2, 3000)).astype(int)
    for number, duration in enumerate(durations.tolist()):
        LOOP_LAG.event.emit({"duration": duration}, {})
        if number % 10 == 9:
            clock.advance(1)
            collector.tick()
    for window, most in (("1m", 600), ("5m", 3000), ("1h", 3000)):
        found = view(collector, window).loop.lag
        assert most - 10 * parse_window(window).step <= found.count <= most  # short of its length by at most a step
        some = np.sort(durations[-found.count :])
        assert found.mean == pytest.approx(some.mean() / 1e9)
        assert found.max == some[-1] / 1e9
        assert found.p50 == pytest.approx(some[math.ceil(found.count * 0.5) - 1] / 1e9, rel=0.011)
        assert found.p99 == pytest.approx(some[math.ceil(found.count * 0.99) - 1] / 1e9, rel=0.011)
    totals = collector.totals().lag
    assert totals is not None
    assert (totals.counts.sum(), totals.sum_ns) == (3000, durations.sum())
    clock.advance(3700)
    assert view(collector, "1h").loop.lag.count == 0


def test_measurements_that_nobody_counts_are_bounded(collector: Collector) -> None:
    for _ in range(LAGS_MAX + 10):
        LOOP_LAG.event.emit({"duration": 5}, {})
    assert view(collector).loop.lag.count == LAGS_MAX
    assert collector.self_view().dropped == 10


# -- GPUs and faults ----------------------------------------------------------------------------------------------


def test_gpus_are_shown_or_the_reason_why_there_are_none(collector: Collector, clock: ManualClock) -> None:
    RESOURCE_GPU.event.emit({"gpus": 0}, {"gpus": (), "missing": "no driver"})
    assert (view(collector).gpus, view(collector).missing["gpus"]) == ((), "no driver")
    gpus = ({"index": 0, "name": "Tesla", "memory_used": 5, "temperature": -3.0, "utilisation": 0.5}, {"name": "none"})
    RESOURCE_GPU.event.emit({"gpus": 2}, {"gpus": gpus, "missing": ""})
    [found] = view(collector).gpus
    assert (found.index, found.name, found.memory_used, found.temperature) == (0, "Tesla", 5, -3.0)
    assert "gpus" not in view(collector).missing
    clock.advance(3.5)
    assert view(collector).gpus == ()
    assert view(collector).missing["gpus"].startswith("not measured since")
    RESOURCE_GPU.event.emit({"gpus": 100}, {"gpus": tuple({"index": index} for index in range(100)), "missing": ""})
    assert len(view(collector).gpus) == GPUS_MAX


def test_a_fault_is_open_until_it_is_left(collector: Collector) -> None:
    host(load1=1.0)
    fault("reached")
    fault("reached", "leak", "worker p-0", level="bad", pool="p", worker="p-0", system_time=1_700_000_005 * SECOND)
    fault("changed", level="bad", value=0.97, system_time=1_700_000_009 * SECOND)
    first, second = view(collector).faults
    assert (first.kind, first.level, first.value, first.since) == ("memory", "bad", 0.97, 1_700_000_000.0)
    assert (second.kind, second.pool, second.worker) == ("leak", "p", "p-0")
    fault("left", value="not a number")
    assert [found.kind for found in view(collector).faults] == ["leak"]


def test_without_samples_nobody_knows_whether_a_fault_is_still_open(collector: Collector, clock: ManualClock) -> None:
    host(load1=1.0)
    fault(kind="memory")
    fault(kind="lag", subject="loop")
    clock.advance(10)
    assert {found.kind for found in view(collector).faults} == {"memory", "lag"}
    clock.advance(1)
    assert [found.kind for found in view(collector).faults] == ["lag"]
    host(load1=1.0)
    assert {found.kind for found in view(collector).faults} == {"memory", "lag"}


def test_faults_are_bounded(collector: Collector) -> None:
    host(load1=1.0)
    for number in range(FAULTS_MAX + 3):
        fault(kind=f"kind {number}")
    assert len(view(collector).faults) == FAULTS_MAX
    assert collector.self_view().dropped == 3


# -- whatever arrives ---------------------------------------------------------------------------------------------

_KEYS = sorted({key for spec in RESOURCE_EVENTS for key in (*spec.measurements, *spec.metadata)})
_SCALARS = (
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["p", "p-0", "blocked", "over", "reached", "changed", "left", "warn", "bad", "T", "host"])
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(_KEYS) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
_MAPPINGS = st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=12)


@given(st.lists(st.tuples(st.sampled_from(RESOURCE_EVENTS), _MAPPINGS, _MAPPINGS), max_size=12), st.floats(0, 5))
@settings(max_examples=60, deadline=None)
def test_no_event_ends_the_readings_of_others(events: list[Any], pause: float) -> None:
    clock = ManualClock()
    collector = Collector(["p"], clock, series_limit=6)
    collector.attach()
    try:
        for spec, measurements, metadata in events:
            spec.event.emit(measurements, metadata)
            clock.advance(pause)
            collector.tick()
        attached = {handler.id for handler in telemetry.list_handlers(("resource",))}
        names = ("host", "process", "worker", "gpu", "loop", "lag", "limit")
        assert {f"{collector.id}.resource.{name}" for name in names} <= attached
        found = view(collector)
        workers = collector.readings.workers("p", [slot()])
        metrics = LiveMetrics(collector, lambda _window: samples.snapshot())
        assert metrics.resources(collector.wall_s() - 60).step == 1.0
        # What every reader gets can be sent, and is read again as the same.
        for value, kind in ((found, ResourceView), (workers, list[WorkerView])):
            assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value
    finally:
        collector.detach()


# -- over time ----------------------------------------------------------------------------------------------------


@pytest.fixture
def metrics(collector: Collector) -> LiveMetrics:
    return LiveMetrics(collector, lambda _window: samples.snapshot())


def test_a_range_has_mean_and_high_of_each_step_and_none_where_nothing_was_measured(
    collector: Collector, clock: ManualClock, metrics: LiveMetrics
) -> None:
    start = collector.wall_s()
    for second in range(40):
        if not 12 <= second < 20:
            host(load1=float(second))
            reading(rss=1000 + second)
        clock.advance(1)
        collector.tick()
    found = metrics.resources(start, start + 40, "5s", subject="host")
    [load] = found.series
    assert (load.subject, load.figure) == ("host", "load1")
    assert load.mean == (2.0, 7.0, 10.5, None, 22.0, 27.0, 32.0, 37.0)
    assert load.high == (4.0, 9.0, 11.0, None, 24.0, 29.0, 34.0, 39.0)
    every = metrics.resources(start, start + 40, "20s")
    assert [(series.subject, series.figure) for series in every.series] == [("host", "load1"), ("worker p-0", "rss")]
    assert every.series[1].high == (1011.0, 1039.0)


def test_after_five_minutes_memory_keeps_steps_of_ten_seconds(
    collector: Collector, clock: ManualClock, metrics: LiveMetrics
) -> None:
    start = collector.wall_s()
    for second in range(700):
        host(load1=float(second))
        clock.advance(1)
        collector.tick()
    [load] = metrics.resources(start, subject="host").series
    assert load.high == tuple(float(number) for number in range(9, 700, 10))
    assert metrics.resources(start + 690, subject="host").step == 1.0
    with pytest.raises(ConfigError, match="memory keeps steps of 1 s for 5 min, 10 s for 60 min"):
        metrics.resources(start, step="7s")
    with pytest.raises(UnknownName, match="'worker x' was not measured then; measured: host"):
        metrics.resources(start, subject="worker x")


@pytest.mark.slow
@pytest.mark.gate
def test_the_figures_of_many_workers_stay_within_their_memory(collector: Collector, clock: ManualClock) -> None:
    before = collector.memory_bytes()
    for _ in range(22):
        for number in range(2000):
            reading(number, rss=number, uss=number, cpu_ratio=0.5, fds=8, threads=1)
        clock.advance(1)
        collector.tick()
    collector.readings.workers("p", [])  # the readings themselves
    assert collector.memory_bytes() - before <= GAUGE_BYTES + 100_000
    assert collector.memory_bytes() <= collector.memory_limit


# -- in a service -------------------------------------------------------------------------------------------------


@pytest.mark.processes("figures of a process")
async def test_a_stopped_worker_has_no_figures_in_snapshot_or_metrics_until_it_goes_on() -> None:
    config = MonitorConfig(resources=ResourcesConfig(interval=0.5, gpu=False), service=ServiceConfig(socket=False))
    async with ops_pool(size=2, health_interval=3600.0) as pool, Monitor(pool, config=config) as monitor:
        name = pool.status().name

        def worker() -> WorkerView:
            return monitor.snapshot("1m").pools[name].workers[f"{name}-0"]

        async def page() -> set[tuple[str, str]]:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app=monitor.asgi()), base_url="http://monitor"
            ) as http:
                text = (await http.get("/metrics")).text
            return {
                (sample.name, sample.labels["worker"])
                for family in read_text(text)
                for sample in family.samples
                if "worker" in sample.labels
            }

        exported = ("pool_monitor_worker_memory_bytes", f"{name}-0"), ("pool_monitor_worker_cpu_ratio", f"{name}-0")
        await eventually(lambda: worker().rss is not None and worker().cpu_ratio is not None)
        assert set(exported) <= await page()
        pid = worker().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            await eventually(lambda: worker().state_letter == "T")
            found = worker()
            assert (found.rss, found.uss, found.cpu_ratio, found.fds, found.threads) == (None,) * 5
            assert "stopped" in (found.figures_missing or "")
            after = await page()
            assert not set(exported) & after
            assert ("pool_monitor_worker_memory_bytes", f"{name}-1") in after
        finally:
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: worker().rss is not None)
        assert (worker().state_letter, worker().figures_missing) != ("T", None)


async def test_figures_of_a_range_are_served_from_memory() -> None:
    config = MonitorConfig(resources=ResourcesConfig(interval=0.5, gpu=False), service=ServiceConfig(socket=False))
    async with ops_pool(size=1) as pool, Monitor(pool, config=config) as monitor:
        await eventually(lambda: bool(monitor.metrics.resources(monitor.metrics.since).series))
        transport = httpx.ASGITransport(app=monitor.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://monitor") as http:
            asking = client.Client(http)
            now = monitor.snapshot().taken_at
            found = await asking.resources(now - 20, now + 1, 1, "process")
            assert {series.subject for series in found.series} == {"process"}
            assert "rss" in {series.figure for series in found.series}
            every = await asking.resources(now - 20, now + 1, 1)
            assert {"host", "process"} <= {series.subject for series in every.series}
            answer = await http.get("/v1/range", params={"start": now - 20, "resource": "worker nobody"})
            assert (answer.status_code, "was not measured then" in answer.text) == (404, True)


# -- older and newer readers --------------------------------------------------------------------------------------


def test_a_snapshot_of_a_service_without_figures_is_read() -> None:
    old = msgspec.json.decode(msgspec.json.encode(samples.snapshot()))
    del old["resources"], old["monitor"]["resources"]
    for pool in old["pools"].values():
        for worker in pool["workers"].values():
            for field in ("uss", "cpu_ratio", "fds", "threads", "children", "state_letter", "figures_missing"):
                del worker[field]
    found = client.parse(msgspec.json.encode(old))
    assert found.resources == ResourceView()


def test_an_older_reader_ignores_figures_that_it_does_not_know() -> None:
    new = msgspec.json.decode(msgspec.json.encode(samples.snapshot()))
    new["resources"]["host"]["figure_of_tomorrow"] = 5
    new["resources"]["of_tomorrow"] = {"a": 1}
    next(iter(next(iter(new["pools"].values()))["workers"].values()))["figure_of_tomorrow"] = 7
    assert client.parse(msgspec.json.encode(new)) == msgspec.convert(new, Snapshot)
