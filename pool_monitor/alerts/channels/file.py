"""A file as a channel: one JSON object a line, as the webhook format ``native`` has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from pool_monitor.alerts.channels.formats.native import NATIVE
from pool_monitor.alerts.channels.sender import SEND_S
from pool_monitor.alerts.channels.text import cut
from pool_monitor.alerts.delivery.notification import SENT, Outcome
from pool_monitor.alerts.line_file import LineFile
from pool_monitor.side_thread import SideThread

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification
    from pool_monitor.alerts.routing import FileChannel

MAX_BYTES = 10 * 1024 * 1024
"""A file that would become longer is renamed to ``PATH.1``."""
KEEP = 5
"""How many of those are kept."""


class FileSender:
    """Appends each notification to a file, in a thread of its own: a disk that hangs delays nothing else."""

    kind = "file"

    def __init__(self, channel: FileChannel) -> None:
        self.where = cut(channel.path)
        self._file = LineFile(channel.path, b'{"type":', max_bytes=MAX_BYTES, keep=KEEP)
        self._thread: SideThread | None = None
        self._writing = False

    async def send(self, notification: Notification) -> Outcome:
        """Append *notification*."""
        if self._writing:
            return Outcome("retry", "the disk has not answered since the last attempt")
        if self._thread is None:
            self._thread = SideThread("alerts to a file")
        line = NATIVE.body(notification, "") + b"\n"

        def write() -> None:
            try:
                self._file.write(line)
            finally:
                self._writing = False

        try:
            with anyio.fail_after(SEND_S):
                self._writing = True
                await self._thread.run(write)
        except TimeoutError:
            return Outcome("retry", f"the disk has not answered within {SEND_S:g} s", unsure=True)
        except OSError as error:
            return Outcome("retry", cut(str(error)))
        except RuntimeError:
            self._writing = False
            return Outcome("retry", "the system refuses a thread")
        return SENT

    async def aclose(self) -> None:
        """Close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if not self._writing:
                with anyio.move_on_after(1.0):
                    await thread.run(self._file.close)
            await thread.close()
