"""Streams: what their workers yield goes to whoever reads it, and where that is slow the worker has to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pool_monitor.errors import OperationTimeout, PayloadError
from pool_monitor.pool.call import Call, Items
from pool_monitor.pool.item_limits import ItemLimits
from pool_monitor.pool.transport.base import Failure

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.roster import Roster
    from pool_monitor.pool.worker import Wardens, Worker


class Streams:
    """The streams of a pool's calls. *interrupt* ends a call for its caller, with an error and a reason; *overdue* one
    that took too long.
    """

    def __init__(
        self,
        roster: Roster,
        wardens: Wardens,
        config: PoolConfig,
        interrupt: Callable[[Call, BaseException, str], None],
        overdue: Callable[[Call, OperationTimeout], None],
    ) -> None:
        self._roster, self._wardens, self._config = roster, wardens, config
        self._interrupt, self._overdue = interrupt, overdue

    def items(self, *, collect: bool) -> Items:
        """For those of a new call. *collect*: they are wanted only when they are all there."""
        return Items(asyncio.get_running_loop(), limit=self._config.frame_limit if collect else None)

    def watch(self, call: Call) -> None:
        """The call was taken in: its limits count from now on."""
        config, own = self._config, call.options
        first = config.first_item_timeout if own.first_item_timeout is None else own.first_item_timeout
        between = config.item_timeout if own.item_timeout is None else own.item_timeout
        if call.items is not None and (first is not None or between is not None):
            call.items.limits = ItemLimits(call, first, between, self._overdue)

    def item(self, worker: Worker, call_id: int, value: Any, size: int) -> None:
        """The worker's generator yielded; the item took *size* bytes."""
        call = worker.calls.get(call_id)
        if call is None or call.done or call.items is None:
            return
        if call.items.put(value, size):
            self.hold(worker, call, True)
        if call.items.overrun:
            if call.items.limit is None:
                self._wardens.misbehaved(worker, f"the stream of {call.operation!r} does not stand still when told to")
            else:
                text = f"its items take more than the frame limit of {call.items.limit} bytes together"
                self.undecodable_item(worker, call_id, Failure("payload", "PayloadError", f"{text}; use stream()", ""))

    def undecodable_item(self, worker: Worker, call_id: int, failure: Failure) -> None:
        """The worker's generator yielded something its caller cannot be given: nobody needs the rest."""
        call = worker.calls.get(call_id)
        if call is not None and not call.done:
            error = PayloadError(call.operation, failure.type_name, failure.message, failure.traceback)
            self._interrupt(call, error, "payload")

    def read_on(self, call: Call) -> None:
        """The caller has caught up with its stream."""
        if call.running and call.worker is not None:
            self.hold(call.worker, call, False)

    def hold(self, worker: Worker, call: Call, held: bool) -> None:
        """Have the call's stream stand still, because nobody reads it, or go on."""
        transport, items = worker.transport, call.items
        if transport is None or items is None:
            return
        if self._roster.concurrency == 1:
            transport.flow(paused=held)
        elif held is not items.held:  # what its other calls answer has to come through
            items.held = held
            transport.hold(call.id, held=held)
