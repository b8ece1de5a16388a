"""The file of memory a worker shares with us: made here, and gone when neither has it mapped any more."""

from __future__ import annotations

import fcntl
import os

from pool_monitor.pool.transport.child.shared import Shared, file_size


class SharedFile:
    """One worker's. The descriptor is for the worker; close it when the worker has been started."""

    def __init__(self, frame_limit: int) -> None:
        """Raises OSError when there can be none: a worker also works without."""
        self.fd = _unnamed_file()
        try:
            os.truncate(self.fd, file_size(frame_limit))
            # Its length is fixed before anybody maps it: reading a page that a worker has cut off would kill us.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
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
    try:
        return os.memfd_create("pool_monitor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except AttributeError:  # elsewhere than on Linux, no file can be kept from being cut
        raise OSError("no memory that could be shared safely") from None
