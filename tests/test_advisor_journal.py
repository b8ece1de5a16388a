"""The journal: events of pools and resources become the history that advice stands on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor import events, telemetry
from pool_monitor.advisor.bucket_ring import BucketRing
from pool_monitor.advisor.call_ring import CallRing, joined
from pool_monitor.advisor.history import CALLS, OPERATIONS, WORKERS, service_bounds
from pool_monitor.advisor.host_journal import POOL_READING_S, HostJournal
from pool_monitor.advisor.journal import Journal, calls_of_each
from pool_monitor.advisor.numbering import OTHER
from pool_monitor.advisor.operation_journal import OperationJournal
from pool_monitor.advisor.pool_journal import BUFFER, BYTES, MANY
from pool_monitor.clock import ManualClock, SystemClock
from pool_monitor.errors import PoolSaturated
from pool_monitor.events import CATALOGUE
from pool_monitor.snapshot import PoolView
from pool_monitor.tuner.observation import EndedCall
from pool_monitor.tuner.observer import COLD_START_S, Observer
from tests.helpers.support import ops_pool

MS = 1_000_000
S = 1_000_000_000


class Watched:
    """A journal of the pool ``text`` on a clock of its own, and the events of that pool."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.journal = Journal(["text"], self.clock, journal_id="test-journal", instances={"text": "one"})
        self.journal.attach()
        self.completed = self.refused = 0
        self.size = 2

    def ok(self, whole: int = 30 * MS, queue: int = 10 * MS, *, operation: str = "work", worker: int = 0) -> None:
        series = events.OPERATION_STOP.event.series
        assert series is not None
        series["text", operation, f"text-{worker}", "none", "one"](whole, queue, whole - queue)
        self.completed += 1

    def failed(self, outcome: str = "error", *, worker: str | None = "text-0", whole: int = 30 * MS) -> None:
        about = {"pool": "text", "pool_instance": "one", "operation": "work", "outcome": outcome, "error": "KeyError"}
        measured = {"duration": whole, "queue_duration": 10 * MS}
        events.OPERATION_EXCEPTION.event.emit(measured, about if worker is None else {**about, "worker": worker})
        self.completed += 1
        self.refused += outcome == "rejected"

    def view(self, **gauges: Any) -> PoolView:
        usual = {"busy": 0, "idle": self.size, "starting": 0, "waiting": 0, "completed": self.completed}
        return PoolView(
            name="text",
            state="open",
            size=self.size,
            **{**usual, **gauges},
            draining=0,
            dead=0,
            queue_limit=9,
            sessions=0,
            restarts=0,
            refusals={"saturated": self.refused},
            instance="one",
        )

    def pass_time(self, seconds: int, **gauges: Any) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.journal.tick({"text": self.view(**gauges)})


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.journal.detach()


def test_a_call_is_kept_with_its_times(watched: Watched) -> None:
    watched.clock.advance(100)
    watched.ok(30 * MS, 10 * MS, worker=1)
    calls = watched.journal.history("text").calls
    assert np.allclose([calls.arrived[0], calls.started[0], calls.ended[0]], [99.97, 99.98, 100.0])
    history = watched.journal.history("text")
    assert (history.operations, history.workers) == (("work",), ("text-1",))


def test_a_refused_call_has_no_worker_and_no_start(watched: Watched) -> None:
    watched.failed("rejected", worker=None)
    calls = watched.journal.history("text").calls
    assert calls.worker.tolist() == [-1]
    assert np.isnan(calls.started).all()


def test_rows_of_ten_seconds_add_up_what_has_happened(watched: Watched) -> None:
    for _ in range(10):
        watched.ok()
        watched.pass_time(1, busy=1, idle=1)
    watched.failed()
    watched.failed("timeout")
    watched.failed("rejected", worker=None)
    watched.pass_time(10)
    buckets = watched.journal.history("text").buckets
    assert buckets.at.tolist() == [0, 10]
    assert buckets.ended.tolist() == [10, 2]
    assert buckets.failed.tolist() == [0, 1]
    assert buckets.timed_out.tolist() == [0, 1]
    assert buckets.refused.tolist() == [0, 1]
    assert np.allclose(buckets.wait_sum, [0.1, 0.02])
    assert buckets.size.tolist() == [2, 2]
    assert buckets.busy[0] > buckets.busy[1]
    assert np.isnan(buckets.cpu).all()


