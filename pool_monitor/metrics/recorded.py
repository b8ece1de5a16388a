"""What was recorded: blocks, when they are from, and whose numbers they hold.

Both stores, the windows in memory and the history on disk, answer a question with one of these, so that a question
is answered by the same code whatever its age (`pool_monitor.metrics.answer`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.block import Block
from pool_monitor.metrics.series import Key, Names

__all__ = ["Names", "Part", "Recorded", "Totals"]

T = TypeVar("T", bound=Hashable)


class Part(NamedTuple):
    """What was counted in one slot of time."""

    start: int
    """Wall-clock time the slot begins at, whole seconds since the epoch."""
    length: int
    """Seconds the slot has. How much of it was measured is in the block (`fold.MEASURED`)."""
    block: Block


class Recorded(NamedTuple):
    """Blocks of any number of slots, not necessarily in order; slots may occur more than once, and then add up."""

    names: Names
    parts: list[Part]

    def by(self, keys: Sequence[T], wanted: Sequence[T]) -> dict[T, Recorded]:
        """The rows apart, by those keys that are *wanted*: *keys* has one for each row. All pools are in each of them.

        One pass for any number of keys, where asking with a `Selection` would be one for each.
        """
        number = {key: at for at, key in enumerate(dict.fromkeys(wanted))}
        group = np.array([number.get(key, -1) for key in keys], np.int64)
        rows: list[list[Key]] = [[] for _ in number]
        place = np.zeros(len(keys), np.int64)
        for row, at in enumerate(group.tolist()):
            if at >= 0:
                place[row] = len(rows[at])
                rows[at].append(self.names.rows[row])
        parts: list[list[Part]] = [[] for _ in number]
        for part in self.parts:
            split, rest = dict(part.block.split(group, place)), part.block.without_rows()
            for at, some in enumerate(parts):
                some.append(part._replace(block=split.get(at, rest)))
        return {key: Recorded(Names(tuple(rows[at]), self.names.pools), parts[at]) for key, at in number.items()}


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything counted since the monitor was entered: what exporters make counters and histograms from.

    Arrays are not to be changed. Bucket *j* of ``counts`` is the base-2 exponential bucket of scale 5 with index
    ``FIRST_INDEX + first + j`` (`pool_monitor.metrics.histogram`): it holds ``(2**(index/32), 2**((index+1)/32)]``
    seconds. Counts only grow, and a worker's restart is not seen in them. A row that nothing was counted in for
    longer than the longest window may be given away when rows run out; it is missing here from then on.
    """

    since: float
    """When counting began, seconds since the epoch, by the wall clock as it is set now."""
    at: float
    """Now, seconds since the epoch: to a second, ``at - since`` is how long was counted, also after a step of the
    clock."""
    names: Names
    outcomes: NDArray[np.int64]
    """Calls, shape (rows, `fold.OUTCOMES`)."""
    sums: NDArray[np.int64]
    """Sums of durations in ns, shape (rows, `fold.DISTRIBUTIONS`), of calls that ended well."""
    counts: NDArray[np.int64]
    """Shape (rows, `fold.DISTRIBUTIONS`, buckets), of calls that ended well."""
    first: int
    pool_sums: NDArray[np.int64]
    """Shape (pools, `fold.POOL_SUMS`): errors by category, deaths, calls by session kind."""

    def by_operation(self) -> Totals:
        """The same with all workers of an operation added up: their names have worker None."""
        keys = sorted({(pool, operation) for pool, operation, _worker in self.names.rows})
        place = {key: number for number, key in enumerate(keys)}
        at = np.array([place[pool, operation] for pool, operation, _worker in self.names.rows], np.intp)
        outcomes, sums, counts = (
            np.zeros((len(keys), *array.shape[1:]), np.int64) for array in (self.outcomes, self.sums, self.counts)
        )
        np.add.at(outcomes, at, self.outcomes)
        np.add.at(sums, at, self.sums)
        for row, group in enumerate(at.tolist()):  # np.add.at takes ten times as long on wide rows
            counts[group] += self.counts[row]
        names = Names(tuple((pool, operation, None) for pool, operation in keys), self.names.pools)
        return Totals(self.since, self.at, names, outcomes, sums, counts, self.first, self.pool_sums)
