"""Measures the memory of this process, cheaply."""

from __future__ import annotations

import os
import resource
import sys

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Optional

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
_BLOCK_LIMIT = 16 << 20
_expected = 0  # bytes of the largest block that `expect_large` has made
_WORTH_ASKING_NS = 100_000  # a shorter call cannot take much memory; it counts with the next longer one


def resident() -> Optional[int]:
    """Return the resident memory of this process in bytes; its peak where the system reports only that."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return _max_rss() * _UNIT


def expect_large(size: int, count: int) -> None:
    """Make the C library keep the memory of about *count* freed blocks of *size* bytes for reuse.

    glibc returns freed memory to the system when it exceeds twice the largest block that was freed so far. Getting the
    memory back takes longer than copying it. As a cost, up to twice `_BLOCK_LIMIT` of free memory may stay in the
    process. The block made here is never touched, and costs next to nothing.
    """
    global _expected
    block = min(count * size, _BLOCK_LIMIT)
    if block > _expected:
        _expected = block
        bytes(block)


class PeakMemory:
    """The peak of this process's resident memory, and how it grows.

    After exec, ``ru_maxrss`` starts from the value of the process that started this one. Until this process has grown
    beyond that, the slower ``VmHWM`` is read instead.
    """

    def __init__(self) -> None:
        self._highest = self._inherited = _max_rss()
        self._status: Optional[int] = None  # open while VmHWM is read
        self._unknown = False
        try:
            self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
            own = self._own()
        except (OSError, ValueError):
            own = self._highest
        if own < self._inherited * 0.9:
            self._highest = own
        else:
            self._close()

    def growth(self, wall_ns: int) -> Optional[int]:
        """Return the bytes by which the peak has grown since the last long call. *wall_ns*: duration of this call."""
        if self._unknown:
            return None
        if wall_ns < _WORTH_ASKING_NS:
            return 0
        if self._status is None:
            peak = _max_rss()
        else:
            try:
                peak = self._own()
            except (OSError, ValueError):  # the target has closed the file, and may have reused its number
                self._status, self._unknown = None, True
                return None
            if peak > self._inherited:
                self._close()
        if peak <= self._highest:
            return 0
        grown, self._highest = peak - self._highest, peak
        return grown * _UNIT

    def _own(self) -> int:
        """Return VmHWM in KiB. Raises OSError and ValueError."""
        assert self._status is not None
        text = os.pread(self._status, 4096, 0)
        at = text.index(b"VmHWM:") + 6
        return int(text[at : text.index(b"kB", at)])

    def _close(self) -> None:
        if self._status is not None:
            os.close(self._status)
            self._status = None


def _max_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
