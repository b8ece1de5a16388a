"""Our pool beside its peers, in one run: speed, start, loss of a worker, cancellation, loss of the parent.

Each pool has a process of its own as its parent, so that nobody's threads or forks are in anybody's way. They are
asked in turns, each round beginning with another one, so that whatever else the machine does hits all of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from benchmarks import tables
from benchmarks.figures import (
    MORE_WORKERS,
    Result,
    Results,
    Speed,
    busy_table,
    cancel_table,
    cold_table,
    idle_table,
    orphan_table,
    speed_table,
)
from benchmarks.load import CALLERS, WORKERS, Slice, ratio
from benchmarks.peers import ALL, BASE, PEERS, Ours, OursMonitored
from benchmarks.runner import START_S, Child, Orphans, Runner, Trouble
from benchmarks.scenarios import PATIENCE_S, Load, Loss, Served
from benchmarks.tables import Table
from benchmarks.turns import in_turns

SECONDS = 0.25
SPEED_ROUNDS, ROUNDS = 12, 3
MANY_CALLERS = 64
WARM_S = 0.2

Turn = tuple[str, Literal["small", "1 MiB"], int]


# -- which pools ------------------------------------------------------------------------------------------------------


def chosen(names: Sequence[str] | None) -> list[str]:
    """The labels that *names* are the beginnings of, and always the one all are compared with.

    Raises ValueError for a name that is the beginning of none.
    """
    wanted = {BASE}
    for name in ALL if names is None else names:
        found = {label for label in ALL if label.casefold().startswith(name.casefold())}
        if not found:
            raise ValueError(f"no peer {name!r}; there are {', '.join(ALL)}")
        wanted |= found
    return [label for label in ALL if label in wanted]


def parted(labels: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those that are installed, and those that are not."""
    here: list[str] = []
    missing: list[str] = []
    for label in labels:
        (here if ALL[label].installed() else missing).append(label)
    return here, missing


# -- measuring --------------------------------------------------------------------------------------------------------


def speeds(runner: Runner, turns: list[Turn], seconds: float, rounds: int) -> dict[Turn, Speed | Trouble]:
    """A slice of each turn in each round; the first round of all only warms up."""
    results: dict[Turn, Speed | Trouble] = {turn: Speed([], []) for turn in turns}
    pools: dict[str, Child | Trouble] = {}
    for label in dict.fromkeys(label for label, _, _ in turns):
        child = runner.start(label, "serve", WORKERS)
        ready = child.read(list[int], START_S)
        pools[label] = child
        if isinstance(ready, Trouble):
            child.end()
            pools[label] = ready
    for number, turn in in_turns(turns, rounds + 1, "speed"):
        label, payload, callers = turn
        pool, speed = pools[label], results[turn]
        if isinstance(pool, Trouble) or isinstance(speed, Trouble):
            results[turn] = pool if isinstance(pool, Trouble) else speed
            continue
        span = seconds if number else min(WARM_S, seconds)
        others = pool.others()
        pool.write(Load(payload=payload, callers=callers, seconds=span))
        done = pool.read(Slice, span + 10.0)
        if isinstance(done, Trouble):
            pool.end()
            results[turn] = pools[label] = done
        elif number:
            speed.slices.append(done)
            speed.others.append(others())
    for pool in pools.values():
        if isinstance(pool, Child):
            pool.finish()
    return results


def asked(
    runner: Runner, labels: list[str], scenario: str, kind: type[Result], rounds: int, size: int = WORKERS
) -> Results[Result]:
    """The results of *scenario*, in a new process each time."""
    results: Results[Result] = {label: [] for label in labels}
    for _, label in in_turns(labels, rounds, scenario.replace("_", " ")):
        results[label].append(runner.ask(label, scenario, size, kind, START_S + 3 * PATIENCE_S))
    return results


def orphaned(runner: Runner, labels: list[str]) -> Results[Orphans]:
    results: Results[Orphans] = {label: [] for label in labels}
    for _, label in in_turns(labels, 1, "orphans"):
        child = runner.start(label, "orphan", WORKERS)
        try:
            pids = child.read(list[int], START_S)
            results[label].append(pids if isinstance(pids, Trouble) else child.kill_parent(pids))
        finally:
            child.end()
    return results


# -- the whole --------------------------------------------------------------------------------------------------------


def speed_tables(runner: Runner, here: list[str], missing: list[str], seconds: float, rounds: int) -> Iterator[Table]:
    pools = [label for label in here if label in PEERS]
    few: list[Turn] = [(label, "small", CALLERS) for label in here]
    many: list[Turn] = [(label, "small", MANY_CALLERS) for label in (BASE, Ours.label) if Ours.label in here]
    large: list[Turn] = [(label, "1 MiB", CALLERS) for label in pools]
    results = speeds(runner, [*few, *many, *large], seconds, rounds)
    about = f" {rounds} slices of {seconds:g} s."
    kept = ""
    bare, watched = (results.get((kind.label, "small", CALLERS)) for kind in (Ours, OursMonitored))
    if isinstance(bare, Speed) and isinstance(watched, Speed):
        kept = f" Monitored to not monitored: {ratio(watched.slices, bare.slices):.3f} (median of all rounds)."
    for title, more, turns, absent in (
        (f"small payload, {CALLERS} callers", kept, few, missing),
        (f"small payload, {MANY_CALLERS} callers", "", many, []),
        (f"1 MiB there and back, {CALLERS} callers", "", large, missing),
    ):
        if turns:
            yield speed_table(title, about + more, {turn[0]: results[turn] for turn in turns}, absent)


def all_tables(runner: Runner, labels: list[str], seconds: float, rounds: int, few: int) -> Iterator[Table]:
    """One after the other, as they are measured."""
    here, missing = parted(labels)
    pools = [label for label in here if label in PEERS]
    yield from speed_tables(runner, here, missing, seconds, rounds)
    two = asked(runner, pools, "cold", Served, few)
    yield cold_table(two, asked(runner, pools, "cold", Served, few, MORE_WORKERS), missing)
    yield idle_table(asked(runner, pools, "lose_idle", Served, few), missing)
    yield busy_table(asked(runner, pools, "lose_busy", Loss, 1), missing)
    yield cancel_table(asked(runner, pools, "cancel", Served, few), missing)
    yield orphan_table(orphaned(runner, pools), missing)


def main(
    seconds: float = SECONDS,
    only: Sequence[str] | None = None,
    *,
    as_markdown: bool = False,
    rounds: int = SPEED_ROUNDS,
    few: int = ROUNDS,
) -> None:
    labels = chosen(only)
    began = time.monotonic()
    with Runner() as runner:
        tables.show(all_tables(runner, labels, seconds, rounds, few), as_markdown=as_markdown)
        left = runner.left()
    took = time.monotonic() - began
    print(f"{took:.0f} s; left behind: {', '.join(map(str, left)) or 'nothing'}", file=sys.stderr)
