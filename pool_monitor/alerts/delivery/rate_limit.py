"""How many messages a receiver takes, and what becomes of those that are too many.

A bucket holds `BURST` tokens and fills up with as many a minute. Each message takes one. At most `BURST` messages wait
for a receiver that cannot be reached, so one that works again after an hour is not flooded.

More groups with something to tell than that: everything for that receiver is *held back* from then on. It is told in
one digest at once, and then in one every `DIGEST_EVERY` at most. This ends when the latest digest has arrived and
`QUIET` seconds have passed since it was made. While a digest has not arrived, nothing else is told, so no newer message
of a group overtakes it.

Pages are only delayed: as many are sent as there are tokens, and the others wait for the next. A running Alertmanager
has no limit: it has its own, and wants to know every alert.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import NamedTuple

from pool_monitor.alerts.routing import AlertmanagerApi, Receiver, Webhook

BURST = 12
"""Messages in a minute before anything is held back."""
PER_SECOND = BURST / 60
DIGEST_EVERY = 30.0
"""Least seconds between two digests."""
QUIET = 60.0
"""Seconds without anything to tell, after which messages are no longer held back."""
STATES_MAX, STATES_EVERY = 1000, 1.0
"""Most messages that wait for a running Alertmanager, and seconds until there may be room for more."""
_SLACK = 1e-6  # sums of parts of a token may be short of a whole one by rounding


class Ration(NamedTuple):
    """What may be told to one receiver now."""

    single: int
    """The groups that get a message of their own, the worst first."""
    digest: bool = False
    """Whether all the others are told now, in one message. Else they are held back, and asked for again."""
    next_at: float | None = None
    """When those that are held back are asked for again; None: there are none."""


def states_ration(due: int, waiting: int, at: float) -> Ration:
    """Return what a running Alertmanager may be told: each alert by itself, as fast as it takes them. Of those that it
    has not taken, at most `STATES_MAX` wait in the outbox, which has to have room for the other receivers.
    """
    single = max(min(due, STATES_MAX - waiting), 0)
    return Ration(single, next_at=at + STATES_EVERY if single < due else None)


class RateLimits:
    """The limits of all receivers, and the groups that they hold back. No I/O; times are passed in, in seconds, and
    never go back.

    Bounds: one limit for each receiver that was told something since `keep`, and the groups that there are.
    """

    def __init__(self) -> None:
        self._limits: dict[str, _Limit] = {}
        self._held: dict[str, _Held] = {}

    def ration(
        self, receiver: str, due: int, at: float, *, page: bool, waiting: int = 0, digest_waits: bool = False
    ) -> Ration:
        """Return what *receiver* may be told, if *due* groups have something to tell now: those that were held back and
        those whose time has come. It counts as told. Called with *due* above 0 only.

        *waiting*: messages about other groups that have not arrived yet. *digest_waits*: there is a digest among them.
        """
        limit = self._limits.setdefault(receiver, _Limit())
        return limit.page(due, at) if page else limit.message(due, at, waiting, digest_waits=digest_waits)

    def keep(self, receivers: Container[str]) -> None:
        """Forget the limits of all others."""
        self._limits = {name: limit for name, limit in self._limits.items() if name in receivers}

    # -- what is held back

    def hold(self, receiver: str, group: int, at: float, until: float | None) -> None:
        """Hold back the group with this number. *until*: `Ration.next_at`; None: until `release`."""
        held = self._held.setdefault(receiver, _Held({}, at))
        held.groups[group] = None
        held.until = until

    def release(self, receiver: str, group: int) -> None:
        """The group is not held back any more."""
        held = self._held.get(receiver)
        if held is not None:
            held.groups.pop(group, None)
            if not held.groups:
                del self._held[receiver]

    def held_back(self, receiver: str) -> int:
        """Return the number of groups of *receiver* that are held back."""
        held = self._held.get(receiver)
        return 0 if held is None else len(held.groups)

    def held_for(self, receiver: str, at: float) -> float:
        """Return how long the first of them has been held back."""
        held = self._held.get(receiver)
        return 0.0 if held is None else max(at - held.since, 0.0)

    def until(self, receiver: str) -> float | None:
        """Return when something held back may be told; None: not known."""
        held = self._held.get(receiver)
        return None if held is None else held.until

    def asked_again(self, at: float) -> list[int]:
        """Return the groups that are held back and may be told now: `ration` says which. They stay held back."""
        found: list[int] = []
        for held in self._held.values():
            if held.until is not None and held.until <= at:
                held.until = None
                found += held.groups
        return found

    @property
    def next_at(self) -> float | None:
        """When `asked_again` has something next; None: nothing waits for a time."""
        return min((held.until for held in self._held.values() if held.until is not None), default=None)


@dataclass(slots=True)
class _Held:
    """What is held back from one receiver."""

    groups: dict[int, None]  # as a set that keeps the order
    since: float
    until: float | None = None


class _Limit:
    """The limit of one receiver."""

    def __init__(self) -> None:
        self.tokens, self.filled_at = float(BURST), 0.0
        self.digest_at: float | None = None
        """When the latest digest was made, while everything is held back; None: nothing is."""

    def page(self, due: int, at: float) -> Ration:
        self._fill(at)
        single = self._take(min(due, int(self.tokens + _SLACK)))
        return Ration(single, next_at=at + (1.0 - self.tokens) / PER_SECOND if single < due else None)

    def message(self, due: int, at: float, waiting: int, *, digest_waits: bool) -> Ration:
        self._fill(at)
        if not digest_waits and self.digest_at is not None and at >= self.digest_at + QUIET - _SLACK:
            self.digest_at = None
        if self.digest_at is None and not digest_waits and due <= min(int(self.tokens + _SLACK), BURST - waiting):
            return Ration(self._take(due))
        if self.digest_at is not None and at < self.digest_at + DIGEST_EVERY - _SLACK:
            return Ration(0, next_at=self.digest_at + DIGEST_EVERY)
        self.digest_at = at
        return Ration(0, digest=True)

    def _fill(self, at: float) -> None:
        self.tokens = min(self.tokens + max(at - self.filled_at, 0.0) * PER_SECOND, float(BURST))
        self.filled_at = at

    def _take(self, messages: int) -> int:
        self.tokens = max(self.tokens - messages, 0.0)
        return messages


def is_page(receiver: Receiver) -> bool:
    """Whether messages to *receiver* are never put together to a digest."""
    channel = receiver.channel
    return receiver.page or (isinstance(channel, Webhook) and channel.format == "pagerduty")


def is_limited(receiver: Receiver) -> bool:
    """Whether there is a limit at all: for a running Alertmanager there is none (`states_ration`)."""
    return not isinstance(receiver.channel, AlertmanagerApi)
