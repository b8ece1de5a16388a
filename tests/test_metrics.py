"""Questions about the last hour, against a plain list of every call."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pool_monitor import telemetry
from pool_monitor.clock import ManualClock, SteadyClock, WakefulClock
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.events import OPERATION_EXCEPTION, OPERATION_STOP, WORKER_CRASH
from pool_monitor.export.tabular import rows
from pool_monitor.metrics import WINDOWS, Collector, LiveMetrics
from pool_monitor.metrics.histogram import RELATIVE_ERROR, SMALLEST_NS
from pool_monitor.snapshot import Distribution, PoolView, Range, Snapshot
from tests.helpers import samples

MS = 1_000_000
START = 1_699_999_980
"""A full minute."""
SHARES = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999}


class Rig:
    """A collector of two pools on a clock that is told the time, and the questions to it."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.collector = Collector(["p", "q"], self.clock)
        self.collector.attach()
        self.busy_ratios: dict[str, float] = {}
        self.metrics = LiveMetrics(self.collector, self.snapshot)

    def snapshot(self, window: str) -> Snapshot:
        """All of a Snapshot that a summary asks for."""
        pools = samples.snapshot(pools=tuple(self.busy_ratios)).pools
        found = {name: replace(pool, busy_ratio=self.busy_ratios[name]) for name, pool in pools.items()}
        return replace(samples.snapshot(window=window), pools=found)

    @property
    def now(self) -> float:
        return self.clock.wall_ns() / 1e9

    def go(self, seconds: float) -> None:
        """Let time pass, with ticks as a monitor has them."""
        whole, rest = divmod(seconds, 1)
        for step in [1.0] * int(whole) + [rest]:
            self.clock.advance(step)
            self.collector.tick()

    def ok(self, ms: float = 10, *, pool: str = "p", operation: str = "work", worker: str = "p-0", **more: Any) -> None:
        ns = round(ms * MS)
        telemetry.execute(
            OPERATION_STOP.name,
            {"duration": ns, "queue_duration": 0, "attempts": 1, "execution_duration": ns},
            {"pool": pool, "operation": operation, "worker": worker, "call_id": 1, "session_kind": "none", **more},
        )

    def fail(self, outcome: str = "error", category: str = "operation", **metadata: Any) -> None:
        about = {"pool": "p", "operation": "work", "worker": "p-0", "call_id": 1, "session_kind": "none"}
        about |= {"kind": "error", "outcome": outcome, "category": category, "error": "ValueError", "reason": "no"}
        measured = {"duration": MS, "queue_duration": MS, "attempts": 1}
        telemetry.execute(OPERATION_EXCEPTION.name, measured, {**about, **metadata})


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.collector.detach()


def status(name: str = "p", **gauges: int) -> PoolView:
    zero = dict.fromkeys(
        ("size", "busy", "idle", "starting", "draining", "dead", "waiting", "queue_limit", "sessions", "restarts",
         "completed"), 0
    )  # fmt: skip
    return PoolView(name=name, state="running", **{**zero, **gauges})


def check_distribution(found: Distribution, ns: list[int]) -> None:
    assert found.count == len(ns)
    if not ns:
        assert found == Distribution()
        return
    ns = sorted(ns)
    assert found.max == ns[-1] / 1e9
    assert found.mean == pytest.approx(sum(ns) / len(ns) / 1e9)
    for name, share in SHARES.items():
        exact = ns[math.ceil(share * len(ns) / 1000) - 1]
        error = max(exact * RELATIVE_ERROR * (1 + 1e-9), SMALLEST_NS if exact < SMALLEST_NS else 0)
        assert abs(getattr(found, name) * 1e9 - exact) <= error


# -- range --------------------------------------------------------------------------------------------------------

durations = st.one_of(
    st.integers(0, 10**10),
    st.floats(0, 1, exclude_max=True).map(lambda u: min(round(MS * (1 - u) ** (-1 / 1.2)), 10**12)),  # heavy-tailed
    st.sampled_from([100_000, 50 * MS]),  # bimodal
    st.just(7 * MS),  # constant
)
traffic = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("ab"), st.sampled_from(["p", "q"]), st.lists(durations, max_size=20)),
    max_size=25,
)


