"""Where a pool was entered: its event loop, and the thread and process of that loop."""

from __future__ import annotations

import asyncio
import os
import threading

from pool_monitor.errors import WrongLoop


class HomeLoop:
    """The event loop that runs here and now, as the home of *pool*. Raises WrongLoop where none runs."""

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
        """Whether this process was forked off the one that the loop is in."""
        return os.getpid() != self._pid

    @property
    def is_this_thread(self) -> bool:
        """Whether this is the thread of the loop, which runs no other loop now."""
        here = (os.getpid(), threading.get_ident())
        return asyncio._get_running_loop() is None and here == (self._pid, self._thread)

    def wrong_loop(self) -> WrongLoop:
        """The error to raise where the pool is used away from its home."""
        if self.is_forked:
            return WrongLoop(
                f"pool {self._pool!r} was entered in process {self._pid}, and this is process {os.getpid()}, forked "
                "off it: enter a Pool of its own here"
            )
        return WrongLoop(
            f"pool {self._pool!r} belongs to the event loop that it was entered on, and this is another one or none: "
            "use asyncio.run_coroutine_threadsafe(pool.run(...), loop) with that loop, or enter a Pool of its own here"
        )
