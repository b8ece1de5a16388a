"""The progress of ``pool-monitor run`` while it runs, and its summary at the end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pool_monitor.cli.batch import BatchRun
from pool_monitor.view.format import age, plural

_NAMED = 3  # types of errors in the summary
_RATE_AFTER_S = 1.0  # seconds before a rate is meaningful


class Progress:
    """The progress of *batch*, from now on. *path*: its input, if it can be read again to count lines."""

    def __init__(self, batch: BatchRun, path: Path | None) -> None:
        self.batch, self.path = batch, path
        self.total: int | None = None
        self._started = time.monotonic()

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """In the block, count the lines of the input at *path*, in a thread because there may be many."""
        over = threading.Event()
        if self.path is not None:
            threading.Thread(target=self._count, args=(self.path, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _count(self, path: Path, over: threading.Event) -> None:
        total = 0
        with contextlib.suppress(OSError), path.open("rb") as file:
            for line in file:
                if over.is_set():
                    return
                total += bool(line.strip())
            self.total = total

    @property
    def completed(self) -> int:
        return self.batch.sink.earlier.lines + self.batch.done

    @property
    def failed(self) -> int:
        return self.batch.sink.earlier.failed + self.batch.failed

    def left(self) -> float | None:
        """Return about how many seconds are left. None: unknown."""
        seconds = time.monotonic() - self._started
        if self.total is None or not self.batch.done or seconds < _RATE_AFTER_S:
            return None
        return max(0, self.total - self.completed) * seconds / self.batch.done

    def line(self) -> str:
        """Return the progress in one line."""
        parts = [f"{self.completed:,} lines"]
        if self.total:
            share = min(100, 100 * self.completed // self.total)
            parts = [f"{self.completed:,} of {self.total:,} lines ({share}%)"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if (left := self.left()) is not None:
            parts.append(f"about {age(left)} left")
        if self.batch.interrupted:
            parts.append("finishing the lines under way")
        return " · ".join(parts)

    def summary(self) -> str:
        """Return what the run has done, in one line."""
        batch, seconds = self.batch, time.monotonic() - self._started
        text = f"{plural(batch.done, 'line')}: {batch.done - batch.failed} ok, {batch.failed} failed"
        if before := batch.sink.earlier.lines:
            failed = batch.sink.earlier.failed
            text += f", {before} before{f' (of those {failed} failed: --retry-failed)' if failed else ''}"
        text += f" in {seconds:.1f} s ({batch.done / max(seconds, 1e-3):.0f}/s)"
        if batch.failures:
            types = batch.failures.most_common()
            named = [f"{times} {name:.80}" for name, times in types[:_NAMED]]
            rest = sum(times for _, times in types[_NAMED:])
            text += f"; failed: {', '.join(named)}{f', {rest} others' if rest else ''}"
        return text

    async def show_bar(self) -> None:
        """Draw a progress bar on stderr until cancelled."""
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = [*Bar.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()]
        with Bar(*columns, TextColumn("{task.fields[failed]}"), console=Console(stderr=True), transient=True) as bar:
            line = bar.add_task(self.batch.operation, total=self.total, failed="")
            while True:
                failed = f"{self.failed} failed" if self.failed else ""
                bar.update(line, total=self.total, completed=self.completed, failed=failed)
                await asyncio.sleep(0.2)
