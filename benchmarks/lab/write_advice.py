"""Writes scenarios/advice.json: ``python -m benchmarks.lab.write_advice``. Labelled scenarios for the advisor.

Of each kind there are several, with other pools, rates and magnitudes: some that are plain, some that are mild and
still have to be found, and near misses, which look alike and are healthy. A healthy scenario has no labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from benchmarks.lab.scenario import ADVICE
from pool_monitor.snapshot.advice import Pattern

MIB, HOUR, DAY = 1 << 20, 3600.0, 86400.0
PATTERNS = get_args(Pattern)
Json = dict[str, Any]


def lognormal(mean: float, cv: float = 1.0, **more: Any) -> Json:
    return {"kind": "lognormal", "mean_s": mean, "cv": cv, **more}


def bimodal(low: float, high: float, share: float) -> Json:
    parts = [lognormal(low, 0.5, weight=1 - share), lognormal(high, 0.6, weight=share)]
    return {"kind": "mixture", "parts": parts}


def flat(rate: float, duration: float) -> Json:
    return {"kind": "linear", "points": [[0, rate], [duration, rate]]}


def lines(*points: tuple[float, float]) -> Json:
    return {"kind": "linear", "points": [list(point) for point in points]}


def day(mean: float, amplitude: float) -> Json:
    """A day that is busiest at noon."""
    return {"kind": "sine", "mean": mean, "amplitude": amplitude, "period_s": DAY, "offset_s": DAY / 4}


def bursty(low: float, high: float, stay: float = 20.0) -> Json:
    return {"kind": "mmpp", "low": low, "high": high, "mean_sojourn_s": stay, "seed_base": 9000}


def fault(kind: str, at: float, until: float | None, subject: str = "*", **more: Any) -> Json:
    return {"kind": kind, "at_s": at, "until_s": until, "subject": subject, **more}


def labels(*pairs: tuple[str, str]) -> list[Json]:
    return [{"pattern": pattern, "subject": subject} for pattern, subject in pairs]


def scenario(name: str, duration: float, rate: Json | float, workers: int, service: Json, **more: Any) -> Json:
    """*target*: the wait target; without it, the mean service time. *true* and *also*: labels and what is true too."""
    mean = service.get("mean_s") or sum(part["weight"] * part["mean_s"] for part in service["parts"])
    target = more.pop("target", mean)
    true, also = more.pop("true", ()), more.pop("also", ())
    row = {
        "name": name,
        "duration_s": duration,
        "wait_target_s": target,
        "n0": workers,
        "n_min": 1,
        "n_max": 32,
        "service": service,
        "rate": flat(rate, duration) if isinstance(rate, float) else rate,
        **more,
        "labels": labels(*true),
    }
    return row | ({"also_true": labels(*also)} if also else {})


def operations(*rows: tuple[str, float, Json]) -> Json:
    """Several operations, and the mixture that they are together."""
    parts = [service | {"weight": share} for _name, share, service in rows if service["kind"] == "lognormal"]
    named = [{"name": name, "share": share, "service": service} for name, share, service in rows]
    return {"operations": named, "service": {"kind": "mixture", "parts": parts}}


def memory(base: float, noise: float, ar: float = 0.9, **more: float) -> Json:
    return {"base_bytes": base * MIB, "noise_bytes": noise * MIB, "ar": ar, "every_s": 10} | {
        name: value * (MIB if name.endswith("_bytes") else 1) for name, value in more.items()
    }


# -- what is healthy --------------------------------------------------------------------------------------------------


def healthy() -> Iterator[Json]:
    yield scenario("healthy-steady", 3600, 20.0, 9, lognormal(0.25), pool="text")
    yield scenario("healthy-steady-large", 1800, 60.0, 24, lognormal(0.3, 0.8), pool="ocr")
    yield scenario("healthy-step", 3600, lines((0, 12), (1800, 12), (1800, 20), (3600, 20)), 9, lognormal(0.25))
    yield scenario("healthy-ramp", 5400, lines((0, 5), (5400, 20)), 10, lognormal(0.25), pool="embed")
    yield scenario("healthy-diurnal", 1.1 * DAY, day(1.2, 0.8), 6, lognormal(0.9, 0.8), pool="render")
    flash = lines((0, 10), (2395, 10), (2400, 60), (2430, 60), (2435, 10), (5400, 10))
    yield scenario("healthy-brief-flash", 5400, flash, 7, lognormal(0.25), pool="text")
    yield scenario("healthy-llm", 3 * HOUR, 2.0, 11, bimodal(0.5, 8.0, 0.2), pool="llm", target=2.0, cold_start_s=5.0)
    yield scenario("healthy-bursty", 3600, bursty(8, 16), 9, lognormal(0.25), pool="text")
    deploys = [fault("restart", at, None, "pool text", planned=True, rolling=True) for at in (1800.0, 5400.0)]
    yield scenario("healthy-deploys", 2 * HOUR, 12.0, 8, lognormal(0.25), pool="text", faults=deploys)
    crash = [fault("restart", 1200, 1201, "worker text-1", every_s=600.0)]
    yield scenario("healthy-one-crash", 3600, 12.0, 8, lognormal(0.25), faults=crash)
    yield scenario(
        *("healthy-warm-up", 12 * HOUR, 1.5, 5, lognormal(0.8)),
        pool="ocr",
        rss=memory(180, 2, warmup_bytes=120, warmup_tau_s=2880),
    )
    saw = memory(300, 4, 0.95, saw_bytes=80, saw_every_s=2400)
    yield scenario("healthy-saw-tooth", 10 * HOUR, 1.5, 5, lognormal(0.8), pool="embed", rss=saw)
    drift = memory(256, 10, 0.995)
    yield scenario("healthy-noisy-memory", 9 * HOUR, 1.0, 4, lognormal(0.8), rss=drift)
    outage = [fault("errors", 0, None, ratio=0.02, type="BackendError", burst_mean=15.0)]
    yield scenario("healthy-error-bursts", 2 * HOUR, 10.0, 7, lognormal(0.25), faults=outage)
    few = [fault("errors", 0, None, ratio=0.01, type="ValueError")]
    mixed = operations(("parse", 0.7, lognormal(0.2)), ("draw", 0.3, lognormal(0.5)))
    yield scenario("healthy-errors", 2 * HOUR, 8.0, 7, pool="text", faults=few, **mixed)
    yield scenario("healthy-time-out", 2 * HOUR, 12.0, 9, lognormal(0.25, 0.8), timeout_s=5.0)
    slight = [fault("slow", 4 * HOUR, None, "worker text-3", factor=1.08)]
    yield scenario("healthy-uneven", 8 * HOUR, 1.5, 5, lognormal(1.2), faults=slight)
    rare = operations(("quick", 0.97, lognormal(0.1)), ("report", 0.03, lognormal(6.0, 0.4)))
    yield scenario("healthy-few-long-calls", 4 * HOUR, 6.0, 7, pool="text", target=1.0, **rare)
    yield scenario(
        *("healthy-cores", 3600, 14.0, 8, lognormal(0.25)),
        cores=8,
        kappa=0.02,
        faults=[fault("neighbour", 1200, 2400, "host", cores=0.5, slowdown=1.0, pressure=0.01)],
    )
    hiccups = [fault("block_loop", 600, None, "loop", block_s=0.03, every_s=20.0)]
    yield scenario("healthy-loop", 3600, 12.0, 8, lognormal(0.25), faults=hiccups)
    rarely = [fault("throttle", 900, None, "host", periods_ratio=0.01, slowdown=1.0)]
    yield scenario("healthy-quota", 3600, 12.0, 8, lognormal(0.25), cpu_quota=8.0, faults=rarely)
    yield scenario("healthy-few-calls", 3 * HOUR, 0.01, 2, lognormal(1.0), pool="reports")
    yield scenario("healthy-idle-evening", 8 * HOUR, 0.6, 8, lognormal(0.5), pool="text")
    yield scenario("healthy-busy-large", 2400, 66.0, 30, lognormal(0.38, 0.9), pool="ocr", target=0.4)
    everybody = [fault("errors", 3000, 3600, ratio=0.3, type="BackendError")]
    yield scenario("healthy-but-for-an-outage", 2 * HOUR, 8.0, 6, lognormal(0.25), faults=everybody)
    weekly = [fault("restart", 1200, None, "pool text", planned=True, rolling=True, every_s=2400.0)]
    yield scenario("healthy-many-deploys", 3 * HOUR, 6.0, 6, lognormal(0.4), cold_start_s=5.0, faults=weekly)
    yield scenario("healthy-one-worker", 3 * HOUR, 0.2, 1, lognormal(0.2), pool="reports", target=1.0)
    several = operations(*((f"step{number}", 0.1, lognormal(0.05 * (number + 1))) for number in range(10)))
    yield scenario("healthy-many-operations", 3 * HOUR, 6.0, workers=6, faults=few, **several)
    yield scenario("healthy-idle-day", 20 * HOUR, 0.5, 8, lognormal(0.5), pool="text")
    grown = [[1800.0, 8], [4500.0, 6]]
    yield scenario("healthy-resized", 2 * HOUR, 10.0, 6, lognormal(0.25), size=grown)


# -- what is wrong with the size and the calls ------------------------------------------------------------------------


def sized() -> Iterator[Json]:
    text, render = "pool text", "pool render"
    yield scenario("underused-flat", 26 * HOUR, 1.2, 14, lognormal(0.6), true=[("underused", text)])
    yield scenario(
        *("underused-diurnal", 30 * HOUR, day(1.0, 0.8), 16, lognormal(0.8, 0.8)),
        pool="render",
        true=[("underused", render)],
    )
    yield scenario(
        *("underused-llm", 27 * HOUR, 0.35, 14, bimodal(0.5, 6.0, 0.2)),
        pool="render",
        target=2.0,
        true=[("underused", render)],
    )
    yield scenario("overloaded-steady", 2400, 30.0, 7, lognormal(0.22), true=[("overloaded", text)])
    yield scenario("overloaded-mild", 3600, 16.0, 5, lognormal(0.27, 1.2), true=[("overloaded", text)])
    step = lines((0, 10), (1800, 10), (1800, 26), (5400, 26))
    yield scenario("overloaded-step", 5400, step, 6, lognormal(0.25), pool="render", true=[("overloaded", render)])
    yield scenario(
        "overloaded-ramp", 5400, lines((0, 5), (4500, 24), (5400, 24)), 5, lognormal(0.25), true=[("overloaded", text)]
    )
    yield scenario("overloaded-bursty", 3600, bursty(12, 34), 6, lognormal(0.25), true=[("overloaded", text)])
    yield scenario(
        *("overloaded-with-time-outs", 3600, 22.0, 5, lognormal(0.25, 0.8)),
        timeout_s=6.0,
        patience_s=10.0,
        true=[("overloaded", text)],
    )
    flash = lines((0, 10), (1795, 10), (1800, 60), (3600, 60), (3605, 10), (5400, 10))
    yield scenario("flash-crowd", 5400, flash, 7, lognormal(0.22), true=[("overloaded", text)])
    yield scenario(
        *("overloaded-llm", 2 * HOUR, 3.0, 6, bimodal(0.5, 8.0, 0.2)),
        pool="render",
        target=1.5,
        patience_s=60.0,
        true=[("overloaded", render)],
    )
    yield scenario(
        *("oversubscribed", 5400, lines((0, 4), (1800, 9), (3600, 14), (5400, 17)), 16, lognormal(0.25)),
        cores=4,
        kappa=0.02,
        true=[("oversubscription", text)],
        also=[("overloaded", text), ("slow_operation", "operation work"), ("slow_operation", text)],
    )
    yield scenario(
        *("oversubscribed-half", 5400, bursty(6, 20, 60.0), 16, lognormal(0.4)),
        pool="render",
        cores=3,
        cpu_fraction=0.5,
        kappa=0.03,
        true=[("oversubscription", render)],
        also=[("overloaded", render), ("slow_operation", "operation work"), ("slow_operation", render)],
    )
    churn = [fault("restart", 300, None, every_s=20.0)]
    yield scenario(
        *("cold-start-churn", 2 * HOUR, 10.0, 8, lognormal(0.25)),
        cold_start_s=6.0,
        faults=churn,
        true=[("cold_start", text)],
        also=[("overloaded", text)],
    )
    slower = [fault("restart", 300, None, "pool render", every_s=60.0)]
    yield scenario(
        *("cold-start-slow", 3 * HOUR, 4.0, 6, lognormal(0.5)),
        pool="render",
        cold_start_s=15.0,
        faults=slower,
        true=[("cold_start", render)],
        also=[("overloaded", render)],
    )
    flapping = [[60.0 * number, 8 if number % 2 else 5] for number in range(5, 170)]
    yield scenario(
        *("cold-start-flapping", 3 * HOUR, 8.0, 5, lognormal(0.3)),
        cold_start_s=5.0,
        size=flapping,
        true=[("cold_start", text)],
        also=[("overloaded", text)],
    )


def calls() -> Iterator[Json]:
    def slow(name: str, worker: str, factor: float, at: float, rate: float, workers: int, **more: Any) -> Json:
        pool = worker.rpartition("-")[0]
        faults = [fault("slow", at, None, f"worker {worker}", factor=factor)]
        also = [("overloaded", f"pool {pool}"), ("slow_operation", "operation work")]
        true = [("imbalance", f"worker {worker}")]
        return scenario(
            name, 9 * HOUR, rate, workers, lognormal(1.0), pool=pool, faults=faults, true=true, also=also, **more
        )

    yield slow("imbalance-slow-worker", "text-2", 2.5, 0.0, 2.0, 6)
    yield slow("imbalance-mild", "render-1", 1.8, 0.0, 1.5, 5)
    yield slow("imbalance-later", "text-5", 3.0, 2 * HOUR, 2.5, 8)
    yield scenario(
        *("imbalance-pinned", 8 * HOUR, 1.5, 6, lognormal(1.0)),
        faults=[fault("pin", 0, None, "worker text-4", share=0.4)],
        true=[("imbalance", "worker text-4")],
        also=[("overloaded", "pool text")],
    )
    noise = memory(220, 3)
    leak = [fault("leak", 0, None, "worker text-1", bytes_per_hour=8.0 * MIB)]
    yield scenario(
        "leak-worker", 9 * HOUR, 1.5, 5, lognormal(0.8), rss=noise, faults=leak, true=[("leak", "worker text-1")]
    )
    quick = [fault("leak", HOUR, None, "worker ocr-0", bytes_per_hour=30.0 * MIB)]
    yield scenario(
        *("leak-later", 10 * HOUR, 1.0, 4, lognormal(0.8)),
        pool="ocr",
        rss=memory(400, 6, 0.95, saw_bytes=20, saw_every_s=1800),
        faults=quick,
        true=[("leak", "worker ocr-0")],
    )
    everywhere = [fault("leak", 0, None, bytes_per_hour=12.0 * MIB)]
    yield scenario(
        *("leak-everywhere", 9 * HOUR, 1.5, 4, lognormal(0.8)), rss=noise, faults=everywhere, true=[("leak", "*")]
    )
    warm = memory(180, 2, warmup_bytes=100, warmup_tau_s=2400)
    steady = [fault("leak", 0, None, "worker text-2", bytes_per_hour=10.0 * MIB)]
    yield scenario(
        *("leak-after-warm-up", 24 * HOUR, 1.5, 4, lognormal(0.8)),
        rss=warm,
        faults=steady,
        true=[("leak", "worker text-2")],
    )

    three = (("parse", 0.6, lognormal(0.3)), ("draw", 0.3, lognormal(0.6)), ("ocr", 0.1, lognormal(2.0, 0.6)))

    def slower(name: str, operation: str, factor: float, at: float, **more: Any) -> Json:
        faults = [fault("slow", at, None, f"operation {operation}", factor=factor)]
        true = [("slow_operation", f"operation {operation}")]
        return scenario(
            name,
            5 * HOUR,
            3.0,
            9,
            pool="text",
            faults=faults,
            true=true,
            also=[("overloaded", "pool text")],
            **operations(*three),
            **more,
        )

    yield slower("slow-operation", "draw", 1.8, 2.5 * HOUR)
    yield slower("slow-operation-mild", "ocr", 1.35, 2 * HOUR)
    yield slower("slow-operation-much", "parse", 4.0, 3 * HOUR)
    yield scenario(
        *("slow-down", 4 * HOUR, 4.0, 9, lognormal(0.5)),
        slowdown=[[0, 1.0], [2 * HOUR, 2.0]],
        true=[("slow_operation", "operation work")],
        also=[("overloaded", "pool text"), ("slow_operation", "pool text")],
    )
    yield from failing(three)
    yield from timing_out()


def failing(three: tuple[tuple[str, float, Json], ...]) -> Iterator[Json]:
    common = fault("errors", 0, None, ratio=0.004, type="ValueError")

    def hot(name: str, subject: str, ratio: float, error: str, **more: Any) -> Json:
        faults = [common, fault("errors", HOUR, None, subject, ratio=ratio, type=error)]
        return scenario(name, 4 * HOUR, 3.5, workers=8, faults=faults, true=[("error_hotspot", subject)], **more)

    yield hot("error-hotspot-worker", "worker text-3", 0.06, "OSError", service=lognormal(0.4))
    yield hot("error-hotspot-operation", "operation ocr", 0.1, "KeyError", **operations(*three))
    yield hot("error-hotspot-mild", "worker text-0", 0.03, "RuntimeError", service=lognormal(0.4))
    of_one = [common, fault("errors", HOUR, None, "operation draw", ratio=0.08, type="TimeoutError", burst_mean=4.0)]
    true = [("error_hotspot", "operation draw")]
    yield scenario(
        "error-hotspot-in-own-bursts", 4 * HOUR, 3.5, workers=9, faults=of_one, true=true, **operations(*three)
    )
    bursts = fault("errors", 0, None, ratio=0.01, type="BackendError", burst_mean=12.0)
    hotspot = fault("errors", 0, None, "worker render-2", ratio=0.05, type="MemoryError")
    yield scenario(
        *("error-hotspot-in-bursts", 4 * HOUR, 5.0, 6, lognormal(0.4)),
        pool="render",
        faults=[bursts, hotspot],
        true=[("error_hotspot", "worker render-2")],
    )


def timing_out() -> Iterator[Json]:
    work = ("bad_timeout", "operation work")
    yield scenario("time-out-tight", 2 * HOUR, 10.0, 9, lognormal(0.25), timeout_s=1.4, true=[work])
    yield scenario("time-out-tight-mild", 3 * HOUR, 8.0, 8, lognormal(0.3, 0.8), pool="ocr", timeout_s=1.5, true=[work])
    mixed = operations(("quick", 0.8, lognormal(0.15)), ("slow", 0.2, lognormal(0.8)))
    mixed["operations"][1]["timeout_s"] = 3.0
    mixed["operations"][0]["timeout_s"] = 10.0
    yield scenario(
        "time-out-tight-operation", 3 * HOUR, 8.0, workers=9, true=[("bad_timeout", "operation slow")], **mixed
    )
    hangs = [fault("hang", 0, None, share=0.002)]
    yield scenario(
        *("time-out-loose", 3 * HOUR, 6.0, 8, lognormal(0.3, 0.8)),
        timeout_s=60.0,
        faults=hangs,
        true=[work],
        also=[("overloaded", "pool text"), ("error_hotspot", "operation work")],
    )
    stuck = [fault("hang", 600, None, "operation fetch", share=0.01)]
    two = operations(("fetch", 0.4, lognormal(0.3)), ("store", 0.6, lognormal(0.2)))
    for one in two["operations"]:
        one["timeout_s"] = 45.0
    yield scenario(
        *("time-out-loose-operation", 3 * HOUR, 6.0),
        workers=9,
        faults=stuck,
        true=[("bad_timeout", "operation fetch")],
        also=[("overloaded", "pool text"), ("error_hotspot", "operation fetch"), ("slow_operation", "operation fetch")],
        **two,
    )


# -- what is wrong around the pool ------------------------------------------------------------------------------------


def surroundings() -> Iterator[Json]:
    def consequences(pool: str) -> list[tuple[str, str]]:
        return [
            ("overloaded", f"pool {pool}"),
            ("slow_operation", "operation work"),
            ("slow_operation", f"pool {pool}"),
        ]

    for name, ratio, slowdown, at, pool in (
        ("throttled", 0.3, 1.5, 1800.0, "text"),
        ("throttled-mild", 0.09, 1.1, 1200.0, "render"),
    ):
        yield scenario(
            *(name, 2 * HOUR, 8.0, 7, lognormal(0.3)),
            pool=pool,
            cpu_quota=4.0,
            faults=[fault("throttle", at, None, "host", periods_ratio=ratio, slowdown=slowdown)],
            true=[("throttled", "host")],
            also=consequences(pool),
        )
    for name, block, every, pool in (("loop-lag", 0.4, 5.0, "text"), ("loop-lag-often", 0.15, 2.0, "embed")):
        yield scenario(
            *(name, 2 * HOUR, 8.0, 7, lognormal(0.25)),
            pool=pool,
            faults=[fault("block_loop", 1800, None, "loop", block_s=block, every_s=every)],
            true=[("loop_lag", "loop")],
            also=[("overloaded", f"pool {pool}")],
        )
    for name, cores, used, slowdown, pressure, pool in (
        ("neighbour", 8, 6.0, 1.7, 0.5, "text"),
        ("neighbour-mild", 12, 8.0, 1.3, 0.25, "ocr"),
    ):
        yield scenario(
            *(name, 2 * HOUR, 8.0, 7, lognormal(0.3)),
            pool=pool,
            cores=cores,
            faults=[fault("neighbour", 2400, None, "host", cores=used, slowdown=slowdown, pressure=pressure)],
            true=[("noisy_neighbour", "host")],
            also=consequences(pool),
        )
    # two things at once
    yield scenario(
        *("leak-and-hotspot", 9 * HOUR, 2.0, 5, lognormal(0.6)),
        rss=memory(220, 3),
        faults=[
            fault("leak", 0, None, "worker text-0", bytes_per_hour=15.0 * MIB),
            fault("errors", 0, None, ratio=0.003, type="ValueError"),
            fault("errors", 0, None, "worker text-3", ratio=0.06, type="OSError"),
        ],
        true=[("leak", "worker text-0"), ("error_hotspot", "worker text-3")],
    )


def scenarios() -> list[Json]:
    return [*healthy(), *sized(), *calls(), *surroundings()]


def main() -> None:
    rows = scenarios()
    ADVICE.write_text("[\n" + ",\n".join(f" {json.dumps(one)}" for one in rows) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
