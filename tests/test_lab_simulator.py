"""The simulator of the laboratory: laws of queueing, conservation, determinism, and what each fault does."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.lab.controllers import Fixed
from benchmarks.lab.scenario import POOL_SIZE, Scenario, load, parse
from benchmarks.lab.simulator import Simulator, run
from pool_monitor import telemetry
from pool_monitor.advisor.queueing import wait_tail
from pool_monitor.errors import ConfigError
from pool_monitor.tuner.observation import Observation

RUNS = 12
EXPONENTIAL = {"kind": "exponential", "mean_s": 0.1}


def made(rate: float = 40.0, workers: int = 6, duration: float = 60.0, **more: Any) -> Scenario:
    row = {
        "name": "law",
        "duration_s": duration,
        "wait_target_s": 0.1,
        "n0": workers,
        "n_max": 20,
        "service": EXPONENTIAL,
        "rate": {"kind": "linear", "points": [[0, rate], [duration, rate]]},
    }
    return parse(row | more)


class Taped:
    """Drives nothing, and keeps the events of a run."""

    def __init__(self, *prefixes: tuple[str, ...]) -> None:
        self.prefixes = prefixes or (("pool",), ("resource",))
        self.events: list[tuple[float, str, Mapping[str, Any], Mapping[str, Any]]] = []
        self.waiting_s = 0.0

    def begin(self, simulator: Simulator) -> None:
        self._simulator = simulator
        for event in NAMES:
            if any(event[: len(prefix)] == prefix for prefix in self.prefixes):
                telemetry.attach(f"tape.{'.'.join(event)}", event, self._on)

    def _on(self, name: Any, measurements: Mapping[str, Any], metadata: Mapping[str, Any], _config: Any) -> None:
        self.events.append((self._simulator.clock.now, ".".join(name), dict(measurements), dict(metadata)))

    def second(self, simulator: Simulator) -> None:
        view = simulator.pool.view()
        assert view.busy + view.idle + view.draining <= simulator.scenario.most
        self.waiting_s += view.waiting

    def end(self, _simulator: Simulator) -> None:
        for event in NAMES:
            telemetry.detach(f"tape.{'.'.join(event)}")

    def named(self, name: str) -> list[tuple[float, Mapping[str, Any], Mapping[str, Any]]]:
        return [(at, measured, about) for at, event, measured, about in self.events if event == name]


NAMES = [
    ("pool", "operation", "stop"),
    ("pool", "operation", "exception"),
    ("pool", "queue", "reject"),
    ("pool", "resize"),
    ("pool", "restart"),
    ("pool", "worker", "init"),
    ("pool", "worker", "ready"),
    ("pool", "worker", "crash"),
    ("pool", "worker", "terminate"),
    ("pool", "worker", "recycle"),
    ("resource", "host"),
    ("resource", "worker"),
    ("resource", "loop_lag"),
    ("resource", "loop_resume"),
]


def taped(scenario: Scenario, seed: int = 1) -> tuple[Simulator, Taped]:
    tape, simulator = Taped(), Simulator(scenario, seed)
    simulator.play(tape)
    return simulator, tape


# -- laws -------------------------------------------------------------------------------------------------------------


def test_waits_are_those_of_queueing_theory() -> None:
    """By Erlang C and by Little's law."""
    simulator, tape = Simulator(made(rate=50, workers=6, duration=800), 2), Taped(("pool", "resize"))
    simulator.play(tape)
    waits = simulator.waits()
    for bound in (0.0, 0.05, 0.1):
        assert float(np.mean(waits > bound)) == pytest.approx(wait_tail(6, 5.0, 0.1, bound), abs=0.06)
    assert tape.waiting_s / 800 == pytest.approx(50 * float(waits.mean()), rel=0.15)


@pytest.mark.parametrize(
    ("name", "size", "violations"),
    [
        ("S1-steady", 11, 0.011),
        ("S2-step", 9, 0.618),
        ("S3-ramp", 12, 0.687),
        ("S4-diurnal", 11, 0.659),
        ("S5-flash", 8, 0.368),
        ("S6-llm-bimodal", 16, 0.416),
        ("S7-slowdown", 11, 0.383),
        ("S8-contention", 18, 0.185),
        ("S9-mmpp", 11, 0.821),
    ],
)
@pytest.mark.slow
@pytest.mark.gate
def test_the_studys_table_comes_out(name: str, size: int, violations: float) -> None:
    scenario = next(one for one in load(POOL_SIZE) if one.name == name)
    assert run(scenario, 1, Fixed(size)).violations == pytest.approx(violations, abs=0.04)


