"""``pool-monitor demo``: a real pool to watch, in one command."""

from __future__ import annotations

import asyncio
import contextlib

import click

from pool_monitor.cli import text_width
from pool_monitor.cli.output import print_text, remark, screen_in_use, stderr_is_terminal
from pool_monitor.dashboard.terminal import can_run, stdout_glyphs
from pool_monitor.demo.load import SERVICE_FAULTS, drive
from pool_monitor.demo.worker import WORKER_FAULTS
from pool_monitor.metrics import WINDOWS
from pool_monitor.monitor import Monitor
from pool_monitor.pool.pool import Pool
from pool_monitor.snapshot import WINDOW_NAMES
from pool_monitor.view.snapshot_report import report

_HEADLESS_SECONDS = 10.0
FAULTS = WORKER_FAULTS | SERVICE_FAULTS


@click.command("demo")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Exit after S seconds.")
@click.option("--headless", is_flag=True, help="Show no dashboard; print a report at the end (by default after 10 s).")
@click.option(
    "--size", type=click.IntRange(min=1, max=64), default=4, metavar="N", show_default=True, help="Worker processes."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice(list(FAULTS)),
    help="A fault to cause; may be given several times. "
    + "; ".join(f"{name}: {text}" for name, text in FAULTS.items()),
)
def command(duration: float | None, headless: bool, size: int, faults: tuple[str, ...]) -> None:
    """Run a pool of real worker processes on the text that ships with Python.

    The command shows the dashboard until q is pressed; `pool-monitor dashboard` in another terminal shows it too.
    """
    if not headless and not can_run():
        remark("no terminal for a dashboard: continuing as with --headless")
        headless = True
    asyncio.run(_demo(duration, headless, size, list(faults)))


async def _demo(duration: float | None, headless: bool, size: int, faults: list[str]) -> None:
    in_workers = [fault for fault in faults if fault in WORKER_FAULTS]
    pool = Pool(
        "pool_monitor.demo.worker:DemoTools", name="demo", size=size, max_size=64, timeout=10.0, init_args=(in_workers,)
    )
    async with pool, Monitor(pool) as monitor:
        load = asyncio.create_task(drive(pool, faults))
        try:
            if headless:
                await _wait(duration or _HEADLESS_SECONDS)
            else:
                await _watch(monitor, duration)
        finally:  # Ctrl-C too ends with the report
            load.cancel()
            await asyncio.wait([load])
            uptime = monitor.snapshot().uptime
            window = next((name for name, window in WINDOWS.items() if window.seconds >= uptime), WINDOW_NAMES[-1])
            print_text(report(monitor.snapshot(window), width=text_width(), glyphs=stdout_glyphs()))


async def _wait(seconds: float) -> None:
    """Wait for *seconds*, with a progress bar if stderr is a terminal."""
    if not stderr_is_terminal():
        await asyncio.sleep(seconds)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        line = progress.add_task("demo running", total=seconds)
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            progress.update(line, completed=seconds - left)
            await asyncio.sleep(min(0.2, left))


async def _watch(monitor: Monitor, duration: float | None) -> None:
    from pool_monitor.dashboard.app import run
    from pool_monitor.dashboard.feed import LocalFeed

    with screen_in_use(), contextlib.suppress(TimeoutError):
        async with asyncio.timeout(duration):
            await run(LocalFeed(monitor.snapshot, stack=monitor.stack), title="demo", window="1m")
