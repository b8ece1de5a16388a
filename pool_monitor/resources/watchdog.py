"""A thread that watches an event loop from outside: measures its lag, and tells what blocks it while it still does.

Theory of operation
-------------------
Every ``lag_interval`` the thread hands the loop a probe, a callback that the loop should run at once. The probe emits
``resource.loop_lag`` on the loop. A probe that has not run after ``blocked_after`` means that the loop is blocked: the
thread takes the stack of the loop's thread and emits ``resource.loop``, in the thread, because nothing can run on the
loop. When the probe runs at last, it emits ``resource.loop_resume``. loop_probe.py decides what is late, what is a
block and what is not; only the monotonic clock is used, and nothing polls.

Both threads change the state of the probe, under a lock that neither holds for longer than some assignments.

Limits of a thread: it runs Python, so it needs the interpreter. Code in C that does not give it up (a regular
expression) blocks the watchdog too. The thread takes the stack as soon as that code returns, which is before the next
line runs; the event then comes at the end of the block. On a machine without a free processor it may come too late for
the stack, which is then empty. Code in C that *sleeps* without giving up the interpreter looks like a process that was
stopped: it counts as lag, not as a block. (`faulthandler.dump_traceback_later` could see both, but there is only one of
it in a process, and it belongs to the service.)

A handler of ``resource.loop`` that raises is detached, as everywhere. One that hangs keeps the thread: `check` says so,
and the thread is left behind. At most `LEFT_BEHIND_MAX` threads are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from pool_monitor.events import LOOP_LAG, LOOP_RESUME, RESOURCE_LOOP
from pool_monitor.log import logger
from pool_monitor.parts import PartUnavailable
from pool_monitor.resources.loop_probe import PROBE, ProbeState, StackLimit, counted_from, excused, lags
from pool_monitor.resources.loop_stack import stack_of_thread
from pool_monitor.resources.stall_check import StallCheck
from pool_monitor.telemetry import FAILURES, describe

if TYPE_CHECKING:
    from pool_monitor.config import ResourcesConfig

HANG_CHECKS, HANG_S = 5, 5.0
"""`check` reports a thread that has not woken up for this many calls and seconds, and for two intervals."""
LEFT_BEHIND_MAX = 3
"""Threads of earlier watchdogs that may hang in handlers. With as many, no further one is started."""
LOG_AFTER_NS = 5_000_000_000
"""A block that has lasted for this long is logged, with the line that it is in: viewers outside the process have given
the service up by then, and can show nothing of it."""
_LEAVE_S = 1.0
_LATE = (ProbeState.TELLING, ProbeState.BLOCKED)

_left_behind: list[threading.Thread] = []


class Watchdog:
    """Watches the event loop that it is started in.

    All methods are called on that loop; none blocks. A forked process has no such thread: nothing is emitted there.
    """

    def __init__(self, config: ResourcesConfig, monitor: str = "") -> None:
        self._about = {"monitor": monitor}  # in the metadata of every event
        self._interval_ns = round(config.lag_interval * 1e9)
        self._blocked_after_ns = round(config.blocked_after * 1e9)
        self._limit = StackLimit()
        self._lock = threading.Lock()
        self._state = PROBE.first
        self._from_ns = self._excused_ns = 0  # of the outstanding probe
        self._over_ns: int | None = None  # how long a block was whose end is to be told after its beginning
        self._logged_ns = 0  # the beginning of the block that was logged last
        self._wakes = 0
        self._progress = StallCheck(HANG_CHECKS, max(HANG_S, 2 * config.lag_interval))
        self._pid = 0
        self._loop_clock: int | None = None
        self._stop = threading.Lock()  # held while the thread is to run: waiting for it is waiting for the end
        self._stopping = False

    def start(self) -> None:
        """Start the thread. Raises PartUnavailable when the system refuses one, or when too many hang already."""
        _left_behind[:] = [thread for thread in _left_behind if thread.is_alive()]
        if len(_left_behind) >= LEFT_BEHIND_MAX:
            raise PartUnavailable(
                f"{len(_left_behind)} earlier threads that watch the event loop hang in handlers of resource.loop"
            )
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        # Made here, where the thread surely exists: asking for the clock of a thread that has ended may crash.
        with contextlib.suppress(AttributeError, OSError):
            self._loop_clock = time.pthread_getcpuclockid(self._loop_thread)
        self._ended = asyncio.Event()
        self._pid = os.getpid()
        self._stop.acquire()
        self._thread = threading.Thread(target=self._run, name="pool_monitor watchdog", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise PartUnavailable(f"no thread to watch the event loop: {error}") from error

    async def stop(self) -> None:
        """End the thread. Returns after `_LEAVE_S` at the latest; a thread that hangs then is left behind."""
        if self._stopping or not self._pid:
            return
        self._stopping = True
        blocked = self._answered()  # the loop runs, and nobody will tell it after this
        self._stop.release()
        if blocked is not None:
            self._tell_over(blocked)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self._ended.wait()
        if self._thread.is_alive() and not self._ended.is_set():
            _left_behind.append(self._thread)

    def check(self) -> None:
        """Raise PartUnavailable when the thread has ended or hangs. To be called about once a second.

        The calls count too, because in a time in which the loop did not run the thread may not have run either.
        """
        if not self._thread.is_alive():
            raise PartUnavailable("the thread that watches the event loop has ended")
        if self._progress.stalled(self._wakes, time.monotonic()):
            raise PartUnavailable("the thread that watches the event loop hangs in a handler of resource.loop")

    # -- on the loop ----------------------------------------------------------------------------------------------

    def _probe(self) -> None:
        """Run by the loop."""
        if os.getpid() != self._pid or self._stopping:  # in a forked process, the lock may be held for ever
            return
        lag_ns, excused_ns = time.monotonic_ns() - self._from_ns, self._excused_ns
        blocked_ns = self._answered()
        _emit_lags(lags(max(0, lag_ns), excused_ns, self._interval_ns), self._about)
        if blocked_ns is not None:
            self._tell_over(blocked_ns)

    def _answered(self) -> int | None:
        """The loop runs. Return for how long it was blocked, if that has to be told now."""
        with self._lock:
            before = self._state
            if before not in (ProbeState.ASKED, *_LATE):
                return None
            self._state = PROBE.step(before, "answer")
            blocked_ns = max(0, time.monotonic_ns() - self._from_ns - self._excused_ns)
            if before is ProbeState.TELLING:
                self._over_ns = blocked_ns  # the thread tells it, after the beginning
            return blocked_ns if before is ProbeState.BLOCKED else None

    def _tell_over(self, blocked_ns: int) -> None:
        if blocked_ns >= LOG_AFTER_NS:
            logger("monitor").warning("the event loop runs again", blocked_seconds=round(blocked_ns / 1e9, 1))
        LOOP_RESUME.event.emit({"duration": blocked_ns}, self._about)

    # -- in the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._watch()
        except RuntimeError as error:
            if not self._loop.is_closed():  # then nothing is left to watch
                logger("monitor").exception("the thread that watches the event loop failed", reason=describe(error))
        except Exception:  # noqa: BLE001 - a thread has no caller: `check` reports that it ended
            logger("monitor").exception("the thread that watches the event loop failed")
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)

    def _watch(self) -> None:
        cpu_ns, loop_cpu_ns = time.process_time_ns(), self._loop_cpu_ns()
        wake_ns, loop_cpu_from_ns = time.monotonic_ns() + self._interval_ns, loop_cpu_ns
        while not self._stop.acquire(timeout=max(0, wake_ns - time.monotonic_ns()) / 1e9):
            now_ns, cpu_before_ns, cpu_ns = time.monotonic_ns(), cpu_ns, time.process_time_ns()
            self._wakes += 1
            send, late = self._step(wake_ns, now_ns, excused(now_ns - wake_ns, cpu_ns - cpu_before_ns))
            if send:
                self._loop.call_soon_threadsafe(self._probe)
                loop_cpu_before_ns, loop_cpu_ns = loop_cpu_ns, self._loop_cpu_ns()
                loop_cpu_from_ns = loop_cpu_ns if self._from_ns == now_ns else loop_cpu_before_ns
            if late:
                self._tell_blocked(now_ns, loop_cpu_from_ns)
            elif self._state is ProbeState.BLOCKED and now_ns - self._from_ns >= LOG_AFTER_NS:
                self._log_block(now_ns)
            wake_ns = self._next_wake(time.monotonic_ns())

    def _step(self, due_ns: int, now_ns: int, excused_ns: int) -> tuple[bool, bool]:
        """Return whether a probe has to be sent now, and whether the loop is blocked as of now."""
        with self._lock:
            send = self._state is ProbeState.RESTING
            if send:
                self._state = PROBE.step(self._state, "send")
                self._from_ns, self._excused_ns = counted_from(due_ns, now_ns), 0
            if self._state in _LATE:
                self._excused_ns += excused_ns
            if self._state is not ProbeState.ASKED:
                return False, False
            if not self._loop.is_running():  # between two runs of a loop, nothing is blocked
                self._from_ns, self._excused_ns = now_ns, 0
            elif not send or self._from_ns == due_ns:
                self._excused_ns += excused_ns
            late = now_ns - self._from_ns - self._excused_ns >= self._blocked_after_ns
            if late:
                self._state = PROBE.step(self._state, "late")
            return send, late

    def _next_wake(self, now_ns: int) -> int:
        """One interval from now, or earlier, when the outstanding probe is late."""
        wake_ns = now_ns + self._interval_ns
        if self._state is ProbeState.ASKED:
            return min(wake_ns, max(now_ns, self._from_ns + self._excused_ns + self._blocked_after_ns))
        return wake_ns

    def _tell_blocked(self, now_ns: int, loop_cpu_from_ns: int | None) -> None:
        """Emit that the loop is blocked. Its handlers run in this thread, and may take their time."""
        duration_ns = now_ns - self._from_ns - self._excused_ns
        measurements, cpu_ns = {"duration": duration_ns}, self._loop_cpu_ns()
        if cpu_ns is not None and loop_cpu_from_ns is not None:
            measurements["cpu_duration"] = min(duration_ns, cpu_ns - loop_cpu_from_ns)
        stack = stack_of_thread(self._loop_thread) if self._limit.allows(now_ns) else ""
        if stack:
            self._limit.took(now_ns)
        try:
            RESOURCE_LOOP.event.emit(measurements, {**self._about, "stack": stack})
        except FAILURES as error:  # telemetry lets SystemExit and KeyboardInterrupt pass: here they end nothing
            logger("monitor").error("a handler of resource.loop ended its thread", reason=describe(error))
        with self._lock:
            self._state = PROBE.step(self._state, "told")
            over_ns, self._over_ns = self._over_ns, None
        if over_ns is not None:
            self._loop.call_soon_threadsafe(self._tell_over, over_ns)

    def _log_block(self, now_ns: int) -> None:
        """Log the block once, with a new stack. A handler of `logging` whose lock the loop holds keeps the thread."""
        from_ns = self._from_ns
        if from_ns == self._logged_ns:
            return
        self._logged_ns = from_ns
        seconds, stack = round((now_ns - from_ns) / 1e9, 1), stack_of_thread(self._loop_thread)
        logger("monitor").warning("the event loop is blocked", seconds=seconds, stack=stack)

    def _loop_cpu_ns(self) -> int | None:
        """Processor time of the loop's thread; None where the system does not tell."""
        if self._loop_clock is None:
            return None
        try:
            return time.clock_gettime_ns(self._loop_clock)
        except OSError:
            return None


def _emit_lags(found: list[int], about: dict[str, str]) -> None:
    """Emit ``resource.loop_lag`` for each of *found*, in nanoseconds."""
    event = LOOP_LAG.event
    if not event.on:
        return
    for lag_ns in found:
        if event.skip is not None and event.skip():
            continue
        series = event.series
        if series is not None:
            try:
                series[()](lag_ns)
            except FAILURES as error:
                series.failed(error)
        if event.mapped:
            event.emit_mapped({"duration": lag_ns}, about)
