"""Emits and logs what workers write: lines on stdout and stderr, and lines that targets log.

A line costs some microseconds of the service's event loop, so a target that writes without end must be limited. In each
second, at most 200 lines of each stream of a process are logged; further lines are only counted. Events are emitted for
all lines.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pool_monitor import emit, events
from pool_monitor.log import LEVELS, output

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.emit import PoolIdentity
    from pool_monitor.pool.worker import Worker, WorkerProcess

LINES_PER_SECOND = 200
"""The lines of one stream of one process that are logged in a second."""
_LEVELS = {"stdout": logging.INFO, "stderr": logging.WARNING}
_WROTE = events.WORKER_OUTPUT.event


class WorkerOutput:
    """The output of one process of a slot, emitted and logged."""

    def __init__(self, identity: PoolIdentity, config: PoolConfig, worker: Worker, process: WorkerProcess) -> None:
        self._identity = identity
        self._worker, self._process = worker, process
        self._alone = config.concurrency == 1
        self._log = OutputLog(worker.id, {"pool": identity.name, "worker": worker.id}) if config.log_output else None

    def wrote(self, stream: str, text: str, size: int) -> None:
        """Emit and log a line on ``stdout`` or ``stderr``."""
        if events.WORKER_OUTPUT.event.on:
            emit.worker_output(self._identity, self._worker.id, stream=stream, text=text, size=size)
        if self._log is not None:
            self._log.wrote(stream, text, self._operation())

    def logged(self, level: str, text: str, fields: dict[str, Any]) -> None:
        """Emit and log a line that the target logged."""
        emit.worker_log(self._identity, self._worker.id, level=level, text=text, fields=fields)
        if self._log is not None:
            self._log.logged(level, text, fields, self._operation())

    def report_left_out(self) -> None:
        """Log how many lines were left out so far: the process has ended."""
        if self._log is not None:
            self._log.report_left_out()

    def _operation(self) -> str | None:
        """Return the operation that runs as the line is read. None: no operation, or one of several."""
        call = self._worker.call if self._alone and self._process is self._worker.process else None
        return call.operation if call is not None and self._worker.has_begun(call) else None


class OutputLog:
    """Logs the lines of one process. They begin with *origin*, and their records carry *about* as fields."""

    def __init__(self, origin: str, about: Mapping[str, str]) -> None:
        self._origin, self._about = origin, about
        self._loop = asyncio.get_running_loop()
        self._seconds: dict[str, _Second] = {}

    def wrote(self, stream: str, text: str, operation: str | None = None) -> None:
        """Log a line on ``stdout`` or ``stderr``, unless it is blank."""
        if text and not text.isspace() and self._admits(stream):
            self._write(_LEVELS[stream], text, stream, operation)

    def logged(self, level: str, text: str, fields: Mapping[str, Any], operation: str | None) -> None:
        """Log a line that a target logged."""
        if self._admits("log"):
            self._write(LEVELS[level], text, "log", operation, fields)

    def report_left_out(self) -> None:
        """Log how many lines of each stream were left out since the last such line."""
        for stream, second in self._seconds.items():
            self._report_left_out(stream, second)

    def _report_left_out(self, stream: str, second: _Second) -> None:
        if second.left_out:
            lines, second.left_out = second.left_out, 0
            text = f"lines of {stream} left out of the log: {lines}, since over {LINES_PER_SECOND} came in a second"
            self._write(logging.WARNING, text, stream, None)

    def _admits(self, stream: str) -> bool:
        now = self._loop.time()
        second = self._seconds.get(stream)
        if second is None or now >= second.end:
            if second is not None:
                self._report_left_out(stream, second)
            second = self._seconds[stream] = _Second(now + 1.0)
        second.lines += 1
        if second.lines <= LINES_PER_SECOND:
            return True
        if not second.left_out:
            self._loop.call_at(second.end, self.report_left_out)
        second.left_out += 1
        return False

    def _write(
        self, level: int, text: str, stream: str, operation: str | None, own_fields: Mapping[str, Any] | None = None
    ) -> None:
        fields = {**self._about, "stream": stream}
        if operation is not None:
            fields["operation"] = operation
        output(level, self._origin, text, {**fields, "fields": own_fields} if own_fields else fields)


class _Second:
    """The number of lines that one stream has written within a second."""

    __slots__ = ("end", "left_out", "lines")

    def __init__(self, end: float) -> None:
        self.end = end
        self.lines = self.left_out = 0
