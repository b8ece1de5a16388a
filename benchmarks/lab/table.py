"""The tables of the laboratory, and what is accepted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from benchmarks.lab.runs import FIXED, TUNER, Score
from benchmarks.tables import Table

ORACLE, FAST = "oracle", "hpa-fast"
FLASH, CONTENTION, BURSTY = "S5-flash", "S8-contention", "S9-mmpp"


class Mean(NamedTuple):
    """The means over the seeds."""

    violations: float
    p95_wait_s: float
    worker_hours: float
    reversals: float
    peak: float


def means(scores: Iterable[Score]) -> dict[tuple[str, str], Mean]:
    """The means by scenario and controller."""
    found: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        found.setdefault((score.scenario, score.controller), []).append(score)
    return {
        key: Mean(*(fmean(getattr(one, name) for one in some) for name in Mean._fields)) for key, some in found.items()
    }


def tables(scores: Sequence[Score], hours: Mapping[str, float]) -> Iterator[Table]:
    """Return what is printed. *hours* is the duration of each scenario."""
    mean = means(scores)
    scenarios = list(hours)
    controllers = list(dict.fromkeys(score.controller for score in sorted(scores, key=_order)))
    seeds = len({score.seed for score in scores})
    yield Table(
        f"Pool size: mean of {seeds} seeds",
        "p95 of the wait / share of the calls that waited longer than the target / worker-hours / reversals",
        ["controller", *scenarios],
        [[controller, *(_cell(mean.get((name, controller))) for name in scenarios)] for controller in controllers],
    )
    yield Table(
        "Summary",
        "Worker-hours as a multiple of those of the oracle, which knows the load; reversals per hour.",
        ["controller", "target met", "violations", "worst", "worker-hours", "reversals/h"],
        [_summary(controller, scenarios, mean, hours) for controller in controllers],
    )


def _order(score: Score) -> int:
    names = [ORACLE, FIXED, "hpa", FAST, "ray-serve"]
    return names.index(score.controller) if score.controller in names else len(names)


def _cell(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    wait = f"{mean.p95_wait_s:.1f} s" if mean.p95_wait_s >= 1.0 else f"{mean.p95_wait_s * 1e3:.0f} ms"
    return f"{wait} / {mean.violations:.1%} / {mean.worker_hours:.1f} / {mean.reversals:.0f}"


def _summary(
    controller: str, scenarios: Sequence[str], mean: Mapping[tuple[str, str], Mean], hours: Mapping[str, float]
) -> list[str]:
    some = {name: mean[name, controller] for name in scenarios if (name, controller) in mean}
    met = sum(one.violations <= 0.05 for one in some.values())
    worst = max(some, key=lambda name: some[name].violations)
    shares = [some[name].worker_hours / mean[name, ORACLE].worker_hours for name in some if (name, ORACLE) in mean]
    return [
        controller,
        f"{met} of {len(some)}",
        f"{fmean(one.violations for one in some.values()):.2%}",
        f"{some[worst].violations:.1%} ({worst})",
        f"{fmean(shares):.2f}x" if shares else "-",
        f"{sum(one.reversals for one in some.values()) / sum(hours[name] for name in some):.0f}",
    ]


def judged(scores: Sequence[Score], hours: Mapping[str, float]) -> Iterator[tuple[bool, str]]:
    """What the tuner must reach on the open scenarios, and whether it does. Yields nothing where it cannot be told."""
    mean = means(scores)
    tuner = {name: mean[name, TUNER] for name in hours if (name, TUNER) in mean}
    for other in (FIXED, "hpa", FAST):
        theirs = {name: mean[name, other] for name in tuner if (name, other) in mean}
        if tuner and len(theirs) == len(tuner):
            ours = fmean(one.violations for one in tuner.values())
            peer = fmean(one.violations for one in theirs.values())
            yield ours < peer, f"violations {ours:.2%}, fewer than {other} with {peer:.2%}"
    for name, one in tuner.items():
        yield from _judged_alone(name, one, hours[name])
        if name not in (FLASH, CONTENTION) and (name, FAST) in mean:
            fast = mean[name, FAST].violations
            yield one.violations <= fast, f"{name}: violations {one.violations:.2%}, not more than {FAST} ({fast:.2%})"
    shares = [
        one.worker_hours / mean[name, ORACLE].worker_hours
        for name, one in tuner.items()
        if name not in (CONTENTION, BURSTY) and (name, ORACLE) in mean
    ]
    if shares:
        yield fmean(shares) <= 1.45, f"worker-hours {fmean(shares):.2f}x of the oracle's, at most 1.45x, S1 to S7"


def _judged_alone(name: str, one: Mean, hours: float) -> Iterator[tuple[bool, str]]:
    most = {FLASH: 0.06, CONTENTION: 0.19}.get(name, 0.025)
    yield one.violations <= most, f"{name}: violations {one.violations:.2%}, at most {most:.1%}"
    reversals, limit = one.reversals / hours, 60.0 if name == BURSTY else 30.0
    yield reversals <= limit, f"{name}: {reversals:.0f} reversals an hour, at most {limit:.0f}"
    if name == CONTENTION:
        yield one.peak <= 36, f"{name}: at most {one.peak:.0f} workers, allowed are 3 per processor (36)"
