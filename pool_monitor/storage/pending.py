"""Blocks that are not written yet, and how they are read together with the blocks in the file."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.block import Block
from pool_monitor.metrics.error_groups import GroupCount
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.series import Names

T = TypeVar("T", bound=Hashable)


class PendingBlock(NamedTuple):
    """A block that is to be written."""

    start: int
    length: int
    block: Block
    names: Names
    errors: Sequence[GroupCount] = ()
    """The failures in that time by error group."""

    @property
    def nbytes(self) -> int:
        return self.block.nbytes + 8 * len(self.names.rows) + sum(map(_group_bytes, self.errors))


def _group_bytes(count: GroupCount) -> int:
    sample = count.group.sample
    texts = () if sample is None else (sample.message, sample.traceback or "", sample.stack or "")
    return 1024 + sum(map(sys.getsizeof, texts))


def with_pending(recording: Recording, pending: Iterable[PendingBlock]) -> Recording:
    """*recording*, with the *pending* blocks added, which are not in the file."""
    rows = {key: number for number, key in enumerate(recording.names.rows)}
    pools = {key: number for number, key in enumerate(recording.names.pools)}
    blocks = list(recording.blocks)
    for start, length, block, names, _errors in pending:
        of_rows, of_pools = _numbers(names.rows, block.rows, rows), _numbers(names.pools, block.pools, pools)
        blocks.append(
            TimedBlock(start, length, block.renumbered(partial(np.take, of_rows), partial(np.take, of_pools)))
        )
    return Recording(Names(tuple(rows), tuple(pools)), blocks)


def _numbers(keys: Sequence[T], used: NDArray[np.int64], known: dict[T, int]) -> NDArray[np.int64]:
    """The numbers of the *keys* at the places *used*. Keys that are not in *known* get the next free numbers there."""
    numbers = np.zeros(len(keys), np.int64)
    numbers[used] = [known.setdefault(keys[number], len(known)) for number in used.tolist()]
    return numbers
