"""Run the lines of ``pool-monitor run`` through a pool.

Theory of operation: a reader task starts one task per line. These tasks share a semaphore, whose value is the number of
calls that the workers take at once. So no call waits in the pool's queue, where its timeout would run. The main task
writes the answers, in the order of the lines or as they are ready.

The reader reads only a few lines ahead of the calls, but many lines ahead of the writer. So in an ordered output, a
slow line delays the lines behind it only when the window (`_WINDOW_LINES`, `_WINDOW_BYTES`) is full.
After Ctrl-C, no line begins behind the last line that has begun. Lines that have begun are finished and written, so an
ordered output is the beginning of the complete output, without gaps or repetitions.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from pool_monitor.cli.jsonl import Job, OutputLine, output_line
from pool_monitor.cli.output import remark
from pool_monitor.cli.result_file import ResultFile
from pool_monitor.errors import UnknownOperation
from pool_monitor.pool.pool import Pool

_AHEAD = 8  # lines that are read and have not begun, per call at once
_WINDOW_LINES = 10_000  # lines that are read and not yet answered in the output
_WINDOW_BYTES = 64 << 20  # the length of these lines and their answers; a single line may be longer
_NOTED_EVERY = 1.0  # seconds between two updates of the note
_TYPES = 100  # types of errors that are counted separately


class ReadAhead:
    """Bounds the lines that are read and not yet written, in number and in bytes."""

    def __init__(self, lines: int = _WINDOW_LINES, size: int = _WINDOW_BYTES) -> None:
        self._most_lines, self._most_bytes = lines, size
        self.lines = self.bytes = 0
        self._left = asyncio.Event()

    async def enter(self, size: int) -> None:
        """Wait until there is room for another line of *size* bytes, and add it."""
        while self.lines and (self.lines >= self._most_lines or self.bytes + size > self._most_bytes):
            self._left.clear()
            await self._left.wait()
        self.lines += 1
        self.bytes += size

    def grow(self, size: int) -> None:
        """Add the *size* bytes of an answer."""
        self.bytes += size

    def leave(self, size: int) -> None:
        """Remove a line. *size*: the bytes of the line and its answer."""
        self.lines -= 1
        self.bytes -= size
        self._left.set()


class BatchRun:
    """Runs jobs and writes their answers to *sink*. *idempotent*: whether calls may be sent again."""

    def __init__(self, pool: Pool, operation: str, source: str, sink: ResultFile, *, idempotent: bool) -> None:
        self.pool, self.operation, self.source, self.sink = pool, operation, source, sink
        self.idempotent = idempotent
        self.done = self.failed = 0
        """Lines that this run has answered, and how many of these failed."""
        self.failures: Counter[str] = Counter()
        self.interrupted = False
        self._reader: asyncio.Task[None] | None = None
        at_once = pool.size * pool.config.concurrency
        self._permits = asyncio.Semaphore(at_once)
        self._ahead = asyncio.Semaphore(_AHEAD * at_once)
        self._read_ahead = ReadAhead()
        self._in_session: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._begun = 0  # the highest number of a line that has begun
        # Bounded by `_read_ahead`.
        self._queue: asyncio.Queue[tuple[Job, asyncio.Task[OutputLine | None]] | None] = asyncio.Queue()
        self._open: set[asyncio.Task[Any]] = set()
        self._last: Job | None = None  # the last job that was read
        self._pending: dict[int, Job | None] = {}  # number of a job without an answer in the sink -> the job before it
        self._noted = 0.0

    def interrupt(self) -> bool:
        """Begin no further line. Return False if `work` has not begun at all."""
        self.interrupted = True
        if self._reader is None:
            return False
        self._reader.cancel()
        return True

    async def work(self, jobs: AsyncIterator[Job]) -> None:
        """Run all *jobs* and write their answers."""
        self._reader = reader = self._begin(self._read(jobs))
        ended = self._begin(self._end(reader))
        try:
            while (next_ := await self._queue.get()) is not None:
                job, task = next_
                answer = await task
                if answer is not None:
                    await self._write(answer)
                    del self._pending[job.number]
                self._read_ahead.leave(job.size + (len(answer.line) if answer else 0))
                if time.monotonic() >= self._noted + _NOTED_EVERY:
                    self._update_note()
            await ended
            if not reader.cancelled():
                reader.result()  # raises what the reader raised
        finally:
            left = list(self._open)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            self._update_note()

    async def _read(self, jobs: AsyncIterator[Job]) -> None:
        async for job in jobs:
            await self._read_ahead.enter(job.size)
            await self._ahead.acquire()
            task = self._begin(self._answer(job))
            task.add_done_callback(self._count_answer)
            self._pending[job.number], self._last = self._last, _without_arguments(job)
            if self.sink.ordered:
                self._queue.put_nowait((job, task))
            else:
                task.add_done_callback(lambda task, job=job: self._queue.put_nowait((job, task)))  # type: ignore[misc]

    async def _end(self, reader: asyncio.Task[None]) -> None:
        """Close the queue behind everything that the reader has put or will have put into it."""
        await asyncio.wait([reader])
        if not self.sink.ordered and (rest := self._open - {reader, asyncio.current_task()}):
            await asyncio.wait(rest)
        self._queue.put_nowait(None)

    async def _answer(self, job: Job) -> OutputLine | None:
        """Return the output line for *job*. None: the job is left for the next run."""
        lock = self._in_session.setdefault(job.session, asyncio.Lock()) if job.session else asyncio.Lock()
        if waited := lock.locked():
            self._ahead.release()  # a job that waits for its session must not hold up others
        async with lock, self._permits:
            if not waited:
                self._ahead.release()
            if self.interrupted and (job.number > self._begun or not self.sink.ordered):
                return None
            self._begun = max(self._begun, job.number)
            return await self._call(job)

    async def _call(self, job: Job) -> OutputLine:
        placed = self.sink.placed
        if job.problem is not None:
            remark(f"{self.source}:{job.number}: {job.problem}")
            return output_line(job, None, placed=placed)
        caller = self.pool.options(idempotent=self.idempotent, session=job.session)
        result = await caller.try_run(self.operation, *job.args, **job.kwargs)
        if isinstance(result.error, UnknownOperation):
            raise result.error  # the command is wrong, not this line
        return output_line(job, result, placed=placed)

    async def _write(self, answer: OutputLine) -> None:
        await self.sink.write(answer)
        self.done += 1
        if answer.failure is not None:
            self.failed += 1
            kind = answer.failure if len(self.failures) < _TYPES or answer.failure in self.failures else "others"
            self.failures[kind] += 1

    def _update_note(self) -> None:
        """Update the note to the last line up to which all lines are answered."""
        self._noted = time.monotonic()
        last = next(iter(self._pending.values()), self._last)
        if last is not None:
            self.sink.answered(last)

    def _count_answer(self, task: asyncio.Task[OutputLine | None]) -> None:
        if not task.cancelled() and task.exception() is None and (answer := task.result()) is not None:
            self._read_ahead.grow(len(answer.line))

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return task


def _without_arguments(job: Job) -> Job:
    """Return *job* without its arguments, which a note does not need."""
    return job._replace(args=[], kwargs={})
