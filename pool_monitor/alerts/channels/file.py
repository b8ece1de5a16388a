"""A file as a channel: one JSON object a line, as the webhook format ``native`` has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pool_monitor.alerts.channels.formats.native import NATIVE
from pool_monitor.alerts.channels.text import cut
from pool_monitor.alerts.channels.threaded import Threaded
from pool_monitor.alerts.delivery.notification import SENT, Outcome
from pool_monitor.alerts.line_file import LineFile

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification
    from pool_monitor.alerts.routing import FileChannel

MAX_BYTES = 10 * 1024 * 1024
"""A file that would become longer is renamed to ``PATH.1``."""
KEEP = 5
"""How many of those are kept."""


class FileSender:
    """Appends each notification to a file, which a relative path leads to from the working directory."""

    kind = "file"

    def __init__(self, channel: FileChannel) -> None:
        self.where = cut(channel.path)
        self._file = LineFile(channel.path, b'{"type":', max_bytes=MAX_BYTES, keep=KEEP)
        self._thread = Threaded("alerts to a file")

    async def send(self, notification: Notification) -> Outcome:
        """Append *notification*."""
        line = NATIVE.body(notification, "") + b"\n"

        def write() -> Outcome:
            try:
                self._file.write(line)
            except OSError as error:
                return Outcome("retry", f"cannot be written: {cut(error.strerror or str(error))}")
            return SENT

        return await self._thread.run(write)

    async def aclose(self) -> None:
        """Close the file."""
        await self._thread.aclose(self._file.close)
