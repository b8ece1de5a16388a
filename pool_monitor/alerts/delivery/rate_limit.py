"""How many messages one receiver gets, and what is done with the ones that are too many.

A bucket holds `BURST` tokens and fills up with as many a minute. Each message takes one, and one that has not arrived
yet occupies one: a receiver that comes back after an hour is not flooded either.

More groups with something to tell than tokens: everything for the receiver is *held back* from then on. It is told as
one digest at once, and then as one every `DIGEST_EVERY` at most. This ends when the latest digest has arrived and
`QUIET` seconds have passed after it. While a digest has not arrived, nothing else is told, so no newer message of a
group overtakes it.

Pages are only delayed: as many are sent as there are tokens, and the others wait for the next.
"""

from __future__ import annotations

from typing import NamedTuple

from pool_monitor.alerts.routing import AlertmanagerApi, Receiver, Webhook

BURST = 12
"""Messages in a minute before anything is held back."""
PER_SECOND = BURST / 60
DIGEST_EVERY = 30.0
"""Least seconds between two digests."""
QUIET = 60.0
"""Seconds without anything to tell, after which messages are no longer held back."""
_SLACK = 1e-6  # sums of parts of a token may be short of a whole one by rounding


class Grant(NamedTuple):
    """What may be told now."""

    messages: int = 0
    """As many groups, the most urgent first. The others are held back."""
    digest: bool = False
    """All of them, in one digest."""


class RateLimit:
    """The limit of one receiver. No I/O; times are passed in, in seconds, and never go back."""

    def __init__(self, *, page: bool = False) -> None:
        self._page = page
        self._tokens, self._filled_at = float(BURST), 0.0
        self._digest_at: float | None = None

    @property
    def holds_back(self) -> bool:
        """Whether everything is told by digests."""
        return self._digest_at is not None

    def grant(self, due: int, at: float, *, waiting: int = 0, digest_waits: bool = False) -> Grant:
        """Say what becomes of *due* groups that have something to tell; call it whenever there are some.

        *waiting*: messages that have not arrived yet. *digest_waits*: one of them is a digest. The caller makes at
        once what is granted.
        """
        self._fill(at)
        if self._page:
            messages = min(due, int(self._tokens + _SLACK))
            self._tokens = max(self._tokens - messages, 0.0)
            return Grant(messages)
        self._calm(at, digest_waits=digest_waits)
        if self._digest_at is None:
            if due <= int(self._tokens + _SLACK) - waiting:
                self._tokens = max(self._tokens - due, 0.0)
                return Grant(due)
        elif at < self._digest_at + DIGEST_EVERY - _SLACK:
            return Grant()
        if due:
            self._digest_at = at
        return Grant(digest=due > 0)

    def next_at(self, due: int, at: float) -> float | None:
        """When something is granted again, with *due* groups held back; None: nothing waits for it."""
        if not due:
            return None
        if self._digest_at is not None:
            return max(self._digest_at + DIGEST_EVERY, at)
        self._fill(at)
        return at + max(1.0 - self._tokens, 0.0) / PER_SECOND

    def _fill(self, at: float) -> None:
        self._tokens = min(self._tokens + max(at - self._filled_at, 0.0) * PER_SECOND, float(BURST))
        self._filled_at = at

    def _calm(self, at: float, *, digest_waits: bool) -> None:
        """Begin to hold back for a digest of an earlier life; end it after a quiet time."""
        if digest_waits:
            self._digest_at = at - DIGEST_EVERY if self._digest_at is None else self._digest_at
        elif self._digest_at is not None and at >= self._digest_at + QUIET - _SLACK:
            self._digest_at = None


def is_page(receiver: Receiver) -> bool:
    """Whether messages to *receiver* are never put together to a digest."""
    channel = receiver.channel
    return receiver.page or (isinstance(channel, Webhook) and channel.format == "pagerduty")


def is_limited(receiver: Receiver) -> bool:
    """Whether there is a limit at all. A running Alertmanager has its own, and wants to know every alert."""
    return not isinstance(receiver.channel, AlertmanagerApi)
