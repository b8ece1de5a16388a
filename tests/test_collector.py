"""The collector from outside: events go in, the values of a Snapshot come out, on a clock that is told the time."""

from __future__ import annotations

import asyncio
import errno
import gc
import math
import weakref
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor import telemetry
from pool_monitor.clock import ManualClock
from pool_monitor.errors import ConfigError
from pool_monitor.events import (
    OPERATION_EXCEPTION,
    OPERATION_STOP,
    POOL_ERROR,
    POOL_RETRY,
    WORKER_CRASH,
    WORKER_TERMINATE,
)
from pool_monitor.metrics import WINDOWS, Collector, PoolStats, detail
from pool_monitor.metrics.error_groups import ErrorGroups
from pool_monitor.metrics.histogram import RELATIVE_ERROR, SMALLEST_NS
from pool_monitor.metrics.intake import BUFFER_EVENTS
from pool_monitor.metrics.ladder import Rungs
from pool_monitor.metrics.last_failures import LastFailures
from pool_monitor.metrics.window import Windows
from pool_monitor.snapshot import CallStats, Distribution, PoolView, WorkerView
from tests.helpers.gates import in_gates

MS = 1_000_000
SHARES = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999}


FULL_MINUTE = 1_699_999_980.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(FULL_MINUTE)


@pytest.fixture
def collector(clock: ManualClock):
    collector = Collector(["p"], clock)
    collector.attach()
    yield collector
    collector.detach()


def stop(duration: Any = 10 * MS, queue: Any = MS, execution: Any = 9 * MS, **metadata: Any) -> None:
    measured = {} if execution is None else {"execution_duration": execution}
    telemetry.execute(
        OPERATION_STOP.name,
        {"duration": duration, "queue_duration": queue, "attempts": 1, **measured},
        {"pool": "p", "operation": "work", "worker": "p-0", "call_id": 1, **metadata},
    )


def fail(outcome: str = "error", duration: int = 10 * MS, **metadata: Any) -> None:
    telemetry.execute(
        OPERATION_EXCEPTION.name,
        {"duration": duration, "queue_duration": MS, "attempts": 1},
        {"pool": "p", "operation": "work", "call_id": 1, "outcome": outcome, "error": "ValueError", **metadata},
    )


def crash(**metadata: Any) -> None:
    metadata = {"pool": "p", "worker": "p-0", "pid": 1, "reason": "killed", "stderr": "", **metadata}
    telemetry.execute(WORKER_CRASH.name, {"uptime": 1}, metadata)


def error(reason: str = "cannot load 'm:T': ValueError: no", category: str = "initialization", **metadata: Any) -> None:
    metadata = {"pool": "p", "worker": "p-0", "severity": "critical", **metadata}
    telemetry.execute(POOL_ERROR.name, {"system_time": 1}, {**metadata, "category": category, "reason": reason})


def end(reason: str, **metadata: Any) -> None:
    metadata = {"pool": "p", "worker": "p-0", "pid": 1, "reason": reason, **metadata}
    telemetry.execute(WORKER_TERMINATE.name, {"uptime": 1}, metadata)


def stats(collector: Collector, window: str = "1m", pool: str = "p") -> PoolStats:
    return collector.pool_stats(pool, WINDOWS[window])


# -- what went wrong last ---------------------------------------------------------------------------------------------


def failures(collector: Collector) -> list[tuple[str, str | None, str | None, str | None, float, int]]:
    return [msgspec.structs.astuple(failure) for failure in stats(collector).failures]


def test_failures_are_kept_with_their_words_the_latest_first(collector, clock) -> None:
    fail(error="ValueError", reason="work: ValueError: no such page", worker="p-0")
    clock.advance(2)
    fail("timeout", error="OperationTimeout", reason="work took longer than 3 s", worker="p-1")
    clock.advance(1)
    crash(exit_code=7, operation="work", stderr="Traceback\n  MemoryError: 8 GB\n")
    error("worker p-0 had no memory", cause="had no memory")
    assert failures(collector) == [
        ("start", "had no memory", None, "p-0", 0.0, 1),
        ("crash", "exit code 7: MemoryError: 8 GB", "work", "p-0", 0.0, 1),
        ("OperationTimeout", "work took longer than 3 s", "work", "p-1", 1.0, 1),
        ("ValueError", "no such page", "work", "p-0", 3.0, 1),
    ]


def test_equal_failures_are_one_entry_that_counts_them(collector, clock) -> None:
    for second in range(5):
        fail(reason="work: ValueError: no such page", worker=f"p-{second % 2}")
        fail(reason="work: ValueError: other", worker="p-0")
        clock.advance(1)
    assert failures(collector) == [
        ("ValueError", "other", "work", "p-0", 1.0, 5),
        ("ValueError", "no such page", "work", "p-0", 1.0, 5),
    ]


def test_calls_that_were_refused_or_cancelled_are_no_failures(collector) -> None:
    fail("rejected", error="PoolSaturated", reason="full")
    fail("cancelled", error="CancelledError", reason="gone", worker="p-0")
    fail(pool="another")
    assert failures(collector) == []


def test_twenty_kinds_of_failure_are_kept_for_an_hour_and_no_more_than_their_beginning(collector, clock) -> None:
    for number in range(1000):
        fail(reason=f"{number} " + "\U0001f389" * 10_000, error="E" * 1000, worker="p-0")
    kept = stats(collector).failures
    assert len(kept) == 20
    assert kept[0].message.startswith("999 ")
    assert (len(kept[0].message), len(kept[0].error)) == (300, 200)
    assert len(msgspec.json.encode(kept)) < LastFailures.bytes_for(1)
    clock.advance(3601)
    assert failures(collector) == []


