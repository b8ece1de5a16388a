"""Processes that runs of the laboratory are spread over."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def executor(processes: int | None = None) -> ProcessPoolExecutor:
    """Return an executor with so many processes, or one for each processor. They end with this one, however it ends."""
    return ProcessPoolExecutor(
        processes or os.cpu_count(), mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )


def _end_with_parent() -> None:
    """An executor tells its processes to end. One that is killed cannot: they would wait for work for ever."""
    threading.Thread(target=_wait_for_parent, name="parent", daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
