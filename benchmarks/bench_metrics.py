"""What the metrics cost beside other libraries, in one run. Each table has its own file in this folder.

Ratios come first. A slice is measured in processor time of the thread, the candidates take turns, the cost of the loops
is subtracted, and the garbage collector runs (`benchmarks.turns`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from benchmarks import (
    metrics_blocking,
    metrics_designs,
    metrics_memory,
    metrics_queries,
    metrics_steady,
    metrics_store,
    tables,
)
from benchmarks.tables import Table


def steady() -> Iterable[Table]:
    found = metrics_steady.measured()
    return metrics_steady.cost_table(found), metrics_steady.pause_table(found)


MADE: dict[str, Callable[[], Iterable[Table]]] = {
    "blocking": lambda: [metrics_blocking.table()],
    "designs": lambda: [metrics_designs.table()],
    "steady": steady,
    "answers": lambda: [metrics_queries.table()],
    "memory": lambda: [metrics_memory.table()],
    "history": lambda: [metrics_store.table()],
}
"""How to measure each table, by its name for ``--only``."""


def chosen(names: Sequence[str] | None) -> list[str]:
    """Return the tables that begin with one of *names*. Raises ValueError for a name that no table begins with."""
    for name in names or ():
        if not any(known.startswith(name) for known in MADE):
            raise ValueError(f"no table {name!r}; there are {', '.join(MADE)}")
    return [known for known in MADE if names is None or known.startswith(tuple(names))]


def main(only: Sequence[str] | None = None, *, as_markdown: bool = False) -> None:
    began = time.monotonic()
    tables.show(_measured(chosen(only)), as_markdown=as_markdown)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


def _measured(names: Sequence[str]) -> Iterator[Table]:
    for name in names:
        yield from MADE[name]()
