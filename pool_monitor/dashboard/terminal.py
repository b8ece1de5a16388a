"""What the process and its terminal can do, and restoring both after the dashboard."""

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
    """Whether a full-screen dashboard can run: in the main thread, on a terminal that is not a dumb one."""
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    if not all(stream is not None and not stream.closed and stream.isatty() for stream in streams):
        return False
    return os.environ.get("TERM", "dumb") != "dumb" and threading.current_thread() is threading.main_thread()


def glyphs_for(environ: Mapping[str, str], encoding: str = "utf-8") -> Glyphs:
    """Return the glyphs for a terminal in this environment whose stream writes *encoding*.

    If no locale is set at all, UTF-8 is assumed, as in Python. A plain C locale means ASCII.
    """
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "UTF-8"
    # Started in a C locale, Python sets LC_CTYPE to a UTF-8 locale for itself and its children (PEP 538). LANG still
    # holds the locale of the terminal.
    if not environ.get("LC_ALL") and environ.get("LC_CTYPE") in {"C.UTF-8", "C.utf8", "UTF-8"}:
        locale = environ.get("LANG") or locale
    names = (locale, encoding)
    return UNICODE if all("utf8" in name.lower().replace("-", "") for name in names) else ASCII


def stdout_glyphs() -> Glyphs:
    """Return the glyphs for text that is printed to stdout."""
    return glyphs_for(os.environ, getattr(sys.stdout, "encoding", None) or "utf-8")


@contextmanager
def restoring_process(leave: Callable[[], None]) -> Iterator[None]:
    """Restore, after the block, what Textual changes: signal handlers and the task factory of the running loop.

    In the block, SIGTERM and SIGHUP call *leave*, so that the terminal is restored before the process ends. A service
    that handles these signals keeps its handlers, and must cancel the dashboard itself.
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
            if handler is not None:  # None: a handler of C code, which Python cannot set again
                signal.signal(number, handler)
        loop.set_task_factory(factory)
