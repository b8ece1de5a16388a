"""SIGHUP as the request to read rules again, beside whatever the service does with it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Hangup:
    """Calls a function on the event loop for each SIGHUP, from `install` to `remove`.

    The service's own handler is called as before. Where it has none, SIGHUP ends the process as before if the terminal
    that the process was started in is gone: that is what the signal was made for. Another handler that is installed
    later stays when this one is removed.
    """

    def __init__(self, reload: Callable[[], object]) -> None:
        self._reload = reload
        self._loop: asyncio.AbstractEventLoop | None = None
        self._previous: Any = None
        self._pid = 0
        self._had_terminal = False

    def install(self) -> bool:
        """Begin. Returns False where this is not possible: only the main thread may set a handler."""
        if threading.current_thread() is not threading.main_thread():
            return False
        self._loop, self._pid, self._had_terminal = asyncio.get_running_loop(), os.getpid(), _has_terminal()
        try:
            self._previous = signal.signal(signal.SIGHUP, self)
        except ValueError:  # a subinterpreter
            self._loop = None
            return False
        return True

    def remove(self) -> None:
        """End. Where another handler was installed later, this one stays below it and does nothing more by itself."""
        self._loop = None
        current: object = signal.getsignal(signal.SIGHUP)
        if threading.current_thread() is threading.main_thread() and current is self:
            # None: the handler before was not set by Python, and cannot be set again.
            signal.signal(signal.SIGHUP, signal.SIG_DFL if self._previous is None else self._previous)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._take(number, frame, taken=False)

    def _take(self, number: int, frame: FrameType | None, *, taken: bool) -> None:
        loop = self._loop
        if loop is not None and os.getpid() == self._pid and not loop.is_closed():  # in a fork, it is its parent's
            loop.call_soon_threadsafe(self._reload)
            taken = not self._had_terminal or _has_terminal()
        previous = self._previous
        if isinstance(previous, Hangup):
            previous._take(number, frame, taken=taken)
        elif callable(previous):
            previous(number, frame)
        elif previous is signal.SIG_DFL and not taken:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _has_terminal() -> bool:
    """Whether the process has a terminal that still exists."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