def test_time_without_a_tick_has_no_rows(watched: Watched) -> None:
    watched.pass_time(10)
    watched.clock.advance(3600)
    watched.pass_time(10)
    assert watched.journal.history("text").buckets.at.tolist() == [0, 10, 3610]


def test_arrivals_count_what_waits_and_runs_and_survive_a_new_pool(watched: Watched) -> None:
    watched.pass_time(1)
    watched.completed = 7
    watched.pass_time(1, busy=2, waiting=3)
    assert watched.journal.pools["text"].arrived == 12
    watched.completed = 1  # another pool of the name began at 0
    watched.pass_time(1)
    assert watched.journal.pools["text"].arrived == 13


def test_an_operation_has_hourly_classes_of_its_times(watched: Watched) -> None:
    for _ in range(5):
        watched.ok()
    watched.failed("error")
    watched.failed("timeout", whole=2 * S)
    watched.failed("worker_lost")
    watched.pass_time(1)
    watched.clock.advance(3600)
    watched.ok()
    watched.pass_time(1)
    history = watched.journal.history("text").by_operation[0]
    assert history.hours.tolist() == [0, 3600]
    assert history.counts.sum(axis=1).tolist() == [6, 1]
    assert history.timeouts.tolist() == [1, 0]
    assert history.failed.tolist() == [2, 0]
    assert history.timeout == pytest.approx(2.0)


