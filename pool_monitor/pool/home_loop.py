"""The event loop that a pool was entered on, with the thread and process of that loop."""

from __future__ import annotations

import asyncio
import os
import threading

from pool_monitor.errors import WrongLoop


class HomeLoop:
    """The event loop that runs at this moment, as the home of *pool*. Raises WrongLoop if no loop runs."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._pid, self._thread = os.getpid(), threading.get_ident()
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongLoop(
                f"pool {pool!r} needs asyncio, and no asyncio event loop runs here: start the program with "
                "asyncio.run(main()), or with anyio.run(main, backend='asyncio')"
            ) from None

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked off the process of the loop."""
        return os.getpid() != self._pid

    @property
    def is_this_thread(self) -> bool:
        """Whether this is the thread of the loop, and no loop runs in it now."""
        here = (os.getpid(), threading.get_ident())
        return asyncio._get_running_loop() is None and here == (self._pid, self._thread)

    def allows(self, *, closed: bool) -> bool:
        """Whether the pool can be used where its event loop does not run. In the loop's thread, before and after the
        loop runs, methods that do not wait are allowed. False: the pool is *closed*, or its loop is. Raises WrongLoop
        elsewhere.
        """
        if self.is_this_thread:
            return True
        if not self.is_forked and (closed or self.loop.is_closed()):
            return False
        raise self.wrong_loop()

    def wrong_loop(self) -> WrongLoop:
        """Return the error to raise when the pool is used on another loop, or in another process."""
        if self.is_forked:
            return WrongLoop(
                f"pool {self._pool!r} was entered in process {self._pid}, and this is process {os.getpid()}, forked "
                "off it: enter another Pool here"
            )
        return WrongLoop(
            f"pool {self._pool!r} belongs to the event loop that it was entered on, and this code runs on another loop "
            "or on none: use asyncio.run_coroutine_threadsafe(pool.run(...), loop) with the pool's loop, or enter "
            "another Pool here"
        )
