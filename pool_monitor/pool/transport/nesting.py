"""Whether a pool may be opened in this process. In a worker it may, by an operation. It may not where that goes on
without end: each worker would open the pool again, which starts workers.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from pool_monitor.errors import StartError

_STARTED_AS = ("POOL_MONITOR_ZYGOTE", "POOL_MONITOR_FD")  # our program takes them out of the environment
_LOADER = "_pool_monitor_child.target"  # in a worker: child/target.py, under the name that child/__main__.py gives it
_GUARD = 'put what starts the program under `if __name__ == "__main__":`'


def refuse_endless_nesting(pool: str, target: str) -> None:
    """Raise StartError where *pool*, with the settled *target*, would be one of an endless chain."""
    for name in _STARTED_AS:
        if name in os.environ:
            raise StartError(
                f"pool {pool!r} is opened in a process that was itself started to be a worker of a pool ({name} is in "
                "its environment), and runs another program instead: give that pool python= a Python interpreter. A "
                "program that is a worker takes that variable out of its environment before it opens a pool"
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
            f"pool {pool!r} is opened by its own target, {target!r}, when a worker loads it, and so would be in every "
            f"worker of that pool again: {_GUARD}, or let an operation open it"
        )
