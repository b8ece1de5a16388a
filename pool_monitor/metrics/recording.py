"""Recordings: blocks with their times and the names of their rows and pools.

The windows in memory and the history on disk are both read into a `Recording`, so that the same code
(`pool_monitor.metrics.queries`) answers queries of both.
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
    """When the step begins on the wall clock, in whole seconds since the epoch."""
    length: int
    """Length of the step in seconds. The block holds how much of it was measured (`columns.MEASURED_NS`)."""
    block: Block


class Recording(NamedTuple):
    """Blocks of any number of steps, not necessarily in order. The blocks of one step add up."""

    names: Names
    blocks: list[TimedBlock]

    def by(self, keys: Sequence[T], wanted: Sequence[T]) -> dict[T, Recording]:
        """Split the rows by key: one recording for each *wanted* key. *keys* has the key of each row.

        Each recording has all pools. This takes one pass for any number of keys; a `Selection` takes one pass per key.
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
