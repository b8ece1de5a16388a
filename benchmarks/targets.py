"""The operations of the pool benchmarks. Imports almost nothing, because the workers of every peer load it."""

from __future__ import annotations

import os
import time
from typing import Any


def echo(value: Any) -> Any:
    return value


def hold(seconds: float) -> int:
    """Occupy a worker without using the processor. Return its pid."""
    time.sleep(seconds)
    return os.getpid()


def spin(seconds: float) -> None:
    """Keep a worker's processor busy. Not endlessly, in case nothing stops it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Work:
    """The same operations as a target of our pool."""

    echo = staticmethod(echo)
    hold = staticmethod(hold)
    spin = staticmethod(spin)
