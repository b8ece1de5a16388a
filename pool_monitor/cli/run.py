"""``pool-monitor run``: an operation on every line of a file, resumed after an interruption."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from pool_monitor.cli import EXIT_FAILED
from pool_monitor.cli.batch import BatchRun
from pool_monitor.cli.job_note import JobNote
from pool_monitor.cli.jsonl import parse_lines
from pool_monitor.cli.output import log_as_remarks, pools_started, remark, screen_in_use, stderr_is_terminal
from pool_monitor.cli.progress import Progress
from pool_monitor.cli.result_file import ResultFile
from pool_monitor.cli.streams import Stream, open_stream
from pool_monitor.config import MonitorConfig, PoolConfig, Settings, load
from pool_monitor.errors import ConfigError
from pool_monitor.monitor import Monitor
from pool_monitor.pool.pool import Pool
from pool_monitor.pool.transport.child.target import split_target

_LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("run")
@click.argument("target")
@click.argument("operation")
@click.option("--input", "source", default="-", metavar="FILE", help="Input, JSON lines; by default stdin.")
@click.option("--output", "sink", default="-", metavar="FILE", help="Output, JSON lines; by default stdout.")
@click.option("--size", type=click.IntRange(min=1), default=4, metavar="N", show_default=True, help="Worker processes.")
@click.option("--config", "settings_file", metavar="FILE", help="TOML; its table [pool] has the fields of PoolConfig.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds that a line may take on a worker; by default [pool] timeout, else 60.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    metavar="N",
    help="Retries of a line whose worker died or that failed with one of [pool] retry_errors; "
    "by default [pool] retries, else 0.",
)
@click.option("--retry-failed", is_flag=True, help="Retry the lines that failed in earlier runs with this --output.")
@click.option("--unordered", is_flag=True, help="Write each answer, with its place, as soon as it is ready.")
@click.option("--text", is_flag=True, help="Lines are plain text, not JSON: each line is the only argument.")
@click.option("--no-dashboard", is_flag=True, help="Show a progress bar instead of the dashboard.")
def command(
    target: str,
    operation: str,
    source: str,
    sink: str,
    size: int,
    settings_file: str | None,
    timeout: float | None,
    retries: int | None,
    retry_failed: bool,
    unordered: bool,
    text: bool,
    no_dashboard: bool,
) -> int:
    """Run OPERATION of TARGET once per line of the input.

    TARGET is "module:attribute" or "file.py:attribute". An input line is an object with "args" and/or "kwargs", and
    optionally "id" and "session". Any other JSON value is the only argument, even an object with a key "id".

    The output has one line per input line that is not blank, in the same order: {"id", "ok", "result", "seconds",
    "worker"} or {"id", "ok", "error", ...}. The default "id" is the number of the line. Lines of one session run one
    after another.

    Ctrl-C finishes the lines under way and exits. The same command with the same --output continues from there. The
    file FILE.job beside the output records what the output was made from: another target, operation or input is
    refused.
    """
    from pool_monitor.dashboard.terminal import can_run

    settings = load(settings_file) if settings_file else Settings()
    pool_settings = _batch_config(settings.pool, _fields_in_file(settings_file), timeout=timeout, retries=retries)
    name = re.sub(r"\W+", "-", target.rpartition(":")[2]).lower() or "run"
    pool = Pool(target, name=name, size=size, max_size=max(size, 64), config=pool_settings)
    idempotent = bool(pool_settings.retries) or (pool_settings.retries is None and bool(pool_settings.retry_errors))
    with contextlib.ExitStack() as files:
        input_stream = files.enter_context(open_stream(source))
        output_stream = files.enter_context(open_stream(sink, to_write=True))
        if input_stream.on_disk and os.path.sameopenfile(input_stream.fd, output_stream.fd):
            raise ConfigError(f"input and output are the same file, {input_stream.name}")
        made = JobNote(_full_target(target), operation, _digest(pool_settings, text=text))
        result_file = files.enter_context(ResultFile(output_stream, made, ordered=not unordered, retry=retry_failed))
        files.enter_context(log_as_remarks(started=False))
        # A person who types the lines or reads the answers needs the terminal.
        dashboard = not (no_dashboard or input_stream.is_terminal or output_stream.is_terminal) and can_run()
        batch = BatchRun(pool, operation, input_stream.name, result_file, idempotent=idempotent)
        run = Run(batch, input_stream, output_stream, Progress(batch, input_stream.path))
        _look_here_for(settings.tuner.policy)
        monitor = Monitor(pool, config=_batch_monitor(settings.monitor))
        return asyncio.run(run.work(monitor, dashboard=dashboard, text=text))


def _batch_config(config: PoolConfig, given: set[str], **flags: Any) -> PoolConfig:
    """Return *config* with the *flags* that are not None. For fields that its file has not *given*, use what a batch
    needs: every line is tried, whatever happens to the workers.
    """
    needed = {"retry_budget": 1.0, "breaker_failures": 0}
    fields = {name: value for name, value in needed.items() if name not in given}
    return msgspec.structs.replace(config, **fields, **{name: flag for name, flag in flags.items() if flag is not None})


def _batch_monitor(config: MonitorConfig) -> MonitorConfig:
    """Return *config* without the default rules about busy workers, and without advice: a batch keeps all workers busy
    on purpose, and its calls wait. A tuner that may change nothing without approval is off: there is nobody to ask.
    """
    replace = msgspec.structs.replace
    disable = tuple(dict.fromkeys((*config.alerts.disable, "PoolBusy", "AllWorkersHeld")))
    tuner = replace(config.tuner, mode="off") if config.tuner.mode == "recommend" else config.tuner
    return replace(
        config,
        alerts=replace(config.alerts, disable=disable),
        advisor=replace(config.advisor, enabled=False),
        tuner=tuner,
    )


def _look_here_for(policy: str) -> None:
    """Let a *policy* of the user's own be found where the target is: in the working directory, after all else."""
    here = str(Path.cwd())
    if ":" in policy and not {"", here} & set(sys.path):
        sys.path.append(here)


