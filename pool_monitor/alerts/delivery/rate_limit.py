"""How many messages a receiver takes."""

from __future__ import annotations

from typing import NamedTuple


class Ration(NamedTuple):
    """What may be told to one receiver now."""

    single: int
    """The groups that get a message of their own, the worst first."""
    digest: bool = False
    """Whether all the others are told now, in one message. Else they are held back, and asked for again."""
    next_at: float | None = None
    """When those that are held back are asked for again; None: there are none."""


class RateLimits:
    """The limits of all receivers. No I/O; times are passed in."""

    def ration(self, receiver: str, due: int, at: float, *, page: bool) -> Ration:  # noqa: ARG002
        """Return what *receiver* may be told, if *due* groups have something to tell now: those that were held back and
        those whose time has come. It counts as told. Called with *due* above 0 only.
        """
        return Ration(due)
