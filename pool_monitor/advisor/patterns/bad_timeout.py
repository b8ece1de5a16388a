"""``bad_timeout``: the time-out of an operation ends calls that would have ended well a little later, or lets calls
that will never end hold a worker for long.

A deadline counts from the arrival of a call: what a call waits, it cannot use. So a time-out says "the execution takes
longer than what was left", which is a censored observation. The survival function of the execution time at the
time-out is estimated from all calls by E. L. Kaplan and P. Meier, "Nonparametric estimation from incomplete
observations", JASA 53 (1958). In an overload, most time-outs have nothing left, and say nothing.

- *Too tight*: at the time-out, more than 0.1 % of the calls (lower bound, 95 %) would still run, and calls do end in
  the second half of it, at least as many as are cut off: they do not hang. It has to be so all the time and not by one
  worker: an outage, and a slow worker, are other faults.
- *Too loose*: the time-out is over 5 times the upper bound of the 99.9th percentile, and some calls run into it:
  nothing that runs so long ends well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import Mask, ServedCalls, certain, say_seconds, served
from pool_monitor.advisor.history import ERROR, OK, TIMEOUT, Floats, PoolHistory
from pool_monitor.advisor.statistics import binomial_above, normal_quantile, wilson
from pool_monitor.snapshot.advice import Change, Effect

CALLS_MIN = 1_000
"""Calls of an operation from which a time-out may be called too tight."""
LOOSE_CALLS_MIN = 3_000
"""Calls from which there is an upper bound of the 99.9th percentile at all: 0.999 to the power of 2,995 is 5 %."""
CUT_RATIO = 0.001
"""The share of calls that a good time-out may cut off."""
CUT_MIN = 20
LOOSE = 5.0
HUNG_MIN = 5
MARGIN = 1.25
_PARTS = 10
_P = 1e-3


class _Timed(NamedTuple):
    """The calls of one operation that ended well, failed or timed out."""

    calls: ServedCalls
    cut: Mask
    """Which of them ended with the time-out."""
    timeout: float


def bad_timeout(history: PoolHistory) -> Iterator[Detection]:
    """Yield a detection for each operation whose time-out is too tight or too loose. Subject: ``operation NAME``."""
    calls = served(history.calls)
    for nth, operation in history.by_operation.items():
        timeout = operation.timeout
        if timeout is None or not timeout > 0:
            continue
        own = calls.where((calls.operation == nth) & np.isin(calls.outcome, (OK, ERROR, TIMEOUT)))
        timed = _Timed(own, own.outcome == TIMEOUT, timeout)
        name = history.operations[nth]
        found = _tight(history, name, timed) or _loose(history, name, timed)
        if found is not None:
            yield found


# -- too tight --------------------------------------------------------------------------------------------------------


def _tight(history: PoolHistory, name: str, timed: _Timed) -> Detection | None:
    calls, timeout = timed.calls, timed.timeout
    if calls.total < CALLS_MIN or np.count_nonzero(timed.cut) < CUT_MIN:
        return None
    left = timeout - calls.waited
    cut = timed.cut & (left >= 0.5 * timeout)  # it had most of the time
    late = ~timed.cut & (calls.service >= 0.5 * timeout)
    count = int(cut.sum())
    if count < CUT_MIN or int(late.sum()) < count or not _spread(calls, cut):
        return None
    if _one_worker(calls, cut):
        return None
    survival = survival_at(calls.service, timed.cut, timeout * 0.98)
    at_risk = int((left >= 0.9 * timeout).sum())
    bounds = wilson(round(survival * at_risk), at_risk)
    if bounds.low <= CUT_RATIO:
        return None
    exact = certain(binomial_above(round(survival * at_risk), at_risk, CUT_RATIO))
    middle, longest = _tail(calls.service[late], timeout, survival, count)
    proposed = MARGIN * longest
    killed = _killed_later(survival, middle, timeout, proposed)
    return Detection(
        pattern="bad_timeout",
        subject=f"operation {name}",
        summary=f"the time-out of {say_seconds(timeout)} cuts off {bounds.value:.2%} of the calls of {name} in pool"
        f" {history.pool}, while others end well just before it: the slowest 0.1 % take about {say_seconds(middle)}",
        action=f"raise the time-out of {name} to {say_seconds(proposed)}",
        evidence={
            "timeout": timeout,
            "cut_ratio": bounds.value,
            "cut_ratio_low": bounds.low,
            "cut_ratio_high": bounds.high,
            "cut": float(count),
            "ended_in_second_half": float(late.sum()),
            "p999": middle,
            "p999_high": longest,
            "p": exact,
        },
        samples=calls.total,
        p=exact,
        fidelity=1.0,
        impact=min(1.0, 5 * bounds.value),
        urgency=0.7,
        risk=2,
        samples_min=CALLS_MIN,
        change=_change(history, timeout, proposed),
        effect=Effect(metric="operation.timeouts_ratio", now=bounds.value, expected=killed, low=0.0, high=CUT_RATIO),
        check_first="whether the caller can wait so long, and whether a longer call is of use to it",
    )


def _spread(calls: ServedCalls, cut: Mask) -> bool:
    """Whether the time-outs are spread over the time: at least 6 of 10 parts with equally many calls have some, and
    none has more than half. An outage is not.
    """
    places = np.flatnonzero(cut) * _PARTS // calls.total
    counts = np.bincount(places, minlength=_PARTS)
    return int(np.count_nonzero(counts)) >= 6 and int(counts.max()) <= 0.5 * int(counts.sum())


def _one_worker(calls: ServedCalls, cut: Mask) -> bool:
    """Whether one of several workers has most of the time-outs."""
    counts = np.bincount(calls.worker[cut])
    workers = len(np.unique(calls.worker))
    return workers >= 3 and int(counts.max()) > 0.5 * int(counts.sum())


def survival_at(services: Floats, censored: Mask, at: float) -> float:
    """Return the share of calls that take longer than *at*, where those of *censored* would have gone on."""
    order = np.argsort(services, kind="stable")
    times, ended = services[order], ~censored[order]
    upto = int(np.searchsorted(times, at))
    risk = len(times) - np.arange(upto)
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log1p(-(ended[:upto] / risk)).sum()))


def _tail(late: Floats, timeout: float, survival: float, cut: int) -> tuple[float, float]:
    """Return the 99.9th percentile beyond the time-out, and an upper bound of it.

    The calls above half the time-out are fitted by an exponential tail, which is the middle, and by one of Pareto
    (both by maximum likelihood with the calls that were cut off), which is the bound. At most four times the time-out
    are told: beyond that, the data say nothing.
    """
    half, ended = 0.5 * timeout, len(late)
    if survival <= CUT_RATIO:
        return timeout, timeout
    over = math.log(survival / CUT_RATIO)
    slack = 1 + 1.64 / math.sqrt(ended)
    mean = (float((late - half).sum()) + cut * half) / ended
    index = ended / (float(np.log(late / half).sum()) + cut * math.log(2))
    middle = timeout + mean * over
    longest = max(middle + mean * over * (slack - 1), timeout * math.exp(min(over * slack / index, math.log(4.0))))
    return min(middle, 4 * timeout), min(longest, 4 * timeout)


def _killed_later(survival: float, middle: float, timeout: float, proposed: float) -> float:
    """Return the share that the new time-out cuts off, by the exponential tail through the percentile."""
    if middle <= timeout or survival <= CUT_RATIO:
        return min(survival, CUT_RATIO)
    return survival * math.exp(-math.log(survival / CUT_RATIO) * (proposed - timeout) / (middle - timeout))


# -- too loose --------------------------------------------------------------------------------------------------------


def _loose(history: PoolHistory, name: str, timed: _Timed) -> Detection | None:
    calls, timeout = timed.calls, timed.timeout
    services = np.sort(calls.service[calls.outcome == OK])
    count = len(services)
    if count < LOOSE_CALLS_MIN:
        return None
    high = float(services[upper_rank(count, 0.999) - 1])
    middle = float(np.quantile(services, 0.999))
    hung = timed.cut & (calls.service > 2 * high)
    hangs = int(hung.sum())
    if timeout <= LOOSE * high or hangs < HUNG_MIN or hangs > 0.2 * calls.total:
        return None
    proposed = max(MARGIN * high, 2 * middle)
    wasted = float(calls.service[hung].sum())
    busy = float(calls.service.sum())
    now = wasted / busy
    after = min(now, hangs * proposed / (busy - wasted + hangs * proposed))
    rate = wilson(hangs, calls.total)
    p = certain(math.exp(max(-700.0, -hangs * math.log(timeout / high))))
    return Detection(
        pattern="bad_timeout",
        subject=f"operation {name}",
        summary=f"{hangs} calls of {name} in pool {history.pool} hung until the time-out of {say_seconds(timeout)};"
        f" 99.9 % of the others end within {say_seconds(high)}. They took {now:.1%} of the worker time",
        action=f"lower the time-out of {name} to {say_seconds(proposed)}",
        evidence={
            "timeout": timeout,
            "p999": middle,
            "p999_high": high,
            "hung": float(hangs),
            "hung_ratio": rate.value,
            "worker_seconds_wasted": wasted,
            "wasted_ratio": now,
            "p": p,
        },
        samples=count,
        p=p,
        fidelity=1.0,
        impact=min(1.0, now),
        urgency=0.5,
        risk=2,
        samples_min=LOOSE_CALLS_MIN,
        change=_change(history, timeout, proposed),
        effect=Effect(
            metric="operation.hung_time_ratio", now=now, expected=after, low=0.5 * after, high=min(now, 2 * after)
        ),
        check_first="whether there are calls, such as monthly ones, that rightly take so long: give them their own",
    )


def upper_rank(count: int, share: float, confidence: float = 0.95) -> int:
    """Return the rank, from 1, of the ordered value that is an upper bound of a quantile; *count* where there is none.

    The normal approximation of the binomial distribution of the number of values below.
    """
    spread = math.sqrt(count * share * (1 - share))
    return min(count, math.ceil(count * share + normal_quantile(confidence) * spread) + 1)


def _change(history: PoolHistory, timeout: float, proposed: float) -> Change | None:
    """The knob of the pool's time-out, if it is the one that these calls have."""
    current = history.settings.get("timeout")
    if current is None or not math.isclose(current, timeout, rel_tol=0.1):
        return None
    return Change(knob="timeout", current=current, proposed=proposed)
