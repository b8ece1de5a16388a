"""What was recorded: blocks, when they are from, and whose numbers they hold.

Both the windows in memory and the history on disk are read into a `Recording`, so that the same code answers a query
of either (`pool_monitor.metrics.queries`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from pool_monitor.metrics.block import Block
from pool_monitor.metrics.series import Names, RowKey

T = TypeVar("T", bound=Hashable)


class TimedBlock(NamedTuple):
    """What was counted in one step of time."""

    start: int
    """Wall-clock time the step begins at, whole seconds since the epoch."""
    length: int
    """Seconds the step has. How much of it was measured is in the block (`columns.MEASURED_NS`)."""
    block: Block


class Recording(NamedTuple):
    """Blocks of any number of steps, not necessarily in order. The blocks of one step add up."""

    names: Names
    blocks: list[TimedBlock]

    def by(self, keys: Sequence[T], wanted: Sequence[T]) -> dict[T, Recording]:
        """The rows apart, by those keys that are *wanted*: *keys* has one for each row. All pools are in each of them.

        One pass for any number of keys, where asking with a `Selection` would be one for each.
        """
        number = {key: at for at, key in enumerate(dict.fromkeys(wanted))}
        group = np.array([number.get(key, -1) for key in keys], np.int64)
        rows: list[list[RowKey]] = [[] for _ in number]
        place = np.zeros(len(keys), np.int64)
        for row, at in enumerate(group.tolist()):
            if at >= 0:
                place[row] = len(rows[at])
                rows[at].append(self.names.rows[row])
        blocks: list[list[TimedBlock]] = [[] for _ in number]
        for timed in self.blocks:
            split, rest = dict(timed.block.split(group, place)), timed.block.without_rows()
            for at, some in enumerate(blocks):
                some.append(timed._replace(block=split.get(at, rest)))
        return {key: Recording(Names(tuple(rows[at]), self.names.pools), blocks[at]) for key, at in number.items()}
