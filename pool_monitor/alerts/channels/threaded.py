"""Attempts that block, in a thread of their own and with a limit."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from pool_monitor.alerts.channels.sender import SEND_S
from pool_monitor.alerts.delivery.notification import Outcome
from pool_monitor.side_thread import LEAVE_S, SideThread


class Threaded:
    """Runs one attempt after the other in a daemon thread, which is named *name*. One that hangs holds up only those
    that follow it here: each of them is told so at once, and nothing piles up.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: SideThread | None = None
        self._busy = False

    async def run(self, attempt: Callable[[], Outcome]) -> Outcome:
        """Return what came of *attempt*, which must not raise."""
        if self._busy:
            return Outcome("retry", "the last attempt has not ended yet")
        if self._thread is None:
            self._thread = SideThread(self._name)

        def work() -> Outcome:
            try:
                return attempt()
            finally:
                self._busy = False

        self._busy = True
        try:
            with anyio.fail_after(SEND_S):
                return await self._thread.run(work)
        except TimeoutError:
            return Outcome("retry", f"not done within {SEND_S:g} s", unsure=True)
        except RuntimeError:
            self._busy = False
            return Outcome("retry", "the system refuses a thread")

    async def aclose(self, last: Callable[[], object] = lambda: None) -> None:
        """Run *last* and end the thread. A thread that hangs is left behind; it ends after its attempt."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if not self._busy:
                with anyio.move_on_after(LEAVE_S):
                    await thread.run(last)
            await thread.close()