@pytest.mark.slow
@pytest.mark.gate
@given(traffic, st.sampled_from([1, 2, 5, 10, 15, 20, 30, 60, 120]), st.integers(0, 1200), st.data())
@settings(max_examples=80, deadline=None)
def test_every_step_of_a_range_has_exactly_its_own_calls(history, step, length, data) -> None:
    """Counts, means and all percentiles, for every window's grain, across step edges and roll-ups."""
    rig = Rig()
    calls = []
    try:
        for after_s, operation, pool, times in history:
            rig.go(after_s)
            for ns in times:
                rig.ok(ns / MS, operation=operation, pool=pool)
                calls.append((math.floor(rig.now), operation, pool, round(ns / MS * MS)))
        start = math.floor(rig.now) - length
        pool = data.draw(st.sampled_from([None, "p"]))
        try:
            found = rig.metrics.range(start, step=step, pool=pool)
        except ConfigError:
            if start >= rig.now:
                return
            kept = max(window.seconds for window in WINDOWS.values() if step % window.step == 0)
            assert start // step * step <= rig.now - kept
            return
        assert (found.start, found.step) == (start // step * step, step)
        assert found.end - step < rig.now <= found.end or found.end == rig.now
        assert [point.start for point in found.points] == list(range(round(found.start), round(found.end), step))
        kept = found.start >= rig.now - 50  # what lies further back may have left the finest window
        for point in found.points:
            inside = [call for call in calls if point.start <= call[0] < point.start + step and pool in (None, call[2])]
            if kept or point.start > found.start + 60:
                assert point.calls == point.ok == len(inside)
                check_distribution(point.latency, [call[3] for call in inside])
    finally:
        rig.collector.detach()


def test_a_range_knows_what_was_not_measured(rig) -> None:
    rig.go(20)
    rig.ok()
    rig.go(10)
    found = rig.metrics.range(START - 20, START + 30, "10s")
    assert [point.covered_seconds for point in found.points] == [0, 0, 10, 10, 10]
    assert [point.rate for point in found.points] == [None, None, 0.0, 0.0, 0.1]
    assert [point.latency.p99 is None for point in found.points] == [True, True, True, True, False]


def test_a_range_reaches_back_as_far_as_it_was_asked_for_whatever_its_step(rig) -> None:
    for _ in range(1200):
        rig.ok()
        rig.ok()
        rig.go(1)
    for back, step in ((300, 300), (900, 900), (65, 10), (60, 60), (300, 60)):
        found = rig.metrics.range(rig.now - back, step=step)
        assert [point.calls for point in found.points if point.start + step <= rig.now] == [2 * step] * len(
            [point for point in found.points if point.start + step <= rig.now]
        )


def test_the_rate_of_a_step_under_way_is_one_over_the_time_that_has_passed(rig) -> None:
    for _ in range(17):
        rig.ok()
        rig.clock.advance(0.1)
    found = rig.metrics.range(START, step=10).points[-1]
    assert (found.calls, found.covered_seconds, found.rate) == (17, pytest.approx(1.7), pytest.approx(10))
    assert rig.metrics.summary("1m").pools["p"].total.rate == pytest.approx(10)


def test_without_a_step_a_range_has_the_finest_there_is(rig) -> None:
    rig.go(100)
    assert [rig.metrics.range(rig.now - back).step for back in (30, 200, 600, 2000)] == [1, 5, 10, 60]


def test_a_fraction_of_a_second_between_the_clocks_hides_nothing(rig) -> None:
    rig.go(5)
    rig.clock.step_wall(0.6)
    rig.ok()
    assert sum(point.calls for point in rig.metrics.range(rig.now - 5, step=1).points) == 1


def test_a_range_of_one_pool_carries_its_gauges_and_deaths(rig) -> None:
    for second in range(20):
        rig.collector.sample(status(size=4, busy=second % 4, waiting=second))
        rig.collector.sample(status(size=40))  # twice in a second counts once
        rig.go(1)
    metadata = {"pool": "p", "worker": "p-0", "pid": 1, "reason": "killed", "stderr": ""}
    telemetry.execute(WORKER_CRASH.name, {"uptime": 1}, metadata)
    first, second, last = rig.metrics.range(START, START + 30, 10, pool="p").points
    assert (first.size, first.busy, first.busy_max, first.waiting, first.waiting_max) == (4, 1.3, 3, 4.5, 9)
    assert (second.busy, second.waiting_max, second.deaths, last.deaths) == (1.7, 19, 0, 1)
    assert (last.size, last.busy_max) == (None, None)


def test_gauges_of_several_pools_are_added_up_and_their_maxima_are_not_known(rig) -> None:
    for name, busy in (("p", 1), ("q", 2)):
        rig.collector.sample(status(name, size=4, busy=busy))
    rig.go(2)
    point = rig.metrics.range(START, START + 10).points[0]
    assert (point.size, point.busy, point.busy_max) == (8, 3, None)


def test_a_range_of_one_operation_or_worker_has_its_calls_and_no_gauges(rig) -> None:
    rig.collector.sample(status(size=4))
    for operation, worker, times in (("a", "p-0", 1), ("a", "p-1", 2), ("b", "p-1", 4)):
        for _ in range(times):
            rig.ok(operation=operation, worker=worker)
    rig.go(5)
    found = {
        selection: rig.metrics.range(START, **dict([selection])).points[0]
        for selection in (("operation", "a"), ("worker", "p-1"), ("pool", "p"))
    }
    assert [found[asked].calls for asked in found] == [3, 6, 7]
    assert found["operation", "a"].size is None
    assert found["operation", "a"].deaths is None


def test_times_may_be_datetimes(rig) -> None:
    rig.ok()
    rig.go(5)
    asked = rig.metrics.range(datetime.fromtimestamp(START, UTC), datetime.fromtimestamp(START + 20, UTC), "10s")
    assert asked == rig.metrics.range(START, START + 20, 10)


def test_an_answer_can_be_sent_as_json_and_read_back(rig) -> None:
    rig.ok()
    rig.go(5)
    found = rig.metrics.range(START)
    assert found == msgspec.json.decode(msgspec.json.encode(found), type=Range)


def test_when_the_wall_clock_is_set_ahead_the_past_moves_with_it(rig) -> None:
    rig.ok()
    rig.go(5)
    rig.clock.step_wall(3600)
    rig.go(1)
    assert rig.metrics.range(START + 3600).points[0].calls == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"start": "yesterday"}, "start='yesterday': needs seconds since the epoch"),
        ({"start": -7e10}, "start=-70000000000.0: needs seconds since the epoch"),
        ({"start": START, "end": 10**400}, "end=1000"),
        ({"start": math.nan}, "start=nan: needs seconds since the epoch"),
        ({"start": True}, "start=True"),
        ({"start": datetime(2026, 1, 1)}, "needs a time zone"),  # noqa: DTZ001
        ({"start": START, "end": START}, "needs an end after the start"),
        ({"start": START, "end": START - 5}, "needs an end after the start"),
        ({"start": START, "end": math.inf}, "end=inf"),
        ({"start": START, "step": 0}, "step=0: needs whole seconds"),
        ({"start": START, "step": -5}, "step=-5"),
        ({"start": START, "step": 1.5}, "step=1.5: needs whole seconds"),
        ({"start": START, "step": "10 s"}, "step='10 s'"),
        ({"start": START, "step": "tens"}, "step='tens'"),
        ({"start": START - 7200}, "60 s for 1h .* monitor.history"),
        ({"start": START, "step": math.nan}, "step=nan"),
        ({"start": START - 10**6, "step": 1}, "1,000,010 points, more than 4,000; ask for a step of at least 25"),
        ({"start": START - 120, "step": 1}, "memory keeps steps of 1 s for 1m, 5 s for 5m"),
        ({"start": START - 7200, "step": "1m"}, "60 s for 1h .* monitor.history"),
        ({"start": START - 50, "step": "7s"}, None),
    ],
)
def test_a_range_that_cannot_be_answered_says_what_could(rig, arguments, words) -> None:
    rig.go(10)
    if words is None:
        assert rig.metrics.range(**arguments).points
        return
    with pytest.raises(ConfigError, match=words):
        rig.metrics.range(**arguments)


