"""Blocks: what was counted between two moments, of every series at once, in a form that adds up.

Theory of operation
-------------------
A closed slot of a window, a row of the history on disk and the answer to a query are the same thing at different
ages: sums, maxima and histograms of the rows that anything happened in. All three parts merge without loss, so a
percentile is as true after a year of roll-ups as it was in its first second.

Histograms are sparse. The 1024 buckets of a series are cut into 16 *chunks* of 64 (two octaves each), and a block
holds the chunks in use: which one, how many of its buckets, their offsets and counts: 2 bytes per bucket in use and
some 6 per chunk. A chunk has a number: ``series * CHUNKS + chunk``, with ``series = row * len(DISTRIBUTIONS) +
distribution``; it says the same as the upper bits of a key (`pool_monitor.metrics.fold`).

Rows and pools are numbers here. Whose they are is kept beside the blocks: by the registry for those in memory, by
tables for those on disk (`Block.renumbered` goes from one to the other).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.fold import DISTRIBUTIONS, PEAKS, POOL_SUMS, TALLIES
from pool_monitor.metrics.histogram import BUCKETS, Ints

CHUNK_BITS = 6
CHUNK = 1 << CHUNK_BITS
"""Buckets per chunk."""
CHUNKS = BUCKETS // CHUNK
"""Chunks per series."""
ROW_CHUNKS = len(DISTRIBUTIONS) * CHUNKS

FORMAT = 1
"""Version of the encoded form. A reader refuses those it does not know."""


class Cells(NamedTuple):
    """Sparse histograms: distinct chunks in any order, none of them empty."""

    chunks: NDArray[np.int64]
    lengths: NDArray[np.uint8]
    """Buckets in use of each chunk: 1 to 64."""
    offsets: NDArray[np.uint8]
    """Which ones: those of the first chunk, then those of the next."""
    counts: NDArray[np.unsignedinteger[Any]]
    """How much is in each, in the smallest type that holds them all."""

    @classmethod
    def pack(cls, chunks: Ints, dense: Ints) -> Self:
        """From distinct *chunks* and their counts, shape (chunks, CHUNK). Chunks that are empty are left out."""
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
        """Where each count belongs in a flat array in which the chunks stand at *of_chunks* (one each)."""
        starts = np.repeat(np.asarray(of_chunks, np.intp) * CHUNK, self.lengths)
        return np.add(starts, self.offsets, dtype=np.intp)

    @property
    def nbytes(self) -> int:
        return self.chunks.nbytes + self.lengths.nbytes + self.offsets.nbytes + self.counts.nbytes


class Block(NamedTuple):
    """What was counted between two moments. Rows and pools ascend, and something was counted in each of them."""

    rows: NDArray[np.int64]
    tallies: NDArray[np.int64]
    """Shape (rows, TALLIES); the columns are in `pool_monitor.metrics.fold`."""
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

    def renumbered(self, rows: Ints, pools: Ints) -> Block:
        """The same with other numbers: row *r* becomes ``rows[r]``, pool *p* ``pools[p]``, each distinct."""
        row, part = np.divmod(self.cells.chunks, ROW_CHUNKS)
        block = self._replace(
            rows=rows[self.rows],
            pools=pools[self.pools],
            cells=self.cells._replace(chunks=rows[row] * ROW_CHUNKS + part),
        )
        ascending = all((numbers[1:] > numbers[:-1]).all() for numbers in (block.rows, block.pools))
        return block if ascending else merge([block])

    def encode(self) -> bytes:
        """As bytes, for `decode`. Not compressed: columns of small numbers, which zlib halves or better."""
        arrays: list[NDArray[Any]] = [self.rows, self.tallies, self.maxima, *self.cells]
        arrays += [self.pools, self.pool_sums, self.pool_peaks]
        return _encode([FORMAT, *((array.dtype.str, array.tobytes()) for array in map(_narrowed, arrays))])

    @classmethod
    def decode(cls, body: bytes) -> Block:
        """What `encode` made. Raises ValueError for anything else."""
        try:
            version, *packed = msgspec.msgpack.decode(body)
            if version != FORMAT:
                raise ValueError(f"its format is {version!r}, this version reads {FORMAT}")
            arrays = [np.frombuffer(data, np.dtype(kind)) for kind, data in packed]
            if any(array.dtype.kind not in "iu" for array in arrays):
                raise ValueError("not all of it are whole numbers")
            rows, tallies, maxima, chunks, lengths, offsets, counts, pools, sums, peaks = arrays
            block = cls(
                rows=rows.astype(np.int64),
                tallies=tallies.astype(np.int64).reshape(len(rows), TALLIES),
                maxima=maxima.astype(np.int64).reshape(len(rows), len(DISTRIBUTIONS)),
                cells=Cells(chunks.astype(np.int64), lengths.astype(np.uint8), offsets.astype(np.uint8), counts),
                pools=pools.astype(np.int64),
                pool_sums=sums.astype(np.int64).reshape(len(pools), POOL_SUMS),
                pool_peaks=peaks.astype(np.int64).reshape(len(pools), PEAKS),
            )
            if len(chunks) != len(lengths) or not int(block.cells.lengths.sum()) == len(offsets) == len(counts):
                raise ValueError("its parts do not fit together")
        except (msgspec.DecodeError, TypeError, ValueError) as error:
            raise ValueError(f"no block: {error}") from error
        return block


_encode = msgspec.msgpack.Encoder().encode


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the smallest type that holds them all."""
    if not array.size:
        return array.astype(np.uint8)
    low, high = int(array.min()), int(array.max())
    return array.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)))


def merge(blocks: Sequence[Block], between: Callable[[], object] = lambda: None) -> Block:
    """*blocks* as one: sums and counts added, the larger of maxima and peaks. Their rows need not ascend.

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
    """`merge` in steps of a fraction of a millisecond, for whoever must not be held up."""
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
    """All their numbers, ascending, each once. np.unique takes ten times as long."""
    found = list(arrays)
    if not found:
        return np.zeros(0, np.int64)
    every = np.sort(np.concatenate(found))
    first = np.ones(len(every), np.bool_)
    np.not_equal(every[1:], every[:-1], out=first[1:])
    return every[first]
