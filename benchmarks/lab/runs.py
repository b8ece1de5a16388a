"""Runs of the laboratory: each scenario with each seed and each controller, spread over the processors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from benchmarks.lab.controllers import HPA_FAST, HPA_UTIL, Fixed, Hpa, Oracle, RayServe
from benchmarks.lab.processes import executor
from benchmarks.lab.scenario import Scenario
from benchmarks.lab.simulator import Outcome, PolicyFailed, run
from benchmarks.lab.tuned import Tuned
from pool_monitor.advisor.queueing import size_for, variability
from pool_monitor.errors import ConfigError
from pool_monitor.tuner.sizing import make_policy

TUNER, FIXED = "tuner", "fixed"
NAMES = (TUNER, "hpa", "hpa-fast", "ray-serve", FIXED, "oracle")
"""The controllers that have a name. Others are named as ``module:Policy``."""


class Score(NamedTuple):
    """What one run came to. The fields are those of the JSON form."""

    scenario: str
    controller: str
    seed: int
    violations: float
    """Share of the calls that waited longer than the target, or never had a worker."""
    p95_wait_s: float
    worker_hours: float
    reversals: int
    """Resizes in the direction opposite to the one before."""
    peak: int
    """Most workers at once."""


class Job(NamedTuple):
    scenario: Scenario
    seed: int
    controller: str
    worker_hours: float | None = None
    """Of the tuner, for the fixed size that costs the same."""


def checked_controllers(names: Sequence[str]) -> list[str]:
    """Return *names* without repetitions. Raises ConfigError for one that cannot be made."""
    for name in names:
        if name not in NAMES:
            if ":" not in name:
                raise ConfigError(f"no controller {name!r}; there are {', '.join(NAMES)} and module:Policy")
            make_policy(name)
    return list(dict.fromkeys(names))


def scored(job: Job) -> Score:
    """Do one run. Raises PolicyFailed, with the name of the controller and the seed."""
    try:
        outcome = run(job.scenario, job.seed, _controller(job))
    except PolicyFailed as error:
        raise PolicyFailed(f"{job.controller}, seed {job.seed}: {error}") from error
    return score_of(job, outcome)


def score_of(job: Job, outcome: Outcome) -> Score:
    """Return the figures of a run as they are written."""
    return Score(
        job.scenario.name,
        job.controller,
        job.seed,
        round(outcome.violations, 6),
        round(outcome.p95_wait_s, 6),
        round(outcome.worker_hours, 4),
        outcome.reversals,
        outcome.peak,
    )


def _controller(job: Job) -> Any:
    scenario = job.scenario
    if job.controller == FIXED:
        assert job.worker_hours is not None
        return Fixed.of_equal_hours(job.worker_hours, scenario.duration_s, scenario.n_min, scenario.n_max)
    if job.controller == "oracle":
        return _oracle(scenario, job.seed)
    made: dict[str, Callable[[], Any]] = {
        TUNER: lambda: Tuned(scenario),
        "hpa": lambda: Hpa(HPA_UTIL),
        "hpa-fast": lambda: Hpa(HPA_FAST),
        "ray-serve": RayServe,
    }
    if job.controller in made:
        return made[job.controller]()
    return copy.deepcopy(make_policy(job.controller))  # an instance must not remember the run before


def _oracle(scenario: Scenario, seed: int) -> Oracle:
    seconds = np.arange(math.ceil(scenario.duration_s) + 1, dtype=np.float64)
    rates, mean, target = scenario.rates(seconds, seed), scenario.service.mean_s, scenario.wait_target_s
    factor = variability(1.0, scenario.service.cv2)

    def wanted(second: int) -> int:
        service = mean * scenario.slowdown_at(float(second))
        rate = float(rates[min(second, len(rates) - 1)])
        return size_for(rate * service, service, target, factor=factor, most=scenario.n_max) or scenario.n_max

    return Oracle(cache(wanted))


def each(
    scenarios: Sequence[Scenario], controllers: Sequence[str], seeds: Iterable[int], processes: int | None = None
) -> Iterator[Score]:
    """Do all runs and yield each as it ends. The fixed size is tried once the tuner has ended: it costs the same."""
    first = [TUNER, *controllers] if FIXED in controllers and TUNER not in controllers else list(controllers)
    jobs = [
        Job(scenario, seed, controller)
        for scenario in scenarios
        for seed in seeds
        for controller in sorted(first, key=lambda name: name != TUNER)
        if controller != FIXED
    ]
    with executor(processes) as pool:
        waiting = {pool.submit(scored, job): job for job in jobs}
        while waiting:
            for future in as_completed(list(waiting)):
                job, score = waiting.pop(future), future.result()
                if job.controller == TUNER and FIXED in controllers:
                    fixed = job._replace(controller=FIXED, worker_hours=score.worker_hours)
                    waiting[pool.submit(scored, fixed)] = fixed
                if job.controller in controllers:
                    yield score


def counted(scenarios: Sequence[Scenario], controllers: Sequence[str], seeds: Sequence[int]) -> int:
    """How many scores `each` yields."""
    return len(scenarios) * len(controllers) * len(seeds)
