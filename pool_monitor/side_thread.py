"""A thread for work that may hang, which an event loop waits for and the end of the program does not."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

LEAVE_S = 1.0
"""How long `SideThread.close` waits for a function that runs."""


class _Asked(NamedTuple):
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    function: Callable[[], Any]
    last: bool = False


class _Result:
    """What a function has returned. Its repr shows none of it: asyncio logs futures and callbacks in its debug mode,
    and it may be a secret.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


class SideThread:
    """Runs functions one after the other in one daemon thread, which starts with the first.

    The threads of asyncio's and anyio's pools are joined when the program ends: a function that hangs, as in a file of
    /proc that the file system of a container does not answer for, or on a network disk, would keep the service from
    ending. *name* is part of the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Return what *function* returns, or raise the exception that it raises. When this is cancelled, the function
        goes on, and its result is dropped. Raises RuntimeError when the system refuses a thread.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=f"pool_monitor {self._name}", daemon=True)
            thread.start()
            self._thread = thread
        result: _Result = await self._ask(function)
        value: T = result.value
        return value

    async def close(self) -> None:
        """End the thread. After `LEAVE_S`, a thread that still runs a function is left behind; it ends after it."""
        if self._thread is not None:
            await asyncio.wait([self._ask(lambda: None, last=True)], timeout=LEAVE_S)

    def _ask(self, function: Callable[[], Any], *, last: bool = False) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._asked.put(_Asked(loop, answer, function, last))
        return answer

    def _work(self) -> None:
        last = False
        while not last:
            loop, answer, function, last = self._asked.get()
            value: _Result | None = None
            error: Exception | None = None
            try:
                value = _Result(function())
            except BaseException as raised:  # noqa: BLE001 - handed to the caller
                error = raised if isinstance(raised, Exception) else RuntimeError(f"it was ended by {raised!r}")
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_answer, answer, value, error)
            del loop, answer, function, value, error  # while it waits, the thread keeps no monitor alive


def _answer(answer: asyncio.Future[Any], value: object, error: Exception | None) -> None:
    if answer.cancelled():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)
