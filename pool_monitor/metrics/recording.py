"""What was recorded: blocks, when they are from, and whose numbers they hold.

Both stores, the windows in memory and the history on disk, answer a question with one of these, so that a question
is answered by the same code whatever its age (`pool_monitor.metrics.queries`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.block import Block
from pool_monitor.metrics.failed_calls import Failures
from pool_monitor.metrics.occurrences import Counters
from pool_monitor.metrics.series import Key, Names

__all__ = ["Names", "Part", "Recorded", "Totals"]

T = TypeVar("T", bound=Hashable)


class Part(NamedTuple):
    """What was counted in one slot of time."""

    start: int
    """Wall-clock time the slot begins at, whole seconds since the epoch."""
    length: int
    """Seconds the slot has. How much of it was measured is in the block (`columns.MEASURED_NS`)."""
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
    """Calls, shape (rows, `columns.OUTCOMES`)."""
    sums: NDArray[np.int64]
    """Sums of durations in ns, shape (rows, `columns.DISTRIBUTIONS`), of calls that ended well."""
    counts: NDArray[np.int64]
    """Shape (rows, `columns.DISTRIBUTIONS`, buckets), of calls that ended well."""
    first: int
    pool_sums: NDArray[np.int64]
    """Shape (pools, `columns.POOL_SUMS`): errors by category, deaths, calls by session kind."""
    busy: NDArray[np.int64] | None = None
    """Time on workers in ns, of all calls however they ended, shape (rows,); None: not known."""
    born: NDArray[np.float64] | None = None
    """When each row began to count, seconds since the epoch; None: not known."""
    failures: Failures = field(default_factory=Failures)
    """Durations of calls that did not end well."""
    occurrences: Counters | None = None
    """What else happened to pools (`pool_monitor.metrics.occurrences`); None: not known."""

    def by_operation(self) -> Totals:
        """The same with all workers of an operation added up: their names have worker None."""
        return self._by([(pool, operation, None) for pool, operation, _worker in self.names.rows])

    def by_worker(self) -> Totals:
        """The same with all operations of a worker added up: their names have an empty operation. Calls without a
        worker are left out.
        """
        return self._by([(pool, "", worker) if worker else None for pool, _operation, worker in self.names.rows])

    def _by(self, keys: list[Key | None]) -> Totals:
        """Rows with the same of *keys* added up, those without one left out."""
        place = {
            key: number
            for number, key in enumerate(
                sorted(set(filter(None, keys)), key=lambda key: (key[0], key[1], key[2] or ""))
            )
        }
        some = np.array([key is not None for key in keys], np.bool_)
        at = np.array([place[key] for key in keys if key is not None], np.intp)
        counts = np.zeros((len(place), *self.counts.shape[1:]), np.int64)
        for row, key in enumerate(keys):  # np.add.at takes ten times as long on wide rows
            if key is not None:
                counts[place[key]] += self.counts[row]

        def summed(array: NDArray[np.int64]) -> NDArray[np.int64]:
            sums = np.zeros((len(place), *array.shape[1:]), np.int64)
            np.add.at(sums, at, array[some])
            return sums

        born = None
        if self.born is not None:
            born = np.full(len(place), np.inf)
            np.minimum.at(born, at, self.born[some])
        return replace(
            self,
            names=Names(tuple(place), self.names.pools),
            outcomes=summed(self.outcomes),
            sums=summed(self.sums),
            counts=counts,
            busy=None if self.busy is None else summed(self.busy),
            born=born,
        )
