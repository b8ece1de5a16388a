"""Seeds as people write them: ``1-5``, ``1,7``, or both."""

from __future__ import annotations

import re

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
