"""Sliding windows: what happened in the last 1, 5 and 15 minutes and the last hour, exactly, at a bounded price.

Theory of operation
-------------------
Time is cut into steps on a fixed grid: 1 s for ``1m``, 5 s for ``5m``, 10 s for ``15m``, 60 s for ``1h``. A window is
the open step and as many before it as make up its name, so it never reaches back further than that and falls short
of it by at most one step. It keeps *running* sums, which a reader takes as they are, and per step, as blocks
(`pool_monitor.metrics.block`), what has to be subtracted again when the step leaves.

Everything is counted into the open second, densely and once. When that second closes it becomes a block, is added to
the running sums of all windows and to the totals, and is laid into the open step of each. So the price of an event
does not depend on the number of windows, and the price of a second depends on the buckets used in it.

The seconds of a closed step are merged into one block some time later (`Windows.tidy`): nothing depends on it but
memory, so it is done piece by piece, and between two pieces the event loop can go on.

Memory is bounded by `Windows.limit_bytes`. When the steps need more (many series, all busy), the oldest steps of the
window that holds the most leave early. What is left stays exact, and `WindowStore.covered_ns` returns how far it
reaches.

Why not a dense ring of histograms? 450 KB per series and window against some 10. Why not a list of raw durations? It
grows with the rate, and answering costs a sort. Why not merge the steps when asked? 60 merges per window and answer,
where a dashboard asks every second; and an answer would take the longer the busier the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.errors import ConfigError
from pool_monitor.metrics.block import CHUNK, Block, Cells, merge, merging
from pool_monitor.metrics.columns import DISTRIBUTIONS, MEASURED_NS, PEAKS, POOL_SUMS, TALLIES
from pool_monitor.metrics.fold import CallBatch
from pool_monitor.metrics.histogram import BUCKETS
from pool_monitor.metrics.page_table import PageTable, reserved
from pool_monitor.snapshot import WINDOW_NAMES

SECOND_NS = 1_000_000_000
SILENCE = 3
"""Seconds without a sign of life (three ticks) after which the time between counts as not measured."""
KEYS_PER_ROW = len(DISTRIBUTIONS) * BUCKETS
_BLOCK_BYTES = 2048
"""Upper estimate of what a block takes beside its numbers."""


@dataclass(frozen=True, slots=True)
class Window:
    """The length of time that numbers are about: *steps* steps of *step* seconds each. A point of its chart is
    *trend_step* seconds long.
    """

    name: str
    step: int
    steps: int
    trend_step: int

    @property
    def seconds(self) -> float:
        return float(self.step * self.steps)


WINDOWS: dict[str, Window] = {
    name: Window(name, *grain)
    for name, grain in zip(WINDOW_NAMES, ((1, 60, 1), (5, 60, 1), (10, 90, 3), (60, 60, 12)), strict=True)
}
LONGEST = list(WINDOWS.values())[-1]


def parse_window(name: str) -> Window:
    """The window of that name. Raises ConfigError naming the choices."""
    try:
        return WINDOWS[name]
    except (KeyError, TypeError):
        raise ConfigError(f"there is no window {name!r}; choose one of {', '.join(WINDOWS)}") from None


class Capacity(NamedTuple):
    """How many rows and pools the windows can hold."""

    rows: int
    pools: int


class HighWaterMarks(NamedTuple):
    """The parts of a block that cannot be subtracted: longest durations by row, highest gauges by pool."""

    maxima: NDArray[np.int64]
    peaks: NDArray[np.int64]

    @classmethod
    def none(cls, capacity: Capacity) -> HighWaterMarks:
        return cls(np.zeros((capacity.rows, len(DISTRIBUTIONS)), np.int64), np.zeros((capacity.pools, PEAKS), np.int64))

    def raise_to(self, block: Block) -> None:
        self.maxima[block.rows] = np.maximum(self.maxima[block.rows], block.maxima)
        self.peaks[block.pools] = np.maximum(self.peaks[block.pools], block.pool_peaks)


class Sums:
    """The parts of a block, densely: of every row and pool, zero where nothing was counted."""

    def __init__(self, pages: PageTable, capacity: Capacity, histogram_type: type[np.signedinteger] = np.int32) -> None:
        self.pages = pages
        self.counts: NDArray[np.signedinteger] = reserved((pages.capacity * CHUNK,), histogram_type)
        """Histograms, by page."""
        self.tallies: NDArray[np.int64] = reserved((capacity.rows, TALLIES), np.int64)
        self.pool_sums = np.zeros((capacity.pools, POOL_SUMS), np.int64)

    @staticmethod
    def fixed_bytes(capacity: Capacity) -> int:
        """Bytes held whatever happens, but for the pages."""
        return capacity.rows * TALLIES * 8 + capacity.pools * POOL_SUMS * 8

    def add(self, block: Block, places: NDArray[np.intp]) -> None:
        """Add *block*, whose cells count at *places*."""
        np.add.at(self.counts, places, block.cells.counts.astype(self.counts.dtype))  # fast for equal types only
        self.tallies[block.rows] += block.tallies
        self.pool_sums[block.pools] += block.pool_sums

    def subtract(self, block: Block, places: NDArray[np.intp]) -> None:
        """Take *block* out again."""
        np.subtract.at(self.counts, places, block.cells.counts.astype(self.counts.dtype))
        self.tallies[block.rows] -= block.tallies
        self.pool_sums[block.pools] -= block.pool_sums

    def block(self, pages: NDArray[np.intp], high_water: HighWaterMarks) -> Block:
        """A copy in the other form. *pages* are those with anything in them."""
        rows = np.flatnonzero(self.tallies.any(axis=1))
        return Block(
            rows=rows,
            tallies=self.tallies[rows],
            maxima=high_water.maxima[rows],
            cells=Cells.pack(self.pages.chunks[pages], self.counts.reshape(-1, CHUNK)[pages]),
            pools=np.arange(len(self.pool_sums)),
            pool_sums=self.pool_sums.copy(),
            pool_peaks=high_water.peaks.copy(),
        )


class OpenSecond:
    """What has been counted since the last full second."""

    def __init__(self, pages: PageTable, capacity: Capacity) -> None:
        self._pages = pages
        self._touched: NDArray[np.bool_] = reserved((pages.capacity,), np.bool_)
        self.sums = Sums(pages, capacity)
        self.high_water = HighWaterMarks.none(capacity)

    def add(self, batch: CallBatch) -> None:
        places = self._pages.places(batch.keys)
        np.add.at(self.sums.counts, places, np.int32(batch.weight))  # a plain 1 costs fifty times as much
        self._touched[places // CHUNK] = True
        rows = len(batch.tallies)
        self.sums.tallies[:rows] += batch.tallies
        self.sums.pool_sums += batch.pool_sums
        np.maximum(self.high_water.maxima[:rows], batch.maxima, out=self.high_water.maxima[:rows])

    def close(self) -> Block:
        """All of it, as a block. It is empty after that."""
        pages = self._pages_used()
        block = self.sums.block(pages, self.high_water)
        self.sums.counts.reshape(-1, CHUNK)[pages] = 0
        self._touched[pages] = False
        self.sums.tallies[block.rows] = 0
        self.high_water.maxima[block.rows] = 0
        self.sums.pool_sums[:] = 0
        self.high_water.peaks[:] = 0
        return block

    def block(self) -> Block:
        """All of it, so far."""
        return self.sums.block(self._pages_used(), self.high_water)

    def _pages_used(self) -> NDArray[np.intp]:
        return np.flatnonzero(self._touched[: self._pages.size])


class WindowStore:
    """One window: running sums, and the blocks of each step, which are subtracted again when the step leaves.

    A step is numbered by its start: ``start_ns // step_ns``. ``first`` and ``open`` are the oldest step still in
    the sums and the one being filled.
    """

    def __init__(self, window: Window, pages: PageTable, capacity: Capacity, now_ns: int) -> None:
        self.window = window
        self.step_ns = window.step * SECOND_NS
        self.since_ns = now_ns
        self.first = self.open = now_ns // self.step_ns
        self.running = Sums(pages, capacity)
        self.steps: dict[int, list[Block]] = {}
        """Blocks by step, in order of time."""
        self.block_bytes = 0
        self._pages, self._capacity = pages, capacity
        self._high_water: HighWaterMarks | None = None

    def count(self, block: Block, places: NDArray[np.intp]) -> None:
        """Count *block*, whose cells count at *places*, in the open step."""
        self.running.add(block, places)
        self.steps.setdefault(self.open, []).append(block)
        self.block_bytes += _held(block)
        self._high_water = None

    def go_on(self, step: int) -> None:
        """Make *step* the open one, and let those that are too old for it leave."""
        self._forget_before(step - self.window.steps + 1)
        self.open = step

    def to_merge(self) -> list[Block]:
        """The blocks of the first closed step that has several; none if no step has."""
        return next((blocks for step, blocks in self.steps.items() if len(blocks) > 1 and step < self.open), [])

    def replace(self, some: list[Block], merged: Block) -> None:
        """Put *merged* in the place of *some*, if they are all in one step."""
        gone = {id(block) for block in some}
        for step, blocks in self.steps.items():
            kept = [block for block in blocks if id(block) not in gone]
            if len(kept) < len(blocks):
                if len(kept) + len(some) == len(blocks):
                    self.steps[step] = [*kept, merged] if step == self.open else [merged, *kept]
                    self.block_bytes += _held(merged) - sum(map(_held, some))
                return

    def forget_oldest(self) -> bool:
        """Let the oldest closed step that holds anything go before its time. Returns whether there was one."""
        oldest = next(iter(self.steps), self.open)
        if oldest == self.open:
            return False
        self._forget_before(oldest + 1)
        return True

    def covered_ns(self, now_ns: int) -> int:
        """How far back from *now_ns* the sums reach."""
        return now_ns - max(self.since_ns, self.first * self.step_ns)

    def high_water(self) -> HighWaterMarks:
        """Of all steps, without the open second."""
        if self._high_water is None:
            self._high_water = HighWaterMarks.none(self._capacity)
            for block in self.blocks():
                self._high_water.raise_to(block)
        return self._high_water

    def blocks(self) -> Iterator[Block]:
        for blocks in self.steps.values():
            yield from blocks

    def _forget_before(self, step: int) -> None:
        """Take every step before *step* out of the sums."""
        while (oldest := next(iter(self.steps), step)) < step:
            for block in self.steps.pop(oldest):
                self.running.subtract(block, self._pages.places_of(block.cells))
                self.block_bytes -= _held(block)
            self._high_water = None
        self.first = max(self.first, step)


class Windows:
    """All windows together, over at most *rows* rows of *pools* pools, in at most *limit_bytes*.

    The limit has to be above `most_fixed_bytes`. Time never goes back: each call's *now_ns* is at least the one
    before. *closed* is called with the number and the block of every second that closes.
    """

    def __init__(
        self,
        now_ns: int,
        rows: int,
        pools: int,
        limit_bytes: int,
        closed: Callable[[int, Block], object] = lambda _second, _block: None,
    ) -> None:
        self.limit_bytes = limit_bytes
        self.capacity = Capacity(rows, pools)
        self.pages = PageTable(rows)
        self.totals = Sums(self.pages, self.capacity, np.int64)
        """All seconds that have closed since the beginning."""
        self.open = OpenSecond(self.pages, self.capacity)
        self.second = now_ns // SECOND_NS
        """The open one."""
        self._measured_ns = now_ns
        """Until when it is noted that time was measured."""
        self._closed = closed
        self._stores: dict[str, WindowStore]
        self._clear(now_ns)

    @staticmethod
    def most_fixed_bytes(rows: int, pools: int) -> int:
        """Bytes held when every row uses all of its buckets, without the blocks of the steps."""
        return _fixed_bytes(Capacity(rows, pools)) + (1 + rows * KEYS_PER_ROW // CHUNK) * _PAGE_BYTES

    def stores(self) -> Iterable[WindowStore]:
        return self._stores.values()

    def __getitem__(self, window: Window) -> WindowStore:
        return self._stores[window.name]

    @property
    def nbytes(self) -> int:
        """Bytes held now; blocks that two windows share are counted in both."""
        blocks = sum(store.block_bytes for store in self._stores.values())
        return _fixed_bytes(self.capacity) + self.pages.size * _PAGE_BYTES + blocks

    def add(self, now_ns: int, batch: CallBatch) -> None:
        """Count *batch* at *now_ns*."""
        self.advance(now_ns)
        pages = self.pages.size
        self.open.add(batch)
        if self.pages.size > pages:
            self._keep_within_limit(now_ns)

    def note(self, now_ns: int, pool: int, column: int, times: int = 1) -> None:
        """Count something in a column of a pool's sums at *now_ns*."""
        self.advance(now_ns)
        self.open.sums.pool_sums[pool, column] += times

    def advance(self, now_ns: int) -> None:
        """Close what is over, let steps that have become too old leave, and note that time has been measured."""
        second = now_ns // SECOND_NS
        if second > self.second:
            silent = second - self.second > SILENCE
            for over in range(self.second, self.second + 1 if silent else second):
                self._measure((over + 1) * SECOND_NS)
                self._close(over)
            self.second = second
            if silent:
                self._measured_ns = second * SECOND_NS
            for store in self._stores.values():
                store.go_on(now_ns // store.step_ns)
            self._keep_within_limit(now_ns)
        self._measure(now_ns)

    def close_second(self, now_ns: int) -> None:
        """Close the open second at *now_ns*. What is counted in the rest of it will be a second block of it."""
        self.advance(now_ns)
        self._close(self.second)
        self._keep_within_limit(now_ns)

    def tidy(self) -> Iterator[None]:
        """Merge the blocks of closed steps, piece by piece; anything may happen between two pieces.

        Finer steps come first. Coarser ones hold the same blocks, and get the merged one too.
        """
        while some := next(filter(None, (store.to_merge() for store in self._stores.values())), None):
            some = list(some)
            merged = yield from merging(some)
            for store in self._stores.values():
                store.replace(some, merged)
            yield

    def clear_rows(self, rows: list[int]) -> None:
        """Forget the totals of *rows*, in which no window counts anything, and give their pages back."""
        self.totals.counts.reshape(-1, CHUNK)[self.pages.release(rows)] = 0
        self.totals.tallies[rows] = 0

    def block(self, window: Window) -> Block:
        """All that *window* covers, the open second included."""
        store = self._stores[window.name]
        return merge([store.running.block(np.arange(1, self.pages.size), store.high_water()), self.open.block()])

    def used(self) -> NDArray[np.bool_]:
        """Of each row: whether any window counts anything in it. The longest one may have had to let go of more."""
        used = self.open.sums.tallies.any(axis=1)
        for store in self._stores.values():
            used = used | store.running.tallies.any(axis=1)
        return np.asarray(used, np.bool_)

    def _close(self, second: int) -> None:
        block = self.open.close()
        places = self.pages.places_of(block.cells)
        for store in self._stores.values():
            store.go_on(second * SECOND_NS // store.step_ns)
            store.count(block, places)
        self.totals.add(block, places)
        self._closed(second, block)

    def _measure(self, until_ns: int) -> None:
        self.open.sums.pool_sums[:, MEASURED_NS] += until_ns - self._measured_ns
        self._measured_ns = until_ns

    def _keep_within_limit(self, now_ns: int) -> None:
        while self.nbytes > self.limit_bytes:
            if not max(self._stores.values(), key=lambda store: store.block_bytes).forget_oldest():
                self._clear(now_ns)  # the open steps alone are too much
                return

    def _clear(self, now_ns: int) -> None:
        self._stores = {
            window.name: WindowStore(window, self.pages, self.capacity, now_ns) for window in WINDOWS.values()
        }


_PAGE_BYTES = CHUNK * (4 * len(WINDOWS) + 4 + 8) + 8 + 1
"""Of a page: its counts in every window, the open second and the totals, its chunk, whether it was touched."""


def _held(block: Block) -> int:
    return block.nbytes + _BLOCK_BYTES


def _fixed_bytes(capacity: Capacity) -> int:
    sums = (len(WINDOWS) + 2) * Sums.fixed_bytes(capacity)
    highest = (len(WINDOWS) + 1) * (capacity.rows * len(DISTRIBUTIONS) + capacity.pools * PEAKS) * 8
    return sums + highest + capacity.rows * KEYS_PER_ROW // CHUNK * 4
