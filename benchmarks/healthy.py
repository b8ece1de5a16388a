"""Series without an anomaly, made up from a seed, and how often a detector finds one in them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from pool_monitor.alerts import THRESHOLD, AnomalyDetector

STEP_S = 15.0
DAY = 5_760
"""Values in a day."""
BEGIN_S = 1.7e9


def gaussian(draw: random.Random, n: int) -> list[float]:
    return [draw.gauss(100, 5) for _ in range(n)]


def wandering(draw: random.Random, n: int) -> list[float]:
    """AR(1): nine tenths of each value are from the one before."""
    return list(accumulate((draw.gauss(0, 1) for _ in range(n)), lambda before, new: 0.9 * before + new))


def log_normal(draw: random.Random, n: int) -> list[float]:
    return [0.1 * math.exp(draw.gauss(0, 0.6)) for _ in range(n)]


def pareto(draw: random.Random, n: int) -> list[float]:
    """The variance of these latencies is infinite."""
    return [0.1 * draw.paretovariate(2) for _ in range(n)]


def daily(draw: random.Random, n: int) -> list[float]:
    """A wave with a period of a day, three standard deviations high."""
    return [100 + 15 * math.sin(2 * math.pi * at / DAY) + draw.gauss(0, 5) for at in range(n)]


def in_buckets(draw: random.Random, n: int) -> list[float]:
    """Latencies that differ by 1 %, as a histogram with 32 buckets to a factor of two shows them."""
    return [2 ** (math.floor(math.log2(0.1 * (1 + draw.gauss(0, 0.01))) * 32) / 32) for _ in range(n)]


def sliding(draw: random.Random, n: int) -> list[float]:
    """Means of windows that overlap by half, as those that a rule compares."""
    sums = list(accumulate((math.exp(draw.gauss(0, 0.6)) for _ in range(3 * n + 6)), initial=0.0))
    return [(sums[at + 6] - sums[at]) / 6 for at in range(0, 3 * n, 3)]


SHAPES: dict[str, Callable[[random.Random, int], list[float]]] = {
    "Gaussian": gaussian,
    "AR(1)": wandering,
    "log-normal": log_normal,
    "Pareto": pareto,
    "daily wave": daily,
    "in buckets": in_buckets,
    "sliding mean": sliding,
}


def made(shape: str, days: float, seed: int) -> list[float]:
    return SHAPES[shape](random.Random(f"{shape} {seed}"), round(days * DAY))


def timed(values: Sequence[float]) -> Iterator[tuple[float, float]]:
    return ((BEGIN_S + at * STEP_S, value) for at, value in enumerate(values))


class Found(NamedTuple):
    anomalies: int
    """How often one began."""
    news: int
    """How many scores reached the threshold."""


def watch(detector: AnomalyDetector, values: Sequence[float]) -> Found:
    begun = news = 0
    for at, value in timed(values):
        before = detector.direction
        news += detector.handle(at, value) >= THRESHOLD
        begun += detector.direction is not None and detector.direction != before
    return Found(begun, news)
