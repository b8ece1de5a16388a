"""What the workers of the pool benchmarks run. Imports next to nothing: every peer's workers load it."""

from __future__ import annotations

import os
import time
from typing import Any


def echo(value: Any) -> Any:
    return value


def hold(seconds: float) -> int:
    """Keep a worker occupied without using the processor, and say which it was."""
    time.sleep(seconds)
    return os.getpid()


def spin(seconds: float) -> None:
    """Keep a worker's processor busy; not for ever, should nobody be left to stop it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Work:
    """The same as a target of ours."""

    echo = staticmethod(echo)
    hold = staticmethod(hold)
    spin = staticmethod(spin)
