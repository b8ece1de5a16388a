"""The patterns of a size that does not fit: underused, overloaded, oversubscription, cold_start, and their traps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.history import OK, SPAN_S, TIMEOUT, Floats, WorkerHistory
from pool_monitor.advisor.patterns.cold_start import cold_start
from pool_monitor.advisor.patterns.overloaded import overloaded
from pool_monitor.advisor.patterns.oversubscription import contention, oversubscription
from pool_monitor.advisor.patterns.underused import underused
from pool_monitor.advisor.replay import replay
from tests.helpers.histories import Played, by_worker, crowded, played, poisson

SIZES = (overloaded, oversubscription, cold_start, underused)


def _found(check: Callable[..., Any], case: Played) -> Detection | None:
    found = list(check(case.history))
    assert len(found) <= 1
    return found[0] if found else None


def _steady(seed: int = 1, rate: float = 10, seconds: float = 720) -> tuple[Floats, Floats]:
    """Calls of 0.8 s: at the usual rate, eight workers are busy."""
    return poisson(seed, rate, 0.8, seconds)


def _pool(calls: tuple[Floats, Floats], size: int, **more: Any) -> Played:
    return played(*calls, size, **({"target": 0.8} | more))


def _rss(bytes_: float) -> WorkerHistory:
    nothing = np.zeros(0)
    return WorkerHistory(nothing, nothing, nothing, nothing, nothing, 0.0, np.array([bytes_]), nothing, None, None)


# -- overloaded -------------------------------------------------------------------------------------------------------


def test_a_pool_that_is_too_small_is_told_with_the_size_that_is_enough() -> None:
    case = _pool(_steady(), 8, by_worker={0: _rss(48 * 2**20)}, memory_free=1e9)
    found = _found(overloaded, case)
    assert found is not None
    assert found.subject == "pool text"
    assert found.change == ("size", 8.0, 11.0) or (found.change and found.change.proposed in (11, 12))
    assert found.effect is not None
    assert found.effect.expected < 0.8 < found.effect.now
    assert found.effect.low <= found.effect.expected <= found.effect.high
    assert found.effect.cost == (found.change.proposed - 8) * 48 * 2**20
    assert "x 48 MiB" in found.summary
    assert found.p < 0.001
    assert found.samples >= found.samples_min


@pytest.mark.slow
@pytest.mark.gate
def test_what_was_predicted_comes_true_at_the_size_that_is_proposed() -> None:
    held = 0
    for seed in range(6):
        arrivals, services = _steady(seed, seconds=1_500)
        before = arrivals < 750
        found = _found(overloaded, _pool((arrivals[before], services[before]), 8))
        assert found is not None
        assert found.change is not None
        assert found.effect is not None
        real = np.quantile(replay(arrivals[~before], services[~before], int(found.change.proposed)), 0.95)
        held += found.effect.low <= real <= found.effect.high
    assert held >= 5


def test_memory_processors_and_the_range_bound_the_size_that_is_proposed() -> None:
    case = _pool(_steady(rate=15), 8, until=720.0, by_worker={0: _rss(100.0)})
    for limits, proposed in (({"memory_free": 250.0}, 10), ({"memory_free": 0.0}, None)):
        found = _found(overloaded, case.with_(**limits))
        assert (found.change.proposed if found and found.change else None) == proposed
    processors = {"host_cpus": 10.0, "host_cpu_ratio": 0.7, "own_cpus": 7.0, "cpu": case.history.buckets.busy * 10}
    found = _found(overloaded, case.with_(**processors))
    assert found is not None
    assert found.change is not None
    assert found.change.proposed == 11
    found = _found(overloaded, case.with_(high=8))
    assert found is not None
    assert found.change is not None
    assert (found.change.knob, found.change.current) == ("max_size", 8)


def test_so_many_calls_that_few_of_them_are_kept_are_enough() -> None:
    case = _pool(_steady(), 8)
    calls = case.history.calls
    found = _found(overloaded, case.with_(calls=type(calls)(*(column[-1_000:] for column in calls))))  # of 100 s
    assert found is not None
    assert found.change is not None
    assert found.change.proposed > 8


def test_calls_that_give_up_or_are_refused_are_late_too() -> None:
    found = _found(overloaded, _pool(_steady(rate=14), 8, patience=0.72))
    assert found is not None
    assert found.urgency == 1


def _steady_then(part: float, factor: float) -> tuple[Floats, Floats]:
    """Calls at half a load, and for a part of the last ten minutes, from its begin, *factor* times as many."""
    quiet, loud = _steady(2, 5), poisson(3, 5 * (factor - 1), 0.8, part)
    arrivals, services = np.concatenate([quiet[0], loud[0] + 300]), np.concatenate([quiet[1], loud[1]])
    order = np.argsort(arrivals, kind="stable")
    return arrivals[order], services[order]


def _slow_worker() -> Played:
    arrivals, services = _steady(4, 6)
    starts, took, workers = by_worker(arrivals, services, [8.0, 1, 1, 1, 1, 1, 1])
    return _pool((arrivals, took), 7, waits=starts - arrivals, workers=workers)


def _hung_calls() -> Played:
    arrivals, services = _steady(5, 5)
    hung = np.arange(len(arrivals)) % 50 == 0
    case = _pool((arrivals, np.where(hung, 40.0, services)), 7)
    calls = case.history.calls
    late = calls.ended - calls.started >= 40.0
    return case.with_(calls=calls._replace(outcome=np.where(late, TIMEOUT, OK).astype(np.int32)))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda: _pool(_steady(), 11), id="enough workers"),
        pytest.param(lambda: _pool(_steady(), 10), id="p95 at the target"),
        pytest.param(lambda: _pool(_steady(), 8).with_(since=400.0), id="a short history"),
        pytest.param(lambda: _pool(_steady(rate=0.5), 1, target=1e-3), id="too few calls"),
        pytest.param(lambda: _pool(_steady_then(120, 4), 8), id="a burst that is over"),
        pytest.param(lambda: _pool(_steady(rate=15), 8), id="a backlog without new calls"),
        pytest.param(lambda: _pool(_steady(), 8).resized_at(690, 9), id="resized just now"),
        pytest.param(lambda: _pool(_steady(), 8, ready=6.0), id="workers are missing"),
        pytest.param(lambda: _pool(_steady(), 12).delayed(4.0), id="calls wait for another reason"),
        pytest.param(lambda: _pool(_steady(), 8, blocked=1.0), id="the event loop is blocked"),
        pytest.param(lambda: _pool(_steady(), 8, throttled_ratio=0.3), id="throttled"),
        pytest.param(
            lambda: _pool(_steady(), 8, host_cpus=8.0, host_cpu_ratio=1.0, own_cpus=2.0), id="other processes"
        ),
        pytest.param(
            lambda: _pool(_steady(), 8, host_cpus=8.0, host_cpu_ratio=1.0, own_cpus=7.9), id="processors are full"
        ),
        pytest.param(_slow_worker, id="one slow worker"),
        pytest.param(_hung_calls, id="calls that hang"),
    ],
)
def test_more_workers_are_not_advised_for(case: Callable[[], Played]) -> None:
    assert _found(overloaded, case()) is None


def test_the_waits_of_the_traps_are_real() -> None:
    """Without its fault, the trap would not be one: the waits are over the target."""
    for case in (_slow_worker(), _hung_calls()):
        calls = case.history.calls
        assert np.quantile(calls.started - calls.arrived, 0.95) > 0.8


# -- underused --------------------------------------------------------------------------------------------------------


def _days(days: float, size: int = 10, peak: float = 3, **more: Any) -> Played:
    """Days whose size needed goes up to *peak* each day, and an hour of calls at its end."""
    case = played(*poisson(6, 2, 0.1, 3_600), size)
    rows = round(days * 144)
    at = np.arange(rows) * SPAN_S
    needed = np.ceil(1 + (peak - 1) * (0.5 + 0.5 * np.sin(at / 86_400 * 2 * math.pi)))
    spans = case.history.spans._replace(
        at=at,
        wall=at,
        calls=np.full(rows, 2_400.0),
        needed=needed,
        size=np.full(rows, float(size)),
        busy=needed / 4,
        service_mean=np.full(rows, 0.1),
    )
    late = days * 86_400 - case.history.now
    calls, buckets = case.history.calls, case.history.buckets
    moved = calls._replace(arrived=calls.arrived + late, started=calls.started + late, ended=calls.ended + late)
    shifted = case.history._replace(
        now=days * 86_400, since=0.0, spans=spans, calls=moved, buckets=buckets._replace(at=buckets.at + late)
    )
    return Played(shifted).with_(**more)


def test_a_pool_that_is_too_large_is_told_with_what_it_costs() -> None:
    found = _found(underused, _days(7.5, by_worker={0: _rss(1e6)}))
    assert found is not None
    assert found.change is not None
    assert found.effect is not None
    assert (found.change.knob, found.change.current, found.change.proposed) == ("size", 10, 4)
    assert found.evidence["worker_hours_saved"] == 144
    assert "save 144 worker-hours a day" in found.summary
    assert found.effect.low <= found.effect.expected <= found.effect.high
    assert found.effect.cost == -6e6
    assert found.risk == 1


@pytest.mark.parametrize("days", [0.985, 1.01])
def test_a_day_is_enough_and_says_that_it_is_no_week(days: float) -> None:
    found = _found(underused, _days(days))
    assert found is not None
    assert found.risk == 2
    assert "peak" in found.check_first


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda: _days(0.9), id="less than a day"),
        pytest.param(lambda: _days(2, peak=7), id="one worker to spare"),
        pytest.param(lambda: _days(2, size=4, peak=3), id="small pool"),
        pytest.param(lambda: _days(2, wait_over=1e3), id="calls wait now"),
    ],
)
def test_fewer_workers_are_not_advised_for(case: Callable[[], Played]) -> None:
    assert _found(underused, case()) is None


def test_one_peak_in_a_week_keeps_the_size() -> None:
    case = _days(7)
    needed = case.history.spans.needed.copy()
    needed[300] = 9.0
    assert _found(underused, case.with_(spans=case.history.spans._replace(needed=needed))) is None


def test_a_pool_that_is_sized_by_its_load_has_a_floor_that_is_too_high() -> None:
    case = _days(2, low=10, high=20, settings={"size": 14.0})
    rows = len(case.history.spans.size)
    size = np.where(np.arange(rows) % 144 > 72, 14.0, 10.0)
    found = _found(underused, case.with_(spans=case.history.spans._replace(size=size), size=14.0))
    assert found is not None
    assert found.change is not None
    assert (found.change.knob, found.change.current, found.change.proposed) == ("min_size", 10, 4)


# -- oversubscription -------------------------------------------------------------------------------------------------


def _shared(size: int, cpus: float, rate: float, *, fraction: float = 1.0, known: bool = True, seed: int = 7) -> Played:
    """A pool whose workers share processors, in bursts."""
    arrivals, services = poisson(seed, rate, 0.1, 640, bursts=True)
    starts, took = crowded(arrivals, services, size, cpus, fraction)
    case = played(arrivals, took, size, waits=starts - arrivals)
    if not known:
        return case
    used = np.minimum(case.history.buckets.busy * fraction, cpus)
    return case.with_(cpu=used * 10, own_cpus=used, host_cpus=cpus, host_cpu_ratio=used / cpus)


def test_workers_that_share_too_few_processors_are_told() -> None:
    found = _found(oversubscription, _shared(16, 4, 34))
    assert found is not None
    assert found.subject == "pool text"
    assert found.change is not None
    assert found.effect is not None
    assert (found.change.knob, found.change.current, found.change.proposed) == ("size", 16, 4)
    assert found.effect.expected < found.effect.now
    assert found.evidence["slower"] > 1.15


def test_workers_that_compute_half_of_the_time_may_be_twice_as_many() -> None:
    found = _found(oversubscription, _shared(24, 4, 68, fraction=0.5))
    assert found is not None
    assert found.change is not None
    assert found.change.proposed == 8


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda: _shared(16, 20, 40), id="processors for all"),
        pytest.param(lambda: _shared(16, 4, 15), id="hardly ever more at work than processors"),
        pytest.param(lambda: _shared(16, 4, 34).with_(throttled_ratio=0.3), id="throttled"),
        pytest.param(
            lambda: _shared(16, 4, 34).with_(host_cpu_ratio=1.0, own_cpus=1.0), id="other processes use the processors"
        ),
        pytest.param(lambda: _shared(16, 4, 34, known=False).with_(since=0.0, calls=_few()), id="too few calls"),
        pytest.param(lambda: _pool(_slowed(), 30), id="everything became slower"),
        pytest.param(lambda: _pool(_steady(), 8), id="too few workers"),
    ],
)
def test_a_cap_is_not_advised_for(case: Callable[[], Played]) -> None:
    assert _found(oversubscription, case()) is None


def _few() -> Any:
    return _pool(_steady(1, 1, 700), 3).history.calls


def _slowed() -> tuple[Floats, Floats]:
    arrivals, services = _steady(8)
    return arrivals, np.where((arrivals > 200) & (arrivals < 500), services * 2.5, services)


def test_calls_that_became_slower_at_once_are_not_slower_by_concurrency() -> None:
    slowed, shared = contention(_pool(_slowed(), 30).history), contention(_shared(16, 4, 34).history)
    assert slowed is not None
    assert shared is not None
    assert slowed.ratio.value < 1.1
    assert shared.ratio.low > 1.15


# -- cold_start -------------------------------------------------------------------------------------------------------


def _idle(hours: float = 2) -> Played:
    return played(*poisson(9, 0.5, 0.1, hours * 3_600), 4)


def _every(case: Played, nth: int, value: float, begin: float = 0, end: float = math.inf) -> Floats:
    at = case.history.buckets.at
    return np.where((np.arange(len(at)) % nth == 0) & (at >= begin) & (at < end), value, 0.0)


def _dying(nth: int, start: float = 5.0, end: float = math.inf) -> Played:
    case = _idle()
    deaths = _every(case, nth, 1.0, end=end)
    return case.with_(deaths=deaths, starts=deaths, start_seconds=deaths * start)


def _swinging() -> Played:
    case = _idle()
    size = np.where(np.arange(len(case.history.buckets.at)) % 6 < 3, 4.0, 8.0)
    up = np.append(0, np.diff(size) > 0) * 4.0
    down = np.append(0, np.diff(size) < 0) * 4.0
    turns = (up > 0) | (down > 0)
    return case.with_(
        size=size,
        ready=size,
        starts=up,
        start_seconds=up * 2,
        planned_ends=down,
        resizes=turns * 1.0,
        reversals=turns * 1.0,
    )


def test_processes_that_end_over_and_over_are_told() -> None:
    found = _found(cold_start, _dying(3))
    assert found is not None
    assert found.change is None
    assert found.evidence["start_ratio"] == pytest.approx(120 * 5 / (4 * 3_600), rel=0.1)


def test_a_size_that_swings_is_told_with_a_floor() -> None:
    found = _found(cold_start, _swinging())
    assert found is not None
    assert found.change is not None
    assert found.effect is not None
    assert (found.change.knob, found.change.proposed) == ("min_size", 8)
    assert found.effect.expected == 0 < found.effect.now


def _deploy() -> Played:
    """Every process is replaced, every ten minutes."""
    case = _idle()
    ends = _every(case, 60, 4.0)
    return case.with_(planned_ends=ends, starts=ends, start_seconds=ends * 30)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(_idle, id="no starts"),
        pytest.param(_deploy, id="deploys"),
        pytest.param(lambda: _dying(60), id="a death now and then"),
        pytest.param(lambda: _dying(1, end=5_000.0), id="deaths that are over"),
        pytest.param(lambda: _dying(3, start=0.05), id="starts that cost nothing"),
    ],
)
def test_starts_are_not_told_for(case: Callable[[], Played]) -> None:
    assert _found(cold_start, case()) is None


@pytest.mark.parametrize("check", SIZES)
def test_no_history_and_no_calls_are_silence(check: Callable[..., Any]) -> None:
    case = _pool(_steady(), 11)
    assert _found(check, case) is None
    empty = {name: column[:0] for name, column in case.history.buckets._asdict().items()}
    nothing = case.history._replace(
        buckets=case.history.buckets._replace(**empty),
        calls=case.history.calls._replace(**{n: c[:0] for n, c in case.history.calls._asdict().items()}),
        spans=case.history.spans._replace(**{n: c[:0] for n, c in case.history.spans._asdict().items()}),
    )
    assert _found(check, Played(nothing)) is None
