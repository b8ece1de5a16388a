"""Sees when files have changed, without reading them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

State = tuple[int, int, int, int, int] | None


class FileWatch:
    """Compares what `look` finds from one call to the next. A file that is written, replaced or removed has changed; so
    has one whose link, or a link to whose folder, leads elsewhere now, as Kubernetes changes its volumes.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self._paths = tuple(paths)
        self._read: tuple[State, ...] | None = None
        self._latest: tuple[State, ...] | None = None

    def look(self) -> tuple[State, ...]:
        """Look at the files. Blocks on the disk."""
        return tuple(map(_state, self._paths))

    def read(self, found: tuple[State, ...]) -> None:
        """The files were read after `look` had *found* this."""
        self._read = self._latest = found

    def changed(self, found: tuple[State, ...]) -> bool:
        """Whether the files have changed since they were read, and not since the look before: a file that is being
        written is waited for.
        """
        before, self._latest = self._latest, found
        return found != self._read and found == before


def _state(path: str | Path) -> State:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links
    except (OSError, ValueError):
        return None
    # The time of the last change of its status: a file may be replaced by one of the same size and time.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
