"""Brings the items of streams from workers to readers, and makes a worker wait for a slow reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pool_monitor.errors import OperationTimeout, PayloadError
from pool_monitor.pool.call import Call
from pool_monitor.pool.item_limits import ItemLimits
from pool_monitor.pool.stream_buffer import StreamBuffer
from pool_monitor.pool.transport.interface import Failure

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.roster import Roster
    from pool_monitor.pool.worker import Worker


class Streams:
    """The streams of a pool's calls. *interrupt* ends a call for its caller, with an error and a reason; *overdue* ends
    a call that exceeded a time limit; *misbehaved* ends a worker that violates the protocol.
    """

    def __init__(
        self,
        roster: Roster,
        config: PoolConfig,
        interrupt: Callable[[Call, BaseException, str], None],
        overdue: Callable[[Call, OperationTimeout], None],
        misbehaved: Callable[[Worker, str], None],
    ) -> None:
        self._roster, self._config = roster, config
        self._interrupt, self._overdue, self._misbehaved = interrupt, overdue, misbehaved

    def configure(self, config: PoolConfig) -> None:
        """Use *config* for streams that begin from now on."""
        self._config = config

    def items(self, *, collect: bool) -> StreamBuffer:
        """Make the buffer for the items of a new call. *collect*: the caller reads the items after the last one."""
        return StreamBuffer(asyncio.get_running_loop(), limit=self._config.frame_limit if collect else None)

    def watch(self, call: Call) -> None:
        """Start the time limits of a call that was admitted, if it has any."""
        config, own = self._config, call.options
        first = config.first_item_timeout if own.first_item_timeout is None else own.first_item_timeout
        between = config.item_timeout if own.item_timeout is None else own.item_timeout
        if call.items is not None and (first is not None or between is not None):
            call.items.limits = ItemLimits(first, between, partial(self._exceeded, call))

    def _exceeded(self, call: Call, missing: str) -> None:
        """End a call whose stream has exceeded a time limit. *missing* says which item did not come."""
        on = call.worker.id if call.worker is not None else "?"
        self._overdue(call, OperationTimeout(f"{call.operation} gave {missing}, on {on}"))

    def item(self, worker: Worker, call_id: int, value: Any, size: int) -> None:
        """Handle an item of *size* bytes that a worker's generator yielded."""
        call = worker.calls.get(call_id)
        if call is None or call.done or call.items is None:
            return
        if call.items.put(value, size):
            self.hold(worker, call, True)
        if call.items.overrun:
            if call.items.limit is None:
                self._misbehaved(worker, f"the stream of {call.operation!r} does not pause when asked to")
            else:
                text = f"its items take more than the frame limit of {call.items.limit} bytes together"
                self.undecodable_item(worker, call_id, Failure("payload", "PayloadError", f"{text}; use stream()", ""))

    def undecodable_item(self, worker: Worker, call_id: int, failure: Failure) -> None:
        """End a call whose generator yielded an item that cannot be carried."""
        call = worker.calls.get(call_id)
        if call is not None and not call.done:
            error = PayloadError(call.operation, failure.type_name, failure.message, failure.traceback)
            self._interrupt(call, error, "payload")

    def read_on(self, call: Call) -> None:
        """Let the worker go on: the caller has caught up with its stream."""
        worker = self._roster.workers.get(call.worker.id) if call.running and call.worker is not None else None
        if worker is not None:
            self.hold(worker, call, False)

    def hold(self, worker: Worker, call: Call, held: bool) -> None:
        """Have the call's stream pause (*held*), because it is not read, or go on."""
        transport, items = worker.transport, call.items
        if transport is None or items is None:
            return
        if self._roster.concurrency == 1:
            transport.flow(paused=held)
        elif held is not items.held:  # only this stream, since the answers of the worker's other calls must arrive
            items.held = held
            transport.hold(call.id, held=held)
