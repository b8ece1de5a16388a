"""Memory of workers as made up from seeds: with a leak and without, in the shapes that real memory has.

The table says how often the rule of `pool_monitor.resources.leak` finds a leak in each: at best never without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.resources.leak import MEMORY, STEPS, LeakTrend

Floats = NDArray[np.float64]
MB = 1e6
BASE = 200 * MB
SAMPLES_A_STEP = 6
STEPS_SEEN = 48


class Scale(NamedTuple):
    """How long the memory is seen, and the leak that is put into it."""

    name: str
    step_s: float
    room: float
    """Bytes between the memory at the start and its limit."""
    fills_s: float
    """Seconds in which the leak fills the room."""


SCALES = (
    Scale("2 min", 3.0, 400 * MB, 600.0),
    Scale("2 min, near its limit", 3.0, 40 * MB, 600.0),
    Scale("16 min", 20.0, 400 * MB, 5_000.0),
    Scale("1.6 h", 120.0, 400 * MB, 4.5 * 3600),
    Scale("12 h", 900.0, 400 * MB, 15 * 3600.0),
)


def noise(draw: np.random.Generator, n: int) -> Floats:
    return draw.normal(0, 1 * MB, n)


def wandering(draw: np.random.Generator, n: int) -> Floats:
    """AR(1): each value depends on the one before."""
    steps, found = draw.normal(0, 0.6 * MB, n), np.zeros(n)
    for i in range(1, n):
        found[i] = 0.95 * found[i - 1] + steps[i]
    return found


def sawtooth(draw: np.random.Generator, n: int) -> Floats:
    """Garbage that is collected every three to forty samples."""
    period = int(draw.integers(3, 40))
    return 20 * MB * ((np.arange(n) + int(draw.integers(period))) % period) / period + noise(draw, n) / 4


def slow_sawtooth(draw: np.random.Generator, n: int) -> Floats:
    """Garbage that is collected three to six times while it is watched."""
    period = n / draw.uniform(3, 6)
    return 25 * MB * ((np.arange(n) + draw.uniform(0, period)) % period) / period + noise(draw, n) / 4


def warm_up(draw: np.random.Generator, n: int) -> Floats:
    """A cache that fills: a curve that comes to rest."""
    tau = n * draw.uniform(0.03, 0.35)
    return 60 * MB * (1 - np.exp(-np.arange(n) / tau)) + noise(draw, n) / 4


def step(draw: np.random.Generator, n: int) -> Floats:
    """One large thing is loaded while it is watched."""
    return np.asarray(80 * MB * (np.arange(n) > n * draw.uniform(0.2, 0.8)) + noise(draw, n) / 4)


def stairs(draw: np.random.Generator, n: int) -> Floats:
    """Three things are loaded, one after the other."""
    at = draw.uniform(0.1, 0.9, 3) * n
    return np.asarray(30 * MB * (np.arange(n)[:, None] > at).sum(axis=1) + noise(draw, n) / 8)


def spikes(draw: np.random.Generator, n: int) -> Floats:
    """Large calls, whose memory is free again afterwards."""
    return 150 * MB * (draw.random(n) < 0.1) * draw.random(n) + noise(draw, n) / 4


def flat(_draw: np.random.Generator, n: int) -> Floats:
    return np.zeros(n)


SHAPES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "flat": flat,
    "white noise": noise,
    "AR(1) noise": wandering,
    "saw-tooth": sawtooth,
    "slow saw-tooth": slow_sawtooth,
    "warm-up": warm_up,
    "one step": step,
    "three steps": stairs,
    "spikes": spikes,
}


def found(shape: str, scale: Scale, seed: int, *, leaks: bool) -> float | None:
    """Return after which share of the stretch a leak is found, with every scale judged; None: never."""
    n = SAMPLES_A_STEP * (STEPS_SEEN + 4)
    draw = np.random.default_rng([seed, *shape.encode(), round(scale.step_s)])
    every_s = scale.step_s / SAMPLES_A_STEP
    times = np.arange(n) * every_s
    values = BASE + SHAPES[shape](draw, n) + (scale.room / scale.fills_s * times if leaks else 0)
    values = np.floor(values / 4096) * 4096
    trend = LeakTrend(MEMORY, [each for each in STEPS if each >= scale.step_s])
    for nth in range(n):
        if trend.add(float(times[nth]), float(values[nth]), BASE + scale.room) is not None:
            return nth / n
    return None


def shares(scale: Scale, seeds: int) -> dict[str, tuple[float, float]]:
    """Return for each shape the share of the seeds in which a leak is found: without one, and with one."""
    return {
        shape: (_share(shape, scale, seeds, leaks=False), _share(shape, scale, seeds, leaks=True)) for shape in SHAPES
    }


def _share(shape: str, scale: Scale, seeds: int, *, leaks: bool) -> float:
    return sum(found(shape, scale, seed, leaks=leaks) is not None for seed in range(seeds)) / seeds
