"""Formulas of queueing theory for a pool: what load, size and service times mean for the wait.

Words: *rate* is calls per second. *service* is the mean time of a call on a worker, in seconds. *load* is their
product, in erlangs: the number of workers that are busy on the average. A load at or above the number of servers has no
steady state: the wait grows without end, and every formula here says ``inf`` (or 1 as a probability).

Erlang's formulas hold for calls that arrive at random (a Poisson process) and exponential service times, first come,
first served. Allen and Cunneen's factor `variability` stretches them to other times. Both are optimistic by 5 to 30
times when calls arrive in bursts (see `trusted`): then only `replay` helps.

Sources:
- A. K. Erlang, "Solution of some problems in the theory of probabilities of significance in automatic telephone
  exchanges", 1917: the formulas B and C.
- J. D. C. Little, "A proof for the queuing formula L = lambda W", Operations Research 9 (1961).
- J. F. C. Kingman, "The single server queue in heavy traffic", Proc. Cambridge Phil. Soc. 57 (1961).
- A. O. Allen, "Probability, Statistics and Queueing Theory with Computer Science Applications", 2nd edition (1990),
  section 5.3: the approximation of Allen and Cunneen.
- N. J. Gunther, "Guerrilla Capacity Planning" (2007), chapters 4 to 6: the universal scalability law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOST_SERVERS = 10_000
"""The largest number of servers that `size_for` looks at."""
USL_LEVELS = 6
"""The fewest levels of concurrency from which the scalability law is fitted. With four, its peak is off by 80 times."""
USL_SPAN = 4.0
"""The highest level must be at least so many times the lowest."""
_TRUSTED = 1.5


def utilisation(rate: float, service: float, servers: float) -> float:
    """Return the share of *servers* that is busy, by the utilisation law: ``rate * service / servers``. 1 or more: the
    load is more than they can do.
    """
    return rate * service / servers if servers > 0 else math.inf


def little(rate: float, time: float) -> float:
    """Return how many calls are in a place in which each stays for *time* seconds on the average (Little's law)."""
    return rate * time


def variability(arrival_cv2: float, service_cv2: float) -> float:
    """Return Allen and Cunneen's factor, ``(Ca² + Cs²) / 2``, from the squared coefficients of variation (variance over
    mean squared) of the times between arrivals and of the service times. 1 for Poisson arrivals and exponential times.
    """
    return (arrival_cv2 + service_cv2) / 2


def erlang_b(servers: int, load: float) -> float:
    """Return the share of calls that would be lost if there were no queue.

    By the recursion ``B(n) = a B(n-1) / (n + a B(n-1))``, ``B(0) = 1``, which is stable for any number of servers: no
    factorial and no power is formed.
    """
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    return blocked if load > 0 else float(servers == 0)


def erlang_c(servers: int, load: float) -> float:
    """Return the share of calls that have to wait: ``n B / (n - a (1 - B))``. 1 where the load is too high."""
    if load >= servers:
        return 1.0
    return _waits(servers, load, erlang_b(servers, load))


def wait_mean(servers: int, load: float, service: float, factor: float = 1.0) -> float:
    """Return the mean wait in seconds: ``C(n, a) E[S] / (n - a)`` times *factor* (see `variability`)."""
    if load >= servers:
        return math.inf
    return factor * erlang_c(servers, load) * service / (servers - load)


def wait_tail(servers: int, load: float, service: float, wait: float, factor: float = 1.0) -> float:
    """Return the share of calls that wait longer than *wait* seconds: ``C(n, a) exp(-(n - a) t / (E[S] k))``."""
    if load >= servers:
        return 1.0
    if factor <= 0 or service <= 0:
        return 0.0
    return erlang_c(servers, load) * math.exp(-(servers - load) * wait / (service * factor))


def wait_percentile(servers: int, load: float, service: float, share: float = 0.95, factor: float = 1.0) -> float:
    """Return the wait in seconds that *share* of the calls do not exceed: `wait_tail`, solved for the wait."""
    if load >= servers:
        return math.inf
    some = erlang_c(servers, load)
    if some <= 1 - share:
        return 0.0
    return service * factor / (servers - load) * math.log(some / (1 - share))


def kingman(busy: float, service: float, factor: float = 1.0) -> float:
    """Return the mean wait before one server that is busy for the share *busy*: ``E[S] k busy / (1 - busy)``.

    Exact for Poisson arrivals (it is the formula of Pollaczek and Khinchine then), and an approximation for others that
    is good where *busy* is high.
    """
    return math.inf if busy >= 1 else service * factor * busy / (1 - busy)


def size_for(
    load: float,
    service: float,
    target: float,
    share: float = 0.95,
    factor: float = 1.0,
    *,
    most: int = MOST_SERVERS,
) -> int | None:
    """Return the smallest number of servers with which *share* of the calls wait for at most *target* seconds; None:
    not even *most* are enough. At least 1.

    One pass of the recursion of `erlang_b`: about 0.1 us for each server.
    """
    blocked, spread, late = 1.0, service * factor, 1 - share
    for n in range(1, most + 1):
        blocked = load * blocked / (n + load * blocked)
        if n <= load:
            continue
        waits = _waits(n, load, blocked)
        if waits <= late or (spread > 0 and waits * math.exp(-(n - load) * target / spread) <= late):
            return n
    return None


def highest_utilisation(servers: int, service: float, target: float, share: float = 0.95, factor: float = 1.0) -> float:
    """Return the highest utilisation at which *share* of the calls wait for at most *target* seconds. It is below 1.

    With a target of one service time: 0.35 for 2 servers, 0.75 for 8, 0.92 for 32. So no one utilisation is right for
    pools of all sizes.
    """
    low, high = 0.0, float(servers)
    for _ in range(30):  # the wait grows with the load: halve the interval
        middle = (low + high) / 2
        if wait_tail(servers, middle, service, target, factor) <= 1 - share:
            low = middle
        else:
            high = middle
    return low / servers


def dispersion(counts: Sequence[float]) -> float:
    """Return the variance of the arrivals per second over their mean: 1 for a Poisson process, more for bursts. NaN
    without arrivals.
    """
    values = np.asarray(counts, dtype=np.float64)
    mean = float(values.mean()) if len(values) else 0.0
    return float(values.var()) / mean if mean > 0 else math.nan


def trusted(service_cv2: float, dispersed: float) -> bool:
    """Whether Erlang C may be shown to a person: the squared coefficient of variation of the service times and the
    `dispersion` are below 1.5. NaN is not trusted.
    """
    return service_cv2 < _TRUSTED and dispersed < _TRUSTED


def _waits(servers: int, load: float, blocked: float) -> float:
    return servers * blocked / (servers - load * (1 - blocked))


# -- the universal scalability law ------------------------------------------------------------------------------------


class ScalabilityFit(NamedTuple):
    """Gunther's law: ``X(N) = rate N / (1 + contention (N - 1) + coherence N (N - 1))``."""

    rate: float
    """Calls per second with a concurrency of 1."""
    contention: float
    coherence: float
    error: float
    """The largest deviation of a level from the curve, as a share of its throughput."""

    def throughput(self, concurrency: float) -> float:
        """Return the calls per second at *concurrency*."""
        n = concurrency
        return self.rate * n / (1 + self.contention * (n - 1) + self.coherence * n * (n - 1))

    @property
    def peak(self) -> float:
        """The concurrency with the highest throughput: ``sqrt((1 - contention) / coherence)``. inf: it only grows."""
        if self.coherence <= 0:
            return math.inf
        return math.sqrt(max(1 - self.contention, 0.0) / self.coherence)


def fit_scalability(concurrency: Sequence[float], throughput: Sequence[float]) -> ScalabilityFit | None:
    """Fit the law to throughputs (calls per second) at several levels of concurrency.

    None when there are fewer than `USL_LEVELS` levels, or they do not span `USL_SPAN` times: the curve is not known
    then. The law is linear in its parameters as ``N / X = a + b (N - 1) + c N (N - 1)``; least squares with weights
    for errors that grow with the throughput. A parameter below 0 has no meaning and is left out.
    """
    levels, rates = np.asarray(concurrency, dtype=np.float64), np.asarray(throughput, dtype=np.float64)
    known = (levels > 0) & (rates > 0)
    levels, rates = levels[known], rates[known]
    if len(np.unique(levels)) < USL_LEVELS or levels.max() < USL_SPAN * levels.min():
        return None
    columns = np.stack([np.ones_like(levels), levels - 1, levels * (levels - 1)], axis=1)
    weights = rates / levels
    best: ScalabilityFit | None = None
    for used in ([0, 1, 2], [0, 2], [0, 1], [0]):
        shape = columns[:, used] * weights[:, None]
        found, *_ = np.linalg.lstsq(shape, np.ones_like(levels), rcond=None)
        full = np.zeros(3)
        full[used] = found
        if full[0] <= 0 or (full < 0).any():
            continue
        curve = ScalabilityFit(1 / full[0], full[1] / full[0], full[2] / full[0], 0.0)
        error = float(np.abs([curve.throughput(n) / x - 1 for n, x in zip(levels, rates, strict=True)]).max())
        if best is None or error < best.error:
            best = ScalabilityFit(float(curve.rate), float(curve.contention), float(curve.coherence), error)
    return best
