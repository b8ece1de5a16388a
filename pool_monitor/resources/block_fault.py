"""The fault of an event loop that is blocked, emitted while it is: from the thread of the watchdog."""

from __future__ import annotations

from collections.abc import Callable

from pool_monitor.resources.fault_states import Change, Subject
from pool_monitor.resources.wording import span
from pool_monitor.telemetry import Measurements, Metadata

_LOOP = Subject("loop")


class BlockFault:
    """Turns ``resource.loop`` into ``resource.limit``. At most one fault is open. *limit_s* is the time from which on
    a loop counts as blocked.
    """

    def __init__(self, limit_s: float, emit: Callable[[Change], None]) -> None:
        self._limit_s, self._emit = limit_s, emit
        self._open = False

    def take(self, measurements: Measurements, metadata: Metadata) -> None:
        """Take one ``resource.loop``, in the thread that emits it."""
        seconds = measurements.get("duration", 0) / 1e9
        if metadata.get("state") == "blocked" and not self._open:
            self._open = True
            where = innermost(str(metadata.get("stack") or ""))
            reason = f"the event loop has run no callback for {seconds:.1f} s{f'; it runs {where}' if where else ''}"
            self._emit(Change("reached", "blocked", _LOOP, "bad", seconds, self._limit_s, reason))
        elif metadata.get("state") == "over" and self._open:
            self._open = False
            reason = f"the event loop runs again; it was blocked for {span(seconds)}"
            self._emit(Change("left", "blocked", _LOOP, "bad", seconds, self._limit_s, reason))

    def close(self) -> None:
        """Leave the fault, because measuring ends."""
        if self._open:
            self._open = False
            self._emit(Change("left", "blocked", _LOOP, "bad", None, self._limit_s, "measuring has ended"))


def innermost(stack: str) -> str:
    """Return the innermost frame of a stack as one line: where it is, and its source if that is known."""
    lines = stack.splitlines()
    last = next((nth for nth in range(len(lines) - 1, -1, -1) if lines[nth].startswith('  File "')), None)
    return "" if last is None else ": ".join(line.strip() for line in lines[last : last + 2])
