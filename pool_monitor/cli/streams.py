"""Files, pipes and terminals, read and written without blocking the event loop.

The loop's selector waits for pipes and terminals. Files on disk are always ready; so are some devices, which the
selector refuses. There are no threads: a thread in a blocking read cannot be woken when the program ends. The
descriptors are not made non-blocking: other programs, a shell for example, may share them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pool_monitor import cli
from pool_monitor.errors import ConfigError, PoolError

_CHUNK = 1 << 16


class Stream(NamedTuple):
    """An open file, pipe or terminal."""

    name: str
    """The name of the stream in messages."""
    file: BinaryIO
    on_disk: bool

    @property
    def fd(self) -> int:
        return self.file.fileno()

    @property
    def is_terminal(self) -> bool:
        return self.file.isatty()

    @property
    def path(self) -> Path | None:
        """The path at which the file can be opened and read again. None: it cannot."""
        return Path(self.name) if self.on_disk and self.name == self.file.name else None

    @property
    def readable(self) -> bool:
        """Whether the present content can be read back."""
        return self.on_disk and self.file.readable()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines as they arrive, without line ends. The last line may lack one. Raises PoolError."""
        parts: list[bytes] = []
        while chunk := await self._read():
            head, *rest = chunk.split(b"\n")
            parts.append(head)
            for part in rest:
                yield b"".join(parts)
                parts = [part]
        if last := b"".join(parts):
            yield last

    async def write(self, data: bytes) -> None:
        """Write all of *data*. A slow reader delays only this call. Raises BrokenPipeError and PoolError."""
        # A pipe that is ready takes this much without blocking; more might block.
        step = len(data) if self.on_disk else select.PIPE_BUF
        view = memoryview(data)
        try:
            while view:
                if not self.on_disk:
                    await _ready(self.fd, to_write=True)
                view = view[os.write(self.fd, view[:step]) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise PoolError(f"{self.name}: writing failed: {error.strerror}") from error

    async def _read(self) -> bytes:
        try:
            if not self.on_disk:
                await _ready(self.fd)
            return os.read(self.fd, _CHUNK)
        except OSError as error:
            raise PoolError(f"{self.name}: reading failed: {error.strerror}") from error


@contextlib.contextmanager
def open_stream(path: str, *, to_write: bool = False) -> Iterator[Stream]:
    """Open *path*, or stdin or stdout for ``-``. A file on disk opened with *to_write* keeps its content, is positioned
    at its beginning, and is locked against other runs. Raises ConfigError.
    """
    name, file = _open(path, to_write)
    with _closing(file, name):
        on_disk = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        if to_write and on_disk and file.readable():
            _lock(file, name)
            if not _is_same_file(file, name):
                raise ConfigError(f"{name}: another run has just replaced it; repeat the command")
            file.seek(0)
        yield Stream(name, file, on_disk)


def _open(path: str, to_write: bool) -> tuple[str, BinaryIO]:
    name = path if path != "-" else "stdout" if to_write else "stdin"
    try:
        if path == "-" and int(to_write) in cli.closed_at_start:
            raise ConfigError(f"{name}: is closed")
        if path == "-":
            return name, open(int(to_write), "wb" if to_write else "rb", closefd=False)
        special = Path(path).exists() and not Path(path).is_file()
        mode = ("wb" if special else "a+b") if to_write else "rb"
        return path, open(path, mode)  # type: ignore[return-value] # noqa: PTH123 - the caller closes it
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error


@contextlib.contextmanager
def _closing(file: BinaryIO, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            file.close()
        except OSError as error:  # close tries again to write what an earlier write could not
            raise PoolError(f"{name}: writing failed: {error.strerror}") from error


def _lock(file: BinaryIO, name: str) -> None:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"{name}: another run is writing to it") from error
    except OSError:
        pass  # a file system without locks


def _is_same_file(file: BinaryIO, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(name))  # noqa: PTH116 - beside fstat
    except OSError:
        return False


async def _ready(fd: int, *, to_write: bool = False) -> None:
    loop = asyncio.get_running_loop()
    add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)
    woken = asyncio.Event()
    try:
        add(fd, woken.set)
    except PermissionError:  # epoll refuses descriptors that are always ready
        return
    try:
        await woken.wait()
    finally:
        remove(fd)
