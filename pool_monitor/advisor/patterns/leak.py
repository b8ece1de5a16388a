"""``leak``: the memory of a worker grows without end.

The test is that of `pool_monitor.resources.leak`, on minima of 15 minutes (and of 30, once there are enough), for any
growth that matters, whether there is a limit or not. It begins an hour after the start of the process. Where the
memory shows a warm-up, it begins after three of its time constants instead if that finds the leak: a curve
``a + b (1 - exp(-t / tau)) + c t`` is fitted to all samples for that, and must describe them better than a straight
line by Akaike's criterion.

A pass every five minutes looks at nearly the same memory again and again, and noise that swings for hours looks like
growth at some moment. So the rise must stand out, too (`_Clearness`), and where it does so only just, it must have done
so an hour before. In nine hours the test flags none of 3,600 series without a leak whose noise swings for 8, 17 or 33
minutes, 0.2 % where it swings for 55, and 0.7 % where it swings for 83.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import certain
from pool_monitor.advisor.gil_pauses import yield_gil
from pool_monitor.advisor.history import Floats, PoolHistory, WorkerHistory
from pool_monitor.advisor.statistics import normal_tail
from pool_monitor.resources.leak import (
    LARGEST,
    MEMORY,
    SMALLEST,
    Slope,
    growth,
    mann_kendall,
    theil_sen,
    without_jump,
)
from pool_monitor.snapshot.advice import Change, Effect

WARM_S = 3600.0
"""Seconds after the start of a process that are left out."""
STEPS_S = (900.0, 1800.0)
"""Seconds of a minimum."""
TAUS_S = (300.0, 600.0, 900.0, 1350.0, 2000.0, 3000.0, 4500.0, 6500.0, 9000.0, 13000.0)
"""Time constants of a warm-up that are tried."""
HELD_S = 3600.0
"""For how long a leak that is likely must have been so."""
SETTLED_TAUS = 3.0
"""Time constants after which a warm-up is over."""
_LEANS_Z = 1.64
_LEANS_RATE = 0.5
"""The share of the rate of the leaks that are found."""
_POOL_SHARE = 0.8
_DAY_S = 86_400.0
_GIB, _MIB = 1024.0**3, 1024.0**2


class _Clearness(NamedTuple):
    """By how much a rise stands out."""

    rise: float
    """Robust deviations from the straight line."""
    z: float
    """Standard errors of a slope with correlated noise. They are of 20 values: of many, fewer would do."""

    def reaches(self, bound: _Clearness) -> bool:
        """Whether one of them is as large as in *bound*."""
        return self.rise >= bound.rise or self.z >= bound.z


_SURE, _LIKELY = _Clearness(12.0, 10.0), _Clearness(8.0, 7.0)


class _Growth(NamedTuple):
    slope: Slope
    """Bytes per second. The interval is empty where the watch of resources has told it."""
    z: float
    minima: int
    level: float


def leak(history: PoolHistory) -> Iterator[Detection]:
    """Yield a detection for each worker that leaks, ``worker SLOT``; for ``pool NAME`` instead if nearly all do: then
    it is the code that leaks, and no worker is special.
    """
    judged: dict[int, _Growth | None] = {}
    for nth, worker in sorted(history.by_worker.items()):
        if not len(worker.rss):
            continue
        found = _leak_of(worker)
        if found is None and _minima(worker, STEPS_S[0], WARM_S) is None:
            continue
        judged[nth] = found
    leaks = {nth: found for nth, found in judged.items() if found is not None}
    if leaks and len(judged) >= 2:
        least = _LEANS_RATE * float(np.median([found.slope.value for found in leaks.values()]))
        leaning = [nth for nth in judged if nth in leaks or _leans(history.by_worker[nth], least)]
        if len(leaning) >= _POOL_SHARE * len(judged):
            yield _detection(history, f"pool {history.pool}", leaks)
            return
    for nth, found in leaks.items():
        yield _detection(history, f"worker {history.workers[nth]}", {nth: found})


def _leak_of(worker: WorkerHistory) -> _Growth | None:
    """Return the growth of a worker that leaks, by our own tests or by the watch of resources."""
    tau: float | None = None
    for step in STEPS_S:
        if (found := _tested(worker, step, WARM_S)) is not None:
            return found
        if tau is None:
            tau = warm_up(worker)
        if tau * SETTLED_TAUS > WARM_S and (found := _tested(worker, step, tau * SETTLED_TAUS)) is not None:
            return found
    if worker.leak_rate is not None and worker.leak_rate > 0:
        rate = worker.leak_rate
        return _Growth(Slope(rate, rate, rate), 0.0, len(worker.rss), float(worker.rss[-1]))
    return None


def _tested(worker: WorkerHistory, step: float, skip: float) -> _Growth | None:
    found = _minima(worker, step, skip)
    if found is None:
        return None
    times, values = found
    slope = growth(times, values, MEMORY)
    if slope is None:
        return None
    clear = _Clearness(_rise(times, values, slope), _z(times, values))
    if not clear.reaches(_SURE) and not (
        clear.reaches(_LIKELY) and _was_likely(times, values, len(times) - round(HELD_S / step))
    ):
        return None
    statistic, deviation = mann_kendall(without_jump(values, MEMORY.grain))
    return _Growth(slope, (statistic - 1) / deviation, len(values), float(values[-1]))


def _was_likely(times: Floats, values: Floats, count: int) -> bool:
    """Whether the first *count* minima show a leak that is likely."""
    if count < SMALLEST:
        return False
    times, values = times[:count], values[:count]
    slope = growth(times, values, MEMORY)
    return slope is not None and _Clearness(_rise(times, values, slope), _z(times, values)).reaches(_LIKELY)


def _rise(times: Floats, values: Floats, slope: Slope) -> float:
    """Return the rise, in robust deviations from the straight line."""
    values = without_jump(values, MEMORY.grain)
    rest = values - slope.value * times
    deviation = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    return slope.value * float(times[-1] - times[0]) / max(deviation, MEMORY.grain)


def _z(times: Floats, values: Floats) -> float:
    """Return the slope in standard errors, for noise that depends on the noise before it: generalized least squares
    with errors of the first order (D. Cochrane, G. H. Orcutt, JASA 44, 1949), their correlation with the bias of short
    series taken off (1 + 4 rho) / n.
    """
    values = without_jump(values, MEMORY.grain)
    count = len(values)
    line = np.column_stack([np.ones(count), (times - times[0]) / (times[-1] - times[0])])
    rest = values - line @ np.linalg.lstsq(line, values, rcond=None)[0]
    rho = float(rest[1:] @ rest[:-1]) / (float(rest @ rest) or 1.0)
    rho = min(max(rho + (1 + 4 * max(rho, 0.0)) / count, 0.0), 0.95)
    shape, level = line[1:] - rho * line[:-1], values[1:] - rho * values[:-1]
    weights = np.linalg.lstsq(shape, level, rcond=None)[0]
    left = level - shape @ weights
    variance = float(np.linalg.inv(shape.T @ shape)[1, 1]) * float(left @ left) / (count - 3)
    return float(weights[1]) / math.sqrt(max(variance, MEMORY.grain**2 / 12))


def _minima(worker: WorkerHistory, step: float, skip: float) -> tuple[Floats, Floats] | None:
    """Return the middles and the minima of complete steps, *skip* seconds after the start; None: there are too few."""
    began = worker.since if worker.since is not None else float(worker.rss_at[0])
    chosen = worker.rss_at >= began + skip
    if np.count_nonzero(chosen) < SMALLEST:
        return None
    at, values = worker.rss_at[chosen], worker.rss[chosen]
    nth = np.floor(at / step)
    first = np.flatnonzero(np.concatenate([[True], np.diff(nth) > 0]))
    minima = np.minimum.reduceat(values, first)[1:-1]  # the first and the last step are not complete
    if len(minima) < SMALLEST:
        return None
    times = (nth[first][1:-1] + 0.5) * step
    return times[-LARGEST:], minima[-LARGEST:]


def warm_up(worker: WorkerHistory) -> float:
    """Return the time constant of the warm-up that *worker* shows, in seconds; 0: it shows none. After three of them
    at least half of the time is left.
    """
    began = worker.since if worker.since is not None else float(worker.rss_at[0])
    alive = worker.rss_at >= began
    if np.count_nonzero(alive) < SMALLEST:
        return 0.0
    at, values = worker.rss_at[alive], worker.rss[alive]
    first = np.flatnonzero(np.concatenate([[True], np.diff(np.floor(at / 300.0)) > 0]))
    at, values = at[first] - at[0], np.minimum.reduceat(values, first)
    count, length = len(values), float(at[-1])
    if count < SMALLEST or length <= 0:
        return 0.0
    line = np.column_stack([np.ones(count), at / length])
    least = count * MEMORY.grain**2 / 12
    straight, _ = _left(line, values)
    best, tau = straight, 0.0
    for candidate in TAUS_S:
        if candidate * 2 * SETTLED_TAUS > length * 1.34:
            break
        rest, weight = _left(np.column_stack([line, -np.exp(-at / candidate)]), values)
        if weight > 0 and rest < best:
            best, tau = rest, candidate
    better = count * math.log(max(best, least)) + 2 * 4 < count * math.log(max(straight, least)) + 2 * 2
    return tau if better else 0.0


def _left(shape: Floats, values: Floats) -> tuple[float, float]:
    """The sum of squares that a least-squares fit leaves, and the weight of its last column."""
    yield_gil()
    level = values - values.mean()
    weights = np.linalg.lstsq(shape, level, rcond=None)[0]
    rest = level - shape @ weights
    return float(rest @ rest), float(weights[-1])


def _leans(worker: WorkerHistory, least: float) -> bool:
    """Whether the memory grows by less strict tests: enough to say that a leak of others is not theirs alone.

    In the latest half it must not be slower than *least* bytes per second for certain. The rest of a warm-up grows as
    well, for hours, but ever more slowly: a worker whose code leaks as that of the others does not fall behind them.
    """
    found = _minima(worker, STEPS_S[0], WARM_S)
    if found is None:
        return False
    times, values = found
    statistic, deviation = mann_kendall(values)
    if deviation <= 0 or (statistic - 1) / deviation <= _LEANS_Z:
        return False
    if theil_sen(times, values, deviation).low <= MEMORY.floor_hour / 3600 / 4:
        return False
    times, values = times[len(times) // 2 :], values[len(values) // 2 :]
    return theil_sen(times, values, mann_kendall(values)[1]).high >= least


def _detection(history: PoolHistory, subject: str, leaks: dict[int, _Growth]) -> Detection:
    steepest = max(leaks, key=lambda nth: leaks[nth].slope.value)
    found, worker = leaks[steepest], history.by_worker[steepest]
    slope = found.slope
    name = f"each worker of pool {history.pool}" if subject.startswith("pool") else history.workers[steepest]
    evidence = {
        "bytes_per_hour": slope.value * 3600,
        "bytes_per_hour_low": slope.low * 3600,
        "bytes_per_hour_high": slope.high * 3600,
        "rss": found.level,
        "workers": float(len(leaks)),
        "z": found.z,
    }
    summary = f"the memory of {name} grows by {_size(slope.value * 3600)} an hour, and does not come to rest"
    urgency = 0.3
    if worker.rss_limit is not None and worker.rss_limit > found.level:
        left = (worker.rss_limit - found.level) / slope.value
        evidence["seconds_left"] = left
        summary += f"; at its limit in {left / 3600:.3g} h"
        urgency = 1.0 if left < 6 * 3600 else 0.5 if left < 2 * _DAY_S else 0.3
    change, effect = _change(history, found)
    return Detection(
        pattern="leak",
        subject=subject,
        summary=summary,
        action="recycle workers by memory (recycle_rss) until the leak is found; look at the operation that grows it",
        evidence=evidence,
        samples=found.minima,
        p=certain(normal_tail(found.z)) if found.z > 0 else 0.0,
        fidelity=1.0,
        impact=min(1.0, len(leaks) / max(len(history.by_worker), 1)),
        urgency=urgency,
        risk=1,
        samples_min=SMALLEST,
        change=change,
        effect=effect,
        check_first="whether a cache of the target has a bound: it fills up, then stays",
    )


def _change(history: PoolHistory, found: _Growth) -> tuple[Change | None, Effect | None]:
    """Recycle at a quarter more than now, or after what grows in a day, if that is more. None: it is set already."""
    if "recycle_rss" not in history.settings:
        return None, None
    current = history.settings["recycle_rss"]
    proposed = found.level + max(found.level / 4, found.slope.value * _DAY_S)
    if 0 < current <= proposed:
        return None, None
    week = found.level + found.slope.value * 7 * _DAY_S
    effect = Effect(metric="worker.rss", now=week, expected=min(week, proposed), low=found.level, high=proposed * 1.05)
    return Change(knob="recycle_rss", current=current, proposed=proposed), effect


def _size(value: float) -> str:
    return f"{value / _GIB:.3g} GiB" if value >= _GIB else f"{value / _MIB:.3g} MiB"