@pytest.mark.parametrize(("what", "there"), [("pool", "p, q"), ("operation", "other, work"), ("worker", "p-0")])
def test_a_name_nothing_was_measured_of_is_refused_with_those_there_are(rig, what, there) -> None:
    rig.ok()
    with pytest.raises(UnknownName, match=rf"{what} 'x' was not measured; measured: {there}"):
        rig.metrics.range(START, START + 10, **{what: "x"})


# -- error rates and summary --------------------------------------------------------------------------------------


def test_error_rates_have_their_denominator_beside_them(rig) -> None:
    for _ in range(6):
        rig.ok(operation="a", worker="p-0")
    rig.ok(operation="b", worker="p-1", session_kind="strict")
    rig.fail(operation="b", worker="p-1", session_kind="strict")
    rig.fail("timeout", "timeout", operation="a")
    rig.fail("worker_lost", "connection", operation="a", session_kind="hint")
    rig.fail("cancelled", "cancelled", operation="a")
    rig.fail("rejected", "resource", operation="c", worker=None)
    rig.fail(category="of my own", operation="a", pool="q", worker="q-0")
    rates = rig.metrics.error_rates

    def numbers(found) -> dict[str, tuple[int, int]]:
        return {name: (rate.errors, rate.calls) for name, rate in found.items()}

    assert numbers(rates()) == {"a": (3, 10), "b": (1, 2), "c": (0, 0)}
    assert rates()["c"].error_ratio is None
    assert rates()["b"].error_ratio == 0.5
    assert numbers(rates(by="worker", pool="p")) == {"p-0": (2, 9), "p-1": (1, 2)}
    everything = {"operation": (1, 12), "timeout": (1, 12), "connection": (1, 12), "other": (1, 12)}
    assert numbers(rates(by="category")) == everything
    assert numbers(rates(by="category", pool="q")) == {"other": (1, 1)}
    assert numbers(rates(by="session_kind")) == {"none": (2, 9), "hint": (1, 1), "strict": (1, 2)}
    rig.go(70)
    assert rates(window="1m") == {}
    assert numbers(rates(by="category", window="1h")) == everything


