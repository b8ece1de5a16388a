"""The fault of an event loop that is blocked, emitted while it is: from the thread of the watchdog."""

from __future__ import annotations

import re
from collections.abc import Callable

from pool_monitor.resources.fault_states import FaultChange, Subject
from pool_monitor.resources.wording import span
from pool_monitor.telemetry import Measurements, Metadata

_LOOP = Subject("loop")
_IMPORTS = "<frozen importlib"
_FRAME = re.compile(r'^  File "(.*)", line (\d+|\?), in (.*)(?:\n    (.*))?$', re.MULTILINE)


class BlockFault:
    """Turns the beginning and the end of a block into ``resource.limit``. At most one fault is open. *limit_s* is the
    time from which on a loop counts as blocked. *locate* is told the line, of each block whose stack was taken.
    """

    def __init__(self, limit_s: float, emit: Callable[[FaultChange], None], locate: Callable[[str], None]) -> None:
        self._limit_s, self._emit, self._locate = limit_s, emit, locate
        self._open = False

    def begin(self, measurements: Measurements, metadata: Metadata) -> None:
        """Take a ``resource.loop``, in the thread that emits it."""
        if self._open:
            return
        self._open = True
        seconds = measurements.get("duration", 0) / 1e9
        where = innermost(str(metadata.get("stack") or ""))
        if where:
            self._locate(where)
        reason = f"the event loop has run no callback for {seconds:.1f} s{f', it runs {where}' if where else ''}"
        self._emit(FaultChange("reached", "blocked", _LOOP, "bad", seconds, self._limit_s, reason))

    def end(self, measurements: Measurements) -> None:
        """Take a ``resource.loop_resume``."""
        if self._open:
            self._open = False
            seconds = measurements.get("duration", 0) / 1e9
            reason = f"the event loop runs again; it was blocked for {span(seconds)}"
            self._emit(FaultChange("left", "blocked", _LOOP, "bad", seconds, self._limit_s, reason))

    def close(self) -> None:
        """Leave the fault, because measuring ends."""
        if self._open:
            self._open = False
            self._emit(FaultChange("left", "blocked", _LOOP, "bad", None, self._limit_s, "measuring has ended"))


def innermost(stack: str) -> str:
    """Return the innermost frame of a stack as a few words: ``app.py:7 in work: sleep(2)``. Empty if there is none.

    Frames of the import system do not count: what imports says more.
    """
    found = [frame.groups() for frame in _FRAME.finditer(stack)]
    if not found:
        return ""
    file, line, name, source = next(
        (frame for frame in reversed(found) if not frame[0].startswith(_IMPORTS)), found[-1]
    )
    return f"{file.rpartition('/')[2]}:{line} in {name}{f': {source.strip()}' if source else ''}"
