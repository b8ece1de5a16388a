"""``pool-monitor run``: an operation over the lines of a file, in order, and on from where it was interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from pool_monitor.cli import EXIT_FAILED, EXIT_INTERRUPTED
from pool_monitor.cli.lines import Done, Job, answer, numbered_lines, parse, resume
from pool_monitor.config import Settings, load
from pool_monitor.errors import ConfigError, UnknownOperation
from pool_monitor.monitor import Monitor
from pool_monitor.pool.pool import Pool


@click.command("run")
@click.argument("target")
@click.argument("operation")
@click.option("--input", "source", default="-", metavar="FILE", help="JSON lines; without it, stdin.")
@click.option("--output", "sink", default="-", metavar="FILE", help="JSON lines; without it, stdout.")
@click.option("--size", type=click.IntRange(min=1), default=4, show_default=True, help="Worker processes.")
@click.option("--config", "settings_file", metavar="FILE", help="TOML; its table [pool] has PoolConfig's fields.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds per line, waiting included.")
@click.option("--retries", type=click.IntRange(min=0), default=0, help="Further tries for a line whose worker died.")
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
    line's number is its id.

    Ctrl-C finishes the lines under way and leaves; the same command with the same --output goes on from there.
    """
    settings = load(settings_file) if settings_file else Settings()
    changes: dict[str, Any] = {"retries": retries} | ({"timeout": timeout} if timeout is not None else {})
    name = re.sub(r"\W+", "-", target.rpartition(":")[2]).lower() or "run"
    pool = Pool(target, name=name, size=size, max_size=max(size, 64), config=settings.pool, **changes)
    if "-" not in (source, sink) and Path(source).resolve() == Path(sink).resolve():
        raise ConfigError(f"--input and --output are the same file, {source}")
    with contextlib.ExitStack() as files:
        source_fd = sys.stdin.fileno() if source == "-" else files.enter_context(_opened(source, "rb")).fileno()
        output = sys.stdout.buffer if sink == "-" else files.enter_context(_opened(sink, "a+b"))
        jobs = (parse(number, line) for number, line in numbered_lines(source_fd))
        batch = Batch(pool, operation, output, source="stdin" if source == "-" else source, idempotent=retries > 0)
        if sink != "-":
            output.seek(0)
            batch.earlier = resume(output, sink, jobs)
        if stat.S_ISREG(os.fstat(source_fd).st_mode):
            batch.total = sum(1 for line in _opened(source, "rb") if line.strip()) if source != "-" else None
            arriving = _at_once(jobs)
        else:
            arriving = _as_they_come(jobs)
        monitor = Monitor(pool, config=settings.monitor)
        return asyncio.run(batch.work(arriving, monitor, dashboard=sink != "-" and not no_dashboard))


def _opened(path: str, mode: str) -> BinaryIO:
    try:
        return open(path, mode)  # type: ignore[return-value] # noqa: PTH123 - the caller closes it
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


async def _at_once(jobs: Iterator[Job]) -> AsyncIterator[Job]:
    """From a file: reading a line of it does not wait."""
    for job in jobs:
        yield job


