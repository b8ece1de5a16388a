"""The history as its owner uses it. After the next flush a block is on disk, or `History.degraded` has the reason why
not.

The event loop never waits for the disk, and no failure of the disk reaches the owner: one task writes the file, in the
thread of an aiosqlite connection. When writing fails, the history is *degraded*: it keeps blocks in memory, tries the
file again after growing pauses, and calls *on_degrade* once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from pool_monitor.clock import Clock, SystemClock
from pool_monitor.config import HistoryConfig
from pool_monitor.errors import ConfigError
from pool_monitor.log import logger
from pool_monitor.metrics.block import ROOM_LIMIT, Block
from pool_monitor.metrics.error_groups import GroupCount
from pool_monitor.metrics.gauges import GaugeBlock, TimedGauges
from pool_monitor.metrics.recording import Recording
from pool_monitor.metrics.series import Names
from pool_monitor.snapshot import ErrorReport
from pool_monitor.storage import error_groups
from pool_monitor.storage.connection import CLOSE_MAX_S, FileConnection, connect
from pool_monitor.storage.evaluations import PendingEvaluation
from pool_monitor.storage.files import expanded
from pool_monitor.storage.gauges import PendingGauges
from pool_monitor.storage.pending import PendingBlock, with_pending
from pool_monitor.storage.reader import Reader
from pool_monitor.storage.sqlite_file import failure_reason
from pool_monitor.storage.store import FileUsage, Pending, Store

RETRY_MAX_S = 60.0
"""Longest pause before a file that could not be written is tried again."""
OPEN_MAX_S = 5.0
"""How long opening waits for a disk that does not answer. After that, the owner begins without the file."""
WRITTEN_AT_ONCE = 32
"""Blocks per transaction when many are held."""
_EXPECTED = (sqlite3.Error, OSError, ConfigError, MemoryError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HistoryStats:
    """The state of a history."""

    path: str
    degraded: str | None
    """Why the file cannot be written; None while it can."""
    held: int
    """Blocks in memory that are not in the file yet."""
    held_bytes: int
    dropped: int
    """Blocks that were lost: the memory limit was reached, or they could not be written at all."""
    damaged: int
    """Blocks of the file that could not be read when they were to be rolled up."""
    file_bytes: int | None
    """Size of the file and its log after the last flush; None before the first."""
    size_limit: int
    blocks: dict[int, int] = field(default_factory=dict)
    """Blocks in the file by the step of their tier, in seconds."""
    flush_seconds: float | None = None
    """Duration of the last transaction that wrote blocks; None before the first."""
    disk_free: int | None = None
    """Bytes that we may still write on the disk of the file, after the last flush; None: not known."""
    disk_total: int | None = None


class History:
    """Writes blocks to a file. Made by `open`; its methods must be called in the event loop it was opened in.

    Only `read` and `extent` raise for problems of the file or the disk. `HistoryConfig` bounds the blocks in memory by
    ``memory_limit``, and the file with its log by ``size_limit``.
    """

    def __init__(
        self,
        path: Path,
        config: HistoryConfig,
        clock: Clock,
        on_degrade: Callable[[str], object],
        on_recover: Callable[[], object],
        spent: Callable[[float], object],
    ) -> None:
        self.path, self.config = expanded(path), config
        self._clock, self._on_degrade, self._on_recover, self._spent = clock, on_degrade, on_recover, spent
        self._held: deque[Pending] = deque()
        self._held_bytes = 0  # including the blocks that are being written
        self._dropped = self._damaged = 0
        self._usage: FileUsage | None = None
        self._flush_s: float | None = None
        self._degraded: str | None = None
        self._failures = 0
        self._connection: FileConnection[Store] | None = None
        self._file = asyncio.Lock()  # held while writing or reading: no block may be seen in the file and in memory
        self._wake = asyncio.Event()
        self._flushed: list[asyncio.Future[bool]] = []
        self._closing = self._hung = False
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="pool_monitor history")

    @classmethod
    async def open(
        cls,
        path: str | Path,
        config: HistoryConfig | None = None,
        *,
        clock: Clock | None = None,
        on_degrade: Callable[[str], object] = lambda _reason: None,
        on_recover: Callable[[], object] = lambda: None,
        spent: Callable[[float], object] = lambda _cpu_s: None,
    ) -> Self:
        """Open a history in the file *path*. A missing file is made, with access for us alone.

        Never raises for problems of the file, and waits for it at most `OPEN_MAX_S`; if it is not open by then, the
        history begins degraded. *on_degrade* is called with the reason when the file can no longer be written,
        *on_recover* when it can be written again. *spent* is called in the history's thread with the processor time of
        each piece of its work, in seconds. None of them may raise.
        """
        history = cls(Path(path), config or HistoryConfig(), clock or SystemClock(), on_degrade, on_recover, spent)
        try:
            async with asyncio.timeout(OPEN_MAX_S):
                await history.flush()
        except TimeoutError:
            history._note_degraded(f"{path}: the disk has not answered for {OPEN_MAX_S:.0f} s")
        except BaseException:
            history._task.cancel()
            raise
        return history

    @property
    def degraded(self) -> str | None:
        """Why the file cannot be written; None while it can."""
        return self._degraded

    def check(self) -> None:
        """Raise RuntimeError when the task that writes has ended before `close`."""
        if self._task.done() and not self._closing:
            raise RuntimeError("the task that writes the history has ended") from (
                None if self._task.cancelled() else self._task.exception()
            )

    def put(self, start: int, length: int, block: Block, names: Names, errors: Sequence[GroupCount] = ()) -> None:
        """Queue *block* to be written: the counts of *length* seconds from *start* on (wall clock). Never blocks.

        *names* has the names of its rows and pools, *errors* the failures in that time by error group. None of them may
        be changed afterwards. A block is dropped after `close`, and when it takes more than `ROOM_LIMIT`.
        """
        if self._closing or block.room > ROOM_LIMIT:
            self._dropped += 1
        elif len(block.rows) or len(block.pools):
            self._hold(PendingBlock(start, length, block, names, errors))

    def put_gauges(self, start: int, length: int, block: GaugeBlock) -> None:
        """Queue the gauges of *length* seconds from *start* on. As `put`, but a loss of them is not counted."""
        if not self._closing:
            self._hold(PendingGauges(start, length, block))

    def put_evaluation(self, at: float, body: bytes, transitions: Sequence[bytes] = ()) -> None:
        """Queue one evaluation of alert rules to be written, and the changes that followed. As `put_gauges`."""
        if not self._closing:
            self._hold(PendingEvaluation(at, body, tuple(transitions)))

    async def flush(self) -> bool:
        """Write all blocks that were put before. Returns whether they are in the file."""
        if self._task.done():
            return False
        flushed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flushed.append(flushed)
        self._wake.set()
        return await flushed

    async def read(self, start: int, end: int, step: int) -> Recording:
        """As `Reader.read`, plus the blocks in memory. If the history is degraded and has no file, only those."""
        async with self._file:
            held = [pending for pending in _blocks(self._held) if start <= pending.start < end]
            return await asyncio.to_thread(self._read, partial(Reader.read, start=start, end=end, step=step), held)

    async def read_gauges(self, start: int, end: int, step: int) -> list[TimedGauges]:
        """As `Reader.gauges`, plus those in memory."""
        async with self._file:
            held = [
                TimedGauges(*pending)
                for pending in self._held
                if isinstance(pending, PendingGauges) and start <= pending.start < end
            ]
            query = partial(Reader.gauges, start=start, end=end, step=step)
            return await asyncio.to_thread(self._query_file, query, []) + held

    async def extent(self) -> tuple[int, int] | None:
        """As `Reader.extent`, including the blocks in memory."""
        async with self._file:
            held = [(pending.start, pending.start + pending.length) for pending in _blocks(self._held)]
            in_file = await asyncio.to_thread(self._query_file, Reader.extent, None)
        ends = [*held, in_file] if in_file else held
        return (min(first for first, _last in ends), max(last for _first, last in ends)) if ends else None

    async def error_groups(self, start: int, end: int, pool: str | None = None) -> ErrorReport:
        """The error groups of the failures from *start* to *end*, as `Reader.error_groups`, and those in memory."""
        async with self._file:
            query = partial(Reader.error_groups, start=start, end=end, pool=pool)
            first, last, found = await asyncio.to_thread(self._query_file, query, (start, end, {}))
            held = [
                count for pending in _blocks(self._held) if first <= pending.start < last for count in pending.errors
            ]
        ended = max(min(last, self._now()), first)  # whole steps may end in the future
        groups = error_groups.with_pending(found, held, ended - first, pool)
        return ErrorReport(start=first, end=ended, covered_seconds=ended - first, pools=groups)

    async def errors_first_seen(self) -> dict[tuple[str, str], float]:
        """When each error group in the file was first seen, by pool and fingerprint. Empty if it cannot be read."""
        async with self._file:
            try:
                return await asyncio.to_thread(self._query_file, Reader.errors_first_seen, {})
            except ConfigError:
                return {}

    @property
    def held_bytes(self) -> int:
        """Memory of the blocks that wait to be written or are being written."""
        return self._held_bytes

    def stats(self) -> HistoryStats:
        usage = self._usage
        disk = usage if self._degraded is None else None  # what was read last may no longer hold
        return HistoryStats(
            path=str(self.path),
            degraded=self._degraded,
            held=len(_blocks(self._held)),
            held_bytes=self._held_bytes,
            dropped=self._dropped,
            damaged=self._damaged + (self._connection.store.damaged if self._connection else 0),
            file_bytes=usage.file_bytes if usage else None,
            size_limit=self.config.size_limit,
            blocks=dict(usage.blocks) if usage else {},
            flush_seconds=self._flush_s,
            disk_free=disk.disk_free if disk else None,
            disk_total=disk.disk_total if disk else None,
        )

    async def close(self) -> None:
        """Write the blocks in memory, and close the file. Waits for the disk at most `CLOSE_MAX_S`."""
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._task], timeout=CLOSE_MAX_S)
        if not self._task.done():
            self._hung = True
            self._task.cancel()
            self._note_degraded(f"{self.path}: the disk has not answered for {CLOSE_MAX_S:.0f} s")
        if self._held:
            seconds = len(_blocks(self._held))
            logger("storage").warning("the end of the history was not written", seconds=seconds, reason=self._degraded)
            self._dropped += seconds
        self._held.clear()
        self._held_bytes = 0

    # -- writing --------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        last = False
        try:
            while not last:
                await self._pause()
                last = self._closing
                flushed, self._flushed = self._flushed, []
                written = False
                try:
                    async with self._file:
                        written = await self._write()
                finally:
                    _resolve(flushed, written)
        finally:
            await self._disconnect()
            _resolve(self._flushed, False)

    async def _pause(self) -> None:
        """Wait until it is time to write, or until `flush` or `close` asks for it."""
        if not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval()):
                    await self._wake.wait()
        self._wake.clear()

    def _interval(self) -> float:
        interval = self.config.flush_interval
        return max(interval, min(interval * 2**self._failures, RETRY_MAX_S)) if self._failures else interval

    async def _write(self) -> bool:
        """Write the blocks in memory, and tidy the file. Returns whether all of that succeeded."""
        batch: list[Pending] = []
        try:
            if self._connection is None:
                self._connection = await connect(partial(Store, self.path, self.config))
                self._connection.spent = self._spent
            store, run = self._connection.store, self._connection.run
            while self._held:
                batch = [self._held.popleft() for _ in range(min(len(self._held), WRITTEN_AT_ONCE))]
                began = self._clock.monotonic_ns()
                await run(partial(store.write, batch, self._now()))
                self._flush_s = (self._clock.monotonic_ns() - began) / 1e9
                self._held_bytes -= sum(pending.nbytes for pending in batch)
                batch = []
            await run(partial(store.tidy, self._now()))
            self._usage = await run(store.usage)
        except _EXPECTED as error:
            self._held.extendleft(reversed(batch))
            self._trim()
            await self._degrade(error)
            return False
        except Exception as error:  # noqa: BLE001 - a defect of ours: writing the same blocks again would fail again
            logger("storage").exception("blocks could not be written", blocks=len(batch))
            self._dropped += len(_blocks(batch))
            self._held_bytes -= sum(pending.nbytes for pending in batch)
            await self._degrade(error)
            return False
        self._failures = 0
        if self._degraded is not None:
            self._degraded = None
            self._on_recover()
        return True

    def _now(self) -> int:
        return self._clock.wall_ns() // 1_000_000_000

    def _hold(self, pending: Pending) -> None:
        self._held.append(pending)
        self._held_bytes += pending.nbytes
        self._trim()

    def _trim(self) -> None:
        """Drop the oldest blocks in memory until the rest is within the limit. One block is always kept."""
        while self._held_bytes > self.config.memory_limit and len(self._held) > 1:
            oldest = self._held.popleft()
            self._held_bytes -= oldest.nbytes
            self._dropped += len(_blocks([oldest]))

    async def _degrade(self, error: Exception) -> None:
        await self._disconnect()
        self._failures += 1
        self._note_degraded(failure_reason(self.path, error))

    def _note_degraded(self, why: str) -> None:
        before, self._degraded = self._degraded, why
        if before is None:
            self._on_degrade(why)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._damaged += connection.store.damaged
        if self._hung:
            connection.stop()  # takes effect once the hanging thread goes on
            return
        with suppress(*_EXPECTED):
            await connection.close()

    # -- reading --------------------------------------------------------------------------------------------------

    def _read(self, query: Callable[[Reader], Recording], held: list[PendingBlock]) -> Recording:
        return with_pending(self._query_file(query, Recording(Names((), ()), [])), held)

    def _query_file(self, query: Callable[[Reader], T], otherwise: T) -> T:
        """What *query* returns for the file; *otherwise* when the history is degraded and the file cannot be read."""
        try:
            reader = Reader(self.path)
        except ConfigError:
            if self._degraded is None:
                raise
            return otherwise
        with reader:
            return query(reader)


def _blocks(held: Iterable[Pending]) -> list[PendingBlock]:
    """The blocks of calls among *held*."""
    return [pending for pending in held if isinstance(pending, PendingBlock)]


def _resolve(waiting: list[asyncio.Future[bool]], written: bool) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(written)
