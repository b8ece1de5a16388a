"""What the advisor remembers of the workers of one pool: their calls by windows of five minutes, and their memory."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.history import ERROR, TIMEOUT, WORKER_LOST, WORKERS, Floats, WorkerHistory

WINDOW_S = 300.0
WINDOWS = 108
"""Windows that are kept: 9 hours."""
RSS_LATEST = 360
"""Samples of memory that are kept as they are: an hour, 10 s apart."""
RSS_MINIMA = 288
"""Minima of five minutes before them: 24 hours."""
_CALLS, _BUSY, _EXPECTED, _FAILED = range(4)
BYTES = WORKERS * (WINDOWS * 4 * 8 + (RSS_LATEST + RSS_MINIMA) * 2 * 8) + 3 * WORKERS * 256 * 8
"""Most bytes of a `WorkerJournal`."""


class _TakenProcess(NamedTuple):
    minima: array[float]
    latest: array[float]
    since: float | None
    rss_limit: float | None
    leak_rate: float | None


class _Process:
    """The process of a slot: since when it is ready, and its samples of memory."""

    __slots__ = ("latest", "leak_rate", "minima", "pid", "rss_limit", "since")

    def __init__(self) -> None:
        self.since: float | None = None
        self.pid: object = None
        self.rss_limit: float | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the samples: they are of another process."""
        self.leak_rate: float | None = None
        self.latest, self.minima = array("d"), array("d")  # pairs: when, and how many bytes

    def taken(self) -> _TakenProcess:
        """Copies of what there is now."""
        return _TakenProcess(self.minima[:], self.latest[:], self.since, self.rss_limit, self.leak_rate)

    def sample(self, at: float, rss: float) -> None:
        self.latest.extend((at, rss))
        if len(self.latest) <= 2 * RSS_LATEST:
            return
        old, before = self.latest[:2]
        del self.latest[:2]
        if self.minima and self.minima[-2] // WINDOW_S == old // WINDOW_S:
            if before < self.minima[-1]:
                self.minima[-2:] = array("d", (old, before))
            return
        self.minima.extend((old, before))
        if len(self.minima) > 2 * RSS_MINIMA:
            del self.minima[:2]


