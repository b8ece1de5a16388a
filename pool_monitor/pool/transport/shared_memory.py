"""The file of memory a worker shares with us: made here, and gone when neither has it mapped any more."""

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

# The beginning of a reply or an item in msgpack whose value is bytes, up to these. No other codec's messages begin so.
_BYTES = re.compile(
    rb"(?:[\x93\x95]|\xdc\0[\x03\x05]|\xdd\0\0\0[\x03\x05])"  # an array of three elements or five
    rb"(?:\xa5reply|\xa4item)"
    rb"(?:[\0-\x7f]|\xcc.|\xcd.{2}|\xce.{4}|\xcf.{8})"  # the call's id
    rb"\xc6(.{4})",
    re.DOTALL,
)
_NIL = b"\xc0"


def split_off_value(lent: memoryview) -> tuple[bytes, int, int]:
    """A copy of the message in *lent* for decoding, and where in *lent* its value begins and ends, if that is large and
    bytes: nil stands for it in the copy. Else the copy is whole, and the place 0, 0.

    So such a value can be had with one copy, and nothing is decoded that the worker can change meanwhile.
    """
    found = _BYTES.match(bytes(lent[:32]))
    if found is not None:
        start = found.end()
        end = start + int.from_bytes(found[1], "big")
        if start + LARGE <= end <= len(lent):
            return found[0][:-5] + _NIL + bytes(lent[end:]), start, end
    return bytes(lent), 0, 0


class SharedFile:
    """One worker's. The descriptor is for the worker; close it when the worker has been started."""

    def __init__(self, frame_limit: int) -> None:
        """Raises OSError when there can be none: a worker also works without."""
        self.fd = _unnamed_file()
        try:
            os.truncate(self.fd, file_size(frame_limit))
            # Its length is fixed before anybody maps it: reading a page that a worker has cut off would kill us.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.memory = SharedMemory(self.fd, frame_limit, parent=True)
        except BaseException:
            os.close(self.fd)
            raise

    def view(self, start: int, end: int, gone: Callable[[Any], None]) -> tuple[memoryview, weakref.ref[Any]] | None:
        """What lies from *start* to *end* in the worker's area, to be read there; and a reference that is dead when no
        view of it is left, nor a slice or an array made of one. Then *gone* is called, in whatever thread. The memory
        stays mapped that long, also when this has been closed. None where Python is built without ctypes.
        """
        exporter = _exporter(self.memory.size)
        if exporter is None:
            return None
        # A slice or an array of a view keeps alive what the view was made of, and not the view.
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
    """A type whose objects can be views of *size* bytes, and be referred to weakly."""
    try:
        import ctypes  # hardly ever needed
    except ImportError:
        return None
    return ctypes.c_ubyte * size


def _unnamed_file() -> int:
    try:
        return os.memfd_create("pool_monitor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except AttributeError:  # elsewhere than on Linux, no file can be kept from being cut
        raise OSError("no memory that could be shared safely") from None
