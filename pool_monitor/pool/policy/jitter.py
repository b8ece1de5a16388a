"""The source of random numbers of the decisions. It is passed in, so that tests can repeat decisions."""

from __future__ import annotations

from typing import Protocol


class Jitter(Protocol):
    """The methods of `random.Random` that this folder uses."""

    def uniform(self, a: float, b: float, /) -> float: ...
    def randint(self, a: int, b: int, /) -> int: ...
