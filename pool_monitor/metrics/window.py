"""Sliding windows: exact counts of the last 1, 5 and 15 minutes and the last hour, at a bounded cost.

Theory of operation
-------------------
Time is divided into steps on a fixed grid: 1 s for ``1m``, 5 s for ``5m``, 10 s for ``15m``, 60 s for ``1h``. A window
consists of the open step and the steps before it. Together they are as many as fit into the window's length, so it
never reaches back further than that length, and falls short of it by at most one step. A window keeps *running* sums,
which readers use directly. For each step it also keeps blocks (`pool_monitor.metrics.block`), which are subtracted from
the running sums when the step leaves the window.

Everything is counted once, into the dense arrays of the open second. When the second closes, it becomes a block. The
block is added to the totals, to the running sums of all windows, and to the open step of each window. So the cost of an
event does not depend on the number of windows, and the cost of a second depends on the buckets used in it.

The seconds of a closed step are merged into one block later (`Windows.tidy`). This only saves memory, so it is done
piece by piece, and the event loop can run between two pieces.

Memory is bounded by `Windows.limit_bytes`. When the steps need more (many series, all busy), the window with the most
memory in blocks drops its oldest steps early. The rest stays exact, and `WindowStore.covered_ns` returns how far back
it reaches.

Why not a dense ring of histograms? It takes 450 KB per series and window, against about 10. Why not a list of raw
durations? It grows with the rate, and every answer costs a sort. Why not merge the steps on each query? That is 60
merges per window and query, a dashboard queries every second, and the busier the pool, the longer an answer takes.
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
from pool_monitor.metrics.histogram_pages import HistogramPages, reserved
from pool_monitor.metrics.memory_forecast import AHEAD_S, StepSizes
from pool_monitor.snapshot import WINDOW_NAMES

SECOND_NS = 1_000_000_000
SILENCE = 3
"""Three ticks. If nothing advances the windows for more seconds than this, the gap counts as not measured."""
KEYS_PER_ROW = len(DISTRIBUTIONS) * BUCKETS
_BLOCK_BYTES = 2048
"""Upper estimate of the memory for a block, without its numbers."""
_PAGES_SHARE = 0.5
"""The largest share of the memory beside fixed arrays that histograms may take. The rest is left for the steps."""
LEAST_ROOM = 1024 * 1024
"""Least memory for histograms and steps together."""
_LATEST_S = 10
"""The newest steps of a window are those that ended in this many seconds: at least one."""


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of time that numbers cover: *steps* steps of *step* seconds. A point of its chart covers *trend_step*
    seconds.
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
    """The window called *name*. For any other name, raises ConfigError with the choices."""
    try:
        return WINDOWS[name]
    except (KeyError, TypeError):
        raise ConfigError(f"there is no window {name!r}; choose one of {', '.join(WINDOWS)}") from None


class Capacity(NamedTuple):
    """How many rows and pools the windows can hold."""

    rows: int
    pools: int


class HighWaterMarks(NamedTuple):
    """The parts of a block that cannot be subtracted: longest durations per row, highest gauges per pool."""

    maxima: NDArray[np.int64]
    peaks: NDArray[np.int64]

    @classmethod
    def none(cls, capacity: Capacity) -> HighWaterMarks:
        return cls(np.zeros((capacity.rows, len(DISTRIBUTIONS)), np.int64), np.zeros((capacity.pools, PEAKS), np.int64))

    def raise_to(self, block: Block) -> None:
        self.maxima[block.rows] = np.maximum(self.maxima[block.rows], block.maxima)
        self.peaks[block.pools] = np.maximum(self.peaks[block.pools], block.pool_peaks)


class Sums:
    """The additive parts of a block in dense arrays: every row and pool has a place, zero if nothing was counted."""

    def __init__(
        self, pages: HistogramPages, capacity: Capacity, histogram_type: type[np.signedinteger] = np.int32
    ) -> None:
        self.pages = pages
        self.counts: NDArray[np.signedinteger] = reserved((pages.capacity * CHUNK,), histogram_type)
        """Histograms, laid out by page."""
        self.tallies: NDArray[np.int64] = reserved((capacity.rows, TALLIES), np.int64)
        self.pool_sums = np.zeros((capacity.pools, POOL_SUMS), np.int64)

    @staticmethod
    def fixed_bytes(capacity: Capacity) -> int:
        """Bytes held at all times, without the pages."""
        return capacity.rows * TALLIES * 8 + capacity.pools * POOL_SUMS * 8

    def add(self, block: Block, places: NDArray[np.intp]) -> None:
        """Add *block*, whose cells have *places* in the histograms."""
        np.add.at(self.counts, places, block.cells.counts.astype(self.counts.dtype))  # fast for equal types only
        self.tallies[block.rows] += block.tallies
        self.pool_sums[block.pools] += block.pool_sums

    def subtract(self, block: Block, places: NDArray[np.intp]) -> None:
        """Subtract *block*, which was added before."""
        np.subtract.at(self.counts, places, block.cells.counts.astype(self.counts.dtype))
        self.tallies[block.rows] -= block.tallies
        self.pool_sums[block.pools] -= block.pool_sums

    def block(self, pages: NDArray[np.intp], high_water: HighWaterMarks) -> Block:
        """A copy of the sums as a block. *pages* are the pages that have counts."""
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
    """The counts since the last full second."""

    def __init__(self, pages: HistogramPages, capacity: Capacity) -> None:
        self._pages = pages
        self._touched: NDArray[np.bool_] = reserved((pages.capacity,), np.bool_)
        self.sums = Sums(pages, capacity)
        self.high_water = HighWaterMarks.none(capacity)

    def add(self, batch: CallBatch) -> None:
        places = self._pages.places(batch.keys)
        np.add.at(self.sums.counts, places, batch.weight)
        self._touched[places // CHUNK] = True
        rows = len(batch.tallies)
        self.sums.tallies[:rows] += batch.tallies
        self.sums.pool_sums += batch.pool_sums
        np.maximum(self.high_water.maxima[:rows], batch.maxima, out=self.high_water.maxima[:rows])

    def close(self) -> Block:
        """Return the counts as a block, and reset them."""
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
        """The counts so far, as a block."""
        return self.sums.block(self._pages_used(), self.high_water)

    def _pages_used(self) -> NDArray[np.intp]:
        return np.flatnonzero(self._touched[: self._pages.size])


class WindowStore:
    """One window: running sums, and the blocks of each step, which are subtracted when the step leaves.

    The number of a step is ``start_ns // step_ns``. ``first`` is the oldest step in the sums, ``open`` is the step that
    is being filled.
    """

    def __init__(self, window: Window, pages: HistogramPages, capacity: Capacity, now_ns: int) -> None:
        self.window = window
        self.step_ns = window.step * SECOND_NS
        self.since_ns = now_ns
        self.first = self.open = now_ns // self.step_ns
        self.running = Sums(pages, capacity)
        self.steps: dict[int, list[Block]] = {}
        """Blocks by step, oldest first."""
        self.block_bytes = 0
        self._step_bytes: dict[int, int] = {}
        """`block_bytes` by step, for `sizes`, which is called every second: adding up the blocks takes long."""
        self._pages, self._capacity = pages, capacity
        self._high_water: HighWaterMarks | None = None

    def count(self, block: Block, places: NDArray[np.intp]) -> None:
        """Count *block*, whose cells have *places* in the histograms, in the open step."""
        self.running.add(block, places)
        self.steps.setdefault(self.open, []).append(block)
        self._resize(self.open, _held(block))
        self._high_water = None

    def go_on(self, step: int) -> None:
        """Make *step* the open step, and drop the steps that are too old for it."""
        self._forget_before(step - self.window.steps + 1)
        self.open = step

    def to_merge(self) -> list[Block]:
        """The blocks of the first closed step that has more than one; empty if there is no such step."""
        return next((blocks for step, blocks in self.steps.items() if len(blocks) > 1 and step < self.open), [])

    def replace(self, some: list[Block], merged: Block) -> None:
        """Replace the blocks *some* by *merged*, if all of them are in the same step."""
        gone = {id(block) for block in some}
        for step, blocks in self.steps.items():
            kept = [block for block in blocks if id(block) not in gone]
            if len(kept) < len(blocks):
                if len(kept) + len(some) == len(blocks):
                    self.steps[step] = [*kept, merged] if step == self.open else [merged, *kept]
                    self._resize(step, _held(merged) - sum(map(_held, some)))
                return

    def forget_oldest(self) -> bool:
        """Drop the oldest closed step that has blocks, before it is due. Returns whether there was one."""
        oldest = next(iter(self.steps), self.open)
        if oldest == self.open:
            return False
        self._forget_before(oldest + 1)
        return True

    def covered_ns(self, now_ns: int) -> int:
        """How far back from *now_ns* the sums reach."""
        return now_ns - max(self.since_ns, self.first * self.step_ns)

    def sizes(self, since_ns: int) -> StepSizes:
        """The sizes of the steps; only steps that began at *since_ns* or later count as the newest ones."""
        window = self.window
        latest = range(self.open - max(_LATEST_S // window.step, 1), self.open)
        newest = [
            self._step_bytes[step] for step in latest if step * self.step_ns >= since_ns and step in self._step_bytes
        ]
        first_left = self.open + AHEAD_S // window.step - window.steps + 1
        leaving = sum(held for step, held in self._step_bytes.items() if step < first_left)
        mean = sum(newest) / len(newest) if newest else None
        return StepSizes(window.steps, window.step, self.block_bytes, mean, leaving)

    def skip_to(self, now_ns: int) -> None:
        """Let an empty window begin at *now_ns*."""
        self.since_ns = now_ns
        self.first = self.open = now_ns // self.step_ns

    def high_water(self) -> HighWaterMarks:
        """The high-water marks of all steps, without the open second."""
        if self._high_water is None:
            self._high_water = HighWaterMarks.none(self._capacity)
            for block in self.blocks():
                self._high_water.raise_to(block)
        return self._high_water

    def blocks(self) -> Iterator[Block]:
        for blocks in self.steps.values():
            yield from blocks

    def _forget_before(self, step: int) -> None:
        """Drop every step before *step*, and subtract it from the sums."""
        while (oldest := next(iter(self.steps), step)) < step:
            for block in self.steps.pop(oldest):
                self.running.subtract(block, self._pages.places_of(block.cells))
            self.block_bytes -= self._step_bytes.pop(oldest)
            self._high_water = None
        self.first = max(self.first, step)

    def _resize(self, step: int, by: int) -> None:
        self._step_bytes[step] = self._step_bytes.get(step, 0) + by
        self.block_bytes += by


class Windows:
    """All windows, over at most *rows* rows of *pools* pools, in at most *limit_bytes* of memory.

    The limit must be at least `least_bytes`. Histograms take at most half of what fixed arrays leave of it;
    `has_room` returns whether more durations fit. *now_ns* must never decrease from one method call to the next.
    *closed* is called with the number and the block of every second that closes. *gapless*: no gap is a time in which
    nothing was measured; all of it counts in the second before it.
    """

    def __init__(
        self,
        now_ns: int,
        rows: int,
        pools: int,
        limit_bytes: int,
        closed: Callable[[int, Block], object] = lambda _second, _block: None,
        *,
        gapless: bool = False,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._gapless = gapless
        self.capacity = Capacity(rows, pools)
        self.pages = HistogramPages(rows)
        self.totals = Sums(self.pages, self.capacity, np.int64)
        """The sums of all closed seconds since the beginning."""
        self.open = OpenSecond(self.pages, self.capacity)
        self.second = now_ns // SECOND_NS
        """The number of the open second."""
        self._measured_ns = now_ns
        """The time up to which `MEASURED_NS` is counted."""
        self._closed = closed
        self._page_limit = int((limit_bytes - _fixed_bytes(self.capacity)) * _PAGES_SHARE) // _PAGE_BYTES
        self._stores: dict[str, WindowStore]
        self._clear(now_ns)

    @staticmethod
    def least_bytes(rows: int, pools: int) -> int:
        """The smallest limit: fixed arrays, and `LEAST_ROOM`."""
        return _fixed_bytes(Capacity(rows, pools)) + LEAST_ROOM

    @staticmethod
    def most_fixed_bytes(rows: int, pools: int) -> int:
        """Bytes held when every row uses all its buckets, without the blocks of the steps."""
        return _fixed_bytes(Capacity(rows, pools)) + (1 + rows * KEYS_PER_ROW // CHUNK) * _PAGE_BYTES

    def stores(self) -> Iterable[WindowStore]:
        return self._stores.values()

    def __getitem__(self, window: Window) -> WindowStore:
        return self._stores[window.name]

    @property
    def nbytes(self) -> int:
        """Bytes held now. A block that two windows share counts twice."""
        return self._bytes_beside_steps() + sum(store.block_bytes for store in self._stores.values())

    @property
    def room_for_steps(self) -> int:
        """Bytes that the limit leaves for the blocks of the steps."""
        return self.limit_bytes - self._bytes_beside_steps()

    def has_room(self, keys: NDArray[np.intp]) -> bool:
        """Whether there is memory for histograms with these *keys* (`fold.CallBatch`)."""
        left = self._page_limit - self.pages.used
        return left >= len(keys) or left >= self.pages.missing(keys)

    def add(self, now_ns: int, batch: CallBatch) -> None:
        """Count *batch* at *now_ns*."""
        self.advance(now_ns)
        pages = self.pages.size
        self.open.add(batch)
        if self.pages.size > pages:
            self._keep_within_limit(now_ns)

    def note(self, now_ns: int, pool: int, column: int, times: int = 1) -> None:
        """Add *times* to a column of a pool's sums at *now_ns*."""
        self.advance(now_ns)
        self.open.sums.pool_sums[pool, column] += times

    def advance(self, now_ns: int) -> None:
        """Close the seconds before *now_ns*, drop steps that are too old, and count the time as measured."""
        second = now_ns // SECOND_NS
        if second > self.second:
            silent = second - self.second > SILENCE
            for over in range(self.second, self.second + 1 if silent else second):
                self._measure((second if silent and self._gapless else over + 1) * SECOND_NS)
                self._close(over)
            self.second = second
            if silent:
                self._measured_ns = second * SECOND_NS
            for store in self._stores.values():
                store.go_on(now_ns // store.step_ns)
            self._keep_within_limit(now_ns)
        self._measure(now_ns)

    def skip(self, now_ns: int) -> None:
        """Empty the windows and begin again at *now_ns*. The time before it does not count as measured."""
        if any(store.steps for store in self._stores.values()):
            self._clear(now_ns)
        for store in self._stores.values():
            store.skip_to(now_ns)
        self.second, self._measured_ns = now_ns // SECOND_NS, now_ns

    def close_second(self, now_ns: int) -> None:
        """Close the open second early, at *now_ns*. Counts in the rest of the second go into another block."""
        self.advance(now_ns)
        self._close(self.second)
        self._keep_within_limit(now_ns)

    def tidy(self) -> Iterator[None]:
        """Merge the blocks of closed steps, piece by piece. Other methods may be called between two pieces.

        Finer steps come first. Coarser steps hold the same blocks, and get the merged block too.
        """
        while some := next(filter(None, (store.to_merge() for store in self._stores.values())), None):
            some = list(some)
            merged = yield from merging(some)
            for store in self._stores.values():
                store.replace(some, merged)
            yield

    def clear_rows(self, rows: list[int]) -> None:
        """Forget the totals of *rows* and free their pages. No window may have counts in these rows."""
        self.totals.counts.reshape(-1, CHUNK)[self.pages.release(rows)] = 0
        self.totals.tallies[rows] = 0

    def block(self, window: Window) -> Block:
        """Everything in *window*, including the open second."""
        store = self._stores[window.name]
        return merge([store.running.block(np.arange(1, self.pages.size), store.high_water()), self.open.block()])

    def used(self) -> NDArray[np.bool_]:
        """Whether each row has counts in any window. All windows are read: the longest may have dropped more steps."""
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
                self._clear(now_ns)  # the open steps alone exceed the limit
                return

    def _bytes_beside_steps(self) -> int:
        return _fixed_bytes(self.capacity) + self.pages.size * _PAGE_BYTES

    def _clear(self, now_ns: int) -> None:
        self._stores = {
            window.name: WindowStore(window, self.pages, self.capacity, now_ns) for window in WINDOWS.values()
        }


_PAGE_BYTES = CHUNK * (4 * len(WINDOWS) + 4 + 8) + 8 + 1
"""Bytes per page: its counts in every window, the open second and the totals; its chunk; whether it was touched."""


def _held(block: Block) -> int:
    return block.nbytes + _BLOCK_BYTES


def _fixed_bytes(capacity: Capacity) -> int:
    sums = (len(WINDOWS) + 2) * Sums.fixed_bytes(capacity)
    highest = (len(WINDOWS) + 1) * (capacity.rows * len(DISTRIBUTIONS) + capacity.pools * PEAKS) * 8
    return sums + highest + capacity.rows * KEYS_PER_ROW // CHUNK * 4