# -- conservation and determinism -------------------------------------------------------------------------------------

some_faults = st.lists(
    st.one_of(
        st.builds(
            lambda at, factor: {"kind": "slow", "at_s": at, "factor": factor}, st.floats(0, 9), st.floats(0.1, 9)
        ),
        st.builds(
            lambda at, share: {"kind": "pin", "at_s": at, "share": share, "subject": "worker text-1"},
            st.floats(0, 9),
            st.floats(0, 1),
        ),
        st.builds(
            lambda ratio, burst: {"kind": "errors", "ratio": ratio, "burst_mean": burst},
            st.floats(0, 1),
            st.none() | st.floats(1, 9),
        ),
        st.builds(lambda share: {"kind": "hang", "share": share}, st.floats(0, 0.3)),
        st.builds(
            lambda every, planned: {"kind": "restart", "every_s": every, "planned": planned},
            st.floats(0.5, 9),
            st.booleans(),
        ),
        st.builds(lambda at: {"kind": "restart", "at_s": at, "planned": True, "rolling": True}, st.floats(0, 9)),
        st.builds(
            lambda block, every: {"kind": "block_loop", "block_s": block, "every_s": every},
            st.floats(0.01, 3),
            st.floats(0.5, 9),
        ),
        st.just({"kind": "throttle", "periods_ratio": 0.4, "slowdown": 2.0}),
        st.just({"kind": "neighbour", "cores": 2.0, "slowdown": 1.5, "pressure": 0.3}),
        st.just({"kind": "leak", "bytes_per_hour": 1e6}),
    ),
    max_size=3,
)
scenarios = st.builds(
    lambda rate, workers, sizes, faults, more: made(
        rate, workers, 12.0, n_min=0, size=sorted(sizes), faults=faults, queue_limit=30, patience_s=5.0, **more
    ),
    st.floats(0, 60),
    st.integers(0, 8),
    st.lists(st.tuples(st.floats(0, 12), st.integers(0, 12)), max_size=4),
    some_faults,
    st.fixed_dictionaries(
        {},
        optional={
            "timeout_s": st.floats(0.05, 4),
            "cores": st.floats(0.5, 8),
            "kappa": st.floats(0, 0.1),
            "rss": st.just({"base_bytes": 1e8, "noise_bytes": 1e6, "ar": 0.9}),
        },
    ),
)


PINNED = {"kind": "pin", "share": 1.0, "subject": "worker text-1"}


@settings(max_examples=RUNS, deadline=None)
@given(scenarios, st.integers(1, 99))
@example(made(1.0, 0, 12.0, n_min=0, size=[(0.0, 2), (1.0, 0)], faults=[PINNED], queue_limit=30, patience_s=5.0), 1)
def test_each_call_ends_at_most_once_and_none_is_lost(scenario: Scenario, seed: int) -> None:
    simulator, tape = taped(scenario, seed)
    ends = Counter[int]()
    for name in ("pool.operation.stop", "pool.operation.exception"):
        ends.update(about["call_id"] for _at, _measured, about in tape.named(name))
    pool = simulator.pool
    assert not ends or max(ends.values()) == 1
    running = sum(worker.call is not None for worker in pool.workers)
    assert len(ends) == pool.completed
    assert len(ends) + running + pool.waiting == simulator.arrived
    assert running == pool.busy
    view = pool.view()
    assert view.busy + view.idle + view.starting + view.draining == sum(worker.state != 3 for worker in pool.workers)
    rejected = [
        about for _at, _measured, about in tape.named("pool.operation.exception") if about["outcome"] == "rejected"
    ]
    assert len(rejected) == len(tape.named("pool.queue.reject")) == pool.refused
    for _at, name, measured, _about in tape.events:
        assert all(0 <= value < math.inf for value in measured.values()), (name, measured)
        if name == "pool.operation.stop":
            assert measured["queue_duration"] <= measured["duration"]


