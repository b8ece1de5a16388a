"""Blocks: everything that was counted between two moments, of all series, in a form that adds up.

Theory of operation
-------------------
A closed step of a window, a row of the history on disk and the answer to a query all have this form: the sums, maxima
and histograms of the rows in which something was counted. All three merge without loss, so a percentile is as exact
after a year of roll-ups as in its first second.

Histograms are sparse. The 1024 buckets of a series are divided into 16 *chunks* of 64 (two octaves each). For each
chunk in use, a block holds its number, how many of its buckets are in use, and their offsets and counts. This takes 2
bytes per bucket in use and about 6 per chunk. The number of a chunk is ``series * CHUNKS + chunk``, with ``series = row
* len(DISTRIBUTIONS) + distribution``; it equals the upper bits of a key (`pool_monitor.metrics.fold`).

Rows and pools are numbers here. Their names are kept beside the blocks: in the registry for blocks in memory, in tables
for blocks on disk. `Block.renumbered` converts the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.columns import DISTRIBUTIONS, PEAKS, POOL_SUMS, TALLIES
from pool_monitor.metrics.histogram import BUCKETS, Ints

CHUNK_BITS = 6
CHUNK = 1 << CHUNK_BITS
"""Buckets per chunk."""
CHUNKS = BUCKETS // CHUNK
"""Chunks per series."""
ROW_CHUNKS = len(DISTRIBUTIONS) * CHUNKS

FORMAT = 1
"""Version of the encoded form. A reader refuses versions that it does not know."""
ROOM_LIMIT = 128 * 2**20
"""Most bytes that a block may take in memory (`Block.room`): more than the largest configuration can fill."""
_HIGHEST = 2**62
"""Upper bound of all counts, exclusive."""
HIGHEST_NUMBER = 2**48
"""Upper bound of the numbers of rows and pools, exclusive."""


class Cells(NamedTuple):
    """Sparse histograms: distinct, non-empty chunks in any order."""

    chunks: NDArray[np.int64]
    lengths: NDArray[np.uint8]
    """How many buckets of each chunk are in use: 1 to 64."""
    offsets: NDArray[np.uint8]
    """The offsets of the buckets in use within their chunk: those of the first chunk, then those of the next."""
    counts: NDArray[np.unsignedinteger[Any]]
    """The count of each bucket in use, in the smallest type that holds all counts."""

    @classmethod
    def pack(cls, chunks: Ints, dense: Ints) -> Self:
        """Make cells from distinct *chunks* and their counts, shape (chunks, CHUNK). Empty chunks are left out."""
        at = np.flatnonzero(dense != 0)  # comparing first is five times as fast
        counts = dense.reshape(-1)[at]
        lengths = np.bincount(at >> CHUNK_BITS, minlength=len(chunks))
        used = lengths > 0
        return cls(
            chunks=np.asarray(chunks, np.int64)[used],
            lengths=lengths[used].astype(np.uint8),
            offsets=(at & (CHUNK - 1)).astype(np.uint8),
            counts=counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
        )

    def places(self, of_chunks: Ints) -> NDArray[np.intp]:
        """The place of each count in a flat array. *of_chunks* has the position of each chunk, in units of `CHUNK`."""
        starts = np.repeat(np.asarray(of_chunks, np.intp) * CHUNK, self.lengths)
        return np.add(starts, self.offsets, dtype=np.intp)

    @property
    def nbytes(self) -> int:
        return self.chunks.nbytes + self.lengths.nbytes + self.offsets.nbytes + self.counts.nbytes


class Block(NamedTuple):
    """What was counted between two moments. Rows and pools ascend, and each of them has counts."""

    rows: NDArray[np.int64]
    tallies: NDArray[np.int64]
    """Shape (rows, TALLIES); the columns are in `pool_monitor.metrics.columns`."""
    maxima: NDArray[np.int64]
    """Shape (rows, DISTRIBUTIONS): longest durations, ns."""
    cells: Cells
    pools: NDArray[np.int64]
    pool_sums: NDArray[np.int64]
    """Shape (pools, POOL_SUMS)."""
    pool_peaks: NDArray[np.int64]
    """Shape (pools, PEAKS)."""

    @property
    def nbytes(self) -> int:
        arrays = (self.rows, self.tallies, self.maxima, self.pools, self.pool_sums, self.pool_peaks)
        return sum(array.nbytes for array in arrays) + self.cells.nbytes

    @property
    def room(self) -> int:
        """Upper bound of the bytes in memory, alone or as part of a merged block. It is never below `nbytes`."""
        whole = (self.rows, self.tallies, self.maxima, self.pools, self.pool_sums, self.pool_peaks)
        return _room([*whole, self.cells.chunks, self.cells.counts], [self.cells.lengths, self.cells.offsets])

    def renumbered(self, row_of: Renumbering, pool_of: Renumbering) -> Block:
        """The block with new numbers. *row_of* and *pool_of* map old numbers to distinct new ones."""
        row, part = np.divmod(self.cells.chunks, ROW_CHUNKS)
        block = self._replace(
            rows=row_of(self.rows),
            pools=pool_of(self.pools),
            cells=self.cells._replace(chunks=row_of(row) * ROW_CHUNKS + part),
        )
        ascending = all((numbers[1:] > numbers[:-1]).all() for numbers in (block.rows, block.pools))
        return block if ascending else merge([block])

    def split(self, group_of: Ints, place_of: Ints) -> Iterator[tuple[int, Block]]:
        """Split the rows by group in one pass: yield each group that has rows, and a block of these rows.

        *group_of* and *place_of* have the group of every row and its number in the new block. Each block has all pools.
        """
        chunks, lengths, offsets, counts = self.cells
        row, part = np.divmod(chunks, ROW_CHUNKS)
        chunks = place_of[row] * ROW_CHUNKS + part
        order, in_order = np.argsort(group_of[self.rows], kind="stable"), np.argsort(group_of[row], kind="stable")
        groups, first_rows = np.unique(group_of[self.rows][order], return_index=True)
        first_chunks = np.searchsorted(group_of[row][in_order], groups)
        # Where each chunk's buckets begin, before and after the chunks are put in order.
        before, ends = np.cumsum(lengths, dtype=np.int64) - lengths, np.cumsum(lengths[in_order], dtype=np.int64)
        moved = np.repeat(before[in_order] - (ends - lengths[in_order]), lengths[in_order]) + np.arange(len(offsets))
        offsets, counts, ends = offsets[moved], counts[moved], np.concatenate(([0], ends))
        all_rows, all_chunks = [*first_rows.tolist(), len(order)], [*first_chunks.tolist(), len(in_order)]
        for at, group in enumerate(groups.tolist()):
            rows = order[all_rows[at] : all_rows[at + 1]]
            some = in_order[all_chunks[at] : all_chunks[at + 1]]
            buckets = slice(int(ends[all_chunks[at]]), int(ends[all_chunks[at + 1]]))
            yield (
                group,
                self._replace(
                    rows=place_of[self.rows[rows]],
                    tallies=self.tallies[rows],
                    maxima=self.maxima[rows],
                    cells=Cells(chunks[some], lengths[some], offsets[buckets], counts[buckets]),
                ),
            )

    def without_rows(self) -> Block:
        """The block without its rows: only its pools."""
        chunks, lengths, offsets, counts = self.cells
        cells = Cells(chunks[:0], lengths[:0], offsets[:0], counts[:0])
        return self._replace(rows=self.rows[:0], tallies=self.tallies[:0], maxima=self.maxima[:0], cells=cells)

    def encode(self) -> bytes:
        """The block as bytes, for `decode`. They are not compressed: columns of small numbers, which zlib halves."""
        arrays: list[NDArray[Any]] = [self.rows, self.tallies, self.maxima, *self.cells]
        arrays += [self.pools, self.pool_sums, self.pool_peaks]
        return _encode([FORMAT, *((array.dtype.str, array.tobytes()) for array in map(_narrowed, arrays))])

    @classmethod
    def decode(cls, body: bytes) -> Block:
        """The block that `encode` made *body* of. Raises ValueError for any other body, and above `ROOM_LIMIT`."""
        try:
            version, *packed = _decode(body)
            if version != FORMAT:
                raise ValueError(f"its format is {version!r}, but this version reads {FORMAT}")
            arrays = [np.frombuffer(data, _KINDS[kind]) for kind, data in packed]
            rows, tallies, maxima, chunks, lengths, offsets, counts, pools, sums, peaks = arrays
            if _room([rows, tallies, maxima, chunks, counts, pools, sums, peaks], [lengths, offsets]) > ROOM_LIMIT:
                raise ValueError("it is too large")
            block = cls(
                rows=_in_range(rows, 0, HIGHEST_NUMBER),
                tallies=_in_range(tallies, 0).reshape(len(rows), TALLIES),
                maxima=_in_range(maxima, 0).reshape(len(rows), len(DISTRIBUTIONS)),
                cells=Cells(
                    chunks=_in_range(chunks, 0, HIGHEST_NUMBER * ROW_CHUNKS),
                    lengths=_in_range(lengths, 1, CHUNK + 1).astype(np.uint8),
                    offsets=_in_range(offsets, 0, CHUNK).astype(np.uint8),
                    counts=_in_range(counts, 0).astype(np.min_scalar_type(int(counts.max(initial=0)))),
                ),
                pools=_in_range(pools, 0, HIGHEST_NUMBER),
                pool_sums=_in_range(sums).reshape(len(pools), POOL_SUMS),
                pool_peaks=_in_range(peaks).reshape(len(pools), PEAKS),
            )
            block._check()
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a valid block: {error}") from error
        return block

    def _check(self) -> None:
        """Raise ValueError when the arrays do not fit together."""
        chunks, lengths, offsets, counts = self.cells
        ascending = all((numbers[1:] > numbers[:-1]).all() for numbers in (self.rows, self.pools))
        fitting = len(chunks) == len(lengths) and int(lengths.sum()) == len(offsets) == len(counts)
        if not (ascending and fitting and _all_in(chunks // ROW_CHUNKS, self.rows)):
            raise ValueError("its parts do not fit together")


Renumbering: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.int64]]
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], list[Any]] = msgspec.msgpack.Decoder(list[int | tuple[str, bytes]]).decode
_KINDS: Any = {
    kind.str: kind for order in "<>" for sign in "iu" for size in "1248" for kind in [np.dtype(order + sign + size)]
}
"""The types of arrays that `decode` accepts."""


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """*array* in the smallest type that holds all its numbers."""
    if not array.size:
        return array.astype(np.uint8)
    low, high = int(array.min()), int(array.max())
    return array.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)))


def _room(whole: Iterable[NDArray[Any]], small: Iterable[NDArray[Any]]) -> int:
    return 8 * sum(array.size for array in whole) + sum(array.size for array in small)


def _in_range(array: NDArray[Any], low: int = -_HIGHEST, high: int = _HIGHEST) -> NDArray[np.int64]:
    """*array* as int64. Raises ValueError unless all its numbers are at least *low* and below *high*."""
    if array.size and not (low <= int(array.min()) and int(array.max()) < high):
        raise ValueError(f"a number is outside {low} to {high - 1}")
    return array.astype(np.int64)


def _all_in(numbers: NDArray[np.int64], among: NDArray[np.int64]) -> bool:
    """Whether each of *numbers* occurs in *among*, which must ascend."""
    if not len(among):
        return not len(numbers)
    at = np.minimum(np.searchsorted(among, numbers), len(among) - 1)
    return bool((among[at] == numbers).all())


def merge(blocks: Sequence[Block], between: Callable[[], object] = lambda: None) -> Block:
    """Merge *blocks*: sums and counts are added, the larger of maxima and peaks is kept. Their rows need not ascend.

    *between* is called after every step of `merging`.
    """
    steps = merging(blocks)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            merged: Block = done.value
            return merged
        between()


def merging(blocks: Sequence[Block]) -> Generator[None, None, Block]:
    """`merge` in steps of a fraction of a millisecond, for an event loop. The block is the return value."""
    rows, tallies, maxima = _merged(
        [block.rows for block in blocks], [block.tallies for block in blocks], [block.maxima for block in blocks]
    )
    pools, sums, peaks = _merged(
        [block.pools for block in blocks], [block.pool_sums for block in blocks], [block.pool_peaks for block in blocks]
    )
    yield
    parts = [block.cells for block in blocks]
    chunks = _distinct(part.chunks for part in parts)
    highest = sum(int(part.counts.max(initial=0)) for part in parts)
    kind: type[np.signedinteger[Any]] = np.int32 if highest < 2**31 else np.int64
    dense: Ints = np.zeros(len(chunks) * CHUNK, kind)
    for part in parts:
        np.add.at(dense, part.places(np.searchsorted(chunks, part.chunks)), part.counts.astype(dense.dtype))
        yield
    return Block(
        rows, tallies.reshape(-1, TALLIES), maxima.reshape(-1, len(DISTRIBUTIONS)),
        Cells.pack(chunks, dense.reshape(-1, CHUNK)),
        pools, sums.reshape(-1, POOL_SUMS), peaks.reshape(-1, PEAKS),
    )  # fmt: skip


def _merged(
    numbers: list[NDArray[np.int64]], sums: list[NDArray[np.int64]], peaks: list[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    every = _distinct(numbers)
    total = np.zeros((len(every), sums[0].shape[1] if sums else 0), np.int64)
    highest = np.zeros((len(every), peaks[0].shape[1] if peaks else 0), np.int64)
    for number, some, high in zip(numbers, sums, peaks, strict=True):
        at = np.searchsorted(every, number)
        total[at] += some
        highest[at] = np.maximum(highest[at], high)
    return every, total, highest


def _distinct(arrays: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All distinct numbers in *arrays*, ascending. np.unique takes ten times as long."""
    found = list(arrays)
    if not found:
        return np.zeros(0, np.int64)
    every = np.sort(np.concatenate(found))
    first = np.ones(len(every), np.bool_)
    np.not_equal(every[1:], every[:-1], out=first[1:])
    return every[first]
