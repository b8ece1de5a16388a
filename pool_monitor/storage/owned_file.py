"""A database file that this process alone writes."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from pool_monitor.storage.files import expanded, log_of, open_private, resolved
from pool_monitor.storage.lock import Lock
from pool_monitor.storage.sqlite_file import FileKind, check_header


class OwnedFile:
    """Holds the lock of *path* and a descriptor of it, until it is closed. A missing file is made, for us alone.

    Raises ConfigError when another process holds the lock, and for a file that must not be written or is of another
    kind; OSError for failures of the disk.
    """

    def __init__(self, path: Path, kind: FileKind) -> None:
        self._given = expanded(path)
        self.path = resolved(path)
        """The file that *path* leads to."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(closing(Lock(self.path)))
            # SQLite gives the files beside it the same mode. The descriptor stays open, see `sqlite_file.connected`.
            self._descriptor = open_private(self.path, os.O_RDWR)
            stack.callback(os.close, self._descriptor)
            check_header(self.path, self._descriptor, kind)
            self._open = stack.pop_all()
        self._log: os.stat_result | None = None

    def check(self) -> os.stat_result:
        """Return what is known of the file. Raises OSError when it is gone, or another one has its name.

        Call it before each write, and first when the file has its log.
        """
        found = self._given.stat()
        if not self._is_ours(found):
            raise OSError("another file has replaced it")
        with suppress(FileNotFoundError):
            self._log = log_of(self.path).lstat()
        return found

    def close(self) -> None:
        """Let others write the file. The connection must be closed."""
        with suppress(OSError):
            self._remove_stale_log()
        self._open.close()

    def _remove_stale_log(self) -> None:
        """Remove our log when another file has the name of ours: SQLite would apply the log to that file."""
        log = log_of(self.path)
        if self._log is not None and not self._is_ours(self.path.stat()) and os.path.samestat(log.lstat(), self._log):
            log.unlink()

    def _is_ours(self, found: os.stat_result) -> bool:
        return os.path.samestat(found, os.fstat(self._descriptor))
