"""Runs tests of rules: the engine of the service on written series, and what it should have come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES, FIRING_PHASES
from pool_monitor.alerts.overlays import Overlays
from pool_monitor.alerts.rule import CheckedRule, Inhibition
from pool_monitor.alerts.rule_book import nearest
from pool_monitor.alerts.rule_file.nodes import Problem, shown
from pool_monitor.alerts.rule_tests.coverage import Coverage
from pool_monitor.alerts.rule_tests.suite import Case, Check, ExpectedAlert, Suite, WrittenAcknowledgement
from pool_monitor.alerts.rule_tests.written import WrittenReader
from pool_monitor.alerts.wording import texts_of
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import AlertView

_FOREVER_S = 1e9
_SLACK = 1e-6


class CaseResult(NamedTuple):
    """What came of one test."""

    case: Case
    failures: tuple[str, ...]
    """In words, several lines each. Empty: it passed."""


def run_suite(
    suite: Suite, rules: Sequence[CheckedRule], inhibitions: Sequence[Inhibition], coverage: Coverage
) -> Iterator[CaseResult]:
    """Run the tests of *suite* for *rules*, one after the other. *coverage* is told what they reach."""
    for case in suite.cases:
        yield CaseResult(case, tuple(_Run(suite, case, rules, inhibitions, coverage).failures()))


def unknown_rules(suite: Suite, rules: Sequence[CheckedRule]) -> Iterator[Problem]:
    """Yield a problem for each check of a rule that is not among *rules*: it would pass whatever the rules say."""
    names = [rule.alert for rule in rules]
    for case in suite.cases:
        named: list[Check | WrittenAcknowledgement] = [*case.checks, *case.acknowledgements]
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
    ) -> None:
        self._suite, self._case, self._inhibitions, self._coverage = suite, case, inhibitions, coverage
        self._engine, self._overlays = Engine(suite.interval), Overlays()
        self._reader = WrittenReader(case.series, case.interval, case.start)
        self._engine.set_rules(rules, case.start)

    def failures(self) -> Iterator[str]:
        case, step = self._case, self._suite.interval
        checks = sorted(case.checks, key=lambda check: check.time)
        open_acks = sorted(case.acknowledgements, key=lambda one: one.at)
        last = checks[-1].time if checks else 0.0
        try:
            self._silence(last)
        except ConfigError as error:
            yield f"{self._place(case.line, 1)}: a silence is not possible: {error}"
        for number in range(int((last + _SLACK) / step) + 1):
            time = number * step
            inputs = self._reader.inputs(self._engine.wanted, time, step if number else 0.0)
            transitions = self._engine.step(inputs)
            self._overlays.note(transitions, inputs.elapsed)
            self._coverage.note(transitions)
            while open_acks and open_acks[0].at <= time + _SLACK:
                yield from self._acknowledge(open_acks.pop(0), time)
            while checks and checks[0].time < time + step - _SLACK:
                yield from self._check(checks.pop(0), time)
        for name, why in self._engine.failing.items():
            yield f"{self._place(case.line, 1)}: the rule {name} cannot be evaluated: {why}"

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
        self._coverage.expect(check)
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
            head = f"{self._place(check.line, check.column)}: {check.alertname} after {_time(check.time)}:"
            yield "\n".join([head, *(f"    {line}" for line in _compared(check, missing, got))])

    def _place(self, line: int, column: int) -> str:
        return f"{self._suite.file}:{line}:{column}"


# -- comparing --------------------------------------------------------------------------------------------------------


def _differences(expected: ExpectedAlert, view: AlertView) -> list[str]:
    """Return in words how *view* differs from what is expected. Empty: it does not."""
    wanted = {name: value for name, value in expected.labels.items() if name != "alertname"}
    labels = view.labels if "severity" in wanted else {n: v for n, v in view.labels.items() if n != "severity"}
    found = [] if expected.labels.get("alertname", view.alertname) == view.alertname else ["alertname"]
    found += _of_mappings("label", wanted, labels)
    if expected.annotations is not None:
        found += _of_mappings("annotation", expected.annotations, view.annotations)
    if view.state not in (FIRING_PHASES if expected.state is None else {expected.state}):
        found.append(f"state: expected {expected.state or 'firing'}, got {view.state}")
    for name, flag in expected.flags.items():
        if getattr(view, name) is not flag:
            found.append(f"{name}: expected {str(flag).lower()}, got {str(not flag).lower()}")
    return found


def _of_mappings(noun: str, expected: dict[str, str], got: dict[str, str]) -> list[str]:
    return [
        f"{noun} {name}: expected {_quoted(expected.get(name))}, got {_quoted(got.get(name))}"
        for name in sorted(expected.keys() | got.keys())
        if expected.get(name) != got.get(name)
    ]


def _quoted(value: str | None) -> str:
    return "none" if value is None else f'"{value}"'


def _compared(check: Check, missing: Iterable[ExpectedAlert], got: Sequence[AlertView]) -> Iterator[str]:
    """Say what was expected and not there, beside what was there and is most alike."""
    left = list(got)
    for one in missing:
        yield f"expected: {_shown(check.alertname, one.labels, one.state or 'firing')}"
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
    return _shown(view.alertname, view.labels, view.state) + value


def _shown(alertname: str, labels: dict[str, str], state: str) -> str:
    pairs = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "alertname")
    return f"{alertname}{{{pairs}}} {state}"


def _time(seconds: float) -> str:
    parts, left = [], seconds
    for size, unit in ((3600, "h"), (60, "m")):
        number, left = divmod(left, size)
        parts += [f"{number:.0f}{unit}"] if number else []
    return "".join([*parts, f"{left:g}s"] if left or not parts else parts)