@pytest.mark.parametrize("reason", [None, 7, b"bytes", "\udcff", ""])
def test_a_failure_whose_words_are_no_text_is_kept_without(collector, reason: Any) -> None:
    fail(reason=reason, worker="p-0")
    [(_error, message, *_rest)] = failures(collector)
    assert message == ("\\udcff" if reason == "\udcff" else None)


# -- what is counted ----------------------------------------------------------------------------------------------

calls = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["p-0", "p-1", None]),
    st.sampled_from(["ok", "ok", "ok", "ok", "error", "timeout", "worker_lost", "cancelled", "rejected"]),
    st.one_of(st.integers(0, 10**11), st.sampled_from([0, 999, MS])),
    st.integers(0, 10**9),
    st.one_of(st.none(), st.integers(0, 10**11)),
)
steps_s = st.one_of(st.floats(0, 2), st.sampled_from([0.0, 1.0, 5.0, 59.5, 60.0, 300.0, 901.0]))


@given(st.lists(st.tuples(steps_s, steps_s, st.lists(calls, max_size=20)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_statistics_are_those_of_a_list_of_all_calls(history) -> None:
    """Per pool, operation and worker; a batch counts at the moment its first call ended."""
    clock = ManualClock(FULL_MINUTE)
    collector = Collector(["p"], clock)
    collector.attach()
    seen = []
    try:
        for before_s, later_s, batch in history:
            clock.advance(before_s)
            at_ns = clock.monotonic_ns()
            for operation, worker, outcome, *times in batch:
                if outcome == "ok":
                    call = (operation, worker or "p-0", outcome, *times)
                    stop(*times, operation=operation, worker=call[1])
                else:
                    call = (operation, worker, outcome, times[0], MS, None)
                    fail(outcome, times[0], operation=operation, worker=worker)
                seen.append((at_ns, *call))
                clock.advance(later_s / 100)  # still the same batch: nobody reads
            for window in WINDOWS.values():
                step_ns = window.step * 10**9
                oldest = clock.monotonic_ns() // step_ns - window.steps + 1
                check(collector.pool_stats("p", window), [call[1:] for call in seen if call[0] // step_ns >= oldest])
    finally:
        collector.detach()


def check(found: PoolStats, inside: list[tuple]) -> None:
    check_calls(found.total, inside, found.covered_seconds)
    assert sum(bar.count for bar in found.histogram) == found.total.ok
    for operation in {call[0] for call in inside}:
        check_calls(found.operations[operation], [call for call in inside if call[0] == operation], None)
    for worker in {call[1] for call in inside if call[1]}:
        on_worker = [call for call in inside if call[1] == worker]
        check_calls(found.workers[worker].calls, on_worker, None)
        busy_ns = sum(max(d - q, 0) if e is None else e for *_, d, q, e in on_worker)
        assert found.workers[worker].busy_seconds == pytest.approx(busy_ns / 1e9)


def check_calls(found: CallStats, inside: list[tuple], covered_s: float | None) -> None:
    by_outcome = [call[2] for call in inside]
    errors = sum(by_outcome.count(outcome) for outcome in ("error", "timeout", "worker_lost"))
    assert found.ok == by_outcome.count("ok")
    assert found.errors == errors
    assert found.timeouts == by_outcome.count("timeout")
    assert found.workers_lost == by_outcome.count("worker_lost")
    assert found.cancelled == by_outcome.count("cancelled")
    assert found.rejected == by_outcome.count("rejected")
    assert found.calls == found.ok + errors + found.cancelled
    assert found.error_ratio == (errors / found.calls if found.calls else None)
    if covered_s is not None:
        assert found.rate == (found.calls / covered_s if covered_s else None)
    ok = [call for call in inside if call[2] == "ok"]
    check_distribution(found.latency, [call[3] for call in ok])
    check_distribution(found.queue, [call[4] for call in ok])
    check_distribution(found.execution, [call[5] for call in ok if call[5] is not None])


def check_distribution(found: Distribution, values: list[int]) -> None:
    assert found.count == len(values)
    if not values:
        assert found == Distribution()
        return
    values.sort()
    assert found.max == values[-1] / 1e9
    assert found.mean == pytest.approx(sum(values) / len(values) / 1e9, rel=1e-12)
    for name, per_mille in SHARES.items():
        exact = values[math.ceil(per_mille * len(values) / 1000) - 1]
        error = SMALLEST_NS if exact < SMALLEST_NS else exact * RELATIVE_ERROR * (1 + 1e-9)
        assert abs(getattr(found, name) * 1e9 - exact) <= error
        assert getattr(found, name) <= found.max


def test_no_percentile_lies_above_the_longest_call(collector: Collector) -> None:
    stop(duration=1_000_001)
    latency = stats(collector).total.latency
    assert latency.p50 == latency.p999 == latency.max == latency.mean == 1_000_001 / 1e9


def test_without_calls_ratio_and_percentiles_are_unknown_and_the_rate_is_zero(collector, clock) -> None:
    clock.advance(2)
    assert CallStats(rate=0.0) == stats(collector).total
    assert stats(collector).operations == {}
    assert stats(collector).workers == {}
    assert stats(collector).histogram == ()


def test_before_any_time_has_passed_the_rate_is_unknown(collector: Collector) -> None:
    stop()
    assert (stats(collector).total.calls, stats(collector).total.rate) == (1, None)


def test_refusals_alone_leave_the_error_ratio_unknown(collector: Collector) -> None:
    fail("rejected", worker=None)
    total = stats(collector).total
    assert (total.calls, total.rejected, total.error_ratio) == (0, 1, None)


def test_only_calls_that_ended_well_have_a_latency(collector: Collector) -> None:
    stop(duration=10 * MS)
    fail("timeout", duration=60_000 * MS, worker="p-0")
    assert (stats(collector).total.latency.count, stats(collector).total.latency.max) == (1, 0.01)


def test_calls_leave_the_windows_one_after_the_other(collector, clock) -> None:
    clock.advance(0.5)
    stop()
    collector.tick()
    expected = {
        59.4: (1, 1, 1, 1),
        60: (0, 1, 1, 1),
        299: (0, 1, 1, 1),
        300: (0, 0, 1, 1),
        899: (0, 0, 1, 1),
        900: (0, 0, 0, 1),
        3599: (0, 0, 0, 1),
        3600: (0, 0, 0, 0),
    }
    for at_s, counts in expected.items():
        clock.advance(at_s - clock.monotonic_ns() / 1e9)
        assert counts == tuple(stats(collector, name).total.calls for name in WINDOWS)


def test_an_operation_keeps_its_place_until_the_longest_window_has_forgotten_it(collector, clock) -> None:
    stop()
    clock.advance(400)
    assert stats(collector).operations["work"].calls == 0
    clock.advance(3600)
    assert stats(collector).operations == {}


def test_without_a_tick_calls_count_when_the_first_of_them_ended(collector, clock) -> None:
    stop()
    clock.advance(30)
    stop()
    assert stats(collector).total.calls == 2
    clock.advance(30)
    assert stats(collector).total.calls == 0


def test_refused_calls_have_a_course_of_their_own(collector, clock) -> None:
    fail("rejected")
    fail("rejected")
    stop()
    clock.advance(2)
    trend = stats(collector).trend
    assert (trend.rejected[-2:], trend.ok[-2:], trend.errors[-2:]) == ((2.0, 0.0), (1.0, 0.0), (0.0, 0.0))


def test_calls_after_a_long_silence_are_new(collector, clock) -> None:
    clock.advance(3000)
    stop()
    assert [stats(collector, name).total.calls for name in WINDOWS] == [1, 1, 1, 1]


def test_covered_time_runs_from_attaching(clock) -> None:
    collector = Collector(["p"], clock)
    clock.advance(100)
    collector.attach()
    clock.advance(7.25)
    assert [collector.covered_seconds(window) for window in WINDOWS.values()] == [7.25] * 4
    assert stats(collector).covered_seconds == 7.25
    collector.detach()


def test_the_chart_shows_calls_per_second(collector, clock) -> None:
    for ok, errors in [(3, 0), (2, 1), (0, 0)]:
        for _ in range(ok):
            stop()
        for _ in range(errors):
            fail(worker="p-0")
        fail("cancelled", worker="p-0")
        clock.advance(collector.until_tick())
        collector.tick()
    trend = stats(collector).trend
    assert (trend.ok[-3:], trend.errors[-3:]) == ((3.0, 2.0, 0.0), (0.0, 1.0, 0.0))
    assert (len(trend.ok), trend.ok[0]) == (60, None)
    assert trend.end == clock.wall_ns() / 1e9


def test_calls_of_the_second_in_which_it_was_attached_are_in_the_chart(clock) -> None:
    clock.advance(2.75)
    collector = Collector(["p"], clock)
    collector.attach()
    stop()
    stop()
    fail(worker="p-0")
    clock.advance(collector.until_tick())
    collector.tick()
    for window in ("1m", "5m"):
        trend = stats(collector, window).trend
        assert (trend.ok[-2:], trend.errors[-2:]) == ((None, 2.0), (None, 1.0))
    clock.advance(3)
    assert sum(bool(value) for value in stats(collector, "15m").trend.ok) == 1
    collector.detach()


def test_the_chart_survives_a_wall_clock_that_steps(collector, clock) -> None:
    stop()
    clock.advance(2)
    clock.step_wall(-3600.5)
    trend = stats(collector).trend
    assert 1.0 in trend.ok
    assert 0 <= clock.wall_ns() / 1e9 - trend.end < 2


@pytest.mark.parametrize("until_s", [0.0, 0.25, 0.999])
def test_the_next_tick_is_due_at_the_next_full_second(collector, clock, until_s: float) -> None:
    clock.advance(until_s)
    assert collector.until_tick() == pytest.approx(1 - until_s)


# -- whose events -------------------------------------------------------------------------------------------------


def test_calls_of_other_pools_are_nobodys_business(collector: Collector) -> None:
    stop(pool="q")
    fail(pool="q", worker="q-0")
    crash(pool="q", worker="q-0")
    view = collector.self_view()
    assert (view.events, view.dropped, view.series) == (0, 0, 3)


def test_asking_for_another_pool_is_an_error(collector: Collector) -> None:
    with pytest.raises(KeyError, match="q"):
        stats(collector, pool="q")


def test_two_collectors_count_the_same_calls_without_disturbing_each_other(collector, clock) -> None:
    other = Collector(["p", "q"], clock)
    other.attach()
    stop()
    stop(pool="q")
    assert stats(collector).total.calls == 1
    assert [stats(other, pool=pool).total.calls for pool in ("p", "q")] == [1, 1]
    other.detach()
    stop()
    assert (stats(collector).total.calls, stats(other).total.calls) == (2, 1)
    assert (collector.collecting, other.collecting) == (True, False)


def test_attaching_again_starts_over(collector, clock) -> None:
    stop()
    clock.advance(5)
    collector.attach()
    stop()
    assert (stats(collector).total.calls, stats(collector).covered_seconds) == (1, 0.0)


def test_detaching_leaves_no_handler_behind(clock) -> None:
    before = telemetry.list_handlers()
    collector = Collector(["p"], clock)
    collector.attach()
    collector.detach()
    collector.detach()
    assert before == telemetry.list_handlers()


# -- odd input ----------------------------------------------------------------------------------------------------

ODD = [
    {"duration": -1},
    {"duration": 10**30},
    {"duration": 10**16},
    {"duration": 0.5},
    {"duration": "long"},
    {"duration": None},
    {"queue": -5},
    {"queue": [1]},
    {"execution": -7},
    {"execution": "none"},
    {"operation": None},
    {"operation": 7},
    {"operation": ["a"]},
    {"worker": 3},
    {"worker": {}},
    {"pool": []},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_malformed_event_is_dropped_and_counted_and_costs_no_other(collector, odd: dict[str, Any]) -> None:
    stop()
    stop(**odd)
    stop()
    view = collector.self_view()
    assert (view.events, view.dropped, stats(collector).total.calls, view.collecting) == (2, 1, 2, True)


@pytest.mark.parametrize("missing", ["duration", "queue_duration", "pool", "operation", "worker"])
def test_an_event_without_a_key_is_dropped_and_counted(collector, missing: str) -> None:
    measurements = {"duration": 1, "queue_duration": 1}
    metadata = {"pool": "p", "operation": "work", "worker": "p-0"}
    measurements.pop(missing, None)
    metadata.pop(missing, None)
    telemetry.execute(OPERATION_STOP.name, measurements, metadata)
    assert (stats(collector).total.calls, collector.self_view().dropped, collector.collecting) == (0, 1, True)


@pytest.mark.parametrize(
    "event",
    [OPERATION_STOP, OPERATION_EXCEPTION, WORKER_CRASH, WORKER_TERMINATE, POOL_ERROR],
    ids=lambda spec: spec.dotted,
)
@pytest.mark.parametrize("junk", [None, 7, "text", {}], ids=repr)
def test_nonsense_instead_of_an_event_is_dropped_and_counted(collector, event, junk) -> None:
    event.event.emit(junk, {} if junk is None else junk)
    assert (collector.self_view().dropped, collector.collecting) == (1, True)


class Odd:
    """Can be neither compared nor hashed, and is neither true nor false."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


@pytest.mark.parametrize("key", ["pool", "pool_instance", "worker", "reason", "cause"])
@pytest.mark.parametrize("value", [[], {}, Odd(), None, 7], ids=lambda value: type(value).__name__)
def test_no_value_in_an_event_ends_the_counting_of_others(clock, key: str, value: object) -> None:
    about = {"pool": "p", "operation": "work", "worker": "p-0", "outcome": "error", "category": "operation"}
    about |= {"reason": "health", "cause": "why", "pool_instance": "1"}
    collector = Collector(["p"], clock, instances={"p": "1"})
    collector.attach()
    try:
        for spec in (OPERATION_STOP, OPERATION_EXCEPTION, WORKER_CRASH, WORKER_TERMINATE, POOL_ERROR, POOL_RETRY):
            telemetry.execute(spec.name, {"duration": 5, "queue_duration": 1}, about | {key: value})
        assert collector.collecting
        stop()
        assert stats(collector).total.calls >= 1
    finally:
        collector.detach()


@pytest.mark.parametrize("outcome", ["ok", "unheard-of", None, []])
def test_an_outcome_that_is_none_is_dropped_and_counted(collector, outcome) -> None:
    fail(outcome, worker="p-0")
    assert (stats(collector).total.calls, collector.self_view().dropped) == (0, 1)


def test_a_duration_beyond_the_histogram_is_clamped_and_its_sum_and_maximum_stay_exact(collector) -> None:
    stop(duration=5000 * 10**9)
    total = stats(collector).total
    assert (total.latency.max, total.latency.mean) == (5000.0, 5000.0)
    assert 4000 < total.latency.p50 <= 5000
    assert (collector.self_view().clamped, collector.self_view().dropped) == (1, 0)


def test_a_queue_time_of_nothing_is_no_clamping(collector: Collector) -> None:
    stop(queue=0)
    assert stats(collector).total.queue.p99 == 0.0
    assert collector.self_view().clamped == 0


# -- watching itself ----------------------------------------------------------------------------------------------


def test_its_own_failing_handler_is_noticed(collector, monkeypatch) -> None:
    monkeypatch.setattr(collector._intake, "_note_failure", lambda *_args: 1 / 0)
    fail(worker="p-0")
    view = collector.self_view()
    assert (view.collecting, view.handler_failures, view.dropped) == (False, 1, 1)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_an_event_that_raises_when_it_is_read_is_dropped_and_counted(collector, error: type[BaseException]) -> None:
    class Trap(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise error

    class Number:
        def __index__(self) -> int:
            raise error

    stop()
    for event in (OPERATION_STOP, OPERATION_EXCEPTION, WORKER_CRASH, WORKER_TERMINATE, POOL_ERROR):
        telemetry.execute(event.name, {}, Trap())
    stop(duration=Number())
    view = collector.self_view()
    assert (view.events, view.dropped, view.collecting) == (1, 6, True)
    assert stats(collector).total.calls == 1


def test_somebody_elses_failing_handler_is_counted_and_nothing_more(collector: Collector) -> None:
    telemetry.attach("broken", OPERATION_STOP.name, lambda *_: 1 / 0)
    stop()
    view = collector.self_view()
    assert (view.collecting, view.handler_failures, view.dropped, view.events) == (True, 1, 0, 1)


def test_being_detached_by_somebody_else_is_noticed(collector: Collector) -> None:
    telemetry.detach(f"{collector.id}.stop")
    assert not collector.self_view().collecting


# -- last errors --------------------------------------------------------------------------------------------------


def test_a_slot_remembers_the_last_thing_that_went_wrong_for_as_long_as_the_longest_window(collector, clock) -> None:
    fail("error", worker="p-0", error="KeyError")
    clock.advance(10)
    worker = stats(collector).workers["p-0"]
    assert (worker.last_error, worker.last_error_age) == ("KeyError", 10.0)
    clock.advance(3591)
    assert stats(collector).workers["p-0"].last_error is None


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"exit_code": -9}, "crash: signal 9"),
        ({"exit_code": 3}, "crash: exit code 3"),
        ({}, "crash: killed"),
    ],
)
def test_a_crash_is_told_in_words_and_not_hidden_by_the_call_that_died_of_it(collector, clock, metadata, text) -> None:
    stop()
    crash(**metadata)
    fail("worker_lost", worker="p-0", error="WorkerDied")
    assert text == stats(collector).workers["p-0"].last_error
    clock.advance(2)
    fail("worker_lost", worker="p-0", error="ProtocolError")
    assert stats(collector).workers["p-0"].last_error == "ProtocolError"


def test_a_slot_that_crashed_before_its_first_call_has_its_error_too(collector: Collector) -> None:
    crash(exit_code=-11, worker="p-7")
    worker = stats(collector).workers["p-7"]
    assert (worker.last_error, worker.calls.calls) == ("crash: signal 11", 0)


@pytest.mark.parametrize(
    ("cause", "category", "text"),
    [
        ("RuntimeError: lic", "initialization", "start: RuntimeError: lic"),
        ("ValueError: a: 'b': c\nmore", "initialization", "start: ValueError: a: 'b': c"),
        ("exit code 9: no licence", "initialization", "start: exit code 9: no licence"),
        ("had not loaded 'm' after 3 s", "initialization", "start: had not loaded 'm' after 3 s"),
        ("", "initialization", "start: unknown"),
        (None, "initialization", "start: it went wrong"),
        (["no text"], "initialization", "start: it went wrong"),
        ("broke the protocol: eh?", "communication", "broke the protocol: eh?"),
        ("x" * 1000, "operation", "x" * 80),
    ],
)
def test_why_a_worker_cannot_start_or_was_killed_is_told_in_few_words(collector, cause, category, text) -> None:
    crash(exit_code=3)
    error("it went wrong\nhere", category, **({} if cause is None else {"cause": cause}))
    assert stats(collector).workers["p-0"].last_error == text


def test_the_call_that_was_lost_with_a_worker_does_not_hide_why(collector, clock) -> None:
    error("worker p-0 broke the protocol: eh?", "communication", cause="broke the protocol: eh?")
    fail("worker_lost", worker="p-0", error="ProtocolError")
    assert stats(collector).workers["p-0"].last_error == "broke the protocol: eh?"
    fail("error", worker="p-0", error="KeyError")
    fail("worker_lost", worker="p-0", error="ProtocolError")
    assert stats(collector).workers["p-0"].last_error == "ProtocolError"


def test_trouble_of_no_slot_and_of_other_pools_is_nobodys_last_error(collector: Collector) -> None:
    error(worker=None)
    error(pool="q", worker="q-0")
    assert stats(collector).workers == {}
    assert collector.self_view().dropped == 0


def test_workers_that_died_are_counted_as_long_as_the_window_reaches(collector, clock) -> None:
    clock.advance(0.5)
    crash()
    clock.advance(2)
    end("health")
    end("protocol")
    crash(worker="p-1", exit_code=-9)
    for reason in ("close", "resize", "recycle", "timeout", "cancel"):
        end(reason)
    crash(pool="q", worker="q-0")
    end("health", pool="q", worker="q-0")
    fail(worker="p-1")
    assert stats(collector).last_death == "signal 9"
    assert [stats(collector, name).deaths for name in WINDOWS] == [4, 4, 4, 4]
    clock.advance(58.4)  # the second of the first one leaves the shortest window
    assert [stats(collector, name).deaths for name in WINDOWS] == [3, 4, 4, 4]
    clock.advance(3600)
    assert [stats(collector, name).deaths for name in WINDOWS] == [0, 0, 0, 0]
    assert stats(collector).last_death is None


def test_no_secret_is_left_in_what_is_said_of_processes_and_of_long_failures(collector: Collector) -> None:
    long = "x" * 200
    error(f"cannot load 'm:T': ValueError: {'y' * 20} https://bob:{long}@db failed", worker="p-1")
    crash(worker="p-0", exit_code=None, reason="password=hunter2")
    fail(reason=f"work: ValueError: {'z ' * 140}https://bob:{long}@db failed", error="ValueError")
    found = stats(collector)
    said = [*(worker.last_error for worker in found.workers.values()), found.last_death]
    said += [failure.message for failure in found.failures]
    assert any("<secret>" in text for text in said if text)
    assert not [text for text in said if text and ("xxx" in text or "bob" in text or "hunter2" in text)]


@pytest.mark.parametrize(("reason", "text"), [("health", "did not answer"), ("protocol", "violated the protocol")])
def test_a_worker_that_had_to_be_killed_died_too(collector: Collector, reason: str, text: str) -> None:
    end(reason)
    assert (stats(collector).deaths, stats(collector).last_death) == (1, text)


def test_a_death_leaves_the_calls_before_it_in_their_second(collector, clock) -> None:
    clock.advance(0.9)
    stop()
    clock.advance(0.2)
    crash()
    collector.tick()
    assert stats(collector).trend.ok[-1] == 1.0


@pytest.mark.parametrize("outcome", ["cancelled", "rejected"])
def test_what_is_not_the_slots_fault_is_no_error_of_it(collector, outcome: str) -> None:
    fail(outcome, worker="p-0")
    assert stats(collector).workers["p-0"].last_error is None


def test_only_so_many_last_errors_are_kept(collector, monkeypatch) -> None:
    monkeypatch.setattr("pool_monitor.metrics.last_errors.LAST_ERRORS", 3)
    for number in [0, 1, 2, 3, 1, 4]:
        crash(worker=f"p-{number}")
    assert {"p-3", "p-1", "p-4"} == set(stats(collector).workers)


# -- bounds -------------------------------------------------------------------------------------------------------


def small(clock: ManualClock, rows: int, **limits: Any) -> Collector:
    collector = Collector(["p"], clock, series_limit=rows * 3, **limits)
    collector.attach()
    return collector


def test_past_the_label_budget_calls_are_counted_under_other_on_their_worker(clock) -> None:
    collector = small(clock, rows=32)
    for number in range(100):
        stop(operation=f"op{number:03}", worker=f"p-{number % 2}")
    found, view = stats(collector), collector.self_view()
    named = [name for name in found.operations if name != "other"]
    assert len(named) == 27
    assert 73 == found.operations["other"].calls == view.overflowed
    assert (found.total.calls, *(found.workers[name].calls.calls for name in ("p-0", "p-1"))) == (100, 50, 50)
    assert view.series <= view.series_limit == 96
    collector.detach()


def by_lane(worker: str = "p-0", operation: str = "work", pool: str = "p") -> None:
    series = OPERATION_STOP.event.series
    assert series is not None
    series[pool, operation, worker, "none"](10 * MS, MS, 9 * MS)


@pytest.mark.parametrize("odd", [-1, math.nan, math.inf, 1.5, "long", None, 10**15 + 1, 2**63, True, [1]])
def test_odd_numbers_are_dropped_counted_and_spoil_nothing(collector: Collector, odd: Any) -> None:
    series = OPERATION_STOP.event.series
    assert series is not None
    for numbers in ((odd, MS, MS), (MS, odd, MS), (MS, MS, odd), (3 * MS, MS, 2 * MS)):
        series["p", "work", "p-0", "none"](*numbers)
    found, view = stats(collector).total, collector.self_view()
    good = 4 if odd is True else 1  # a truth is a whole number to Python, and to struct
    assert (found.calls, found.latency.max, view.dropped) == (good, 0.003, 4 - good)


def test_past_the_label_budget_calls_told_by_numbers_alone_are_counted_likewise(clock) -> None:
    collector = small(clock, rows=32)
    for _ in range(2):
        for number in range(100):
            by_lane(operation=f"op{number:03}", worker=f"p-{number % 2}")
    by_lane(pool="somebody else's")
    found, view = stats(collector), collector.self_view()
    assert (found.total.calls, view.events, view.overflowed, view.dropped) == (200, 200, 146, 0)
    assert found.operations["op000"].calls == 2
    assert found.operations["other"].calls == 146
    collector.detach()


def test_numbers_bound_to_a_row_that_was_given_away_are_bound_anew(clock) -> None:
    collector = small(clock, rows=16)
    by_lane(operation="old")
    collector.tick()
    clock.advance(4000)
    for number in range(13):
        by_lane(operation=f"new{number}")
    by_lane(operation="old")
    found = stats(collector)
    assert {name: view.calls for name, view in found.operations.items() if name.startswith("new")} == {
        f"new{number}": 1 for number in range(13)
    }
    assert (found.operations["other"].calls, found.total.calls) == (1, 14)
    collector.detach()


def test_when_even_other_has_run_out_of_rows_calls_still_count(clock) -> None:
    collector = small(clock, rows=16)
    for number in range(100):
        stop(operation=f"op{number}", worker=f"p-{number}")
    assert stats(collector).total.calls == 100
    assert collector.self_view().series == 48
    collector.detach()


def test_a_budget_of_one_row_counts_everything_under_other(clock) -> None:
    collector = small(clock, rows=1)
    stop(worker="p-0")
    assert {name: view.calls for name, view in stats(collector).operations.items()} == {"other": 1}
    collector.detach()


def test_names_nobody_uses_any_more_make_room_for_new_ones(clock) -> None:
    collector = small(clock, rows=16)
    for generation in range(4):
        for number in range(10):
            stop(operation=f"op-{generation}-{number}")
        assert {f"op-{generation}-{number}" for number in range(10)} == set(stats(collector).operations)
        clock.advance(4000)
    assert collector.self_view().overflowed == 0
    collector.detach()


def test_a_very_long_name_gets_no_row_of_its_own(collector: Collector) -> None:
    stop(operation="x" * 1000)
    stop(operation="y", worker="z" * 1000)
    assert {"other"} == set(stats(collector).operations)
    assert collector.self_view().overflowed == 2


def test_what_has_no_utf8_form_reaches_no_reader(collector: Collector) -> None:
    """A half surrogate, as os.fsdecode makes of odd bytes, would make every answer unencodable."""
    stop(operation="caf\udce9")
    stop(operation="café", worker="\udce9")
    fail("error", worker="p-0", error="Err\udce9r")
    fail("error", worker="\udce9")
    crash(worker="p-1", exit_code=None, reason="\udce9")
    found = stats(collector)
    msgspec.json.encode(found)
    assert (found.total.calls, set(found.operations), found.last_death) == (4, {"other", "work"}, "\\udce9")
    assert found.workers["p-0"].last_error == "Err\\udce9r"


def test_a_limit_without_room_for_the_pools_is_refused(clock) -> None:
    with pytest.raises(ConfigError, match="series_limit=5 is too low for 2 pools; allow at least 6"):
        Collector(["p", "q"], clock, series_limit=5)


def test_a_memory_limit_below_what_empty_windows_need_is_refused(clock) -> None:
    with pytest.raises(ConfigError, match=r"series_limit=2000 needs [\d,]+ bytes, more than memory_limit=1,000,000"):
        Collector(["p"], clock, series_limit=2000, memory_limit=1_000_000)


@pytest.mark.parametrize(
    ("series_limit", "pools"), [(3, 1), (1500, 400), (2000, 1), (2000, 10), (2000, 400), (100_000, 1), (100_000, 400)]
)
def test_the_default_memory_limit_fits_every_series_limit_and_number_of_pools(clock, series_limit, pools) -> None:
    limit = Collector(map(str, range(pools)), clock, series_limit=series_limit).memory_limit
    for_groups = ErrorGroups.bytes_for(pools, 256)
    assert limit == max(64 * 2**20, series_limit * 32 * 2**10 + pools * 256 * 2**10 + for_groups - 512 * 2**10)


def flood(collector: Collector, clock: ManualClock, seconds: int, per_second: int) -> None:
    """Calls over 50 rows whose durations spread over two orders of magnitude."""
    series = OPERATION_STOP.event.series
    assert series is not None
    records = [series["p", f"op{n % 10}", f"p-{n // 10}", "none"] for n in range(50)]
    rng = np.random.default_rng(seconds)
    for _ in range(seconds):
        queue, execution = (rng.lognormal([[11], [17]], 0.8, (2, per_second))).astype(int).tolist()
        for n in range(per_second):
            records[n % 50](queue[n] + execution[n], queue[n], execution[n])
        clock.advance(1)
        collector.tick()


@pytest.mark.parametrize("per_second", [100, in_gates(200)])
def test_memory_does_not_grow_with_the_number_of_events(collector, clock, per_second) -> None:
    flood(collector, clock, seconds=3700, per_second=per_second)
    before = collector.memory_bytes()
    flood(collector, clock, seconds=600, per_second=per_second)
    assert collector.memory_bytes() == pytest.approx(before, rel=0.02)
    assert collector.memory_bytes() < collector.memory_limit
    assert collector.self_view().events == 4300 * per_second


@pytest.mark.slow
@pytest.mark.gate
def test_a_series_at_ten_calls_a_second_stays_below_eighty_kilobytes(collector, clock) -> None:
    flood(collector, clock, seconds=3700, per_second=500)
    view = collector.self_view()
    assert view.memory_bytes / view.series < 80_000


def test_within_a_small_memory_limit_the_windows_reach_back_less_far_and_say_so(clock) -> None:
    never = Rungs(over=math.inf, far_over=math.inf)
    collector = small(clock, rows=64, memory_limit=9_000_000, error_groups=1, rungs=never)
    for _ in range(40):
        flood(collector, clock, seconds=20, per_second=500)
        assert collector.memory_bytes() <= collector.memory_limit
    covered = stats(collector, "15m").covered_seconds
    assert 15 <= covered < 780
    assert stats(collector, "15m").total.calls == round(covered) * 500
    assert stats(collector, "15m").total.rate == pytest.approx(500)
    collector.detach()


def test_a_full_buffer_is_folded_at_once(collector: Collector) -> None:
    for _ in range(BUFFER_EVENTS - 1):
        stop()
    held = collector.memory_bytes()
    stop()
    assert collector.memory_bytes() < held + 3_000_000
    assert not collector._intake._buffer
    assert stats(collector).total.calls == BUFFER_EVENTS


@pytest.mark.parametrize("by_numbers", [True, False])
def test_taking_in_an_event_leaves_nothing_for_the_garbage_collector(collector: Collector, by_numbers: bool) -> None:
    measurements = {"duration": MS, "queue_duration": MS, "execution_duration": MS}
    metadata = {"pool": "p", "operation": "work", "worker": "p-0", "call_id": 1}

    def tell() -> None:
        if by_numbers:
            by_lane()
        else:
            OPERATION_STOP.event.emit(measurements, metadata)

    tell()
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        for _ in range(1000):
            tell()
        assert gc.get_count()[0] - before < 20
    finally:
        gc.enable()


# -- merging with the gauges --------------------------------------------------------------------------------------

STATUS = PoolView(
    name="p", state="running", size=2, busy=1, idle=1, starting=0, draining=0, dead=0, waiting=3, queue_limit=10,
    sessions=4, restarts=5, completed=6,
)  # fmt: skip


def gauges(number: int, state: str = "ready", state_age: float = 1.0) -> WorkerView:
    return WorkerView(
        id=f"p-{number}", state=state, state_age=state_age, pid=number, age=9.0, restarts=0, operation=None
    )


def test_a_pool_in_a_snapshot_has_its_gauges_and_what_was_measured(collector, clock) -> None:
    stop(worker="p-0")
    fail(worker="p-0")
    crash(worker="p-1")
    clock.advance(10)
    found = detail(STATUS, [gauges(0), gauges(1)], stats(collector))
    assert (found.name, found.waiting, found.completed) == ("p", 3, 6)
    assert (found.deaths, found.last_death) == (1, "killed")
    assert (found.total.calls, found.operations["work"].errors, sum(bar.count for bar in found.histogram)) == (2, 1, 1)
    assert list(found.workers) == ["p-0", "p-1"]
    assert (
        found.workers["p-0"].calls, found.workers["p-0"].last_error, found.workers["p-0"].last_error_age
    ) == (2, "ValueError", 10.0)  # fmt: skip


def test_a_slot_without_calls_gets_empty_statistics(collector, clock) -> None:
    clock.advance(10)
    [worker] = detail(STATUS, [gauges(1)], stats(collector)).workers.values()
    assert (0, 0.0, 0.0, Distribution()) == (worker.calls, worker.rate, worker.busy_ratio, worker.latency)


def test_a_slot_that_is_gone_is_left_out_but_its_calls_stay_in_the_totals(collector: Collector) -> None:
    stop(worker="p-9")
    found = detail(STATUS, [gauges(0)], stats(collector))
    assert (list(found.workers), found.total.calls) == (["p-0"], 1)


@pytest.mark.parametrize(
    ("execution_s", "state", "state_age", "ratio"),
    [
        (5.0, "ready", 100.0, 0.5),
        (0.0, "busy", 2.5, 0.25),
        (5.0, "busy", 2.5, 0.75),
        (0.0, "busy", 100.0, 1.0),
        (9.0, "busy", 9.0, 1.0),
        (30.0, "ready", 1.0, 1.0),
    ],
)
def test_the_busy_ratio_counts_finished_calls_and_the_one_under_way(
    collector, clock, execution_s: float, state: str, state_age: float, ratio: float
) -> None:
    stop(duration=40 * 10**9, execution=round(execution_s * 1e9))
    clock.advance(10)
    [worker] = detail(STATUS, [gauges(0, state, state_age)], stats(collector)).workers.values()
    assert worker.busy_ratio == pytest.approx(ratio)


def test_a_worker_that_goes_from_call_to_call_is_busy_no_longer_than_it_was(collector, clock) -> None:
    stop(duration=40 * 10**9, execution=3 * 10**9)
    clock.advance(10)
    worker = msgspec.structs.replace(gauges(0, "busy", state_age=4.0), call_age=1.0)  # calls that ended were before it
    found = detail(STATUS, [worker], stats(collector))
    assert found.workers["p-0"].busy_ratio == pytest.approx(0.4)
    assert found.busy_ratio == pytest.approx(0.4 / STATUS.size)


def test_the_busy_ratio_of_a_pool_is_that_of_its_slots_also_of_those_that_are_gone(collector, clock) -> None:
    for slot, seconds in (("p-0", 2), ("p-1", 100), ("p-9", 4)):
        stop(worker=slot, duration=100 * 10**9, execution=seconds * 10**9)
    clock.advance(10)
    found = detail(STATUS, [gauges(0, "busy", 3.0), gauges(1)], stats(collector))
    assert [worker.busy_ratio for worker in found.workers.values()] == pytest.approx([0.5, 1.0])
    assert found.busy_ratio == pytest.approx((0.2 + 0.3 + 1.0 + 0.4) / STATUS.size)


def test_the_busy_ratio_is_of_the_workers_that_were_wanted_over_the_window(collector, clock) -> None:
    for size in (2, 2, 2, 8):
        clock.advance(1)
        collector.sample(msgspec.structs.replace(STATUS, size=size))
    stop(worker="p-0", execution=7 * 10**9, duration=9 * 10**9)
    found = detail(msgspec.structs.replace(STATUS, size=8), [gauges(0)], stats(collector))
    assert found.busy_ratio == pytest.approx(4 / (3.5 * 4))


def test_a_failed_call_kept_its_slot_busy_too(collector, clock) -> None:
    fail("timeout", duration=4 * 10**9 + MS, worker="p-0")
    clock.advance(10)
    [worker] = detail(STATUS, [gauges(0)], stats(collector)).workers.values()
    assert worker.busy_ratio == pytest.approx(0.4)


def test_the_busy_ratio_is_unknown_while_nothing_is_covered(collector: Collector) -> None:
    [worker] = detail(STATUS, [gauges(0, "busy")], stats(collector)).workers.values()
    assert worker.busy_ratio is None


# -- room ---------------------------------------------------------------------------------------------------------


def test_a_process_that_may_not_have_so_many_addresses_is_told_how_many_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_shape: Any) -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("pool_monitor.metrics.window.reserved", full)
    with pytest.raises(ConfigError, match=r"series_limit=2000 reserves \d\d MiB of address space.* \(ulimit -v\)"):
        Collector(["p"], ManualClock())


def test_windows_that_begin_anew_do_not_take_up_room_beside_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Windows] = weakref.WeakSet()

    class Counted(Windows):
        def __init__(self, *arguments: Any, gapless: bool) -> None:
            assert not alive
            super().__init__(*arguments, gapless=gapless)
            alive.add(self)

    monkeypatch.setattr("pool_monitor.metrics.stores.Windows", Counted)
    collector = Collector(["p"], ManualClock())
    try:
        for _ in range(2):
            collector.attach()
    finally:
        collector.detach()
    assert len(alive) == 1
