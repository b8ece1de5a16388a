"""Decides whether a pool may be opened in this process.

An operation may open a pool in its worker. A pool is refused where each of its workers would open it again, which
would start workers without end.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from pool_monitor.errors import StartError

_STARTED_AS = ("POOL_MONITOR_ZYGOTE", "POOL_MONITOR_FD")  # the pool's own worker removes them from its environment
_LOADER = "_pool_monitor_child.target"  # child/target.py in a worker, as child/__main__.py names it
_GUARD = 'put what starts the program under `if __name__ == "__main__":`'


def refuse_endless_nesting(pool: str, target: str) -> None:
    """Raise StartError if *pool* would start pools without end. *target* is that of its launch spec."""
    for name in _STARTED_AS:
        if name in os.environ:
            raise StartError(
                f"pool {pool!r} is opened in a process that a pool started as a worker ({name} is in its environment), "
                "but which runs another program: set python= of the pool that started it to a Python interpreter. A "
                "program that is a worker must remove that variable from its environment before it opens a pool"
            )
    loader: Any = sys.modules.get(_LOADER)
    if loader is None:
        return
    if loader.importing:
        raise StartError(
            f"pool {pool!r} is opened while a worker imports {loader.importing!r}: {_GUARD}, so that the file can be "
            "imported without running it. An operation may open a pool"
        )
    if target == loader.own_target and (loader.constructing or threading.current_thread() in loader.threads):
        raise StartError(
            f"pool {pool!r} is opened by its own target, {target!r}, while a worker loads it; every worker of it "
            f"would open it again: {_GUARD}, or let an operation open it"
        )
