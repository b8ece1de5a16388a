"""Who else is told of an alert: when nobody acknowledges it, and when a receiver cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pool_monitor.alerts.delivery.targets import Routing, Target
from pool_monitor.snapshot import AlertView


class Joining(NamedTuple):
    """An alert that joins a group of another receiver."""

    fingerprint: str
    target: Target
    """Made by `Target.passed_on`."""


class Escalations:
    """The alerts that go to another receiver when nobody acknowledges them. No I/O; times are passed in."""

    @property
    def next_at(self) -> float | None:
        """When `due` has something to do next; None: nothing is waited for."""
        return None

    def began(self, fingerprint: str, target: Target, at: float) -> None:
        """The receiver of *target* was first owed the alert *at* this time. Called for each group that it joins, and
        again after a restart and a reload, with the time of then: not for groups that have a cause.
        """

    def ended(self, fingerprint: str) -> None:
        """The alert fires no more."""

    def escalated(self, fingerprint: str, target: Target) -> None:
        """The alert is a member of *target*, whose cause is ``escalated``: after `due` and after a restart."""

    def due(self, at: float, look: Callable[[str], AlertView | None]) -> Iterator[Joining]:  # noqa: ARG002
        """Yield the alerts that join another receiver now."""
        yield from ()


def fallbacks_of(routing: Routing, target: Target, reason: str) -> Sequence[Target]:  # noqa: ARG001
    """Return what the alerts of *target* join when its receiver cannot be told, because of *reason*."""
    return ()
