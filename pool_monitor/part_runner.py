"""Run one part of the monitor, and contain its failures.

Theory of operation
-------------------
`PartRunner` runs its part in a separate task that enters the part, waits, and leaves it. So entering and leaving happen
in the same task. Each has a time limit: a part that hangs is cancelled and delays nothing else. `tick` and `view` are
synchronous, and the runner catches what they raise. A part that fails is reported once and left. After a pause, which
doubles each time, the runner enters a new object in its place. The part counts as recovered once it has run for as long
as the first pause. A part that ignores its cancellation keeps its place: the runner makes no second one beside it.

A synchronous method cannot be interrupted, and while it blocks, so does the event loop. A part whose ticks are slow
several times in a row therefore counts as failed, and the pauses between restarts bound its cost. A view that fails, or
is slow as many times in a row, is not read again until a pause is over; the part itself keeps running.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.log import logger
from pool_monitor.parts import Context, Limits, Part, PartUnavailable, error_of, retrieve_error
from pool_monitor.side_thread import SideThread
from pool_monitor.snapshot.validation import checked
from pool_monitor.telemetry import FAILURES, describe, pass_on


class PartRunner:
    """Runs one part and contains its failures: no method raises, except that `start` may raise ConfigError."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Part],
        view_kind: type[Struct] | None,
        context: Context,
        limits: Limits,
        modules: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.part: Part | None = None
        """The part, while it is entered and has not failed."""
        self._make, self._view_kind, self._context = make, view_kind, context
        self._limits, self._modules = limits, modules
        self._life: asyncio.Task[None] | None = None  # enters the part, waits, and leaves it
        self._leave = asyncio.Event()
        self._restart: asyncio.Task[None] | None = None
        self._entering = False  # the restart is entering a new part
        self._causes: set[str] = set()  # why the part is degraded: "run", "view"
        self._pause = self._limits.pause
        self._entered_at = 0.0
        self._slow_ticks = self._slow_views = 0  # in a row
        self._view_pause = self._limits.pause
        self._view_again_at = 0.0

    async def start(self) -> None:
        """Enter the part. Raises the part's ConfigError; any other failure is reported, and the part is tried again."""
        self._causes.clear()
        self._pause = self._view_pause = self._limits.pause
        self._view_again_at, self._slow_views = 0.0, 0
        life = self._life
        if life is not None and not life.done() and life.get_loop() is asyncio.get_running_loop():
            self._fail(PartUnavailable("its previous run has not ended yet"))
            return
        try:
            await self._enter()
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001 - the monitor can run without this part
            self._fail(error)

    async def stop(self) -> None:
        """Leave the part, within the limits."""
        if self._restart is not None and self._entering:
            self._restart.cancel()  # nothing has begun yet that needs time to end
        try:
            await self._end_life()  # before the restart is cancelled: it may be leaving the part right now
        finally:
            restart, self._restart = self._restart, None
            if restart is not None:
                restart.cancel()
                await asyncio.wait([restart], timeout=2 * self._limits.cancel)
                await self._end_life()

    def tick(self) -> None:
        """Tick the part, if it is running."""
        part, life = self.part, self._life
        if part is None or life is None:
            return
        began = time.perf_counter()
        try:
            if life.done():
                raise error_of(life)
            part.tick()
        except FAILURES as error:
            pass_on(error)
            self._fail(error)
            return
        took = time.perf_counter() - began
        self._slow_ticks = self._slow_ticks + 1 if took > self._limits.sync else 0
        if self._slow_ticks >= self._limits.slow:
            self._fail(PartUnavailable(f"a tick takes {took:.2f} s and blocks the event loop for that long"))
            return
        ran = asyncio.get_running_loop().time() - self._entered_at
        if not self._slow_ticks and ran >= self._limits.pause:
            self._recover("run", "it runs again")
        if ran >= self._limits.pause_max:
            self._pause = self._limits.pause

    def view(self) -> Struct | None:
        """What a Snapshot shows of the part. None while the part is not running or its view fails."""
        part = self.part
        if part is None or self._view_kind is None or time.monotonic() < self._view_again_at:
            return None
        began = time.perf_counter()
        try:
            found = part.view()
            view = None if found is None else checked(self._view_kind, msgspec.structs.asdict(found))
        except FAILURES as error:
            pass_on(error)
            self._pause_view(error)
            return None
        took = time.perf_counter() - began
        self._slow_views = self._slow_views + 1 if took > self._limits.sync else 0
        if self._slow_views >= self._limits.slow:
            self._pause_view(PartUnavailable(f"a view takes {took:.2f} s and blocks the event loop for that long"))
        elif not self._slow_views:
            self._view_pause = self._limits.pause
            self._recover("view", "its view can be read again")
        return view

    # -- life of the part -----------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        """Start the task of a new part, and wait until the part is entered. Raises what ended the task instead."""
        loop = asyncio.get_running_loop()
        entered: asyncio.Future[Part] = loop.create_future()
        self._leave = asyncio.Event()
        life = self._life = loop.create_task(self._live(entered, self._leave), name=f"pool_monitor {self.name}")
        life.add_done_callback(retrieve_error)
        either: tuple[asyncio.Future[Any], ...] = (life, entered)
        try:
            await asyncio.wait(either, timeout=self._limits.enter, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._cancel(life)
            raise
        if entered.done():
            self.part, self._slow_ticks, self._entered_at = entered.result(), 0, loop.time()
        elif life.done():
            raise error_of(life)
        else:
            self._leave.set()  # for a part that ignores its cancellation and is entered later
            await self._cancel(life)
            raise PartUnavailable(f"it could not be started within {self._limits.enter:g} s")

    async def _live(self, entered: asyncio.Future[Part], leave: asyncio.Event) -> None:
        owner = os.getpid()
        await _imported(self._modules)
        part = self._make()
        await part.__aenter__()
        try:
            entered.set_result(part)
            await leave.wait()
        finally:
            if os.getpid() == owner:  # not in a forked process: the resources belong to its parent
                await part.__aexit__(None, None, None)

    async def _end_life(self) -> None:
        """Leave the part. A part that hangs is reported and cancelled."""
        life, ran = self._life, self.part is not None
        self.part = None
        if life is None or life.cancelling():  # an earlier cancellation is still being ignored
            return
        self._leave.set()
        try:
            await asyncio.wait([life], timeout=self._limits.leave)
        except asyncio.CancelledError:
            await self._cancel(life)
            raise
        if not life.done():
            self._report("run", PartUnavailable(f"it could not be stopped within {self._limits.leave:g} s"))
            await self._cancel(life)
        elif ran and (life.cancelled() or life.exception() is not None):
            self._report("run", error_of(life))

    async def _cancel(self, life: asyncio.Task[None]) -> None:
        life.cancel()
        await asyncio.wait([life], timeout=self._limits.cancel)

    def _fail(self, error: BaseException) -> None:
        self._report("run", error)
        self.part = None
        if self._restart is None:
            self._restart = asyncio.get_running_loop().create_task(
                self._enter_again(), name=f"pool_monitor {self.name} again"
            )

    async def _enter_again(self) -> None:
        """Leave the failed part, and try to enter a new one after each of a series of growing pauses."""
        await self._end_life()
        while True:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, self._limits.pause_max)
            if self._life is not None and not self._life.done():
                continue  # the old part still ignores its cancellation
            self._entering = True
            try:
                await self._enter()
            except Exception as error:  # noqa: BLE001 - as in start, including a configuration that has become wrong
                self._report("run", error)
            else:
                break
            finally:
                self._entering = False
        self._restart = None

    # -- reports --------------------------------------------------------------------------------------------------

    def _report(self, cause: str, error: BaseException) -> None:
        """Report once that the part is degraded, until it recovers. A defect is logged with its traceback."""
        if cause in self._causes:
            return
        self._causes.add(cause)
        if isinstance(error, PartUnavailable):
            reason = str(error)
        else:
            reason = describe(error)
            if not isinstance(error, PoolError | OSError):
                trace = "".join(traceback.format_exception(error))
                logger("monitor").error("a part of the monitor failed", part=self.name, stacktrace=trace)
        self._context.degraded(self.name, reason)

    def _recover(self, cause: str, what: str) -> None:
        if cause in self._causes:
            self._causes.discard(cause)
            self._context.recovered(self.name, what)

    def _pause_view(self, error: BaseException) -> None:
        self._report("view", error)
        self._view_again_at = time.monotonic() + self._view_pause
        self._view_pause = min(self._view_pause * 2, self._limits.pause_max)


async def _imported(modules: Iterable[str]) -> None:
    """Import *modules* in a thread, because it takes a tenth of a second, for which an event loop must not stand still.

    If the system refuses a thread, the part imports them itself.
    """
    missing = [name for name in modules if name not in sys.modules]
    if not missing:
        return
    thread = SideThread("imports")
    try:
        with suppress(RuntimeError):
            await thread.run(lambda: [importlib.import_module(name) for name in missing])
    finally:
        await thread.close()