def test_times_of_an_operation_are_those_on_a_worker_as_those_of_its_calls_are(watched: Watched) -> None:
    series = events.OPERATION_STOP.event.series
    assert series is not None
    for _ in range(5):
        series["text", "work", "text-0", "none", "one"](3 * MS, MS, MS // 2)  # half a millisecond in the worker
    watched.pass_time(1)
    history = watched.journal.history("text")
    assert history.calls.ended - history.calls.started == pytest.approx(0.002)
    assert service_bounds()[history.by_operation[0].counts.argmax()] == pytest.approx(0.002, rel=0.05)
    assert np.exp(history.by_operation[0].span_levels[0, 0]) == pytest.approx(0.002, rel=0.02)


def test_an_operation_has_the_level_of_its_times_by_ten_minutes(watched: Watched) -> None:
    for whole, seconds in ((20, 0), (50, 600), (80, 3_000)):
        watched.clock.advance(seconds)
        for _ in range(3):
            watched.ok(whole * MS, 0)
        watched.failed("timeout", whole=2 * S)
        watched.pass_time(1)
    history = watched.journal.history("text").by_operation[0]
    assert history.span_calls.tolist() == [[3, 3, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]]
    times = np.exp(history.span_levels)
    assert times[history.span_calls > 0] == pytest.approx([0.02, 0.05, 0.08], rel=0.01)
    assert np.isnan(times[history.span_calls == 0]).all()


def test_a_worker_is_compared_with_the_same_mix_on_all_workers(watched: Watched) -> None:
    for worker, whole in ((0, 10), (0, 10), (1, 40)):
        watched.ok(whole * MS, 0, worker=worker)
    watched.pass_time(1)
    first, second = (watched.journal.history("text").by_worker[worker] for worker in (0, 1))
    assert (first.calls.tolist(), second.calls.tolist()) == ([2], [1])
    assert (first.busy[0], first.expected[0]) == pytest.approx((0.02, 0.04))
    assert (second.busy[0], second.expected[0]) == pytest.approx((0.04, 0.02))


def test_failures_within_ten_seconds_of_the_first_are_one_incident(watched: Watched) -> None:
    for second in range(25):
        watched.failed(whole=(1 + second) * MS + 10 * MS)
        watched.pass_time(1)
    incidents = watched.journal.history("text").incidents
    assert [incident.at for incident in incidents] == [0, 11, 22]
    assert [incident.failures for incident in incidents] == [11, 11, 3]


def test_starts_and_ends_of_processes_are_told_apart(watched: Watched) -> None:
    about = {"pool": "text", "pool_instance": "one", "worker": "text-0", "pid": 7}
    events.WORKER_READY.event.emit({"duration": 3 * S}, about)
    events.WORKER_CRASH.event.emit({"uptime": 1}, about)
    events.WORKER_TERMINATE.event.emit({"uptime": 1}, {**about, "reason": "health"})
    events.WORKER_TERMINATE.event.emit({"uptime": 1}, {**about, "reason": "resize"})
    events.WORKER_TERMINATE.event.emit({"uptime": 1}, {**about, "reason": "recycle"})
    events.WORKER_RECYCLE.event.emit({"uptime": 1}, {**about, "reason": "age"})
    for before, after in ((2, 4), (4, 3), (3, 3), (3, 5)):
        events.POOL_RESIZE.event.emit({"size_before": before, "size_after": after}, about)
    watched.pass_time(10)
    history = watched.journal.history("text")
    row = {name: getattr(history.buckets, name)[0] for name in ("starts", "deaths", "planned_ends", "resizes")}
    assert row == {"starts": 1, "deaths": 2, "planned_ends": 2, "resizes": 3}
    assert history.buckets.reversals[0] == 2
    assert history.cold_start == 3.0


def test_figures_of_the_host_and_the_loop_are_in_the_rows_of_each_pool(watched: Watched) -> None:
    about = {"monitor": "m"}
    measured = {"cpus": 4, "cpu_ratio": 0.5, "throttled_ratio": 0.1, "memory_total": 100, "memory_used": 30}
    events.RESOURCE_HOST.event.emit(measured, about)
    series = events.LOOP_LAG.event.series
    assert series is not None
    for lag in range(100):
        series[()](lag * MS)
    events.LOOP_RESUME.event.emit({"duration": 2 * S}, about)
    watched.pass_time(10)
    history = watched.journal.history("text")
    buckets = history.buckets
    assert (buckets.host_cpus[0], buckets.host_cpu_ratio[0], buckets.throttled_ratio[0]) == (4, 0.5, 0.1)
    assert (buckets.lag_samples[0], buckets.lag_p99[0], buckets.blocked[0]) == (100, 0.098, 2.0)
    assert (history.cpu_quota, history.memory_free) == (4, 70)


def test_processor_time_is_the_growth_of_what_one_process_has_used(watched: Watched) -> None:
    about = {"pool": "text", "worker": "text-0", "pid": 7, "monitor": "m"}
    for used, pid in ((5, 7), (8, 7), (1, 8), (2, 8)):
        events.RESOURCE_WORKER.event.emit({"cpu_duration": used * S, "cpu_ratio": 0.3}, {**about, "pid": pid})
    watched.pass_time(10)
    assert watched.journal.history("text").buckets.cpu.tolist() == [4.0]


def test_samples_of_memory_are_those_of_one_process(watched: Watched) -> None:
    about = {"pool": "text", "worker": "text-0", "monitor": "m"}
    for rss, pid in ((5, 7), (6, 7), (1, 8), (2, 8)):
        events.RESOURCE_WORKER.event.emit({"rss": rss}, {**about, "pid": pid})
        watched.clock.advance(10)
    worker = watched.journal.history("text").by_worker[0]
    assert (worker.rss.tolist(), worker.rss_at.tolist()) == ([1, 2], [20, 30])


def test_older_samples_of_memory_are_minima_of_five_minutes(watched: Watched) -> None:
    about = {"pool": "text", "worker": "text-0", "monitor": "m", "pid": 7}
    for number in range(420):
        events.RESOURCE_WORKER.event.emit({"rss": 1000 + number % 30}, about)
        watched.clock.advance(10)
    worker = watched.journal.history("text").by_worker[0]
    assert worker.rss[:2].tolist() == [1000, 1000]
    assert len(worker.rss) == 362
    assert (np.diff(worker.rss_at) > 0).all()


def test_events_of_another_pool_and_another_instance_are_ignored(watched: Watched) -> None:
    series = events.OPERATION_STOP.event.series
    assert series is not None
    series["other", "work", "other-0", "none", "one"](1, 0, 1)
    series["text", "work", "text-0", "none", "two"](1, 0, 1)
    events.POOL_RETRY.event.emit({}, {"pool": "text", "pool_instance": "two"})
    assert len(watched.journal.history("text").calls.ended) == 0


def test_names_beyond_the_limits_count_as_one(watched: Watched) -> None:
    for number in range(OPERATIONS + 20):
        watched.ok(operation=f"work-{number}", worker=number)
    watched.pass_time(1)
    history = watched.journal.history("text")
    assert len(history.operations) == OPERATIONS
    assert len(history.workers) == WORKERS
    assert history.operations[-1] == history.workers[-1] == OTHER
    assert history.by_operation[OPERATIONS - 1].counts.sum() == 21


def test_the_level_of_very_many_calls_is_right_after_their_hour() -> None:
    journal, one = OperationJournal(), np.ones(1)
    for ended in (600.0, 4200.0):
        zero, weight = np.zeros(1, np.int32), 6e7 * one  # 100,000 calls per second, of 0.1 ms each
        journal.add(ended * one, zero, zero, 1e-4 * one, 1e-4 * one, weight)
    levels = journal.taken(4300.0)()[0].span_levels
    assert levels[~np.isnan(levels)] == pytest.approx([math.log(1e-4)] * 2, abs=0.01)


def test_memory_is_bounded_whatever_the_names_and_the_time(watched: Watched) -> None:
    for hour in range(6):
        for number in range(OPERATIONS):
            watched.ok(operation=f"work-{number}", worker=number)
            about = {"pool": "text", "pool_instance": "one", "worker": f"text-{number}", "pid": 7}
            events.RESOURCE_WORKER.event.emit({"rss": number + hour}, about)
        watched.pass_time(1)
        watched.clock.advance(3600)
    pool = watched.journal.pools["text"]
    for worker in range(8):
        for sample in range(700):
            pool.by_worker.sample(sample * 300.0, worker, 7, 1.0, None)
    assert BYTES / 4 < pool.nbytes < BYTES < 14e6
    assert len(watched.journal.history("text").by_worker[0].rss) == 648


def test_calls_of_a_busy_second_are_bounded_and_each_is_counted(watched: Watched) -> None:
    pool, most = watched.journal.pools["text"], 0
    for _ in range(2 * MANY):
        watched.ok(40 * MS, 15 * MS)
        most = max(most, pool.uncounted)
    assert BUFFER < most < MANY
    watched.pass_time(10)
    history = watched.journal.history("text")
    assert history.buckets.ended.sum() == history.by_operation[0].counts.sum() == len(history.calls.ended) == 2 * MANY
    assert pool.uncounted == 0


def test_numbers_that_are_nonsense_are_dropped_and_the_others_kept(watched: Watched) -> None:
    for whole, queue in ((5, 9), (-1, -1), (2**60, 0), ("x", 0), (2**70, 0), (None, None)):
        series = events.OPERATION_STOP.event.series
        assert series is not None
        series["text", "work", "text-0", "none", "one"](whole, queue, 1)
    watched.ok()
    assert len(watched.journal.history("text").calls.ended) == 1
    assert watched.journal.pools["text"].dropped == 6


_values = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=1))
_HEARD = [
    spec
    for spec in CATALOGUE.values()
    if spec.dotted.startswith(("pool.worker", "pool.operation", "resource", "pool.re"))
]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(_HEARD), st.data()), max_size=6))
def test_no_event_makes_a_handler_raise(drawn: list[tuple[events.EventSpec, Any]]) -> None:
    watched = Watched()
    try:
        before = len(telemetry.list_handlers())
        for spec, data in drawn:
            measured = {key: data.draw(_values) for key in spec.measurements}
            about = {key: data.draw(_values) for key in spec.metadata} | {"pool": "text", "pool_instance": "one"}
            spec.event.emit(measured, about)
            watched.pass_time(1)
        watched.journal.history("text")
        assert len(telemetry.list_handlers()) == before
    finally:
        watched.journal.detach()


