"""The patterns of faults: what they find, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.history import Calls, PoolHistory
from pool_monitor.advisor.patterns.bad_timeout import bad_timeout, survival_at, upper_rank
from pool_monitor.advisor.patterns.error_hotspot import error_hotspot
from pool_monitor.advisor.patterns.imbalance import imbalance
from pool_monitor.advisor.patterns.leak import leak, warm_up
from pool_monitor.advisor.patterns.loop_lag import loop_lag
from pool_monitor.advisor.patterns.noisy_neighbour import noisy_neighbour
from pool_monitor.advisor.patterns.slow_operation import slow_operation
from pool_monitor.advisor.patterns.throttled import throttled
from tests.helpers.gates import thinned
from tests.helpers.worked_calls import Work, memory_of, with_errors, with_memory, with_rows

MIX = {"read": (0.7, 0.05, 0.8), "write": (0.3, 0.2, 0.8)}
LLM = {"chat": (0.8, 0.5, 0.3), "long": (0.2, 4.0, 0.3)}
ALL = (imbalance, slow_operation, error_hotspot, bad_timeout, throttled, loop_lag, noisy_neighbour)


def subjects(found: object) -> list[str]:
    return [detection.subject for detection in found]  # type: ignore[attr-defined]


def one(found: object) -> Detection:
    (detection,) = found  # type: ignore[misc]
    assert isinstance(detection, Detection)
    return detection


HEALTHY = {
    "few calls": Work(rate=0.2),
    "steady": Work(rate=25, seconds=900),
    "full": Work(rate=38, seconds=600),
    "mix of operations": Work(rate=30, operations=MIX, seconds=900),
    "language model": Work(rate=2, size=6, operations=LLM, seconds=3600),
    "heavy tail": Work(rate=12, operations={"work": (1.0, 0.1, 4.0)}, timeout=30.0),
    "one worker": Work(rate=5, size=1),
    "time-outs of an overload": Work(rate=60, timeout=2.0, seconds=400),
    "outage": Work(rate=8, timeout=1.0, outage=(900.0, 960.0)),
}


@pytest.mark.parametrize("work", HEALTHY.values(), ids=HEALTHY.keys())
@pytest.mark.parametrize("seed", thinned([1, 2, 3], 3))
def test_healthy_pools_have_no_detection(work: Work, seed: int) -> None:
    history = Work(**{**vars(work), "seed": seed}).history()
    assert [detection for check in ALL for detection in check(history)] == []


@pytest.mark.parametrize("factor", thinned([3.0, 1.5], 2))
def test_slow_worker_is_an_imbalance_with_its_factor(factor: float) -> None:
    found = one(imbalance(Work(rate=15, operations=MIX, slow_workers={2: factor}).history()))
    assert found.subject == "worker text-2"
    assert found.evidence["service_ratio_low"] < factor < found.evidence["service_ratio_high"]
    assert found.effect is not None
    assert found.effect.low <= found.effect.expected <= found.effect.high < found.effect.now


def test_slow_worker_is_no_slow_operation() -> None:
    history = Work(rate=15, slow_workers={2: 3.0}, slow_operations={"work": (1.0, 0.0)}).history()
    assert subjects(slow_operation(history)) == []


def test_pinned_calls_are_an_imbalance() -> None:
    found = one(imbalance(Work(rate=12, size=6, pinned=(3, 0.5)).history()))
    assert found.subject == "worker text-3"
    assert found.evidence["wait"] > found.evidence["wait_elsewhere"]


def test_uneven_work_that_makes_no_call_wait_is_by_design() -> None:
    assert subjects(imbalance(Work(rate=1, size=6, seconds=7200, pinned=(3, 0.02)).history())) == []


def test_young_workers_are_not_judged() -> None:
    history = Work(rate=15, slow_workers={2: 3.0}).history()
    young = history.by_worker[2]._replace(since=history.now - 300)
    assert subjects(imbalance(history._replace(by_worker={**history.by_worker, 2: young}))) == []


# -- slower operations ------------------------------------------------------------------------------------------------


def test_slower_operation_of_a_few_calls_an_hour_is_found() -> None:
    work = Work(
        rate=0.04, operations={"chat": (1.0, 8.0, 0.6)}, seconds=36_000, slow_operations={"chat": (2.0, 18_000)}
    )
    assert one(slow_operation(work.history())).subject == "operation chat"


@pytest.mark.parametrize("factor", thinned([1.3, 2.0], 2))
def test_slower_operation_is_found_with_its_factor(factor: float) -> None:
    work = Work(rate=12, operations=MIX, slow_operations={"write": (factor, 1200.0)})
    found = one(slow_operation(work.history()))
    assert found.subject == "operation write"
    assert found.evidence["ratio_low"] * 0.97 < factor < found.evidence["ratio_high"] * 1.06
    assert found.evidence["worker_equivalents"] == pytest.approx(12 * 0.3 * 0.2 * (factor - 1), rel=0.35)


def test_more_of_the_long_operation_is_no_slower_operation() -> None:
    before = Work(rate=8, operations=MIX, seconds=1800)
    after = Work(seed=2, rate=8, operations={"read": (0.2, 0.05, 0.8), "write": (0.8, 0.2, 0.8)}, seconds=1800)
    first, second = before.history(), after.history()
    columns = [
        np.concatenate([a, b + (1800.0 if nth < 3 else 0)])
        for nth, (a, b) in enumerate(zip(first.calls, second.calls, strict=True))
    ]
    counts = {
        nth: early._replace(counts=np.concatenate([early.counts, late.counts]), hours=np.array([0.0, 0.0]))
        for (nth, early), late in zip(first.by_operation.items(), second.by_operation.values(), strict=True)
    }
    history = first._replace(calls=Calls(*columns), now=3600.0, by_operation=counts)
    assert subjects(slow_operation(history)) == []


def test_all_operations_slower_are_about_the_pool() -> None:
    work = Work(rate=10, operations=MIX, slow_operations={"read": (1.6, 1200.0), "write": (1.6, 1200.0)})
    assert subjects(slow_operation(work.history())) == ["pool text"]


def test_all_operations_slower_by_the_host_are_not_told() -> None:
    work = Work(rate=10, operations=MIX, slow_operations={"read": (1.6, 1200.0), "write": (1.6, 1200.0)})
    history = work.history()
    for columns in (
        {"throttled_ratio": 0.2},
        {"blocked": 0.5},
        {"host_cpu_ratio": 1.0, "host_cpus": 8.0, "own_cpus": 2.0},
        {"host_cpu_ratio": 1.0, "host_cpus": 8.0, "own_cpus": 7.9},
    ):
        assert subjects(slow_operation(with_rows(history, **columns))) == []


def test_slower_operation_is_told_beside_a_throttled_host_if_it_is_far_slower() -> None:
    work = Work(rate=10, operations=MIX, slow_operations={"read": (1.3, 1200.0), "write": (3.0, 1200.0)})
    assert subjects(slow_operation(with_rows(work.history(), throttled_ratio=0.2))) == ["operation write"]


# -- errors -----------------------------------------------------------------------------------------------------------

Failing = Callable[[np.random.Generator, Calls], NDArray[np.bool_]]


def at_random(ratio: float) -> Failing:
    return lambda draw, calls: draw.random(len(calls.ended)) < ratio


def on_worker(ratio: float, worker: int, elsewhere: float = 0.0) -> Failing:
    return lambda draw, calls: draw.random(len(calls.ended)) < np.where(calls.worker == worker, ratio, elsewhere)


def in_bursts(mean: float, every: int) -> Failing:
    def failing(draw: np.random.Generator, calls: Calls) -> NDArray[np.bool_]:
        failed = np.zeros(len(calls.ended), bool)
        for start in draw.integers(0, len(failed), len(failed) // every):
            failed[start : start + draw.geometric(1 / mean)] = True
        return failed

    return failing


@pytest.mark.parametrize(("ratio", "elsewhere"), [(0.02, 0.0), (0.3, 0.0), (0.3, 0.05)])
def test_worker_that_fails_more_is_a_hotspot(ratio: float, elsewhere: float) -> None:
    history = with_errors(Work(rate=20, size=8).history(), on_worker(ratio, 5, elsewhere))
    found = one(error_hotspot(history))
    assert found.subject == "worker text-5"
    assert found.evidence["failed_ratio_low"] < ratio < found.evidence["failed_ratio_high"]


def test_operation_that_fails_more_is_a_hotspot() -> None:
    failing: Failing = lambda draw, calls: (draw.random(len(calls.ended)) < 0.05) & (calls.operation == 1)  # noqa: E731
    history = with_errors(Work(rate=20, operations=MIX).history(), failing)
    assert subjects(error_hotspot(history)) == ["operation write"]


@pytest.mark.parametrize("failing", [at_random(0.001), at_random(0.05), in_bursts(20, 500), in_bursts(5, 50)])
@pytest.mark.parametrize("seed", thinned(range(1, 11), 10))
def test_failures_that_hit_everybody_are_no_hotspot(failing: Failing, seed: int) -> None:
    history = with_errors(Work(seed=seed, rate=20, size=8, operations=MIX).history(), failing)
    assert subjects(error_hotspot(history)) == []


RARE = {"quick": (0.97, 0.1, 0.8), "report": (0.03, 1.0, 0.4)}


@pytest.mark.parametrize("failing", [at_random(0.003), in_bursts(10, 400)])
@pytest.mark.parametrize("seed", thinned(range(10), 10))
def test_failures_that_miss_a_rare_operation_are_no_hotspot_of_the_other(failing: Failing, seed: int) -> None:
    history = with_errors(Work(seed=seed, rate=6, size=8, operations=RARE).history(), failing)
    assert subjects(error_hotspot(history)) == []


def test_blocks_in_which_everybody_fails_say_nothing_of_anybody() -> None:
    failing: Failing = lambda _draw, calls: calls.ended % 300 < 10  # noqa: E731
    history = with_errors(Work(rate=6, size=8, operations=RARE, seconds=3600).history(), failing)
    assert subjects(error_hotspot(history)) == []


@pytest.mark.parametrize("hot", [(1, 5), (0, 2, 4)])
def test_only_the_workers_that_fail_more_are_hotspots(hot: tuple[int, ...]) -> None:
    def failing(draw: np.random.Generator, calls: Calls) -> NDArray[np.bool_]:
        return draw.random(len(calls.ended)) < np.where(np.isin(calls.worker, hot), 0.06, 0.003)

    history = with_errors(Work(rate=20, size=8).history(), failing)
    assert subjects(error_hotspot(history)) == [f"worker text-{slot}" for slot in hot]


def test_one_burst_on_one_worker_is_one_incident() -> None:
    failing: Failing = lambda _draw, calls: (calls.worker == 1) & (abs(calls.ended - 902) < 3)  # noqa: E731
    history = with_errors(Work(rate=20, size=4).history(), failing)
    assert subjects(error_hotspot(history)) == []


# -- time-outs --------------------------------------------------------------------------------------------------------


def test_time_out_within_the_distribution_is_too_tight() -> None:
    found = one(bad_timeout(Work(rate=12, timeout=0.4, seconds=3600).history(settings={"size": 4.0, "timeout": 0.4})))
    assert found.subject == "operation work"
    assert found.change is not None
    assert found.change.knob == "timeout"
    # lognormal with mean 0.1 and cv 1: its 99.9th percentile is 0.93 s
    assert 0.6 < found.evidence["p999"] < 1.5
    assert found.change.proposed > 0.9
    assert found.effect is not None
    assert found.effect.expected < 0.001 < found.effect.now


def test_time_out_far_beyond_the_distribution_with_calls_that_hang_is_too_loose() -> None:
    found = one(bad_timeout(Work(rate=8, timeout=30.0, hang=0.004, size=8).history()))
    assert found.subject == "operation work"
    assert "hung" in found.evidence
    assert found.effect is not None
    assert found.effect.expected < found.effect.now / 5


def test_time_out_that_nothing_runs_into_is_not_judged() -> None:
    assert subjects(bad_timeout(Work(rate=12, timeout=30.0).history())) == []


def test_time_outs_of_one_slow_worker_are_not_too_tight() -> None:
    history = Work(rate=12, size=6, operations={"work": (1.0, 0.1, 0.5)}, slow_workers={1: 6.0}, timeout=0.8).history()
    assert subjects(bad_timeout(history)) == []


def test_survival_allows_for_censored_calls() -> None:
    # 100 exponential calls per second, each cut off at a random moment
    draw = np.random.default_rng(3)
    ends, cuts = draw.exponential(1.0, 20_000), draw.exponential(2.0, 20_000)
    seen, cut = np.minimum(ends, cuts), cuts < ends
    assert survival_at(seen, cut, 2.0) == pytest.approx(np.exp(-2.0), rel=0.05)


def test_upper_rank_is_an_upper_bound_in_95_of_100_samples() -> None:
    draw = np.random.default_rng(4)
    rank = upper_rank(5_000, 0.999)
    above = sum(float(np.sort(draw.random(5_000))[rank - 1]) >= 0.999 for _ in range(200))
    assert above >= 184


# -- memory ------------------------------------------------------------------------------------------------------------

BOUNDED = {
    "noise": {},
    "correlated noise": {"ar": 0.99, "noise": 3e6},
    "saw-tooth of half an hour": {"saw": (40e6, 1800.0)},
    "saw-tooth of two hours": {"saw": (40e6, 7200.0)},
    "warm-up": {"warm_up": (80e6, 2880.0)},
    "slow warm-up": {"warm_up": (80e6, 7200.0)},
    "step": {"step": 50e6},
}
IDLE = Work(rate=0.01, size=4, seconds=100)


def leaks(memories: dict[int, NDArray[np.float64]]) -> list[Detection]:
    return list(leak(with_memory(IDLE.history(), memories)))


@pytest.mark.parametrize("shape", BOUNDED.values(), ids=BOUNDED.keys())
@pytest.mark.parametrize(("seed", "hours"), thinned([(seed, hours) for hours in (8.0, 24.0) for seed in range(10)], 20))
def test_bounded_memory_is_no_leak(shape: dict[str, Any], seed: int, hours: float) -> None:
    assert leaks({0: memory_of(seed, hours, **shape)}) == []


@pytest.mark.parametrize(("seed", "hours"), [(97, 6.5), (285, 7.25), (285, 9.0), (331, 6.5), (339, 6.5), (383, 8.5)])
def test_memory_that_has_grown_for_a_moment_is_no_leak(seed: int, hours: float) -> None:
    memory = memory_of(seed, hours, ar=0.995, noise=10e6)  # it swings for half an hour, and these look most like a leak
    assert leaks({0: memory}) == []


@pytest.mark.parametrize(("hours", "found"), [(6.5, []), (7.5, ["worker text-0"])])
def test_leak_that_is_only_likely_is_told_an_hour_later(hours: float, found: list[str]) -> None:
    assert subjects(leaks({0: memory_of(2, hours, ar=0.9, noise=3e6, leak=3e6)})) == found


@pytest.mark.parametrize("shape", BOUNDED.values(), ids=BOUNDED.keys())
def test_leak_is_found_beneath_what_is_bounded(shape: dict[str, Any]) -> None:
    found = one(leaks({0: memory_of(1, 14, **shape), 1: memory_of(2, 14, leak=12e6, **shape), 2: memory_of(3, 14)}))
    assert found.subject == "worker text-1"
    assert 8e6 < found.evidence["bytes_per_hour"] < 17e6


def test_leak_of_nearly_all_workers_is_one_of_the_pool() -> None:
    assert subjects(leaks({slot: memory_of(slot, 8, leak=12e6) for slot in range(4)})) == ["pool text"]


@pytest.mark.parametrize(("workers", "tau"), [(2, 3600.0), (4, 3600.0), (4, 5400.0)])
def test_warm_up_of_the_others_makes_a_leak_none_of_the_pool(workers: int, tau: float) -> None:
    warm_up = (100e6, tau)
    memories = {slot: memory_of(slot, 9, warm_up=warm_up, leak=10e6 if slot == 1 else 0.0) for slot in range(workers)}
    assert subjects(leaks(memories)) == ["worker text-1"]
    assert subjects(leaks({slot: memory_of(slot, 9, warm_up=warm_up, leak=10e6) for slot in range(workers)})) == [
        "pool text"
    ]


def test_memory_of_less_than_six_hours_is_not_judged() -> None:
    assert leaks({0: memory_of(1, 5.5, leak=50e6)}) == []


def test_leak_that_the_watch_of_resources_has_told_is_taken_over() -> None:
    history = with_memory(IDLE.history(), {0: memory_of(1, 1)})
    told = history.by_worker[0]._replace(leak_rate=1e4, rss_limit=400e6)
    found = one(leak(history._replace(by_worker={**history.by_worker, 0: told})))
    assert found.subject == "worker text-0"
    assert found.evidence["seconds_left"] == pytest.approx(2e4, rel=0.05)


def test_time_constant_of_a_warm_up_is_found() -> None:
    worker = with_memory(IDLE.history(), {0: memory_of(1, 12, warm_up=(80e6, 2880.0), leak=4e6)}).by_worker[0]
    assert 2000 <= warm_up(worker) <= 4500


# -- the host and the loop --------------------------------------------------------------------------------------------


def ramp(history: PoolHistory, before: float, after: float, since: float = 1500.0) -> NDArray[np.float64]:
    return np.where(history.buckets.at < since, before, after)


def test_throttled_cgroup_is_about_the_host() -> None:
    history = Work(rate=15, slow_operations={"work": (1.5, 1500.0)}).history(cpu_quota=2.0)
    found = one(throttled(with_rows(history, throttled_ratio=ramp(history, 0.0, 0.3))))
    assert found.subject == "host"
    assert found.effect is not None
    assert found.effect.low < 0.1 < found.effect.high


@pytest.mark.parametrize(("ratio", "since"), [(0.03, 0.0), (0.5, 1770.0), (float("nan"), 0.0)])
def test_little_short_or_unknown_throttling_is_not_told(ratio: float, since: float) -> None:
    history = Work(rate=15).history()
    assert subjects(throttled(with_rows(history, throttled_ratio=ramp(history, 0.0, ratio, since)))) == []


def test_throttling_by_starts_is_not_told() -> None:
    history = Work(rate=15).history()
    starts = np.where(np.arange(len(history.buckets.at)) % 4 == 0, 1.0, 0.0)
    assert subjects(throttled(with_rows(history, throttled_ratio=0.3, starts=starts))) == []


def test_late_loop_is_told_with_what_the_replay_does_not_explain() -> None:
    history = Work(rate=15).history()
    calls = history.calls
    late = history._replace(calls=calls._replace(started=calls.started + 0.05, ended=calls.ended + 0.05))
    found = one(loop_lag(with_rows(late, lag_samples=100.0, lag_p99=0.2, blocked=0.5)))
    assert found.subject == "loop"
    assert found.effect is not None
    assert found.effect.now - found.effect.expected > 0.03


@pytest.mark.parametrize(
    "columns", [{"lag_p99": 0.04}, {"lag_p99": 0.2, "lag_samples": 1.0}, {"lag_p99": float("nan")}]
)
def test_small_or_unknown_lag_is_not_told(columns: dict[str, float]) -> None:
    history = Work(rate=15).history()
    assert subjects(loop_lag(with_rows(history, **({"lag_samples": 100.0} | columns)))) == []


def neighbours(history: PoolHistory, own: float, host: float, since: float = 1500.0) -> PoolHistory:
    return with_rows(
        history,
        host_cpus=8.0,
        own_cpus=own,
        host_cpu_ratio=ramp(history, own / 8, host, since),
        pressure_cpu=ramp(history, 0.0, 0.3, since),
        cpu=history.buckets.ended * 0.1,
    )


def test_busy_neighbours_that_slow_calls_down_are_about_the_host() -> None:
    history = Work(rate=15, slow_operations={"work": (1.5, 1500.0)}).history()
    found = one(noisy_neighbour(neighbours(history, 1.5, 1.0)))
    assert found.subject == "host"
    assert found.evidence["others_cpus"] == pytest.approx(6.5)
    assert found.effect is not None
    assert found.effect.low < 0.1 < found.effect.high


def test_busy_neighbours_that_harm_nobody_are_not_told() -> None:
    assert subjects(noisy_neighbour(neighbours(Work(rate=15).history(), 1.5, 1.0))) == []


def test_own_load_is_no_neighbour() -> None:
    history = Work(rate=15, slow_operations={"work": (1.5, 1500.0)}).history()
    assert subjects(noisy_neighbour(with_rows(neighbours(history, 1.5, 1.0), own_cpus=ramp(history, 1.5, 7.8)))) == []


def test_workers_that_were_retired_are_no_measure_of_the_others() -> None:
    history = Work(rate=12, size=4, operations={"work": (1.0, 0.25, 1.0)}).history()
    gone = {slot: history.by_worker[0]._replace(since=None, at=np.zeros(1)) for slot in range(4, 10)}
    more = history._replace(
        by_worker={**history.by_worker, **gone}, workers=tuple(f"text-{slot}" for slot in range(10))
    )
    assert subjects(imbalance(more)) == []


def test_slow_worker_is_found_though_the_pool_was_there_before_the_history() -> None:
    history = Work(rate=15, operations=MIX, slow_workers={2: 3.0}).history()
    unknown = {slot: worker._replace(since=None, at=np.zeros(1)) for slot, worker in history.by_worker.items()}
    assert subjects(imbalance(history._replace(by_worker=unknown))) == ["worker text-2"]