async def _as_they_come(jobs: Iterator[Job]) -> AsyncIterator[Job]:
    """From a pipe or terminal, which may be silent for long: read in a thread, a few lines ahead.

    A daemon thread, because nothing can wake it from its read when the program is interrupted.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Job | None] = asyncio.Queue(maxsize=64)

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody wants to know any more
            for job in itertools.chain(jobs, [None]):
                asyncio.run_coroutine_threadsafe(arrived.put(job), loop).result()

    threading.Thread(target=read, name="input", daemon=True).start()
    while (job := await arrived.get()) is not None:
        yield job


class Batch:
    """The lines of one input on their way through a pool."""

    def __init__(self, pool: Pool, operation: str, output: BinaryIO, *, source: str, idempotent: bool) -> None:
        self.pool, self.operation, self.output, self.source = pool, operation, output, source
        self.idempotent = idempotent
        self.earlier = Done(0, 0)
        self.total: int | None = None  # lines of the input, when that is known
        self.done = self.failed = 0  # in this run
        self.interrupted = False
        self._reading: asyncio.Future[Job | None] | None = None

    async def work(self, jobs: AsyncIterator[Job], monitor: Monitor, *, dashboard: bool) -> int:
        """Do it all; returns the exit code."""
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        async with self.pool, monitor:
            loop.add_signal_handler(signal.SIGINT, self._interrupt, asyncio.current_task())
            shown = loop.create_task(self._show(monitor, dashboard=dashboard))
            try:
                await self._pump(jobs)
            finally:
                loop.remove_signal_handler(signal.SIGINT)
                shown.cancel()
                await asyncio.wait([shown])
        if sys.stderr.isatty():
            seconds = time.monotonic() - started
            click.echo(f"{self._so_far()} in {seconds:.1f} s ({self.done / seconds:.0f}/s)", err=True)
        if self.interrupted:
            click.echo("interrupted; the same command goes on from here", err=True)
            return EXIT_INTERRUPTED
        return EXIT_FAILED if self.failed + self.earlier.failed else 0

    async def _pump(self, jobs: AsyncIterator[Job]) -> None:
        """Keep the workers busy and write answers in order, as soon as the first in line is there."""
        under_way: deque[asyncio.Task[bytes]] = deque()
        try:
            more = True
            while True:
                if more and self._reading is None and len(under_way) < 4 * self.pool.size:
                    self._reading = asyncio.ensure_future(anext(jobs, None))
                waiting = {future for future in (self._reading, under_way[0] if under_way else None) if future}
                if not waiting:
                    return
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if self._reading is not None and self._reading.done():
                    job = None if self._reading.cancelled() else self._reading.result()
                    more = job is not None and not self.interrupted
                    if job is not None:
                        under_way.append(asyncio.create_task(self._answer(job)))
                    self._reading = None
                while under_way and under_way[0].done():
                    self.output.write(under_way.popleft().result())
                    self.output.flush()
                    self.done += 1
        finally:
            for task in under_way:
                task.cancel()

    async def _answer(self, job: Job) -> bytes:
        result = None
        if job.problem is None:
            caller = self.pool.options(idempotent=self.idempotent, session=job.session)
            result = await caller.try_run(self.operation, *job.args, **job.kwargs)
            if isinstance(result.error, UnknownOperation):
                raise result.error  # the command is wrong, not this line
        else:
            click.echo(f"{self.source}:{job.number}: {job.problem}", err=True)
        self.failed += result is None or result.error is not None
        return answer(job, result)

    def _interrupt(self, main: asyncio.Task[Any] | None) -> None:
        """Ctrl-C: the first time, read no further; the second time, leave."""
        if self.interrupted and main is not None:
            main.cancel()
            return
        self.interrupted = True
        if self._reading is not None:
            self._reading.cancel()
        click.echo("finishing the lines under way; Ctrl-C again leaves them", err=True)

    # -- what a person sees ---------------------------------------------------------------------------------------

    async def _show(self, monitor: Monitor, *, dashboard: bool) -> None:
        from pool_monitor.dashboard.terminal import can_run

        if dashboard and can_run():
            from pool_monitor.dashboard.app import run
            from pool_monitor.dashboard.feed import LocalFeed

            await run(LocalFeed(monitor.snapshot), title=self.operation)
            click.echo("the work goes on; Ctrl-C ends it", err=True)
        if sys.stderr.isatty():
            await self._show_bar()

    async def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
        ]
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            line = bar.add_task(self.operation, total=self.total, failed="")
            while True:
                failed = self.failed + self.earlier.failed
                bar.update(line, completed=self.earlier.lines + self.done, failed=f"{failed} failed" if failed else "")
                await asyncio.sleep(0.2)

    def _so_far(self) -> str:
        earlier = f", {self.earlier.lines} before" if self.earlier.lines else ""
        return f"{self.done} lines: {self.done - self.failed} ok, {self.failed} failed{earlier}"
