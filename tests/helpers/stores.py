"""Histories for tests: blocks with known content, and a process that writes them until it is killed."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import numpy as np

from pool_monitor.clock import ManualClock
from pool_monitor.metrics.block import CHUNK, CHUNK_BITS, Block, Cells, merge
from pool_monitor.metrics.columns import BUSY, DISTRIBUTIONS, MEASURED_NS, PEAKS, POOL_SUMS, SUMS, TALLIES
from pool_monitor.metrics.histogram import BUCKETS, bucket_of
from pool_monitor.metrics.recording import Recording
from pool_monitor.metrics.series import Names
from pool_monitor.storage import History, HistoryConfig, Reader
from pool_monitor.storage.pending import PendingBlock
from pool_monitor.storage.store import Store

T0 = 1_700_000_400 - 1_700_000_400 % 3600
"""The start of the recorded time: a full hour."""
NAMES = Names((("text", "parse", "0"), ("text", "parse", "1"), ("text", "other", None)), ("text",))
SMALL = HistoryConfig(tiers=((1, 60), (4, 600), (16, 10**8)), size_limit=64 * 2**20)
"""Tiers that fill up in seconds."""


def block(durations: Mapping[int, Sequence[int]], *, pools: Sequence[int] = (0,), mark: int = 0) -> Block:
    """Return the block of one second in which calls of *durations* (ns, by row) ended. All sums contain *mark*."""
    rows = np.array(sorted(durations), np.int64)
    tallies = np.zeros((len(rows), TALLIES), np.int64)
    maxima = np.zeros((len(rows), len(DISTRIBUTIONS)), np.int64)
    keys = [np.zeros(0, np.int64)]
    for at, row in enumerate(rows.tolist()):
        times = np.array(durations[row], np.int64)
        tallies[at, 0] = len(times)
        tallies[at, SUMS.start] = times.sum()
        tallies[at, BUSY] = mark
        maxima[at, 0] = times.max(initial=0)
        keys.append(row * len(DISTRIBUTIONS) * BUCKETS + bucket_of(times))
    places, counts = np.unique(np.concatenate(keys), return_counts=True)
    chunks, at_chunk = np.unique(places >> CHUNK_BITS, return_inverse=True)
    dense = np.zeros((len(chunks), CHUNK), np.int64)
    dense[at_chunk, places & (CHUNK - 1)] = counts
    sums = np.full((len(pools), POOL_SUMS), mark)
    sums[:, MEASURED_NS] = 10**9
    peaks = np.full((len(pools), PEAKS), mark)
    return Block(rows, tallies, maxima, Cells.pack(chunks, dense), np.array(pools, np.int64), sums, peaks)


def pending_blocks(numbers: Iterable[int], names: Names = NAMES) -> list[PendingBlock]:
    """Return a block of one second for each number *n* of *numbers*. It begins *n* seconds after `T0`, has one call of
    *n* + 1 µs on row 0, and the mark *n*. For a negative *n*, duration and mark use its absolute value.
    """
    return [
        PendingBlock(T0 + number, 1, block({0: [1000 * abs(number) + 1000]}, mark=abs(number)), names)
        for number in numbers
    ]


def fat(number: int, rows: int = 4000) -> PendingBlock:
    """Return a block of one second that cannot be compressed, about 60 bytes per row. Its mark is 0."""
    noise = np.random.default_rng(number).integers(0, 2**56, (rows, TALLIES))
    noise[:, BUSY] = 0
    names = Names(tuple(("text", f"operation {row}", None) for row in range(rows)), ())
    maxima = np.zeros((rows, len(DISTRIBUTIONS)), np.int64)
    return PendingBlock(T0 + number, 1, merge([])._replace(rows=np.arange(rows), tallies=noise, maxima=maxima), names)


def write(store: Store, numbers: Iterable[int], *, now: int | None = None) -> None:
    """Write `pending_blocks` to *store* one by one, and tidy it after each. The time advances with the blocks."""
    for pending in pending_blocks(numbers):
        store.write([pending], pending.start + 1 if now is None else now)
        store.tidy(pending.start + 1 if now is None else now)


@contextmanager
def writing(path: Path, config: HistoryConfig = SMALL) -> Iterator[Store]:
    with closing(Store(path, config)) as store:
        yield store


def history_file(path: Path, numbers: Iterable[int], config: HistoryConfig = SMALL) -> Path:
    """Write a file with `pending_blocks`, and return its path."""
    with writing(path, config) as store:
        write(store, numbers)
    return path


def calls(recording: Recording) -> int:
    return sum(int(timed.block.tallies[:, 0].sum()) for timed in recording.blocks)


def marks(recording: Recording) -> int:
    """Return the sum of the marks of all blocks. Merging does not change it."""
    return sum(int(timed.block.tallies[:, BUSY].sum()) for timed in recording.blocks)


def starts(recording: Recording) -> list[int]:
    """Return when the blocks begin, in seconds after `T0`."""
    return [timed.start - T0 for timed in recording.blocks]


def everything(reader: Reader, step: int) -> Recording:
    """Return everything that the reader has in steps of *step*."""
    since = max((tier.since for tier in reader.tiers() if tier.step == step), default=0)
    [first, last] = reader.extent() or (since, since + 1)
    first = max(first, since)
    return reader.read(first // step * step, -(-last // step) * step, step)


def merged(recording: Recording) -> Block:
    return merge([timed.block for timed in recording.blocks])


def rows_in(path: Path) -> dict[int, int]:
    """Return how many blocks of each step the file has."""
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT step, count(*) FROM blocks GROUP BY step").fetchall())


# -- a process that writes until it is killed ---------------------------------------------------------------------


def nursery() -> None:
    """For every line ``PATH FIRST`` on stdin, fork a child that writes from block FIRST on, and print when it is dead.

    It forks because the imports of a new interpreter would take longer than the test may.
    """
    for line in sys.stdin:
        path, first = line.split()
        child = os.fork()
        if not child:
            asyncio.run(_write_on(Path(path), int(first)))
        os.waitpid(child, 0)
        _say("dead")


async def _write_on(path: Path, first: int) -> None:
    """Write blocks as fast as possible, and print the number of each block after which all is flushed."""
    _say(f"pid {os.getpid()}")
    clock = ManualClock(T0 + first)
    history = await History.open(path, SMALL, clock=clock)
    for number in count(first):
        clock.advance(1)
        for pending in pending_blocks([number]):
            history.put(*pending)
        if number % 3 == 0:  # otherwise one transaction takes several blocks
            assert await history.flush(), history.degraded
            _say(f"flushed {number}")


async def full_disk(path: Path) -> None:
    """Write until the limit of file sizes is reached. Then raise the limit, and write the rest."""
    most = 400_000
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    clock = ManualClock(T0)
    history = await History.open(path, SMALL, clock=clock, on_degrade=_say, on_recover=lambda: _say("recovered"))
    for number in count():
        clock.advance(1)
        history.put(*pending_blocks([number])[0])
        if not await history.flush():
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert await history.flush()
    stats = history.stats()
    _say(f"held {stats.held}, dropped {stats.dropped}")
    await history.close()


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    if sys.argv[1:2] == ["full"]:
        asyncio.run(full_disk(Path(sys.argv[2])))
    else:
        nursery()