@pytest.mark.parametrize("by", ["pool", "", None, 5])
def test_error_rates_by_something_else_are_refused_with_the_choices(rig, by) -> None:
    with pytest.raises(ConfigError, match="choose one of operation, worker, category, session_kind"):
        rig.metrics.error_rates(by=by)


def test_utilisation_is_the_time_of_the_workers_and_not_what_samples_happened_to_see(rig) -> None:
    """A load in step with the second: every sample finds the workers idle."""
    for _ in range(60):
        rig.ok(126)
        rig.go(1)
        rig.collector.sample(status(size=2, busy=0))
    assert rig.metrics.summary("1m").pools["p"].utilisation == pytest.approx(0.063, rel=0.02)


def test_a_worker_is_busy_for_no_longer_than_there_was_time(rig) -> None:
    rig.go(10)
    rig.collector.sample(status(size=2))
    rig.ok(3_600_000, worker="p-1")
    assert rig.metrics.summary("1m").pools["p"].utilisation == pytest.approx(0.5)


def test_a_summary_says_the_same_utilisation_as_a_snapshot(rig) -> None:
    rig.busy_ratios["p"] = 0.75
    rig.go(1)
    rig.collector.sample(status(size=2))
    assert rig.metrics.summary("1m").pools["p"].utilisation == 0.75


@pytest.mark.parametrize("window", ["2h", "7d", None])
def test_a_window_longer_than_what_is_kept_is_refused_with_the_choices(rig, window) -> None:
    for ask in (rig.metrics.error_rates, rig.metrics.summary):
        with pytest.raises(ConfigError, match="choose one of 1m, 5m, 15m, 1h"):
            ask(window=window)


