"""What the process and its terminal can do, and giving both back as they were found."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pool_monitor.view import ASCII, UNICODE, Glyphs

_QUIT_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_TEXTUAL_SIGNALS = (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH, signal.SIGTTOU, signal.SIGTTIN)


def can_run() -> bool:
    """Whether a full-screen dashboard makes sense here: a terminal that can do more than print, in the main thread."""
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    if not all(stream is not None and not stream.closed and stream.isatty() for stream in streams):
        return False
    return os.environ.get("TERM", "dumb") != "dumb" and threading.current_thread() is threading.main_thread()


def glyphs_for(environ: Mapping[str, str], encoding: str = "utf-8") -> Glyphs:
    """The glyphs for a terminal of this environment, whose stream writes *encoding*.

    Where no locale is set at all, UTF-8 is assumed, as Python does. A plain C locale means ASCII.
    """
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "UTF-8"
    # Started in a C locale, Python sets LC_CTYPE to a UTF-8 one for itself and its children (PEP 538). What the
    # person's terminal was set up for is still in LANG.
    if not environ.get("LC_ALL") and environ.get("LC_CTYPE") in {"C.UTF-8", "C.utf8", "UTF-8"}:
        locale = environ.get("LANG") or locale
    names = (locale, encoding)
    return UNICODE if all("utf8" in name.lower().replace("-", "") for name in names) else ASCII


def stdout_glyphs() -> Glyphs:
    """The glyphs for what is printed to stdout."""
    return glyphs_for(os.environ, getattr(sys.stdout, "encoding", None) or "utf-8")


@contextmanager
def restoring_process(leave: Callable[[], None]) -> Iterator[None]:
    """Lend process and running loop to Textual, and undo what it changes: signal handlers, the loop's task factory.

    Meanwhile SIGTERM and SIGHUP call *leave*, so that the terminal is put right before the process goes. A host
    that handles them itself keeps its handlers; it is expected to cancel us.
    """
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    before = {number: signal.getsignal(number) for number in _TEXTUAL_SIGNALS}
    ours = [number for number in _QUIT_SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        loop.add_signal_handler(number, leave)
    try:
        yield
    finally:
        for number in ours:
            loop.remove_signal_handler(number)
        for number, handler in before.items():
            if handler is not None:  # None: set by C code, which we could not set again
                signal.signal(number, handler)
        loop.set_task_factory(factory)
