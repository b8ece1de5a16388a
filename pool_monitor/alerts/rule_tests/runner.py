"""Runs tests of rules: the engine of the service on written series, and what it should have come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES, FIRING_PHASES
from pool_monitor.alerts.overlays import Overlays
from pool_monitor.alerts.rehearsal import Attempt, Rehearsal
from pool_monitor.alerts.rule import CheckedRule, Inhibition
from pool_monitor.alerts.rule_book import nearest
from pool_monitor.alerts.rule_file.nodes import Problem, shown
from pool_monitor.alerts.rule_tests.coverage import Coverage
from pool_monitor.alerts.rule_tests.faults import answers
from pool_monitor.alerts.rule_tests.suite import (
    Case,
    Check,
    ExpectedAlert,
    ExpectedNotification,
    ExpectedQuiet,
    ExpectedToldAlert,
    Fault,
    Suite,
    WrittenAcknowledgement,
)
from pool_monitor.alerts.rule_tests.timeline import Timeline
from pool_monitor.alerts.rule_tests.words import named, of_flag, of_labels, of_mappings, time_text
from pool_monitor.alerts.rule_tests.written import WrittenReader
from pool_monitor.alerts.wording import texts_of, worded
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import AlertView

_FOREVER_S = 1e9
_SLACK = 1e-6
NOBODY = Routing()
"""A routing by which nobody is told."""


class CaseResult(NamedTuple):
    """What came of one test."""

    case: Case
    failures: tuple[str, ...]
    """In words, several lines each. Empty: it passed."""


def run_suite(
    suite: Suite,
    rules: Sequence[CheckedRule],
    inhibitions: Sequence[Inhibition],
    coverage: Coverage,
    routing: Routing = NOBODY,
) -> Iterator[CaseResult]:
    """Run the tests of *suite* for *rules*, one after the other. *coverage* is told what they reach."""
    for case in suite.cases:
        yield CaseResult(case, tuple(_Run(suite, case, rules, inhibitions, coverage, routing).failures()))


def unknown_names(suite: Suite, rules: Sequence[CheckedRule], routing: Routing) -> Iterator[Problem]:
    """Yield a problem for each check of a rule that is not among *rules*, and of a receiver that *routing* does not
    have: it would pass whatever the rules say.
    """
    names, receivers = [rule.alert for rule in rules], list(routing.receivers)
    for case in suite.cases:
        of_receivers: list[ExpectedNotification | ExpectedQuiet | Fault] = [*case.notifications, *case.quiet]
        of_receivers += case.faults
        for told in of_receivers:
            if told.receiver not in receivers:
                text = f"there is no receiver {shown(told.receiver)} in the rule files"
                yield Problem(suite.file, told.line, told.column, "", f"{text}; {nearest(told.receiver, receivers)}")
        named: list[Check | WrittenAcknowledgement | ExpectedToldAlert] = [*case.checks, *case.acknowledgements]
        named += [alert for told in case.notifications for alert in told.alerts or ()]
        for one in named:
            if one.alertname not in names:
                text = f"there is no rule {shown(one.alertname)} in the rule files; {nearest(one.alertname, names)}"
                yield Problem(suite.file, one.line, one.column, "", text)


class _Run:
    """One test: an engine of its own, which begins with nothing."""

    def __init__(
        self,
        suite: Suite,
        case: Case,
        rules: Sequence[CheckedRule],
        inhibitions: Sequence[Inhibition],
        coverage: Coverage,
        routing: Routing,
    ) -> None:
        self._suite, self._case, self._inhibitions, self._coverage = suite, case, inhibitions, coverage
        self._engine, self._overlays = Engine(suite.interval), Overlays()
        self._reader = WrittenReader(case.series, case.interval, case.start)
        self._engine.set_rules(rules, case.start)
        answer = answers(case.faults, case.start)
        self._rehearsal = Rehearsal(routing, inhibitions, self._overlays, answer)
        self._timeline = Timeline(case, suite.file)

    def failures(self) -> Iterator[str]:
        case, step = self._case, self._suite.interval
        checks = sorted(case.checks, key=lambda check: check.time)
        open_acks = sorted(case.acknowledgements, key=lambda one: one.at)
        last = case.end
        try:
            self._silence(last)
        except ConfigError as error:
            yield f"{self._place(case.line, 1)}: a silence is not possible: {error}"
        for notification in case.notifications:
            for told in notification.alerts or ():
                self._coverage.expect(told.alertname)
        for number in range(int((last + _SLACK) / step) + 1):
            time = number * step
            self._note(self._rehearsal.until(case.start + time))
            inputs = self._reader.inputs(self._engine.wanted, time, step if number else 0.0)
            transitions = [worded(one, self._engine.rules) for one in self._engine.step(inputs)]
            self._overlays.note(transitions, inputs.elapsed)
            self._coverage.note(transitions)
            while open_acks and open_acks[0].at <= time + _SLACK:
                yield from self._acknowledge(open_acks.pop(0), time)
            self._note(self._rehearsal.step(case.start + time, transitions, self._engine))
            while checks and checks[0].time < time + step - _SLACK:
                yield from self._check(checks.pop(0), time)
        self._note(self._rehearsal.until(case.start + last + _SLACK))
        yield from self._timeline.failures()
        for name, why in self._engine.failing.items():
            yield f"{self._place(case.line, 1)}: the rule {name} cannot be evaluated: {why}"

    def _note(self, attempts: Iterable[Attempt]) -> None:
        for one in self._timeline.note(attempts):
            if one.arrived:
                self._coverage.told(one.notification)

    def _silence(self, last: float) -> None:
        start = self._case.start
        for one in self._case.silences:
            ends_at = last + _FOREVER_S if one.ends_at is None else one.ends_at
            self._overlays.silence(one.matchers, duration=ends_at - one.starts_at, at=start, starts_in=one.starts_at)

    def _acknowledge(self, one: WrittenAcknowledgement, time: float) -> Iterator[str]:
        active = {alert.fingerprint: alert for alert in self._engine.alerts.values() if alert.state in ACTIVE_PHASES}
        chosen = [
            alert.fingerprint
            for alert in active.values()
            if alert.alert == one.alertname
            and one.labels.items() <= {**alert.labels, "severity": alert.severity}.items()
        ]
        for fingerprint in chosen:
            self._overlays.acknowledge(fingerprint, active, at=self._case.start + time, author="test")
        if not chosen:
            yield f"{self._place(one.line, one.column)}: there is no alert of {one.alertname} to acknowledge then"

    def _check(self, check: Check, time: float) -> Iterator[str]:
        views = self._overlays.lay(
            self._engine.alerts.values(),
            self._engine.rules,
            self._inhibitions,
            self._case.start + time,
            texts_of,
        )
        if check.expected:
            self._coverage.expect(check.alertname)
        states = {*FIRING_PHASES, *(one.state for one in check.expected if one.state is not None)}
        got = [view for view in views if view.alertname == check.alertname and view.state in states]
        missing: list[ExpectedAlert] = []
        for one in check.expected:
            found = next((view for view in got if not _differences(one, view)), None)
            if found is None:
                missing.append(one)
            else:
                got.remove(found)
        if missing or got:
            head = f"{self._place(check.line, check.column)}: {check.alertname} after {time_text(check.time)}:"
            yield "\n".join([head, *(f"    {line}" for line in _compared(check, missing, got))])

    def _place(self, line: int, column: int) -> str:
        return f"{self._suite.file}:{line}:{column}"


# -- comparing --------------------------------------------------------------------------------------------------------


def _differences(expected: ExpectedAlert, view: AlertView) -> list[str]:
    """Return in words how *view* differs from what is expected. Empty: it does not."""
    wanted = {name: value for name, value in expected.labels.items() if name != "alertname"}
    found = [] if expected.labels.get("alertname", view.alertname) == view.alertname else ["alertname"]
    found += of_labels(wanted, view.labels)
    if expected.annotations is not None:
        found += of_mappings("annotation", expected.annotations, view.annotations)
    if view.state not in (FIRING_PHASES if expected.state is None else {expected.state}):
        found.append(f"state: expected {expected.state or 'firing'}, got {view.state}")
    for name, flag in expected.flags.items():
        if getattr(view, name) is not flag:
            found.append(of_flag(name, flag))
    return found


def _compared(check: Check, missing: Iterable[ExpectedAlert], got: Sequence[AlertView]) -> Iterator[str]:
    """Say what was expected and not there, beside what was there and is most alike."""
    left = list(got)
    for one in missing:
        yield f"expected: {named(check.alertname, one.labels)} {one.state or 'firing'}"
        near = min(left, key=lambda view: len(_differences(one, view)), default=None)
        if near is None:
            yield "got:      nothing"
        else:
            left.remove(near)
            yield f"got:      {_of_view(near)}"
            yield from (f"  {line}" for line in _differences(one, near))
    for view in left:
        yield "expected: nothing"
        yield f"got:      {_of_view(view)}"


def _of_view(view: AlertView) -> str:
    value = f", value {view.value_text}" if view.value_text else ""
    return f"{named(view.alertname, view.labels)} {view.state}{value}"