def test_a_summary_names_what_took_most_of_the_workers_time_first(rig) -> None:
    for second in range(30):
        rig.collector.sample(status(size=4, busy=2, waiting=second))
        rig.ok(5, operation="quick")
        rig.ok(900, operation="slow", worker="p-1")
        rig.go(1)
    rig.fail()
    found = rig.metrics.summary("15m")
    assert (found.start, found.end) == (START, START + 30)
    pool = found.pools["p"]
    assert list(pool.operations) == ["slow", "quick", "work"]
    assert (pool.total.calls, pool.total.errors, pool.total.rate) == (61, 1, pytest.approx(61 / 30))
    assert pool.operations["slow"].latency.p99 == pytest.approx(0.9, rel=0.011)
    assert pool.busy_seconds == pytest.approx(30 * 0.905)
    assert (pool.waiting_max, pool.workers["p-1"].calls) == (29, 30)
    assert pool.utilisation == pytest.approx(30 * 0.905 / (4 * 30))
    assert list(pool.by_category) == ["operation"]
    assert (found.pools["q"].total.calls, found.pools["q"].total.rate, found.pools["q"].size) == (0, 0.0, None)


def test_a_summary_agrees_with_the_statistics_of_a_snapshot(rig) -> None:
    for ms in range(1, 200):
        rig.ok(ms, operation="ab"[ms % 2], worker=f"p-{ms % 3}")
    rig.go(3)
    for name, window in WINDOWS.items():
        stats, summary = rig.collector.pool_stats("p", window), rig.metrics.summary(name).pools["p"]
        assert msgspec.structs.replace(summary.total, rate=None) == msgspec.structs.replace(stats.total, rate=None)
        assert {name: view.latency for name, view in stats.operations.items()} == {
            name: view.latency for name, view in summary.operations.items()
        }
        assert {name: view.latency for name, view in summary.workers.items()} == {
            name: worker.calls.latency for name, worker in stats.workers.items()
        }


# -- totals -------------------------------------------------------------------------------------------------------


def test_totals_only_grow_and_outlive_every_window(rig) -> None:
    for _ in range(3):
        rig.ok(operation="a", worker="p-0")
        rig.ok(operation="a", worker="p-1")
    rig.fail(operation="a")
    rig.go(4000)
    rig.ok(operation="a")
    totals = rig.metrics.totals()
    place = {key: row for row, key in enumerate(totals.names.rows)}
    assert totals.outcomes[place["p", "a", "p-0"]].tolist() == [4, 1, 0, 0, 0, 0]
    assert totals.counts[place["p", "a", "p-0"], 0].sum() == 4
    assert (totals.since, totals.at) == (START, START + 4000)
    by_operation = totals.by_operation()
    row = by_operation.names.rows.index(("p", "a", None))
    assert by_operation.outcomes[row].tolist() == [7, 1, 0, 0, 0, 0]
    assert by_operation.counts[row].sum() == 21
    assert by_operation.sums[row].tolist() == [70 * MS, 0, 70 * MS]


@pytest.mark.parametrize("step", [3600, -3600, 75 * 31_536_000, -60 * 31_536_000, 40, -40])
def test_after_a_step_of_the_wall_clock_totals_cover_the_time_that_has_passed(rig, step) -> None:
    for _ in range(60):
        rig.go(1)
        rig.ok()
    rig.clock.step_wall(step)
    totals = rig.metrics.totals()
    assert (totals.since, totals.at) == (START + step, START + step + 60)
    assert rig.metrics.since == totals.since
    [row] = rows(totals)
    assert (row.start, row.covered_seconds, row.rate) == (START + step, 60, 1.0)
    assert rig.metrics.summary("5m").pools["p"].total.rate == 1.0
    assert sum(point.calls for point in rig.metrics.range(START + step, START + step + 61, step=1).points) == 60
    rig.clock.step_wall(-step)
    assert rig.metrics.totals().since == START