def _fields_in_file(settings_file: str | None) -> set[str]:
    """Return the names of the fields in the table [pool] of the file."""
    if settings_file is None:
        return set()
    file = Path(os.path.expanduser(settings_file))  # noqa: PTH111 - as in `load`, which has accepted the file
    return set(tomllib.loads(file.read_text(encoding="utf-8")).get("pool", {}))


def _full_target(target: str) -> str:
    """Return *target*, with its absolute path if it is a file: the note must not depend on the working directory."""
    where, _attribute = split_target(target)
    return os.path.realpath(where) + target[len(where) :] if where.endswith(".py") else target


def _digest(config: PoolConfig, *, text: bool) -> str:
    """Return a digest of the other settings that results depend on. Empty: all have their defaults."""
    parts = (config.init_args, config.init_kwargs, text)
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest() if any(parts) else ""


class Run:
    """One run of the command: the batch, its display, and its signals."""

    def __init__(self, batch: BatchRun, source: Stream, sink: Stream, progress: Progress) -> None:
        self.batch, self.source, self.sink, self.progress = batch, source, sink, progress
        self.interrupted: int | None = None  # the signal that interrupted the run
        self._main: asyncio.Task[Any] | None = None
        self._watching: asyncio.Task[None] | None = None  # the dashboard, while it has the terminal

    async def work(self, monitor: Monitor, *, dashboard: bool, text: bool) -> int:
        """Run the batch and return the exit code."""
        batch, result_file = self.batch, self.batch.sink
        jobs = await result_file.begin(parse_lines(self.source.lines(), self.source.name, text=text))
        try:
            with self._interruptible():
                async with batch.pool, monitor:
                    pools_started()
                    shown = asyncio.create_task(self._show(monitor, dashboard=dashboard))
                    try:
                        await batch.work(jobs)
                    finally:
                        shown.cancel()
                        await asyncio.wait([shown])
        except asyncio.CancelledError:
            if not self.interrupted:
                raise
        except ConfigError:  # the input differs from the noted one
            result_file.forget()
            raise
        finally:
            result_file.finish()
        remark(self.progress.summary())
        if self.interrupted:
            remark(f"interrupted{'; the same command continues from here' * result_file.kept}")
            return 128 + self.interrupted
        return EXIT_FAILED if self.progress.failed else 0

    # -- leaving --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """In the block, handle SIGINT, SIGTERM and SIGHUP: the first begins no further line, the second exits."""
        loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        # Ignored signals stay ignored: nohup or a shell ignores them for programs in the background.
        ours = [number for number in _LEAVE if signal.getsignal(number) != signal.SIG_IGN]
        for number in ours:
            loop.add_signal_handler(number, self._interrupt, number)
        try:
            yield
        finally:
            for number in ours:
                loop.remove_signal_handler(number)

    def _interrupt(self, number: int) -> None:
        again, self.interrupted = self.interrupted, number
        if not self.batch.interrupt() or again:
            assert self._main is not None
            self._main.cancel()
            return
        if self._watching is not None:
            self._watching.cancel()
        remark("finishing the lines under way; Ctrl-C again abandons them")

    # -- what a person sees ---------------------------------------------------------------------------------------

    async def _show(self, monitor: Monitor, *, dashboard: bool) -> None:
        if self.source.is_terminal:
            remark("reading JSON lines from this terminal; Ctrl-D ends them")
        elif dashboard or (stderr_is_terminal() and not self.sink.is_terminal):
            with self.progress.counting():
                if dashboard:
                    await self._watch(monitor)
                await self.progress.show_bar()

    async def _watch(self, monitor: Monitor) -> None:
        from pool_monitor.dashboard.app import run
        from pool_monitor.dashboard.feed import LocalFeed

        with screen_in_use():
            shown = run(
                LocalFeed(monitor.snapshot, stack=monitor.stack),
                title=self.batch.operation,
                status=self.progress.line,
                interrupt=lambda: self._interrupt(signal.SIGINT),
            )
            self._watching = asyncio.create_task(shown)
            try:
                await asyncio.wait([self._watching])
                if not self._watching.cancelled() and (error := self._watching.exception()):
                    remark(f"the dashboard failed: {error}")
                if not self.interrupted:
                    remark("the run continues; Ctrl-C ends it")
            finally:
                self._watching.cancel()
                await asyncio.wait([self._watching])
                self._watching = None