class WorkerJournal:
    """The windows and samples of the workers of one pool, at most `WORKERS` slots."""

    def __init__(self) -> None:
        self._window: int | None = None
        self._counts = np.zeros((1, 1))  # by operation and worker: calls of the window that goes on
        self._seconds = np.zeros((1, 1))
        self._failed = np.zeros(1)
        self._rows: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=WINDOWS)
        self._processes: dict[int, _Process] = {}

    @property
    def nbytes(self) -> int:
        samples = sum(len(process.latest) + len(process.minima) for process in self._processes.values())
        return (
            sum(row.nbytes for _number, row in self._rows)
            + self._counts.nbytes * 2
            + samples * 8
            + len(self._processes) * 400
        )

    def add(
        self,
        ended: NDArray[np.float64],
        operation: NDArray[np.int32],
        worker: NDArray[np.int32],
        outcome: NDArray[np.int32],
        seconds: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> None:
        """Count calls that workers had."""
        self._turn(math.floor(float(ended[-1]) / WINDOW_S))
        self._grow(int(operation.max()) + 1, int(worker.max()) + 1)
        shape = self._counts.shape
        flat = operation * np.int64(shape[1]) + worker
        self._counts += np.bincount(flat, weight, self._counts.size).reshape(shape)
        self._seconds += np.bincount(flat, weight * seconds, self._counts.size).reshape(shape)
        failed = (outcome == ERROR) | (outcome == TIMEOUT) | (outcome == WORKER_LOST)
        if failed.any():
            self._failed += np.bincount(worker[failed], weight[failed], len(self._failed))

    def began(self, worker: int, at: float) -> None:
        """A process became ready in the slot."""
        process = self._processes.setdefault(worker, _Process())
        process.since = at
        process.pid = None
        process.restart()

    def ended(self, worker: int) -> None:
        """The process of the slot has ended, and another one is not ready yet."""
        process = self._processes.get(worker)
        if process is not None:
            process.since = None
            process.restart()

    def sample(self, at: float, worker: int, pid: object, rss: float, leak_rate: float | None) -> None:
        """Keep a sample of the memory of a process."""
        process = self._processes.setdefault(worker, _Process())
        if process.pid is not None and process.pid != pid:
            process.restart()
        process.pid = pid
        process.leak_rate = leak_rate
        process.sample(at, rss)

    def limit(self, worker: int, rss_limit: float | None) -> None:
        """Note from which memory on the process is recycled."""
        self._processes.setdefault(worker, _Process()).rss_limit = rss_limit

    def memories(self) -> list[float]:
        """The latest sample of each process."""
        return [process.latest[-1] for process in self._processes.values() if process.latest]

    def large_memory(self) -> float | None:
        """The memory of a large worker, in bytes: the 95th percentile; None: not known."""
        memories = self.memories()
        return float(np.quantile(memories, 0.95)) if memories else None

    def taken(self, now: float, workers: int) -> Callable[[], dict[int, WorkerHistory]]:
        """What there is now of the first *workers* slots. The function makes the histories of it, by slot; a thread may
        call it.
        """
        self._turn(math.floor(now / WINDOW_S))
        rows = list(self._rows)
        if self._window is not None and self._counts.any():
            rows.append((self._window, self._figures()))
        there = {worker: one.taken() for worker, one in self._processes.items() if worker < workers}
        return partial(_histories, rows, there, workers)

    def histories(self, now: float, workers: int) -> dict[int, WorkerHistory]:
        """The history of each of the first *workers* slots."""
        return self.taken(now, workers)()

    def _figures(self) -> NDArray[np.float64]:
        """By worker: calls, busy seconds, the seconds that the same mix took on all workers, and failed calls."""
        calls = self._counts.sum(axis=1)
        means = np.divide(self._seconds.sum(axis=1), calls, out=np.zeros(len(calls)), where=calls > 0)
        busy = self._seconds.sum(axis=0)
        return np.stack((self._counts.sum(axis=0), busy, means @ self._counts, self._failed), axis=1)

    def _turn(self, window: int) -> None:
        """Put the window that went on among the others, if another one has begun."""
        if self._window is None:
            self._window = window
        if window <= self._window:
            return
        if self._counts.any():
            self._rows.append((self._window, self._figures()))
            self._counts[:] = 0
            self._seconds[:] = 0
            self._failed[:] = 0
        self._window = window
        while self._rows and self._rows[0][0] <= window - WINDOWS:
            self._rows.popleft()

    def _grow(self, operations: int, workers: int) -> None:
        before = self._counts.shape
        if operations > before[0] or workers > before[1]:
            more = ((0, max(operations - before[0], 0)), (0, max(workers - before[1], 0)))
            self._counts, self._seconds = np.pad(self._counts, more), np.pad(self._seconds, more)
            self._failed = np.pad(self._failed, more[1])


def _histories(
    rows: list[tuple[int, NDArray[np.float64]]], processes: Mapping[int, _TakenProcess], workers: int
) -> dict[int, WorkerHistory]:
    table = np.zeros((len(rows), workers, 4))
    for place, (_number, figures) in enumerate(rows):
        table[place, : len(figures)] = figures[:workers]
    at = np.array([number for number, _figures in rows], np.float64) * WINDOW_S
    none = _Process().taken()
    return {worker: _history(processes.get(worker, none), at, table[:, worker]) for worker in range(workers)}


def _history(process: _TakenProcess, at: Floats, table: Floats) -> WorkerHistory:
    samples = np.frombuffer(process.minima + process.latest, np.float64).reshape(-1, 2)
    kept = table[:, _CALLS] > 0
    columns = table[kept].T.copy()
    return WorkerHistory(
        at=at[kept],
        calls=columns[_CALLS],
        busy=columns[_BUSY],
        expected=columns[_EXPECTED],
        failed=columns[_FAILED],
        since=process.since,
        rss=samples[:, 1].copy(),
        rss_at=samples[:, 0].copy(),
        rss_limit=process.rss_limit,
        leak_rate=process.leak_rate,
    )