@settings(max_examples=15)
@given(st.lists(st.integers(1, CALLS // 3), min_size=1, max_size=12), st.integers(0, CALLS))
def test_the_ring_keeps_the_latest_calls_in_order(sizes: list[int], asked: int) -> None:
    ring, next_one = CallRing(), 0
    for size in sizes:
        numbers = np.arange(next_one, next_one + size)
        ring.add(np.stack([numbers] * 3).astype(float), np.stack([numbers] * 4).astype(np.int32))
        next_one += size
    kept = ring.latest(asked)
    expected = min(asked, next_one, CALLS)
    assert kept.ended.tolist() == list(range(next_one - expected, next_one))
    assert kept.error.tolist() == kept.ended.tolist()


def test_an_observation_has_what_happened_since_the_one_before(watched: Watched) -> None:
    observer = Observer(watched.journal, "text")
    watched.ok()
    watched.pass_time(1)
    observer.observe(watched.view(), low=1, high=9)
    watched.ok(40 * MS, 15 * MS)
    watched.failed("rejected", worker=None)
    watched.pass_time(2, busy=1)
    seen = observer.observe(watched.view(busy=1), low=1, high=9)
    assert (seen.interval, seen.arrivals, seen.refused, seen.busy) == (2.0, 3, 1, 1)
    assert (seen.ended, seen.failed) == (1, 0)
    assert [(call.wait, call.service) for call in seen.calls] == [(pytest.approx(0.015), pytest.approx(0.025))]
    assert seen.cold_start == COLD_START_S
    assert (seen.cpus, seen.cpu_fraction, seen.worker_memory, seen.memory_free) == (None, None, None, None)
    assert observer.observe(watched.view(), low=1, high=9).ended == 0


def test_the_calls_of_an_observation_are_those_of_a_list(watched: Watched) -> None:
    observer = Observer(watched.journal, "text")
    for number in range(20):
        watched.ok((30 + number) * MS, number * MS)
    watched.pass_time(1)
    calls = observer.observe(watched.view(), low=1, high=9).calls
    listed = list(calls)
    assert all(isinstance(call, EndedCall) for call in (*listed, calls[0]))
    assert [round(call.wait * 1000) for call in listed] == list(range(20))
    for part in (slice(None, None, 3), slice(-5, None), slice(4, 2)):
        assert list(calls[part]) == listed[part]
        assert len(calls[part]) == len(listed[part])
    assert (calls[3], calls[-1]) == (listed[3], listed[-1])
    with pytest.raises(IndexError):
        calls[20]


@pytest.mark.parametrize("latest", [None, 1, 3, 99])
def test_a_ring_of_rows_gives_the_latest_stretches_that_are_over(latest: int | None) -> None:
    ring = BucketRing(("calls",), 10.0, 5)
    for number in (2, 3, 6, 7, 8, 9):
        ring.add(number * 10.0, calls=number)
    numbers, columns = ring.before(95.0, latest)
    kept = {None: [6, 7, 8], 1: [8], 3: [6, 7, 8], 99: [6, 7, 8]}[latest]
    assert numbers.tolist() == columns["calls"].tolist() == kept


def test_an_observation_counts_the_calls_whose_events_are_sampled(watched: Watched) -> None:
    observer = Observer(watched.journal, "text")
    watched.pass_time(1)
    observer.observe(watched.view(), low=1, high=9)
    telemetry.configure(sample={"pool.operation.*": 1000})
    try:
        for _ in range(30):
            watched.ok()
        watched.failed("error")
        watched.pass_time(1)
        seen = observer.observe(watched.view(), low=1, high=9)
    finally:
        telemetry.configure()
    assert len(seen.calls) < 31
    assert seen.ended == 31
    assert seen.failed in (0, 1000)


def test_calls_that_an_observation_had_are_counted_once(watched: Watched) -> None:
    for _ in range(3):
        watched.ok()
        watched.clock.advance(1.0)
        watched.journal.latest_calls("text", 0)
        watched.failed()
    watched.clock.advance(10.0)
    history = watched.journal.history("text")
    assert history.buckets.ended.sum() == len(history.calls.ended) == 6
    assert history.by_operation[0].counts.sum() == 6
    assert watched.journal.history("text").buckets.ended.sum() == 6


def test_an_observation_knows_what_was_measured_of_workers(watched: Watched) -> None:
    about = {"pool": "text", "pool_instance": "one", "worker": "text-0", "pid": 7, "monitor": "m"}
    for duration in (1, 3, 9):
        events.WORKER_READY.event.emit({"duration": duration * S}, about)
    observer = Observer(watched.journal, "text")
    for second in range(40):
        events.RESOURCE_WORKER.event.emit({"cpu_duration": second * S // 4, "rss": 50}, about)
        watched.ok(500 * MS, 0)
        watched.pass_time(1)
    seen = observer.observe(watched.view(), low=1, high=9)
    assert (seen.cold_start, seen.worker_memory) == (3.0, 50)
    assert seen.cpu_fraction == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    ("cpus", "used", "left"),
    [
        (None, {"text": 3.0}, None),
        (8.0, {}, 8.0),
        (8.0, {"text": 7.5}, 8.0),
        (8.0, {"text": 3.0, "video": 1.0}, 7.0),
        (8.0, {"text": 1.0, "video": 7.5}, 4.0),
        (9.0, {"video": 6.0, "audio": 6.0}, 3.0),
    ],
)
def test_a_pool_may_use_the_processors_that_others_leave_and_an_equal_part(
    cpus: float | None, used: dict[str, float], left: float | None
) -> None:
    host = HostJournal()
    host.cpus = cpus
    for pool, share in used.items():
        host.note_pool(0.0, pool, share)
    assert host.cpus_left(1.0, "text") == left
    assert host.cpus_left(POOL_READING_S + 1.0, "text") == cpus, "a pool that is gone uses none"


def test_pools_that_could_use_all_processors_share_them() -> None:
    host, sizes = HostJournal(), {"text": 16, "video": 1}
    host.cpus = 8.0
    for second in range(20):
        for pool, size in sizes.items():
            host.note_pool(second, pool, min(size, 8.0))
        for pool in sizes:
            left = host.cpus_left(second, pool)
            assert left is not None
            sizes[pool] = int(left)
    assert sizes == {"text": 4, "video": 4}


def test_an_observation_counts_the_processors_that_the_workers_of_a_pool_use(watched: Watched) -> None:
    about = {"pool": "text", "pool_instance": "one", "worker": "text-0", "pid": 7, "monitor": "m"}
    events.RESOURCE_HOST.event.emit(
        {"cpus": 4, "cpu_ratio": 0.5, "memory_total": 100, "memory_used": 30}, {"monitor": "m"}
    )
    observer = Observer(watched.journal, "text")
    for second in range(80):
        events.RESOURCE_WORKER.event.emit({"cpu_duration": second * S // 4}, about)
        watched.pass_time(1)
    assert observer.observe(watched.view(), low=1, high=9).cpus == 4
    assert watched.journal.host.cpus_left(watched.journal.now(), "video") == pytest.approx(3.75)


def test_memory_that_workers_will_take_who_start_now_is_not_free(watched: Watched) -> None:
    about = {"pool": "text", "pool_instance": "one", "monitor": "m", "pid": 7}
    free = {"cpus": 4, "cpu_ratio": 0.5, "memory_total": 1000, "memory_used": 400}
    watched.size = 2
    watched.pass_time(1)
    for worker in range(2):
        events.RESOURCE_WORKER.event.emit({"rss": 100}, {**about, "worker": f"text-{worker}"})
    observer = Observer(watched.journal, "text")

    def left() -> int | None:
        return observer.observe(watched.view(), low=1, high=9).memory_free

    assert left() is None
    events.RESOURCE_HOST.event.emit(free, {"monitor": "m"})
    assert left() == 600
    watched.size = 5
    watched.pass_time(1, idle=2, starting=3)
    assert left() == 300, "the sample does not know of them"
    watched.pass_time(3)
    assert left() == 300
    events.RESOURCE_HOST.event.emit({**free, "memory_used": 680}, {"monitor": "m"})
    assert left() == 320
    watched.size = 9
    watched.pass_time(1, idle=5, starting=4)
    assert left() == 0


async def test_the_journal_agrees_with_a_real_pool() -> None:
    async with ops_pool(size=2, queue_limit=20) as pool:
        journal = Journal([pool.name], SystemClock(), journal_id="test-real")
        journal.attach()
        try:
            journal.tick({pool.name: pool.status()})
            results = await asyncio.gather(*(pool.run("echo", n) for n in range(60)), return_exceptions=True)
            journal.tick({pool.name: pool.status()})
            kept, calls = journal.pools[pool.name], journal.history(pool.name).calls
        finally:
            journal.detach()
    refused = sum(isinstance(one, PoolSaturated) for one in results)
    assert (kept.arrived, kept.refused) == (60, refused)
    assert np.bincount(calls.outcome, minlength=6).tolist() == [60 - refused, 0, 0, 0, 0, refused]
    served = ~np.isnan(calls.started)
    assert (calls.arrived <= calls.ended).all()
    assert (calls.started[served] <= calls.ended[served] + 1e-6).all()


@settings(max_examples=15)
@given(st.lists(st.integers(1, 1024), min_size=1, max_size=120), st.integers(5_000, 20_000))
def test_a_smaller_ring_keeps_its_latest_calls_and_what_was_taken_of_it_never_changes(sizes: list[int], most: int):
    ring, taken, next_one = CallRing(most), [], 0
    for size in sizes:
        numbers = np.arange(next_one, next_one + size)
        ring.add(np.stack([numbers] * 3).astype(float), np.stack([numbers] * 4).astype(np.int32))
        next_one += size
        taken.append((ring.chunks(most), next_one))
        assert ring.nbytes <= (most + 2 * 4096) * 40 + 40_000
    for chunks, seen in taken[::10]:
        assert joined(chunks, most).ended.tolist() == list(range(max(0, seen - most), seen))


def test_the_calls_of_many_pools_take_no_more_memory_than_those_of_a_few() -> None:
    for pools in (1, 4, 20, 64, 1000):
        journal = Journal([f"pool {number}" for number in range(pools)], ManualClock(), journal_id="many")
        most = {pool.calls.most for pool in journal.pools.values()}
        assert most == {calls_of_each(pools)}
        assert pools * calls_of_each(pools) <= max(4 * CALLS, 5_000 * pools)
    assert calls_of_each(1) == CALLS
    assert calls_of_each(20) == CALLS // 5


def test_what_was_taken_of_a_journal_is_that_moment_however_long_the_history_takes(watched: Watched) -> None:
    watched.ok()
    events.RESOURCE_WORKER.event.emit({"rss": 5}, {"pool": "text", "worker": "text-0", "pid": 7})
    make = watched.journal.taken("text")
    before = watched.journal.history("text")
    for _ in range(3):
        watched.clock.advance(3700)
        watched.pass_time(1)
        watched.ok(whole=90 * MS, worker=1)
        watched.failed()
        events.RESOURCE_WORKER.event.emit({"rss": 9}, {"pool": "text", "worker": "text-0", "pid": 7})
    made = make()
    assert made.now == before.now
    assert made.calls.ended.tolist() == before.calls.ended.tolist()
    assert made.by_operation[0].counts.tolist() == before.by_operation[0].counts.tolist()
    assert made.by_worker[0].rss.tolist() == before.by_worker[0].rss.tolist() == [5]
    assert made.by_worker[0].calls.tolist() == before.by_worker[0].calls.tolist()
