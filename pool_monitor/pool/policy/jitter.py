"""The source of random numbers that decisions draw from. It is passed in, so that a test can repeat them."""

from __future__ import annotations

from typing import Protocol


class Jitter(Protocol):
    """The methods of a `random.Random` that are used here."""

    def uniform(self, a: float, b: float, /) -> float: ...
    def randint(self, a: int, b: int, /) -> int: ...
