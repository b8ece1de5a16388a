"""The groups of each receiver: what is true, what the receiver was told, and when there is something to tell."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter

from pool_monitor.alerts.delivery.notification import ALERTS_MAX, Notification, ToldAlert
from pool_monitor.alerts.delivery.targets import Routing, Target, targets_of
from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.snapshot import AlertTransition, AlertView, ToldView

Look = Callable[[str], AlertView | None]
"""Returns the alert with a fingerprint as it is now, with what lies over it; None: there is none."""
Rows = Mapping[str, Mapping[str, bytes | None]]
"""By table of the state file and key; None: the row is gone."""


TOLD_MAX = 8
"""Most receivers that `Notifier.explain` speaks of."""


class Notifier:
    """Decides what each receiver is told, and keeps what it was told. No I/O; times are passed in and never go back."""

    def __init__(self, service: str = "") -> None:
        self._service, self._routing = service, Routing()
        self._due: dict[tuple[str, str], tuple[Target, dict[str, AlertTransition]]] = {}

    def use(self, routing: Routing, look: Look, at: float) -> None:  # noqa: ARG002
        """Tell by *routing* from now on."""
        self._routing = routing

    def note(self, transitions: Iterable[AlertTransition], at: float) -> None:  # noqa: ARG002
        """Take account of changes of alerts."""
        for one in transitions:
            if (one.from_state in FIRING_PHASES) == (one.to_state in FIRING_PHASES):
                continue
            for target in targets_of(self._routing, one.alert, one.labels):
                found = self._due.setdefault((target.receiver, target.group_key), (target, {}))
                found[1][one.fingerprint] = one

    @property
    def next_at(self) -> float | None:
        """When `flush` has something to do next; None: nothing is waited for."""
        return 0.0 if self._due else None

    def flush(self, at: float, look: Look) -> Iterator[Notification]:
        """Yield what is to be told now."""
        due, self._due = self._due, {}
        for target, changed in due.values():
            alerts = sorted((_told(one, look(one.fingerprint)) for one in changed.values()), key=attrgetter("status"))
            firing = sum(one.status == "firing" for one in alerts)
            yield Notification(
                id=f"msg_{secrets.token_hex(12)}",
                receiver=target.receiver,
                group_key=target.group_key,
                group_labels=dict(target.group_labels),
                reason="new alerts added" if firing else "all alerts resolved",
                status="firing" if firing else "resolved",
                alerts=tuple(alerts[:ALERTS_MAX]),
                firing=firing,
                resolved=len(alerts) - firing,
                at=at,
                service=self._service,
            )

    # -- what the courier says; each is O(1), and may be called at any time

    def sending(self, notification: Notification, at: float) -> None:
        """An attempt begins. Until `arrived` or `failed`, no newer notification is made for its groups."""

    def arrived(self, notification: Notification, at: float) -> None:
        """The receiver has it. It is not in the outbox any more."""

    def failed(self, notification: Notification, at: float, *, unsure: bool) -> None:
        """An attempt has failed. The notification stays in the outbox, until it arrives, is lost, or `flush` yields a
        newer one for the same receiver and group key. *unsure*: it may have arrived all the same.
        """

    def parked(self, notification: Notification, reason: str, at: float) -> None:
        """The receiver refuses it (after `failed`), or cannot be reached for long: its fallbacks are told."""

    def lost(self, notification: Notification, reason: str, at: float) -> None:
        """It was given up and is not in the outbox any more. What is still true is told anew at the group's next time;
        ends that it had are not owed any more.
        """

    # -- what other modules of delivery ask for

    def join(self, fingerprint: str, target: Target, at: float) -> bool:  # noqa: ARG002
        """Make a firing alert a member of the group of *target* too, as by `Target.passed_on`. It is told there as in
        any other group, its end too. False: it is a member already, or does not fire.
        """
        return False

    def explain(self, fingerprint: str, at: float) -> tuple[ToldView, ...]:  # noqa: ARG002
        """Return what each receiver knows of an alert, and why it is told nothing now. At most `TOLD_MAX`."""
        return ()

    def take_changes(self) -> Rows:
        """Return the rows of the state file that have changed since the last call."""
        return {}

    def all_rows(self) -> Rows:
        """Return all rows."""
        return {}

    def restore(self, rows: Mapping[str, Mapping[str, bytes]], at: float) -> list[str]:  # noqa: ARG002
        """Take over the rows of a state file. Returns what cannot be used, in words."""
        return []


def _told(one: AlertTransition, view: AlertView | None) -> ToldAlert:
    firing = one.to_state in FIRING_PHASES
    return ToldAlert(
        alertname=one.alert,
        labels=one.labels,
        fingerprint=one.fingerprint,
        status="firing" if firing else "resolved",
        severity=one.severity,
        starts_at=one.at if view is None else view.since,
        ends_at=None if firing else one.at,
        summary=one.summary,
        value=one.value,
        value_text=one.value_text,
        reason=one.reason,
    )
