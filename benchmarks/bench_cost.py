"""What a monitor costs its process: a pool with a monitor and one without take turns under the same load."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from benchmarks.figures import NONE
from benchmarks.load import CALLERS, MANY_CALLERS, WORKERS, Load, Slice
from benchmarks.peers import Ours, OursMonitored
from benchmarks.runner import Runner, Trouble, show
from benchmarks.speed import DISTURBED, pairs, speeds
from benchmarks.tables import Table
from benchmarks.turns import interval

SECONDS, ROUNDS, SITTINGS = 0.2, 30, 3
TOGETHER = 5
"""Slices that are added up before the comparison: one second, in which the monitor ticks once."""
RATES = (100, 1_000, 5_000)
SHARE = 0.01
"""Share of a core below which a monitor should stay."""


class Cost(NamedTuple):
    """What a monitor adds under one load: a figure for each pair of slices."""

    rates: list[float]
    """Calls a second without a monitor."""
    bare: list[float]
    """Cores that the parent uses without a monitor."""
    added: list[float]
    """Cores that the monitor adds."""
    added_us: list[float]
    """Microseconds that the monitor adds to a call; empty unless the pool runs at full speed."""


def loads(seconds: float) -> dict[str, Load]:
    return {
        "idle": Load("small", MANY_CALLERS, seconds, 0.0),
        **{f"{rate:,} calls/s": Load("small", MANY_CALLERS, seconds, rate) for rate in RATES},
        **{f"full speed, {callers} callers": Load("small", callers, seconds) for callers in (CALLERS, MANY_CALLERS)},
    }


# -- measuring --------------------------------------------------------------------------------------------------------


def measured(runner: Runner, label: str, load: Load, rounds: int, sittings: int) -> Cost | Trouble:
    """Each sitting has new processes, because two processes of one program differ a little as long as they live."""
    found: list[tuple[Slice, Slice]] = []
    for number in range(sittings):
        turns = [(OursMonitored.label, load), (Ours.label, load)]
        watched, bare = speeds(runner, turns, rounds, f"{label}, sitting {number + 1} of {sittings}").values()
        if isinstance(watched, Trouble):
            return watched
        if isinstance(bare, Trouble):
            return bare
        found += pairs(added_up(watched), added_up(bare))
    return cost(load, found)


def added_up(slices: Sequence[Slice]) -> list[Slice]:
    groups = [slices[first : first + TOGETHER] for first in range(0, len(slices), TOGETHER)]
    return [
        Slice(
            calls=sum(one.calls for one in group),
            seconds=sum(one.seconds for one in group),
            p50_us=None,
            p99_us=None,
            parent_s=sum(one.parent_s for one in group),
            others=statistics.mean(one.others for one in group),
        )
        for group in groups
    ]


def cost(load: Load, found: Sequence[tuple[Slice, Slice]]) -> Cost:
    rates = [bare.per_second for _, bare in found]
    used = [(watched.parent_s / watched.seconds, bare.parent_s / bare.seconds) for watched, bare in found]
    if load.rate is not None:
        return Cost(rates, [bare for _, bare in used], [watched - bare for watched, bare in used], [])
    # At full speed the parent is always busy, with or without a monitor: compare the time per call.
    added_s = [watched.parent_s / watched.calls - bare.parent_s / bare.calls for watched, bare in found]
    added = [seconds * rate for seconds, rate in zip(added_s, rates, strict=True)]
    return Cost(rates, [bare for _, bare in used], added, [seconds * 1e6 for seconds in added_s])


# -- the table --------------------------------------------------------------------------------------------------------


def table(costs: dict[str, Cost | Trouble], seconds: float) -> Table:
    known = [found for found in costs.values() if isinstance(found, Cost)]
    fewest = min((len(found.rates) for found in known), default=0)
    head = ["", "calls/s", "parent CPU, % of a core", "a monitor adds, %", "95 %", "µs/call", "95 %"]
    return Table(
        "what a monitor costs",
        f"Two pools of {WORKERS} workers, one monitored, each in its own process, in turns of {seconds:g} s. Calls "
        f"come evenly spread, or as fast as {CALLERS} or {MANY_CALLERS} callers can make them. Median and 95 % "
        f"interval of at least {fewest} pairs of {TOGETHER} turns each: the pairs during which other processes used up "
        f"to {DISTURBED:g} processors or, if those are too few, the less disturbed half. <: cannot be distinguished "
        f"from zero. Idle: the part that does not depend on calls; the other rows include it. {_reached(known)}",
        head,
        [[label, *_row(found)] for label, found in costs.items()],
    )


def _row(found: Cost | Trouble) -> list[str]:
    if isinstance(found, Trouble):
        return [str(found), *[NONE] * 5]
    return [
        f"{statistics.median(found.rates):,.0f}",
        f"{statistics.median(found.bare) * 100:.2f}",
        *amount([cores * 100 for cores in found.added]),
        *(amount(found.added_us) if found.added_us else [NONE, NONE]),
    ]


def amount(values: Sequence[float]) -> list[str]:
    """Return the median and its interval. If the interval includes 0, return an upper limit instead."""
    low, high = interval(values)
    if low <= 0.0:
        return [f"< {math.ceil(max(-low, high, 0.01) * 100) / 100:.2f}", NONE]
    return [f"{statistics.median(values):.2f}", f"{low:.2f} to {high:.2f}"]


def _reached(known: Sequence[Cost]) -> str:
    calls = reach([(statistics.median(found.rates), interval(found.added)[1]) for found in known])
    if calls == 0.0:
        return f"This run cannot tell whether it is below {SHARE:.0%} of a core."
    rate = "every rate here" if calls is None else f"{round(calls, -2):,.0f} calls/s"
    return f"With a confidence of 95 %, it is below {SHARE:.0%} of a core up to {rate}."


def reach(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the rate up to which less than `SHARE` is added, interpolated from (rate, cores). None: at every rate."""
    ranked = sorted(points)
    if ranked and ranked[0][1] >= SHARE:
        return 0.0
    for (rate, cores), (next_rate, next_cores) in pairwise(ranked):
        if next_cores >= SHARE:
            return rate + (SHARE - cores) / (next_cores - cores) * (next_rate - rate)
    return None


def all_tables(seconds: float, rounds: int, sittings: int, runner: Runner) -> Iterator[Table]:
    costs = {label: measured(runner, label, load, rounds, sittings) for label, load in loads(seconds).items()}
    yield table(costs, seconds)


def main(
    seconds: float = SECONDS, *, as_markdown: bool = False, rounds: int = ROUNDS, sittings: int = SITTINGS
) -> None:
    show(partial(all_tables, seconds, rounds, sittings), as_markdown=as_markdown)
