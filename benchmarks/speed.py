"""Measures the speed of pools with slices of load in turns, and makes the tables.

Each pool has its own parent process, so that threads and forks of one pool do not disturb another. Each round begins
with another pool, and a slice that other processes disturbed does not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from benchmarks.figures import NONE, with_missing
from benchmarks.load import CALLERS, MANY_CALLERS, WORKERS, Load, Slice
from benchmarks.peers import BASE, PEERS, OursMap, OursMonitored, OursOneInFlight, OursOnUvloop
from benchmarks.runner import START_S, Child, Runner, Trouble
from benchmarks.tables import Table
from benchmarks.turns import in_turns

SECONDS, ROUNDS, WARM_S = 0.25, 12, 0.2
DISTURBED = 0.1
"""A slice does not count if other processes used more processors than this during it, ..."""
ENOUGH = 1 / 3
"""... unless fewer than this share of the slices would be left."""

Turn = tuple[str, Load]
Speed = list[Slice] | Trouble
"""The slices of one pool under one load, round by round."""


class Case(NamedTuple):
    """One load for all pools: a table."""

    title: str
    load: Load
    variants: tuple[str, ...] = ()
    """Further variants of our pool in this table."""

    def of(self, labels: Iterable[str]) -> list[str]:
        return [label for label in labels if label in PEERS or label in self.variants]


def cases(seconds: float) -> list[Case]:
    both = (OursMonitored.label, OursOnUvloop.label)
    return [
        Case("small payload, 1 caller", Load("small", 1, seconds)),
        Case(f"small payload, {CALLERS} callers", Load("small", CALLERS, seconds), (OursOneInFlight.label, *both)),
        Case(f"small payload, {MANY_CALLERS} callers", Load("small", MANY_CALLERS, seconds), (*both, OursMap.label)),
        Case(f"1 MiB there and back, {CALLERS} callers", Load("1 MiB", CALLERS, seconds)),
    ]


# -- measuring --------------------------------------------------------------------------------------------------------


def speeds(runner: Runner, turns: Sequence[Turn], rounds: int, what: str = "speed") -> dict[Turn, Speed]:
    """Return a slice of each turn in each round. One more round before the first only warms up."""
    results: dict[Turn, Speed] = {turn: [] for turn in turns}
    pools = {label: _serving(runner, label) for label in dict.fromkeys(label for label, _ in turns)}
    for number, turn in in_turns(turns, rounds + 1, what):
        label, load = turn
        pool, slices = pools[label], results[turn]
        if isinstance(pool, Trouble) or isinstance(slices, Trouble):
            results[turn] = pool if isinstance(pool, Trouble) else slices
            continue
        done = pool.serve(load if number else _warming(load))
        if isinstance(done, Trouble):
            pool.end()
            results[turn] = pools[label] = done
        elif number:
            slices.append(done)
    for pool in pools.values():
        if isinstance(pool, Child):
            pool.finish()
    return results


def _serving(runner: Runner, label: str) -> Child | Trouble:
    child = runner.start(label, "serve", WORKERS)
    ready = child.read(list[int], START_S)
    if isinstance(ready, Trouble):
        child.end()
        return ready
    return child


def _warming(load: Load) -> Load:
    return msgspec.structs.replace(load, callers=min(load.callers, MANY_CALLERS), seconds=min(load.seconds, WARM_S))


def quiet(others: Sequence[float]) -> list[int]:
    """Return which slices count, given what *others* used during each: the undisturbed slices or, if those are too few,
    the less disturbed half. The result of a slice plays no part.
    """
    order = sorted(range(len(others)), key=others.__getitem__)
    undisturbed = sum(used <= DISTURBED for used in others)
    return sorted(order[: undisturbed if enough(others) else (len(order) + 1) // 2])


def enough(others: Sequence[float]) -> bool:
    return sum(used <= DISTURBED for used in others) >= ENOUGH * len(others)


def kept(slices: Sequence[Slice]) -> list[Slice]:
    return [slices[number] for number in quiet([one.others for one in slices])]


def pairs(ours: Sequence[Slice], base: Sequence[Slice]) -> list[tuple[Slice, Slice]]:
    """Return the rounds in which both slices count."""
    rounds = list(zip(ours, base, strict=True))
    return [rounds[number] for number in quiet([max(one.others, other.others) for one, other in rounds])]


# -- tables -----------------------------------------------------------------------------------------------------------


def speed_tables(
    runner: Runner, here: Sequence[str], missing: Sequence[str], seconds: float, rounds: int
) -> Iterator[Table]:
    """Make a table for each case, with the installed pools and the *missing* ones."""
    all_of_them = cases(seconds)
    turns = [(label, case.load) for case in all_of_them for label in case.of(here)]
    results = speeds(runner, turns, rounds)
    for case in all_of_them:
        found = {label: results[label, case.load] for label in case.of(here)}
        yield with_missing(speed_table(case.title, found), case.of(missing))


def speed_table(title: str, results: dict[str, Speed]) -> Table:
    base = results.get(BASE)
    head = ["", "calls/s", "ratio", "p50 µs", "p99 µs", "parent CPU µs/call", "workers CPU µs/call"]
    rows = [[label, *_row(speed, base)] for label, speed in results.items()]
    return Table(title, about(results), head, rows)


def _row(speed: Speed, base: Speed | None) -> list[str]:
    if isinstance(speed, Trouble):
        return [str(speed), *[NONE] * 5]
    against = pairs(speed, base) if isinstance(base, list) else []
    times = [one.per_second / other.per_second for one, other in against]
    slices = kept(speed)
    return [
        middle((one.per_second for one in slices), 0),
        middle(times, 2),
        middle((one.p50_us for one in slices), 0),
        middle((one.p99_us for one in slices), 0),
        middle((one.parent_us for one in slices), 1),
        middle((one.workers_us for one in slices), 1),
    ]


def middle(values: Iterable[float | None], digits: int) -> str:
    """Return the median of the known values."""
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):,.{digits}f}" if known else NONE


def about(results: dict[str, Speed]) -> str:
    """Return how many slices count, in words."""
    speeds = {label: speed for label, speed in results.items() if speed and not isinstance(speed, Trouble)}
    disturbed = [label for label, speed in speeds.items() if not enough([one.others for one in speed])]
    counts = sorted(len(kept(speed)) for label, speed in speeds.items() if label not in disturbed)
    words = [f"{WORKERS} workers; medians."]
    if counts:
        some = f"{counts[0]} to {counts[-1]}" if counts[0] < counts[-1] else f"{counts[0]}"
        of = max(map(len, speeds.values()))
        words.append(f"{some} of {of} slices count: in the others, other processes used over {DISTURBED:g} processors.")
    if disturbed:
        most = max(one.others for label in disturbed for one in kept(speeds[label]))
        less = "Where too few were undisturbed, the less disturbed half counts, during which others used up to"
        words.append(f"{less} {most:.2f} processors: {'; '.join(disturbed)}.")
    return " ".join(words)
