"""``pool-monitor run``: an operation over the lines of a file, in order, and on from where it was interrupted.

Theory of operation: a reader task turns each line into a task of its own, a bounded number ahead; those tasks share
as many turns as there are workers, so that no call ever waits in the pool's queue at the expense of its timeout; the
main task writes their answers in the order of the lines. After Ctrl-C no line is begun behind the last one that was:
what has been begun is finished and written, so the output is the beginning of the whole, without gaps or repeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import click

from pool_monitor.cli import EXIT_FAILED
from pool_monitor.cli.lines import Answer, Done, Job, answer, parsed, resume
from pool_monitor.cli.streams import Stream, opened
from pool_monitor.config import Settings, load
from pool_monitor.errors import ConfigError, UnknownOperation
from pool_monitor.monitor import Monitor
from pool_monitor.pool.pool import Pool
from pool_monitor.view.format import plural

_AHEAD = 8  # lines read ahead per worker: what quick ones may overtake a slow one by
_NOTES = 20  # remarks kept for after the dashboard
_LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("run")
@click.argument("target")
@click.argument("operation")
@click.option("--input", "source", default="-", metavar="FILE", help="JSON lines; without it, stdin.")
@click.option("--output", "sink", default="-", metavar="FILE", help="JSON lines; without it, stdout.")
@click.option("--size", type=click.IntRange(min=1), default=4, metavar="N", show_default=True, help="Worker processes.")
@click.option("--config", "settings_file", metavar="FILE", help="TOML; its table [pool] has PoolConfig's fields.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds a line may take, once a worker has it.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Further tries for a line whose worker died.",
)
@click.option("--no-dashboard", is_flag=True, help="A progress bar in place of the dashboard.")
def command(
    target: str,
    operation: str,
    source: str,
    sink: str,
    size: int,
    settings_file: str | None,
    timeout: float | None,
    retries: int,
    no_dashboard: bool,
) -> int:
    """Run OPERATION of TARGET once per line of the input.

    TARGET is "module:attribute" or "file.py:attribute". A line is an object with "args" and/or "kwargs" (and, if you
    like, "id" and "session"), or any other JSON value: the only argument. One line comes out per line that goes in,
    in the same order: {"id", "ok", "result", "seconds", "worker"} or {"id", "ok", "error", ...}. Without an "id", a
    line's number is its id. Lines of one session run one after another.

    Ctrl-C finishes the lines under way and leaves; the same command with the same --output goes on from there.
    """
    from pool_monitor.dashboard.terminal import can_run

    settings = load(settings_file) if settings_file else Settings()
    # A batch goes on whatever its workers do: every line is to have been tried.
    changes: dict[str, Any] = {"retries": retries, "retry_budget": 1.0, "breaker_failures": 0}
    changes |= {"timeout": timeout} if timeout is not None else {}
    name = re.sub(r"\W+", "-", target.rpartition(":")[2]).lower() or "run"
    pool = Pool(target, name=name, size=size, max_size=max(size, 64), config=settings.pool, **changes)
    # A person who types the lines needs the terminal.
    dashboard = not no_dashboard and "-" not in (source, sink) and can_run()
    with contextlib.ExitStack() as files:
        from_, to = files.enter_context(opened(source)), files.enter_context(opened(sink, to_write=True))
        if from_.on_disk and os.path.sameopenfile(from_.fd, to.fd):
            raise ConfigError(f"input and output are the same file, {from_.name}")
        batch = Batch(pool, operation, from_, to, idempotent=retries > 0)
        return asyncio.run(batch.work(Monitor(pool, config=settings.monitor), dashboard=dashboard))


class Batch:
    """The lines of *source* on their way through a pool to *sink*, which is gone on with when it can be read back."""

    def __init__(self, pool: Pool, operation: str, source: Stream, sink: Stream, *, idempotent: bool) -> None:
        self.pool, self.operation, self.source, self.sink = pool, operation, source, sink
        self.idempotent = idempotent
        self.earlier = Done(0, 0)
        self.done = self.failed = 0  # in this run
        self.interrupted: int | None = None  # the signal that did it
        self._reader: asyncio.Task[None] | None = None
        self._turns = asyncio.Semaphore(pool.size)
        self._in_session: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._begun = 0  # number of the last line that was
        self._room = asyncio.Semaphore(_AHEAD * pool.size)
        self._under_way: asyncio.Queue[asyncio.Task[Answer | None] | None] = asyncio.Queue()  # _room bounds it
        self._open: set[asyncio.Task[Any]] = set()
        self._watching: asyncio.Task[None] | None = None  # the dashboard, while it has the terminal
        self._notes: list[str] = []
        self._unsaid = 0

    async def work(self, monitor: Monitor, *, dashboard: bool) -> int:
        """Do it all; returns the exit code."""
        jobs = parsed(self.source.lines())
        if self.sink.readable:
            self.earlier, jobs = await resume(self.sink.file, self.sink.name, jobs)
        started = time.monotonic()
        try:
            with self._interruptible():
                async with self.pool, monitor:
                    shown = asyncio.create_task(self._show(monitor, dashboard=dashboard))
                    try:
                        await self._pump(jobs)
                    finally:
                        shown.cancel()
                        await asyncio.wait([shown])
        except asyncio.CancelledError:
            if not self.interrupted:
                raise
        if sys.stderr.isatty():
            seconds = time.monotonic() - started
            click.echo(f"{self._so_far()} in {seconds:.1f} s ({self.done / seconds:.0f}/s)", err=True)
        if self.interrupted:
            click.echo(f"interrupted{'; the same command goes on from here' * self.sink.readable}", err=True)
            return 128 + self.interrupted
        return EXIT_FAILED if self.failed + self.earlier.failed else 0

    async def _pump(self, jobs: AsyncIterator[Job]) -> None:
        """Write answers in order, as soon as the first in line is there."""
        self._reader = reader = self._begin(self._read(jobs))
        reader.add_done_callback(lambda _: self._under_way.put_nowait(None))
        try:
            while (task := await self._under_way.get()) is not None:
                answered = await task
                self._room.release()
                if answered is not None:
                    await self.sink.write(answered.line)
                    self.done += 1
                    self.failed += not answered.ok
            if not reader.cancelled():
                reader.result()  # or what went wrong with it
        finally:
            left = list(self._open)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _read(self, jobs: AsyncIterator[Job]) -> None:
        async for job in jobs:
            self._under_way.put_nowait(self._begin(self._answer(job)))
            await self._room.acquire()

    async def _answer(self, job: Job) -> Answer | None:
        """What comes out for *job*; None when it was left for the next run."""
        lock = self._in_session.setdefault(job.session, asyncio.Lock()) if job.session else asyncio.Lock()
        async with lock, self._turns:
            if self.interrupted and job.number > self._begun:
                return None
            self._begun = max(self._begun, job.number)
            if job.problem is not None:
                self._say(f"{self.source.name}:{job.number}: {job.problem}")
                return answer(job, None)
            caller = self.pool.options(idempotent=self.idempotent, session=job.session)
            result = await caller.try_run(self.operation, *job.args, **job.kwargs)
        if isinstance(result.error, UnknownOperation):
            raise result.error  # the command is wrong, not this line
        return answer(job, result)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return task

    # -- leaving --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C and its like: the first time, begin no further line; the second time, leave."""
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        # What is ignored stays ignored: nohup, or a shell that put us into the background.
        ours = [number for number in _LEAVE if signal.getsignal(number) != signal.SIG_IGN]
        for number in ours:
            loop.add_signal_handler(number, self._interrupt, number, main)
        try:
            yield
        finally:
            for number in ours:
                loop.remove_signal_handler(number)

    def _interrupt(self, number: int, main: asyncio.Task[Any] | None) -> None:
        again, self.interrupted = self.interrupted, number
        if again or self._reader is None:
            assert main is not None
            main.cancel()
            return
        self._reader.cancel()
        if self._watching is not None:
            self._watching.cancel()
        self._say("finishing the lines under way; Ctrl-C again leaves them")

    # -- what a person sees ---------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        """Tell the person at stderr; while the dashboard has the screen, afterwards."""
        if self._watching is None:
            with contextlib.suppress(OSError):  # a terminal that is gone
                click.echo(text, err=True)
        elif len(self._notes) < _NOTES:
            self._notes.append(text)
        else:
            self._unsaid += 1

    async def _show(self, monitor: Monitor, *, dashboard: bool) -> None:
        if dashboard:
            await self._watch(monitor)
        if self.source.is_terminal:
            self._say("reading JSON lines from this terminal; Ctrl-D ends them")
        elif sys.stderr.isatty() and not self.sink.is_terminal:
            await self._show_bar()

    async def _watch(self, monitor: Monitor) -> None:
        from pool_monitor.dashboard.app import run
        from pool_monitor.dashboard.feed import LocalFeed

        self._watching = asyncio.create_task(run(LocalFeed(monitor.snapshot), title=self.operation))
        try:
            await asyncio.wait([self._watching])
            if not self._watching.cancelled() and (error := self._watching.exception()):
                self._say(f"the dashboard failed: {error!r}")
            if not self.interrupted:
                self._say("the work goes on; Ctrl-C ends it")
        finally:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            self._watching = None
            for note in self._notes:
                self._say(note)
            if self._unsaid:
                self._say(f"and {self._unsaid} more remarks")

    async def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
        ]
        total = await asyncio.to_thread(_lines_in, self.source.path) if self.source.path else None
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            line = bar.add_task(self.operation, total=total, failed="")
            while True:
                failed = self.failed + self.earlier.failed
                bar.update(line, completed=self.earlier.lines + self.done, failed=f"{failed} failed" if failed else "")
                await asyncio.sleep(0.2)

    def _so_far(self) -> str:
        earlier = f", {self.earlier.lines} before" if self.earlier.lines else ""
        return f"{plural(self.done, 'line')}: {self.done - self.failed} ok, {self.failed} failed{earlier}"


def _lines_in(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
