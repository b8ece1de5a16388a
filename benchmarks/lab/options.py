"""Options of the laboratory: seeds as people write them (``1-5``, ``1,7``, or both), and the file for the figures."""

from __future__ import annotations

import re
from pathlib import Path

from pool_monitor.errors import ConfigError

_MOST = 1000
_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def seeds_of(text: str) -> list[int]:
    """Return the seeds of *text*, each once. Raises ConfigError."""
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"--seeds {text!r}: {part!r} is no seed; write 1-5, or 1,2,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + _MOST:
            raise ConfigError(f"--seeds {text!r}: {part!r} must grow, and be at most {_MOST} seeds")
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)


def check_output(path: str | None) -> None:
    """Raise ConfigError for a file that cannot be written, before the runs and not after them."""
    if path is None:
        return
    folder = Path(path).parent
    if not folder.is_dir():
        raise ConfigError(f"--json {path}: there is no folder {folder}: make it first")
    if Path(path).is_dir():
        raise ConfigError(f"--json {path}: it is a folder: name a file")
