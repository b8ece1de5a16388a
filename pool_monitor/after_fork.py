"""Closes, in processes forked off the service, the descriptors that only the service may hold.

A service may fork (``multiprocessing``, a ``ProcessPoolExecutor``), and the forked process may outlive it. Descriptors
that show that the service runs (the lock of a history, a listening socket) would then stay open after its end.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Protocol


class _Closable(Protocol):
    def close(self) -> None: ...


_ours: weakref.WeakSet[_Closable] = weakref.WeakSet()


def keep_from_children(thing: _Closable) -> None:
    """Close *thing*, a file or socket, in every process that this one forks. Here it stays open."""
    _ours.add(thing)


def _close_in_child() -> None:
    for thing in list(_ours):
        with suppress(OSError):
            thing.close()


os.register_at_fork(after_in_child=_close_in_child)