@settings(max_examples=RUNS // 4, deadline=None)
@given(scenarios, st.integers(1, 99))
def test_the_same_seed_gives_the_same_events(scenario: Scenario, seed: int) -> None:
    def events() -> list[Any]:
        found = taped(scenario, seed)[1].events
        return [
            (at, name, {k: v for k, v in measured.items() if k != "system_time"}, about)
            for at, name, measured, about in found
        ]

    assert events() == events()


# -- its size ---------------------------------------------------------------------------------------------------------


class Steps:
    """The policy that wants these sizes, one after the other."""

    def __init__(self, *sizes: int | None) -> None:
        self.sizes, self.seen = list(sizes), list[Observation]()

    def decide(self, observation: Observation) -> int | None:
        self.seen.append(observation)
        return self.sizes.pop(0) if self.sizes else None


def test_new_workers_are_paid_for_from_their_start_and_ready_later() -> None:
    policy = Steps(6)
    outcome = run(made(rate=1, workers=2, duration=10, cold_start_s=3.5), 1, policy)
    assert outcome.worker_hours * 3600 == pytest.approx(2 + 6 * 9, abs=0.01)
    ready = [one.busy + one.idle for one in policy.seen]
    assert ready[:5] == [2, 2, 2, 2, 6]


def test_growing_keeps_workers_that_were_to_end() -> None:
    scenario = made(rate=50, workers=6, duration=20, service={"kind": "constant", "mean_s": 3.0})
    simulator = Simulator(scenario, 1)
    simulator.pool.open()
    for number in range(6):
        simulator.pool.arrive(number, 0.0)
    simulator.pool.resize(2)
    assert sum(worker.retiring for worker in simulator.pool.workers) == 4
    simulator.pool.resize(5)
    assert (sum(worker.retiring for worker in simulator.pool.workers), simulator.pool.starting) == (1, 0)


def test_a_size_outside_the_range_is_counted_and_clipped() -> None:
    outcome = run(made(duration=10), 1, Steps(500, -3))
    assert (outcome.out_of_range, outcome.peak) == (2, 20)


def test_a_turn_of_direction_is_a_reversal() -> None:
    assert run(made(duration=10), 1, Steps(8, 9, 7, 7, 8)).reversals == 2


def test_the_tunable_refuses_what_is_not_safe() -> None:
    (knob,) = Simulator(made(), 1).pool.tunables()
    with pytest.raises(ConfigError, match="from 1 to 20"):
        knob.set(21)
    knob.set(7)
    assert knob.value == 7


# -- faults -----------------------------------------------------------------------------------------------------------


def mean_execution(tape: Taped, since: float = 0.0, worker: str | None = None) -> float:
    found = [
        measured["execution_duration"] / 1e9
        for at, measured, about in tape.named("pool.operation.stop")
        if at >= since and worker in (None, about["worker"])
    ]
    return float(np.mean(found))


def faulty(*faults: dict[str, Any], **more: Any) -> tuple[Simulator, Taped]:
    return taped(made(rate=30, workers=6, duration=120, faults=list(faults), **more))


def test_a_slow_worker_is_slow_from_then_on_and_others_are_not() -> None:
    _simulator, tape = faulty({"kind": "slow", "at_s": 20, "factor": 3.0, "subject": "worker text-2"})
    assert mean_execution(tape, 25, "text-2") == pytest.approx(0.3, rel=0.2)
    assert mean_execution(tape, 25, "text-3") == pytest.approx(0.1, rel=0.2)


def test_pinned_calls_go_to_their_worker_only() -> None:
    _simulator, tape = faulty({"kind": "pin", "share": 0.25, "subject": "worker text-4"})
    by_worker = Counter(about["worker"] for _at, _measured, about in tape.named("pool.operation.stop"))
    assert by_worker["text-4"] > 0.25 * by_worker.total()
    assert by_worker["text-4"] > 1.5 * by_worker["text-0"]


def test_a_share_of_the_calls_fails_with_the_error() -> None:
    _simulator, tape = faulty({"kind": "errors", "ratio": 0.2, "type": "OSError", "subject": "worker text-1"})
    failed = [about for _at, _measured, about in tape.named("pool.operation.exception")]
    good = sum(about["worker"] == "text-1" for _at, _measured, about in tape.named("pool.operation.stop"))
    assert {(about["error"], about["worker"], about["outcome"]) for about in failed} == {("OSError", "text-1", "error")}
    assert len(failed) / (good + len(failed)) == pytest.approx(0.2, abs=0.06)


def test_failures_in_bursts_make_up_their_ratio_and_follow_each_other() -> None:
    _simulator, tape = taped(
        made(rate=30, workers=6, duration=400, faults=[{"kind": "errors", "ratio": 0.05, "burst_mean": 10.0}])
    )
    failures = [at for at, _measured, _about in tape.named("pool.operation.exception")]
    assert len(failures) / (400 * 30) == pytest.approx(0.05, rel=0.4)
    assert float(np.median(np.diff(failures))) < 0.1


def test_a_call_that_hangs_is_ended_by_its_timeout_and_frees_its_worker() -> None:
    simulator, tape = faulty({"kind": "hang", "share": 0.02}, timeout_s=2.0)
    ended = [
        measured for _at, measured, about in tape.named("pool.operation.exception") if about["outcome"] == "timeout"
    ]
    assert ended
    assert all(measured["duration"] == pytest.approx(2e9, abs=1e3) for measured in ended)
    assert simulator.pool.busy <= 6


def test_a_planned_restart_takes_each_worker_once_and_is_no_crash() -> None:
    _simulator, tape = faulty({"kind": "restart", "at_s": 10, "planned": True, "rolling": True})
    assert sorted(about["worker"] for _at, _measured, about in tape.named("pool.worker.recycle")) == [
        f"text-{n}" for n in range(6)
    ]
    assert len(tape.named("pool.restart")) == 1
    assert not tape.named("pool.worker.crash")


def test_an_unplanned_restart_takes_one_worker_after_the_other() -> None:
    _simulator, tape = faulty({"kind": "restart", "at_s": 10, "every_s": 20.0})
    crashes = tape.named("pool.worker.crash")
    assert [about["worker"] for _at, _measured, about in crashes] == [f"text-{n}" for n in range(6)]
    assert len(tape.named("pool.worker.ready")) == 12


def test_a_blocked_loop_hands_over_and_answers_nothing() -> None:
    _simulator, tape = faulty({"kind": "block_loop", "at_s": 30, "block_s": 2.0, "every_s": 60.0})
    ends = [at for at, _measured, _about in tape.named("pool.operation.stop")]
    assert not any(30 < at < 32 for at in ends)
    assert sum(at == 32 for at in ends) > 3
    lags = [measured["duration"] / 1e9 for _at, measured, _about in tape.named("resource.loop_lag")]
    assert sum(lag > 0.05 for lag in lags) == pytest.approx(40, abs=3)
    assert len(tape.named("resource.loop_resume")) == 2


def of_host(tape: Taped, figure: str, since: float) -> float:
    return float(np.mean([measured[figure] for at, measured, _about in tape.named("resource.host") if at > since]))


def test_throttling_and_neighbours_make_calls_longer_and_use_no_more_processor_time() -> None:
    quota = {"kind": "throttle", "at_s": 0, "periods_ratio": 0.3, "slowdown": 2.0}
    beside = {"kind": "neighbour", "at_s": 0, "cores": 6.0, "slowdown": 2.0, "pressure": 0.4}
    plain, throttled, crowded = faulty()[1], faulty(quota)[1], faulty(beside, cores=12)[1]

    def used(tape: Taped) -> float:
        last = {about["worker"]: measured["cpu_duration"] for _at, measured, about in tape.named("resource.worker")}
        return sum(last.values()) / 1e9

    for tape in (throttled, crowded):
        assert mean_execution(tape) == pytest.approx(2 * mean_execution(plain), rel=0.1)
        assert used(tape) == pytest.approx(used(plain), rel=0.1)
    assert of_host(throttled, "throttled_ratio", 20) == pytest.approx(0.3)
    assert of_host(crowded, "pressure_cpu", 20) == pytest.approx(0.4)
    assert of_host(crowded, "cpu_ratio", 20) == pytest.approx((6 + 3) / 12, abs=0.06)


def test_workers_that_want_more_processors_than_there_are_share_them() -> None:
    _simulator, tape = taped(made(rate=70, workers=14, duration=120, cores=4, kappa=0.02))
    assert mean_execution(tape, 30) > 0.2
    assert of_host(tape, "cpu_ratio", 60) == pytest.approx(1.0, abs=0.02)


def test_a_leak_grows_until_the_process_is_replaced() -> None:
    memory = {"base_bytes": 1e8, "noise_bytes": 0.0}
    leak = {"kind": "leak", "bytes_per_hour": 3.6e9, "subject": "worker text-0"}
    restart = {"kind": "restart", "at_s": 65, "until_s": 66, "every_s": 90.0, "subject": "worker text-0"}
    _simulator, tape = faulty(leak, restart, rss=memory)
    sizes = {
        round(at): measured["rss"]
        for at, measured, about in tape.named("resource.worker")
        if about["worker"] == "text-0"
    }
    assert sizes[60] == pytest.approx(1e8 + 60e6, rel=0.02)
    assert sizes[80] < 1.2e8
    others = [m["rss"] for _at, m, about in tape.named("resource.worker") if about["worker"] == "text-1"]
    assert set(others) == {100_000_000}
