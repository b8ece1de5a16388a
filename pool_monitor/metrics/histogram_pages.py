"""The layout of histograms in memory: pages, which a series gets only for the buckets that it uses.

A series has 16 chunks of 64 buckets (`pool_monitor.metrics.block`) and rarely uses more than four, because its
durations lie within a few octaves. So a chunk gets a page when the first duration falls into it, and every array of
counts (one per window, one for the open second, one for the totals) is laid out by page. Page 0 belongs to no chunk and
stays empty: chunks without a page are read from it.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pool_monitor.metrics.block import CHUNK, CHUNK_BITS, CHUNKS, ROW_CHUNKS, Cells
from pool_monitor.metrics.columns import DISTRIBUTIONS


def reserved(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros that takes up memory only where something has been written.

    So arrays can have their final size from the start and are never copied into larger ones. np.zeros does not serve:
    it asks the system for huge pages, and the first number written then takes up 2 MB.

    The whole array takes up address space. Raises OSError when that exceeds the limit of the process.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape)
    memory = mmap.mmap(-1, max(size * kind.itemsize, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, kind, count=size).reshape(shape)


class HistogramPages:
    """Maps chunks to pages. Holds at most one page per chunk of *rows* rows."""

    def __init__(self, rows: int) -> None:
        self.capacity = 1 + rows * ROW_CHUNKS
        self.table: NDArray[np.int32] = reserved((rows, len(DISTRIBUTIONS), CHUNKS), np.int32)
        """The page of every chunk; 0: the chunk has none."""
        self.chunks: NDArray[np.int64] = reserved((self.capacity,), np.int64)
        """The chunk of every page."""
        self.size = 1
        """One more than the highest number of a page that was ever in use."""
        self._free: list[int] = []

    @property
    def used(self) -> int:
        return self.size - 1 - len(self._free)

    def places(self, keys: NDArray[np.intp]) -> NDArray[np.intp]:
        """The place of each key in a flat array laid out by page. Chunks without a page get one."""
        chunks = keys >> CHUNK_BITS
        table = self.table.reshape(-1)
        pages = table[chunks]
        if not pages.all():
            for chunk in np.unique(chunks[pages == 0]).tolist():
                self._assign(chunk)
            pages = table[chunks]
        places: NDArray[np.intp] = pages.astype(np.intp) * CHUNK + (keys & (CHUNK - 1))
        return places

    def missing(self, keys: NDArray[np.intp]) -> int:
        """How many pages `places` would assign for *keys*."""
        chunks = keys >> CHUNK_BITS
        return len(np.unique(chunks[self.table.reshape(-1)[chunks] == 0]))

    def places_of(self, cells: Cells) -> NDArray[np.intp]:
        """The places of the buckets of *cells*, whose chunks must have pages."""
        return cells.places(self.table.reshape(-1)[cells.chunks])

    def release(self, rows: list[int]) -> NDArray[np.int32]:
        """Free the pages of *rows*. Returns them; the caller zeroes them in every array before the next `places`."""
        pages = self.table[rows]
        taken: NDArray[np.int32] = pages[pages > 0]
        self.table[rows] = 0
        self._free += taken.tolist()
        return taken

    def chunk_range(self, rows: NDArray[np.intp]) -> slice:
        """The range from the first to the last chunk that any of *rows* has a page for."""
        used = np.flatnonzero(self.table[rows].any(axis=(0, 1)))
        return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)

    def dense(self, counts: NDArray[Any], rows: NDArray[np.intp], chunk_range: slice) -> NDArray[Any]:
        """The histograms of *rows* in *counts* (flat, by page), shape (rows, DISTRIBUTIONS, buckets in the range)."""
        found: NDArray[Any] = counts.reshape(-1, CHUNK)[self.table[rows][:, :, chunk_range]]
        return found.reshape(len(rows), len(DISTRIBUTIONS), -1)

    def _assign(self, chunk: int) -> None:
        if self._free:
            page = self._free.pop()
        else:
            page = self.size
            self.size += 1
        self.chunks[page] = chunk
        self.table.reshape(-1)[chunk] = page