def test_a_clock_that_is_ahead_by_half_a_second_is_one_and_the_same_at_every_look(rig) -> None:
    seconds: list[int] = []
    rig.collector.on_second(lambda start, _block, _names, _failures: seconds.append(start))
    since = set()
    for number in range(20):
        rig.clock.step_wall(0.499 if not number else 0.002 if number % 2 else -0.002)
        rig.go(1)
        since.add(rig.metrics.totals().since)
    assert since == {START}
    assert seconds == [int(START) + number for number in range(20)]


def test_the_total_of_an_operation_never_goes_down_when_rows_run_out(rig) -> None:
    """A worker's row is not given away while its operation goes on elsewhere: a scrape would see a counter reset."""
    rig.collector.detach()
    rig.collector = Collector(["p"], rig.clock, series_limit=24)
    rig.collector.attach()
    for worker in ("p-0", "p-1"):
        rig.ok(operation="work", worker=worker)
    rig.ok(operation="gone")
    rig.go(4000)
    rig.ok(operation="work", worker="p-0")
    for number in range(20):
        rig.ok(operation=f"new-{number}")
    totals = LiveMetrics(rig.collector, lambda window: pytest.fail("no snapshot needed")).totals().by_operation()
    found = {key[1]: int(row.sum()) for key, row in zip(totals.names.rows, totals.outcomes, strict=True)}
    assert (found["work"], "gone" in found) == (3, False)
    assert rig.collector.self_view().overflowed > 0


def test_the_total_of_other_never_goes_down(rig) -> None:
    rig.collector.detach()
    rig.collector = Collector(["p"], rig.clock, series_limit=48)
    rig.collector.attach()
    metrics = LiveMetrics(rig.collector, lambda window: pytest.fail("no snapshot needed"))

    def others() -> int:
        totals = metrics.totals().by_operation()
        return int(totals.outcomes[totals.names.rows.index(("p", "other", None))].sum())

    for number in range(100):
        rig.ok(operation=f"op-{number}", worker=f"p-{number % 2}")
    before = others()
    rig.go(4000)
    rig.ok(operation="one more")
    assert before > 50
    assert others() >= before


def test_deaths_are_corrected_for_a_filter_too(rig) -> None:
    telemetry.configure(sample={"pool.worker.*": 10})
    try:
        metadata = {"pool": "p", "worker": "p-0", "pid": 1, "reason": "killed", "stderr": ""}
        for _ in range(1000):
            telemetry.execute(WORKER_CRASH.name, {"uptime": 1}, metadata)
    finally:
        telemetry.configure()
    deaths = rig.metrics.range(START, START + 10, pool="p").points[0].deaths
    assert deaths % 10 == 0
    assert 600 < deaths < 1500


def test_an_event_that_is_thinned_out_counts_as_often_as_its_weight_says(rig) -> None:
    rig.ok()
    telemetry.configure(sample={"pool.operation.stop": 10})
    try:
        for _ in range(5000):
            rig.ok()
        rig.fail()
        found = rig.metrics.summary("1m").pools["p"].total
        assert rig.collector.self_view().weights == {"pool.operation.stop": 10}
        assert (found.ok - 1) % 10 == 0
        assert 4000 < found.ok < 6000
        assert (found.errors, found.latency.count) == (1, found.ok)
    finally:
        telemetry.configure()
    rig.ok()
    assert rig.metrics.summary("1m").pools["p"].total.ok == found.ok + 1
    assert rig.collector.self_view().weights == {}


def test_the_time_of_windows_goes_on_while_the_machine_sleeps_and_never_steps() -> None:
    awake_ns = time.monotonic_ns()
    assert WakefulClock().monotonic_ns() >= awake_ns  # by as much as the machine has slept since it was started
    manual = ManualClock(START)
    steady = SteadyClock(manual)
    manual.step_wall(-3600)
    manual.advance(1)
    assert steady.now_ns() == (START + 1) * 10**9
    steady.set()
    assert steady.now_ns() == (START - 3599) * 10**9
