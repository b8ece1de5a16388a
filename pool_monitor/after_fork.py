"""What a process forked off the service must not keep.

A service may fork (``multiprocessing``, a ``ProcessPoolExecutor``), and what it forks may outlive it. Descriptors that
say "I am here" (the lock of a history, a listening socket) would then go on saying so for the dead.
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
    """Have *thing*, a file or socket, closed in every process that this one forks. The parent's stays open."""
    _ours.add(thing)


def _let_go() -> None:
    for thing in list(_ours):
        with suppress(OSError):
            thing.close()


os.register_at_fork(after_in_child=_let_go)
