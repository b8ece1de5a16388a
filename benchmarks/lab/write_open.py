"""Writes scenarios/pool_size.json: ``python -m benchmarks.lab.write_open``. Nine loads for the choice of a pool's size.

The tuner was designed on them: `write_others.py` has scenarios that it was not designed on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.lab.scenario import POOL_SIZE

BRIEF = {"kind": "lognormal", "mean_s": 0.1, "cv": 1.0}
LLM = {
    "kind": "mixture",
    "parts": [
        {"weight": 0.8, "kind": "lognormal", "mean_s": 0.5, "cv": 0.5},
        {"weight": 0.2, "kind": "lognormal", "mean_s": 8.0, "cv": 0.6},
    ],
}


def lines(*points: tuple[float, float]) -> dict[str, Any]:
    return {"kind": "linear", "points": [list(point) for point in points]}


def step(low: float, high: float, begin: float, end: float, duration: float, ramp: float = 0.0) -> dict[str, Any]:
    """*high* from *begin* to *end*, with straight lines of *ramp* seconds before and after."""
    return lines((0, low), (begin - ramp, low), (begin, high), (end, high), (end + ramp, low), (duration, low))


def scenario(name: str, duration: float, rate: dict[str, Any], size: int, **more: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"wait_target_s": 0.1, "cold_start_s": 2.0, "n_min": 2, "n_max": 64, "queue_limit": 5000}
    common |= {"patience_s": 30.0, "cores": None, "kappa": 0.0, "service": BRIEF, "slowdown": []}
    return {"name": name, "duration_s": duration, "n0": size, **common, "rate": rate, **more}


def scenarios() -> Sequence[dict[str, Any]]:
    flash = lines(
        *((0, 40), (600, 40), (605, 240), (665, 240), (670, 40)),
        *((1200, 40), (1205, 240), (1265, 240), (1270, 40), (1800, 40)),
    )
    ramp = lines((0, 20), (300, 20), (1200, 160), (1500, 160), (1800, 20))
    diurnal = {"kind": "sine", "mean": 80.0, "amplitude": 0.7, "period_s": 1800.0, "offset_s": 450.0}
    bursty = {"kind": "mmpp", "low": 30, "high": 130, "mean_sojourn_s": 20.0, "seed_base": 7000}
    slower = [[0, 1.0], [600, 2.5], [1200, 1.0]]
    return (
        scenario("S1-steady", 1800, lines((0, 80), (1800, 80)), 10),
        scenario("S2-step", 1800, step(40, 120, 600, 1200, 1800), 8),
        scenario("S3-ramp", 1800, ramp, 5),
        scenario("S4-diurnal", 3600, diurnal, 6),
        scenario("S5-flash", 1800, flash, 8),
        scenario(
            "S6-llm-bimodal", 3600, step(4, 8, 1200, 2400, 3600), 14, wait_target_s=1.0, cold_start_s=5.0, service=LLM
        ),
        scenario("S7-slowdown", 1800, lines((0, 80), (1800, 80)), 10, slowdown=slower),
        scenario("S8-contention", 1800, step(80, 150, 605, 725, 1800, ramp=5), 12, cores=12, kappa=0.02),
        scenario("S9-mmpp", 3600, bursty, 10),
    )


def main() -> None:
    rows = ",\n".join(f" {json.dumps(one)}" for one in scenarios())
    POOL_SIZE.write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
