"""Our pool beside its peers, in one run: speed, start, loss of a worker, cancellation, loss of the parent.

Each pool has its own parent process, so that threads and forks of one pool do not disturb another. They take turns, and
each round begins with another pool, so that other load on the machine affects all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.figures import (
    MORE_WORKERS,
    Result,
    Results,
    busy_table,
    cancel_table,
    cold_table,
    idle_table,
    orphan_table,
)
from benchmarks.load import WORKERS
from benchmarks.peers import BASE, PEERS, VARIANTS, parted
from benchmarks.runner import START_S, Orphans, Runner, Trouble, show
from benchmarks.scenarios import PATIENCE_S, Loss, Served
from benchmarks.speed import ROUNDS, SECONDS, speed_tables
from benchmarks.tables import Table
from benchmarks.turns import in_turns

FEW = 3
"""How often the scenarios run that need a new pool each time."""
CHOICE = [*PEERS, *VARIANTS]


# -- which pools ------------------------------------------------------------------------------------------------------


def chosen(names: Sequence[str] | None) -> list[str]:
    """Return the labels that begin with one of *names*, and always the label that all are compared with.

    Raises ValueError for a name that no label begins with.
    """
    wanted = {BASE}
    for name in CHOICE if names is None else names:
        found = {label for label in CHOICE if label.casefold().startswith(name.casefold())}
        if not found:
            raise ValueError(f"no peer {name!r}; there are {', '.join(CHOICE)}")
        wanted |= found
    return [label for label in CHOICE if label in wanted]


# -- measuring --------------------------------------------------------------------------------------------------------


def asked(
    runner: Runner, labels: list[str], scenario: str, kind: type[Result], rounds: int, size: int = WORKERS
) -> Results[Result]:
    """Return the results of *scenario*, each from a new process."""
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


def all_tables(labels: list[str], seconds: float, rounds: int, few: int, runner: Runner) -> Iterator[Table]:
    """Yield the tables one by one as they are measured."""
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
    rounds: int = ROUNDS,
    few: int = FEW,
) -> None:
    show(partial(all_tables, chosen(only), seconds, rounds, few), as_markdown=as_markdown)
