"""The file of memory a worker shares with us: made here, and gone when neither has it mapped any more."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from pool_monitor.pool.transport.child.shared import Shared, file_size


class SharedFile:
    """One worker's. The descriptor is for the worker; close it when the worker has been started."""

    def __init__(self, frame_limit: int) -> None:
        """Raises OSError when there can be none: a worker also works without."""
        self.fd = _unnamed_file()
        try:
            os.truncate(self.fd, file_size(frame_limit))
            self.memory = Shared(self.fd, frame_limit, parent=True)
        except BaseException:
            os.close(self.fd)
            raise

    def close_fd(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.close_fd()
        self.memory.close()


def _unnamed_file() -> int:
    with contextlib.suppress(AttributeError, OSError):  # elsewhere than on Linux
        return os.memfd_create("pool_monitor")
    fd, path = tempfile.mkstemp(prefix="pool_monitor-")
    Path(path).unlink()
    return fd
