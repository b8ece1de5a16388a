"""The memory file that a worker shares with the service. It exists until neither side has it mapped."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import weakref
from collections.abc import Callable
from typing import Any

from pool_monitor.pool.transport.child.codec import LARGE
from pool_monitor.pool.transport.child.shared_memory import SharedMemory, file_size

# How a msgpack reply or item begins whose value is bytes, up to the bytes. No message of another codec begins so.
_BYTES = re.compile(
    rb"(?:[\x93\x95]|\xdc\0[\x03\x05]|\xdd\0\0\0[\x03\x05])"  # an array of three elements or five
    rb"(?:\xa5reply|\xa4item)"
    rb"(?:[\0-\x7f]|\xcc.|\xcd.{2}|\xce.{4}|\xcf.{8})"  # the call's id
    rb"\xc6(.{4})",
    re.DOTALL,
)
_NIL = b"\xc0"


def split_off_value(lent: memoryview) -> tuple[bytes, int, int]:
    """Return a copy of the message in *lent*, and the start and end of its value in *lent*.

    If the value is large and bytes, nil stands for it in the copy. Else the copy is whole, and start and end are 0. So
    a large value is copied once, and nothing is decoded that the worker can change meanwhile.
    """
    found = _BYTES.match(bytes(lent[:32]))
    if found is not None:
        start = found.end()
        end = start + int.from_bytes(found[1], "big")
        if start + LARGE <= end <= len(lent):
            return found[0][:-5] + _NIL + bytes(lent[end:]), start, end
    return bytes(lent), 0, 0


class SharedFile:
    """The memory file of one worker, which inherits the descriptor: close it once the worker has been started."""

    def __init__(self, frame_limit: int) -> None:
        """Raises OSError if the file cannot be made. A worker also works without it."""
        self.fd = _unnamed_file()
        try:
            os.truncate(self.fd, file_size(frame_limit))
            # The length is sealed before mapping: reading a page that a worker has cut off would kill the service.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.memory = SharedMemory(self.fd, frame_limit, parent=True)
        except BaseException:
            os.close(self.fd)
            raise

    def view(self, start: int, end: int, gone: Callable[[Any], None]) -> tuple[memoryview, weakref.ref[Any]] | None:
        """Return a view of the worker's area from *start* to *end*, and a weak reference that dies with the view.

        Slices of the view, and arrays made from it, keep the reference alive too. When the last is gone, *gone* is
        called, in any thread. Until then the memory stays mapped, also after `close`. Returns None where Python is
        built without ctypes.
        """
        exporter = _exporter(self.memory.size)
        if exporter is None:
            return None
        # A slice or an array of a view keeps alive the object under the view, but not the view.
        area = exporter.from_buffer(self.memory.map, self.memory.theirs)
        return memoryview(area).cast("B")[start:end].toreadonly(), weakref.ref(area, gone)

    def close_fd(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.close_fd()
        self.memory.close()


@functools.lru_cache(maxsize=8)
def _exporter(size: int) -> Any:
    """Return a type whose objects view *size* bytes and support weak references. None without ctypes."""
    try:
        import ctypes  # hardly ever needed
    except ImportError:
        return None
    return ctypes.c_ubyte * size


def _unnamed_file() -> int:
    try:
        return os.memfd_create("pool_monitor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except AttributeError:  # only Linux has files that can be sealed
        raise OSError("no memory that could be shared safely") from None
