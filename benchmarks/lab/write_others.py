"""Writes scenarios/others.json: ``python -m benchmarks.lab.write_others``. Loads that no policy was designed for.

They judge whether a policy holds where it was not tuned: other cold starts, service times from 5 ms to 20 s, small and
large pools, tight and loose targets, few calls, long bursts, and bottlenecks that nothing measures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.lab.scenario import HERE
from benchmarks.lab.write_open import lines, scenario, step

OTHERS = HERE / "others.json"
FEW_LONG = {
    "kind": "mixture",
    "parts": [
        {"weight": 0.9, "kind": "lognormal", "mean_s": 0.1, "cv": 0.5},
        {"weight": 0.1, "kind": "lognormal", "mean_s": 20.0, "cv": 0.5},
    ],
}


def calls(mean: float, cv: float = 1.0) -> dict[str, Any]:
    return {"kind": "lognormal", "mean_s": mean, "cv": cv}


def bursts(sojourn: float, low: float = 30, high: float = 130) -> dict[str, Any]:
    return {"kind": "mmpp", "low": low, "high": high, "mean_sojourn_s": sojourn, "seed_base": 9000}


def sine(mean: float, amplitude: float, period: float, offset: float = 0.0) -> dict[str, Any]:
    return {"kind": "sine", "mean": mean, "amplitude": amplitude, "period_s": period, "offset_s": offset}


def of_length(mean: float, target: float | None = None, cv: float = 1.0, **more: Any) -> dict[str, Any]:
    """What goes with calls of *mean* seconds that may wait as long, or for *target* seconds."""
    target = mean if target is None else target
    return {"service": calls(mean, cv), "wait_target_s": target, "patience_s": max(30.0, 10 * target), **more}


def flash(*begins: float, size: float = 240, length: float = 60, ramp: float = 5) -> dict[str, Any]:
    points = [(0.0, 40.0)]
    for begin in begins:
        points += [(begin, 40), (begin + ramp, size), (begin + ramp + length, size), (begin + 2 * ramp + length, 40)]
    return lines(*points, (1800, 40))


def _short() -> Iterator[dict[str, Any]]:
    """Calls of 5 ms to 0.1 s."""
    yield scenario("O01-calls-of-5ms", 1800, step(300, 900, 600, 1200, 1800), 4, **of_length(0.005, cold_start_s=1.0))
    yield scenario("O02-cold-30s-step", 1800, step(40, 120, 600, 1200, 1800), 8, cold_start_s=30.0)
    yield scenario("O03-cold-30s-diurnal", 3600, sine(60, 0.7, 1800, 450), 4, cold_start_s=30.0)
    yield scenario("O04-cold-0.2s-flash", 1800, flash(600, 1200), 8, cold_start_s=0.2)
    yield scenario("O05-equal-calls", 1800, step(120, 40, 600, 1200, 1800), 16, service=calls(0.1, 0.05))
    yield scenario("O06-unequal-calls", 1800, lines((0, 80), (1800, 80)), 12, service=calls(0.1, 3.0))
    yield scenario("O07-tight-target", 1800, step(40, 100, 600, 1200, 1800), 10, wait_target_s=0.01)
    yield scenario("O08-loose-target", 1800, step(40, 120, 600, 1200, 1800), 6, wait_target_s=2.0)
    yield scenario("O09-short-bursts", 3600, bursts(5), 10)
    yield scenario("O10-long-bursts", 3600, bursts(120), 10)
    yield scenario("O11-spikes", 1800, flash(*range(300, 1750, 300), size=160, length=10, ramp=1), 8)
    yield scenario("O12-ten-times-slower", 1800, lines((0, 30), (1800, 30)), 6, slowdown=[[0, 1], [600, 10], [660, 1]])
    yield scenario("O13-small-pool", 1800, step(10, 25, 600, 1200, 1800), 2, n_max=6)
    yield scenario("O14-too-small-a-range", 1800, step(40, 240, 600, 1200, 1800), 8, n_max=16)
    yield scenario("O15-off-and-on", 1800, step(0, 80, 600, 1200, 1800, ramp=1), 2)
    yield scenario("O16-large-pool", 1800, step(200, 450, 600, 1200, 1800), 28)
    teeth = [(start + part * 119.0, 20 + part * 140.0) for start in range(0, 1800, 120) for part in (0, 1)]
    yield scenario("O17-saw-tooth", 1800, lines(*teeth, (1800, 20)), 6)
    yield scenario("O18-hidden-bottleneck", 1800, step(160, 300, 600, 720, 1800), 24, cores=24, kappa=0.02)


def _long() -> Iterator[dict[str, Any]]:
    """Calls of half a second and more, and few calls."""
    yield scenario(
        "O19-calls-of-20s", 3600, step(0.3, 0.9, 1200, 2400, 3600), 8, **of_length(20, 10, 0.7), cold_start_s=5.0
    )
    yield scenario("O20-few-calls", 3600, lines((0, 0.05), (3600, 0.05)), 4, **of_length(2))
    rare = [(900, 0.02), (901, 2), (960, 2), (961, 0.02), (2400, 0.02), (2401, 2), (2460, 2), (2461, 0.02)]
    yield scenario("O21-rare-bursts", 3600, lines((0, 0.02), *rare, (3600, 0.02)), 4, **of_length(1), cold_start_s=5.0)
    slower = [[0, 1], [600, 5], [1200, 1]]
    yield scenario("O22-five-times-slower", 1800, lines((0, 10), (1800, 10)), 8, **of_length(0.5), slowdown=slower)
    crowded = of_length(0.5, cores=6, kappa=0.05)
    yield scenario("O23-small-bottleneck", 1800, step(6, 15, 600, 780, 1800), 6, **crowded)
    mixed = {"service": FEW_LONG, "wait_target_s": 1.0, "cold_start_s": 5.0}
    yield scenario("O24-few-long-calls", 3600, step(2, 4, 1200, 2400, 3600), 10, **mixed)
    yield scenario("O25-cold-60s", 3600, sine(20, 0.5, 3600), 12, **of_length(0.5), cold_start_s=60.0)
    yield scenario("O26-calls-of-2s", 3600, step(2, 6, 1200, 2400, 3600), 8, **of_length(2), cold_start_s=10.0)


def scenarios() -> Sequence[dict[str, Any]]:
    return (*_short(), *_long())


def main() -> None:
    rows = ",\n".join(f" {json.dumps(one)}" for one in scenarios())
    OTHERS.write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
