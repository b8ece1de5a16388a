"""What the metrics cost, in one run with the libraries a service could use instead: each table is a file beside this.

Ratios come first. How long a slice takes is processor time of the thread, what is compared takes turns, the loops that
measuring needs are taken off, and the garbage collector runs (`benchmarks.turns`).
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
"""How to measure each, by what ``--only`` calls it."""


def chosen(names: Sequence[str] | None) -> list[str]:
    """Those that *names* are the beginnings of. Raises ValueError for a name that is the beginning of none."""
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
