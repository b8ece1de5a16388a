"""Splits what a process prints into lines. Of an overwritten line, such as a progress bar, the last state counts."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

_LINE_LIMIT = 8 * 1024  # a longer line of output is cut
_TAIL_LINES = 20  # of stderr
_AGAIN = 0.1  # seconds until reading is tried again after a MemoryError


class OutputReader:
    """Reads lines from one pipe of a process as they come, so that the process never blocks. Owns the read end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, line: Callable[[str, int], None]) -> None:
        self._loop, self._fd, self._line = loop, fd, line
        self._partial = bytearray()
        self._size = 0  # of the partial line, cut or not
        self._again: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        """Read at most 16 KiB, so that a chatty process cannot hold up the event loop. Return whether there was any."""
        try:
            data = os.read(self._fd, 16 * 1024)
        except BlockingIOError:
            return False
        except MemoryError:  # trying again at once would fail too
            self._loop.remove_reader(self._fd)
            self._again = self._loop.call_later(_AGAIN, self._loop.add_reader, self._fd, self._read)
            return False
        if not data:
            self._loop.remove_reader(self._fd)
            return False
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self._flush()
        self._add(rest)
        return True

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        self._partial += part
        if len(self._partial) > _LINE_LIMIT:
            over = max(self._partial.rfind(b"\r", 0, -1), 0)  # what stands before it is overwritten
            self._partial = self._partial[over : over + _LINE_LIMIT]

    def _flush(self) -> None:
        text, size = self._partial.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2], self._size
        self._partial.clear()
        self._size = 0
        self._line(text, size)

    def close(self) -> None:
        """Read the rest and stop. Bounded, because another process may hold the pipe and go on writing."""
        for _ in range(64):
            if not self._read():
                break
        if self._size:
            self._flush()
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class ProcessOutput:
    """Reads stdout and stderr of a process. *wrote* is called with the stream's name, a line, and its size in bytes."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stdout: int, stderr: int, wrote: Callable[[str, str, int], None]
    ) -> None:
        self._wrote = wrote
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._outputs = [OutputReader(loop, stdout, self._stdout_line), OutputReader(loop, stderr, self._stderr_line)]

    @property
    def tail(self) -> str:
        """The last lines on stderr, for error texts."""
        return "\n".join(self._tail)

    def _stdout_line(self, text: str, size: int) -> None:
        self._wrote("stdout", text, size)

    def _stderr_line(self, text: str, size: int) -> None:
        self._tail.append(text)
        self._wrote("stderr", text, size)

    def close(self) -> None:
        """Read the rest of both, and stop."""
        outputs, self._outputs = self._outputs, []
        for output in outputs:
            output.close()
