"""What is drawn before a run: when calls arrive, and how long each would hold a worker that nothing slows down.

All controllers see identical traffic. The same name and seed always draw the same calls: so the order of the draws must
not change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.scenario import Constant, Exponential, Mixture, Scenario, Service

Floats = NDArray[np.float64]
_STUDY = 20250101


class Traffic(NamedTuple):
    """The calls of one run, in order of arrival."""

    arrivals: Floats
    services: Floats
    """Seconds on a worker, before contention, slow-downs and faults."""
    operations: NDArray[np.int64]
    """Index in `Scenario.mixed`."""


def seeded(scenario: Scenario, seed: int, *more: int) -> np.random.Generator:
    """Return the random numbers of one purpose: they depend on the name of the scenario, the seed and *more*."""
    return np.random.default_rng(np.random.SeedSequence([_STUDY, seed, sum(map(ord, scenario.name)), *more]))


def draw(scenario: Scenario, seed: int) -> Traffic:
    """Draw the arrivals (a Poisson process by thinning), then the service times."""
    rng = seeded(scenario, seed)
    peak = scenario.peak
    candidates = np.sort(rng.uniform(0, scenario.duration_s, rng.poisson(peak * scenario.duration_s)))
    kept = rng.uniform(0, 1, len(candidates)) < scenario.rates(candidates, seed) / (peak or 1.0)
    arrivals = candidates[kept]
    mixed = scenario.mixed
    if len(mixed) == 1:
        return Traffic(arrivals, services(mixed[0].service, len(arrivals), rng), np.zeros(len(arrivals), np.int64))
    chosen = _choose([one.share for one in mixed], len(arrivals), rng)
    each = [services(one.service, len(arrivals), rng) for one in mixed]
    return Traffic(arrivals, np.choose(chosen, each) if len(each) < 32 else _pick(chosen, each), chosen)


def services(service: Service, count: int, rng: np.random.Generator) -> Floats:
    """Draw *count* service times."""
    if isinstance(service, Mixture):
        chosen = _choose([part.weight for part in service.parts], count, rng)
        return _pick(chosen, [services(part, count, rng) for part in service.parts])
    if isinstance(service, Constant):
        return np.full(count, service.mean_s)
    if isinstance(service, Exponential):
        return rng.exponential(service.mean_s, count)
    variance = math.log(1 + service.cv**2)
    return rng.lognormal(math.log(service.mean_s) - variance / 2, math.sqrt(variance), count)


def _choose(weights: Sequence[float], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    bounds = np.cumsum(weights)[:-1]
    return np.searchsorted(bounds, rng.uniform(0, 1, count), side="right").astype(np.int64)


def _pick(chosen: NDArray[np.int64], each: Sequence[Floats]) -> Floats:
    return np.asarray(np.stack(each)[chosen, np.arange(len(chosen))])
