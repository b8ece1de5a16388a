"""Sliding windows: what happened in the last 1, 5 and 15 minutes, exactly, at a bounded price.

Theory of operation
-------------------
Monotonic time is cut into slots on a fixed grid: 1 s for ``1m``, 5 s for ``5m``, 15 s for ``15m``. A window is the
open slot and the 59 before it, so it never reaches back further than its name says and falls short of that by at
most one slot. It keeps *running* sums, which a reader takes as they are, and per slot what has to be subtracted
again when the slot leaves: histograms as sparse pairs, the rest as rows of a ring.

Slots nest, so only the open second is kept densely. When it closes its histograms become pairs of key and count and
are handed on: five closed seconds make a closed slot of ``5m``, three of those one of ``15m``. The running sums of
all three are up to date all the time.

Memory is bounded by `Windows.limit_bytes`. When the slots need more (many series, all busy), the oldest slots of the
window that holds the most leave early; what is left stays exact, and `Windows.covered_ns` tells how far it reaches.

Why not a dense ring of histograms? 450 KB per series against 20 to 80. Why not a list of raw durations? It grows
with the rate, and answering costs a sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.errors import ConfigError
from pool_monitor.metrics.fold import DISTRIBUTIONS, TALLIES, Batch
from pool_monitor.metrics.histogram import BUCKET_BITS, BUCKETS

SECOND_NS = 1_000_000_000
SLOTS = 60
KEYS_PER_ROW = len(DISTRIBUTIONS) * BUCKETS
_FIRST_ROWS = 16
_ONE = np.int32(1)  # a plain 1 would cost fifty times as much: np.add.at is fast for equal types only


@dataclass(frozen=True, slots=True)
class Window:
    """A length of time numbers are asked for, with the grain of its slots and of its chart (`trend_step`), in s."""

    name: str
    slot: int
    trend_step: int

    @property
    def seconds(self) -> float:
        return float(self.slot * SLOTS)


WINDOWS: dict[str, Window] = {
    window.name: window for window in (Window("1m", 1, 1), Window("5m", 5, 1), Window("15m", 15, 3))
}
LONGEST = list(WINDOWS.values())[-1]


def parse_window(name: str) -> Window:
    """The window of that name. Raises ConfigError naming the choices."""
    try:
        return WINDOWS[name]
    except (KeyError, TypeError):
        raise ConfigError(f"there is no window {name!r}; choose one of {', '.join(WINDOWS)}") from None


class Pairs(NamedTuple):
    """A sparse histogram of every series: three to four bytes per bucket in use."""

    lengths: NDArray[np.uint16]
    """How many buckets each series uses."""
    buckets: NDArray[np.uint16]
    """Which ones: those of the first series in ascending order, then those of the next."""
    counts: NDArray[np.unsignedinteger]
    """How much is in each, in the smallest type that holds them all."""

    @classmethod
    def pack(cls, keys: NDArray[np.intp], counts: NDArray[np.int32]) -> Pairs:
        """From distinct *keys* in ascending order."""
        return cls(
            lengths=np.bincount(keys >> BUCKET_BITS).astype(np.uint16),
            buckets=(keys & (BUCKETS - 1)).astype(np.uint16),
            counts=counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
        )

    @property
    def keys(self) -> NDArray[np.intp]:
        series = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return (series << BUCKET_BITS) + self.buckets.astype(np.intp)

    @property
    def nbytes(self) -> int:
        return self.lengths.nbytes + self.buckets.nbytes + self.counts.nbytes


class WindowStore:
    """One window: running sums, and what each slot will take out of them again.

    A slot is numbered by its start: ``start_ns // slot_ns``. ``first`` and ``open`` are the oldest slot still in
    the sums and the one being filled.
    """

    def __init__(self, window: Window, now_ns: int) -> None:
        self.window = window
        self.slot_ns = window.slot * SECOND_NS
        self.since_ns = now_ns
        self.first = self.open = now_ns // self.slot_ns
        self.running = np.zeros(0, np.int32)
        """Histogram counts by key."""
        self.tallies = np.zeros((0, TALLIES), np.int64)
        self._slot_tallies = np.zeros((SLOTS, 0, TALLIES), np.int64)
        self._slot_maxima = np.zeros((SLOTS, 0, len(DISTRIBUTIONS)), np.int64)
        self._slot_pairs: list[Pairs | None] = [None] * SLOTS
        self.pieces: list[Pairs] = []
        """What has been handed on to the open slot so far."""
        self.pair_bytes = 0

    @staticmethod
    def fixed_bytes(rows: int) -> int:
        """Bytes held for *rows* rows, whatever happens in them."""
        histograms = rows * KEYS_PER_ROW * 4
        return histograms + rows * (TALLIES * (SLOTS + 1) + len(DISTRIBUTIONS) * SLOTS) * 8

    def grow(self, rows: int) -> None:
        """Make room for *rows* rows."""
        self.running = _grown(self.running, rows * KEYS_PER_ROW, axis=0)
        self.tallies = _grown(self.tallies, rows, axis=0)
        self._slot_tallies = _grown(self._slot_tallies, rows, axis=1)
        self._slot_maxima = _grown(self._slot_maxima, rows, axis=1)

    def add(self, batch: Batch) -> None:
        """Count *batch* in the open slot. Its histograms have to be handed on as a piece later."""
        rows = len(batch.tallies)
        at = self.open % SLOTS
        np.add.at(self.running, batch.keys, _ONE)
        self.tallies[:rows] += batch.tallies
        self._slot_tallies[at, :rows] += batch.tallies
        np.maximum(self._slot_maxima[at, :rows], batch.maxima, out=self._slot_maxima[at, :rows])

    def hand_on(self, piece: Pairs) -> None:
        """Remember what was added to the open slot; the sums have it already."""
        self.pieces.append(piece)
        self.pair_bytes += piece.nbytes

    def close(self, slot: int, pairs: Pairs | None) -> None:
        """Go on to *slot*. *pairs* is all that the one open until now holds."""
        self.pair_bytes -= sum(piece.nbytes for piece in self.pieces)
        self.pieces = []
        self._slot_pairs[self.open % SLOTS] = pairs
        self.pair_bytes += pairs.nbytes if pairs else 0
        self._forget_before(slot - SLOTS + 1)
        self.open = slot

    def forget_oldest(self) -> bool:
        """Let the oldest closed slot that holds pairs go before its time. Returns whether there was one."""
        for slot in range(self.first, self.open):
            if self._slot_pairs[slot % SLOTS] is not None:
                self._forget_before(slot + 1)
                return True
        return False

    def covered_ns(self, now_ns: int) -> int:
        """How far back from *now_ns* the sums reach."""
        return now_ns - max(self.since_ns, self.first * self.slot_ns)

    def maxima(self) -> NDArray[np.int64]:
        """Longest durations, ns: shape (rows, distributions)."""
        longest: NDArray[np.int64] = self._slot_maxima.max(axis=0)
        return longest

    def _forget_before(self, slot: int) -> None:
        """Take every slot before *slot* out of the sums."""
        for gone in range(self.first, min(slot, self.open + 1)):
            at = gone % SLOTS
            pairs = self._slot_pairs[at]
            if pairs is not None:
                self.running[pairs.keys] -= pairs.counts
                self.pair_bytes -= pairs.nbytes
                self._slot_pairs[at] = None
            self.tallies -= self._slot_tallies[at]
            self._slot_tallies[at] = 0
            self._slot_maxima[at] = 0
        self.first = max(self.first, slot)


class Windows:
    """All windows together, over at most *row_limit* rows, in at most *limit_bytes*.

    The limit has to be above `fixed_bytes`. Time never goes back: each call's *now_ns* is at least the one before.
    """

    def __init__(self, now_ns: int, row_limit: int, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.rows = 0
        self._row_limit = row_limit
        self._stores: dict[str, WindowStore]
        self._open_second: NDArray[np.int32]
        """Histogram counts of the open second by key."""
        self._second_is_empty: bool
        self._clear(now_ns)

    @staticmethod
    def fixed_bytes(rows: int) -> int:
        """Bytes held for *rows* rows with nothing in them."""
        return len(WINDOWS) * WindowStore.fixed_bytes(rows) + rows * KEYS_PER_ROW * 4

    def __getitem__(self, window: Window) -> WindowStore:
        return self._stores[window.name]

    @property
    def nbytes(self) -> int:
        """Bytes held now; pairs that two windows share are counted in both."""
        return self.fixed_bytes(self.rows) + sum(store.pair_bytes for store in self._stores.values())

    def grow(self, rows: int) -> None:
        """Make room for *rows* rows and some more: a quarter, because doubling would leave megabytes unused."""
        if rows > self.rows:
            self.rows = min(max(rows + rows // 4, _FIRST_ROWS), self._row_limit)
            self._open_second = _grown(self._open_second, self.rows * KEYS_PER_ROW, axis=0)
            for store in self._stores.values():
                store.grow(self.rows)

    def add(self, now_ns: int, batch: Batch) -> None:
        """Count *batch* at *now_ns*."""
        self.grow(len(batch.tallies))
        self.advance(now_ns)
        for store in self._stores.values():
            store.add(batch)
        np.add.at(self._open_second, batch.keys, _ONE)
        self._second_is_empty = self._second_is_empty and not len(batch.keys)

    def advance(self, now_ns: int) -> None:
        """Let slots that have become too old leave."""
        second, *coarser = self._stores.values()
        if now_ns // second.slot_ns <= second.open:
            return
        closed = None if self._second_is_empty else self._drained()
        self._second_is_empty = True
        second.close(now_ns // second.slot_ns, closed)
        for store in coarser:
            if closed is not None:
                store.hand_on(closed)
            slot = now_ns // store.slot_ns
            if slot <= store.open:
                break
            closed = self._merged(store.pieces)
            store.close(slot, closed)
        self._keep_within_limit(now_ns)

    def used(self) -> NDArray[np.bool_]:
        """Which rows any window holds anything of."""
        used = np.zeros(self.rows, bool)
        for store in self._stores.values():
            used |= store.tallies.any(axis=1)
        return used

    def _merged(self, pieces: list[Pairs]) -> Pairs | None:
        """All *pieces* as one. Only while the open second is empty: its place serves as scratch paper."""
        if len(pieces) < 2:
            return pieces[0] if pieces else None
        for piece in pieces:
            self._open_second[piece.keys] += piece.counts
        return self._drained()

    def _drained(self) -> Pairs:
        """What the open second holds, which is empty after that."""
        # Comparing first is five times as fast as np.flatnonzero of numbers, and a scan several times as fast as
        # sorting the keys of a busy second.
        keys = np.flatnonzero(self._open_second != 0)
        pairs = Pairs.pack(keys, self._open_second[keys])
        self._open_second[keys] = 0
        return pairs

    def _keep_within_limit(self, now_ns: int) -> None:
        while self.nbytes > self.limit_bytes:
            if not max(self._stores.values(), key=lambda store: store.pair_bytes).forget_oldest():
                # The open slots alone are too much. They are interwoven, so they can only go together.
                self._clear(now_ns)
                return

    def _clear(self, now_ns: int) -> None:
        self._stores = {window.name: WindowStore(window, now_ns) for window in WINDOWS.values()}
        for store in self._stores.values():
            store.grow(self.rows)
        self._open_second = np.zeros(self.rows * KEYS_PER_ROW, np.int32)
        self._second_is_empty = True


def _grown(array: NDArray[Any], size: int, axis: int) -> NDArray[Any]:
    """A copy of *array* with *size* entries along *axis*, the new ones zero."""
    shape = list(array.shape)
    shape[axis] = size
    grown = np.zeros(shape, array.dtype)
    grown[tuple(slice(length) for length in array.shape)] = array
    return grown
