"""Stacks of workers: on request, and by themselves before a worker is interrupted or killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pool_monitor.errors import OperationTimeout, UnknownName, WorkerDied, add_stack
from pool_monitor.pool.transport import stack_text
from pool_monitor.pool.transport.interface import StackAnswer

if TYPE_CHECKING:
    from pool_monitor.pool.transport.interface import StackSource, Transport
    from pool_monitor.pool.worker import Worker

PATIENCE = 1.0
"""Seconds that a request for a stack takes at most."""
BEFORE_END = 0.04
"""Seconds by which a call's end or a kill may be late for the sake of a stack. It takes 1 to 2 ms if the machine is not
overloaded."""
_SPACING = 0.1  # seconds
_CUT = 16 * 1024  # characters of a stack in an error or an event


async def stack_of(workers: Mapping[str, Worker], slot: str) -> StackAnswer:
    """Return the stack of the worker in *slot* now, or why there is none. Takes at most a second. Requests for the same
    worker share one answer. Raises UnknownName.
    """
    worker = workers.get(slot)
    if worker is None:
        raise UnknownName(f"no worker {slot!r}; there are {', '.join(sorted(workers)) or 'none'}")
    transport = worker.transport
    if transport is None:
        return StackAnswer(None, "no process is ready in this slot")
    source = _source(transport)
    if source is None:
        return StackAnswer(None, "its program does not tell stacks")
    return await asyncio.shield(source.take(PATIENCE))  # others may share it


def before_end(transport: Transport | None, then: Callable[[str | None], None], *, often: bool) -> None:
    """Take a stack, then call *then* with it: on the event loop, at most 40 ms later. Calls *then* at once, with None,
    if the worker cannot tell. *often*: ends of this kind can follow each other closely. Then a worker is asked ten
    times a second at most.
    """
    source = None if transport is None else _source(transport)
    if source is None or (often and source.recent(_SPACING)):
        then(None)
        return
    taking = source.take(BEFORE_END)
    if taking.done():
        then(_cut(taking.result()))
    else:
        _Waiting(taking, then)


class _Waiting:
    """Calls *then* once: with the answer of *taking*, or with None when the time is up."""

    def __init__(self, taking: asyncio.Future[StackAnswer], then: Callable[[str | None], None]) -> None:
        self._then: Callable[[str | None], None] | None = then
        self._timer = taking.get_loop().call_later(BEFORE_END, self._end, None)
        taking.add_done_callback(lambda done: self._end(_cut(done.result())))

    def _end(self, text: str | None) -> None:
        then, self._then = self._then, None
        self._timer.cancel()
        if then is not None:
            then(text)


def with_stack(error: BaseException, text: str | None) -> None:
    """Put the stack *text* into *error*, if it has a place for it."""
    if text and isinstance(error, OperationTimeout | WorkerDied):
        add_stack(error, text)


def _cut(answer: StackAnswer) -> str | None:
    return None if answer.text is None else stack_text.cut(answer.text, _CUT)


def _source(transport: Transport) -> StackSource | None:
    found: StackSource | None = getattr(transport, "stacks", None)
    return found
