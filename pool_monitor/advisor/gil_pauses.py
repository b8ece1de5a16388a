"""`yield_gil`: pauses of a pass that runs in a thread, so that the event loop gets the interpreter in between.

A thread that computes gives the interpreter (the GIL) away every 5 ms only, and the loop needs it again after each call
of the system: a few of them in a row make it late by tens of milliseconds. `time.sleep(0)` does not help: the thread
has the interpreter back before the loop has woken up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE_S = 5e-5

_thread = threading.local()


@contextmanager
def gil_pauses() -> Iterator[None]:
    """While open, `yield_gil` pauses in this thread."""
    _thread.pauses = True
    try:
        yield
    finally:
        _thread.pauses = False


def yield_gil() -> None:
    """Give the interpreter away for `PAUSE_S` if this thread is one that does so. To be called about once a
    millisecond; elsewhere, as in the laboratory, it costs nothing.
    """
    if getattr(_thread, "pauses", False):
        time.sleep(PAUSE_S)
