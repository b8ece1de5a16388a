"""The latest calls of a pool that have ended, as columns."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from pool_monitor.advisor.history import CALLS, Calls, Floats, Ints

CHUNK = 4096
"""Calls of a chunk that is full."""
_TIMES = 3
_CODES = 4
_CALL = _TIMES * 8 + _CODES * 4
BYTES = (CALLS + 2 * CHUNK) * _CALL + 16 * 1024
"""Most bytes of a ring: the first chunk is forgotten as a whole."""


class CallChunk(NamedTuple):
    """Some calls. It is never changed once it is there, so that another thread may read it."""

    times: Floats
    """Rows (arrived, started, ended), in seconds."""
    codes: Ints
    """Rows (operation, worker, outcome, error)."""

    @property
    def calls(self) -> int:
        return int(self.times.shape[1])


class CallRing:
    """Keeps the latest *most* calls, in the order in which they were added.

    They are in chunks that never change: `chunks` costs nothing, and `joined` may be called in a thread.
    """

    def __init__(self, most: int = CALLS) -> None:
        self.most = most
        self._full: deque[CallChunk] = deque()
        self._small: list[CallChunk] = []
        """Behind the full ones: fewer than `CHUNK` calls together."""
        self._kept = self._in_small = 0
        self.total = 0
        """Calls that were ever added."""

    @property
    def nbytes(self) -> int:
        return self._kept * _CALL + (len(self._full) + len(self._small)) * 400

    def add(self, times: Floats, codes: Ints) -> None:
        """Add calls: rows (arrived, started, ended), in seconds, and (operation, worker, outcome, error). The arrays
        belong to the ring from then on.
        """
        count = times.shape[1]
        self.total += count
        self._kept += count
        self._in_small += count
        self._small.append(CallChunk(times, codes))
        if self._in_small >= CHUNK or len(self._small) >= 64:
            one = _joined(self._small)
            self._small = []
            if self._in_small >= CHUNK:
                self._full.append(one)
                self._in_small = 0
            else:
                self._small.append(one)
        while self._full and self._kept - self._full[0].calls >= self.most:
            self._kept -= self._full.popleft().calls

    def chunks(self, count: int) -> list[CallChunk]:
        """The chunks that have the latest *count* calls, or as many as there are: for `joined`."""
        found: list[CallChunk] = []
        for chunk in (*reversed(self._small), *reversed(self._full)):
            if count <= 0:
                break
            found.append(chunk)
            count -= chunk.calls
        return found[::-1]

    def latest(self, count: int) -> Calls:
        """The latest *count* calls, or as many as there are."""
        count = min(count, self.most)
        return joined(self.chunks(count), count)


def joined(chunks: list[CallChunk], most: int) -> Calls:
    """The latest *most* calls of *chunks*, as copies."""
    one = _joined(chunks)
    first = max(0, one.calls - max(most, 0))
    return Calls(*one.times[:, first:].copy(), *one.codes[:, first:].copy())


def _joined(chunks: list[CallChunk]) -> CallChunk:
    if not chunks:
        return CallChunk(np.zeros((_TIMES, 0)), np.zeros((_CODES, 0), np.int32))
    return CallChunk(
        np.concatenate([chunk.times for chunk in chunks], axis=1),
        np.concatenate([chunk.codes for chunk in chunks], axis=1),
    )
