"""What arrived at receivers in a test, beside what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pool_monitor.alerts.delivery.notification import Notification, ToldAlert
from pool_monitor.alerts.rehearsal import Attempt
from pool_monitor.alerts.rule_tests.suite import Case, ExpectedNotification, ExpectedQuiet, ExpectedToldAlert
from pool_monitor.alerts.rule_tests.words import named, of_flag, of_labels, of_mappings, time_text

EXACT_S = 0.5
"""How far from the expected time a notification may arrive, in seconds."""
SHOWN_MAX = 40
"""Most attempts of one receiver that a failure shows."""
_ALERTS_MAX = 5


class Timeline:
    """The attempts at those receivers of which a test expects something, in the order of time. Bounded by the limits of
    these receivers and the time of the test.
    """

    def __init__(self, case: Case, file: str) -> None:
        self._case, self._file = case, file
        self._expected: list[ExpectedNotification | ExpectedQuiet] = [*case.notifications, *case.quiet]
        self._expected.sort(key=lambda one: (one.line, one.column))
        self._attempts: dict[str, list[Attempt]] = {one.receiver: [] for one in self._expected}

    def note(self, attempts: Iterable[Attempt]) -> Iterator[Attempt]:
        """Keep *attempts*, and yield them."""
        for one in attempts:
            if (kept := self._attempts.get(one.notification.receiver)) is not None:
                kept.append(one)
            yield one

    def failures(self) -> Iterator[str]:
        """Yield what was not as expected, in words, several lines each. The last one of a receiver has all that it was
        told.
        """
        for receiver in self._attempts:
            failures = list(self._of_receiver(receiver))
            for failure in failures[:-1]:
                yield "\n".join(failure)
            if failures:
                yield "\n".join([*failures[-1], *(f"    {line}" for line in self._told(receiver))])

    def _of_receiver(self, receiver: str) -> Iterator[list[str]]:
        arrived = [one for one in self._attempts[receiver] if one.arrived and self._time(one) <= self._case.end]
        for quiet in self._case.quiet:
            if quiet.receiver == receiver:
                yield from self._broken(quiet, arrived)
        expected = [one for one in self._case.notifications if one.receiver == receiver]
        if not expected:
            return
        missing, left = [], list(arrived)
        for one in sorted(expected, key=lambda one: one.time):
            found = next((other for other in left if not self._differences(one, other)), None)
            if found is None:
                missing.append(one)
            else:
                left.remove(found)
        for one in missing:
            near = min(left, key=lambda other: self._distance(one, other), default=None)
            if near is not None:
                left.remove(near)
            yield self._missed(one, near)
        for other in left:
            near_ = min(expected, key=lambda one: abs(one.time - self._time(other)))
            yield [
                self._head(near_, f"{receiver} at {time_text(self._time(other))}"),
                "    expected: nothing",
                f"    got:      {_shown(other.notification)}",
            ]

    def _broken(self, quiet: ExpectedQuiet, arrived: Sequence[Attempt]) -> Iterator[list[str]]:
        end = float("inf") if quiet.ends_at is None else quiet.ends_at
        inside = [one for one in arrived if quiet.starts_at <= self._time(one) + _SLACK < end]
        if inside:
            until = "the end" if quiet.ends_at is None else time_text(quiet.ends_at)
            yield [
                self._head(quiet, f"{quiet.receiver} from {time_text(quiet.starts_at)} to {until}"),
                "    expected: nothing",
                *(f"    got:      at {time_text(self._time(one))}: {_shown(one.notification)}" for one in inside),
            ]

    def _missed(self, one: ExpectedNotification, near: Attempt | None) -> list[str]:
        lines = [self._head(one, f"{one.receiver} at {time_text(one.time)}"), f"    expected: {_expected(one)}"]
        if near is None:
            return [*lines, "    got:      nothing"]
        lines.append(f"    got:      {_shown(near.notification)}")
        return [*lines, *(f"      {line}" for line in self._differences(one, near))]

    def _differences(self, one: ExpectedNotification, other: Attempt) -> list[str]:
        found, got = [], other.notification
        if abs(self._time(other) - one.time) > EXACT_S:
            found.append(f"at: expected {time_text(one.time)}, got {time_text(self._time(other))}")
        for name in ("status", "reason", "firing", "resolved"):
            wanted, there = getattr(one, name), getattr(got, name)
            if wanted not in (None, there):
                found.append(f"{name}: expected {wanted}, got {there}")
        return found if one.alerts is None else [*found, *_of_alerts(one.alerts, got.alerts)]

    def _distance(self, one: ExpectedNotification, other: Attempt) -> tuple[int, float]:
        return len(self._differences(one, other)), abs(one.time - self._time(other))

    def _told(self, receiver: str) -> Iterator[str]:
        attempts = self._attempts[receiver]
        yield f"{receiver} was told:" if attempts else f"{receiver} was told nothing"
        for one in attempts[:SHOWN_MAX]:
            came = "" if one.arrived else f" - {one.outcome.reason}"
            yield f"  {time_text(self._time(one)):>8}  {_shown(one.notification)}{came}"
        if len(attempts) > SHOWN_MAX:
            yield f"  ... and {len(attempts) - SHOWN_MAX} more"

    def _time(self, one: Attempt) -> float:
        return one.at - self._case.start

    def _head(self, one: ExpectedNotification | ExpectedQuiet, what: str) -> str:
        return f"{self._file}:{one.line}:{one.column}: {what}:"


_SLACK = 1e-6


def _of_alerts(expected: Sequence[ExpectedToldAlert], got: Sequence[ToldAlert]) -> Iterator[str]:
    """Say how the alerts of a notification differ from those that are expected."""
    missing, left = [], list(got)
    for one in expected:
        found = next((other for other in left if not _of_alert(one, other)), None)
        if found is None:
            missing.append(one)
        else:
            left.remove(found)
    for one in missing:
        near = min(left, key=lambda other: len(_of_alert(one, other)), default=None)
        if near is None:
            yield f"alert: expected {_expected_alert(one)}, got none"
        else:
            left.remove(near)
            yield from (f"{near.alertname}: {line}" for line in _of_alert(one, near))
    for other in left:
        yield f"alert: expected none, got {_shown_alert(other)}"


def _of_alert(one: ExpectedToldAlert, other: ToldAlert) -> list[str]:
    found = [] if one.alertname == other.alertname else [f"alertname: expected {one.alertname}, got {other.alertname}"]
    if one.labels is not None:
        found += of_labels({name: value for name, value in one.labels.items() if name != "alertname"}, other.labels)
    if one.annotations is not None:
        found += of_mappings("annotation", one.annotations, other.annotations)
    if one.status not in (None, other.status):
        found.append(f"status: expected {one.status}, got {other.status}")
    return found + [of_flag(name, flag) for name, flag in one.flags.items() if getattr(other, name) is not flag]


def _expected(one: ExpectedNotification) -> str:
    counts = [f"{number} {name}" for name in ("firing", "resolved") if (number := getattr(one, name)) is not None]
    head = ", ".join(part for part in (one.status or "a notification", one.reason, *counts) if part)
    return head if one.alerts is None else f"{head}: {', '.join(map(_expected_alert, one.alerts)) or 'no alert'}"


def _expected_alert(one: ExpectedToldAlert) -> str:
    return f"{named(one.alertname, one.labels)}{f' {one.status}' if one.status else ''}"


def _shown(got: Notification) -> str:
    alerts = [_shown_alert(one) for one in got.alerts[:_ALERTS_MAX]]
    more = got.firing + got.resolved - len(alerts)
    return f"{got.status}, {got.reason}: {', '.join([*alerts, *([f'... and {more} more'] if more else [])])}"


def _shown_alert(one: ToldAlert) -> str:
    flags = "".join(f", {name}" for name in ("flapping", "delayed") if getattr(one, name))
    return f"{named(one.alertname, one.labels)} {one.status}{flags}"
