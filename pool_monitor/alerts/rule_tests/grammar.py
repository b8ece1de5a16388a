"""The grammar of a file of tests: the keys of promtool, and some more. It is read as a rule file is."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pool_monitor.alerts.catalogue import METRICS, Unit
from pool_monitor.alerts.inputs import labels_of
from pool_monitor.alerts.rule_file.fields import Either, Entry, Fields, Invalid, ListOf, MapOf, Section, Text, note
from pool_monitor.alerts.rule_file.nodes import Node, Problem, Problems, ScalarNode, shown
from pool_monitor.alerts.rule_file.scalars import ALERT_NAME, FLAG, LABEL_NAME, LABEL_VALUE, choice, text
from pool_monitor.alerts.rule_file.yaml_text import decoded, nodes_of
from pool_monitor.alerts.rule_tests.delivery_grammar import FAULT, NOTIFICATION, QUIET
from pool_monitor.alerts.rule_tests.notation import LABELS, LINE, MANY, MOMENT, SECONDS, START, TEXTS, Anything
from pool_monitor.alerts.rule_tests.series import course_of, name_of_series
from pool_monitor.alerts.rule_tests.suite import (
    EVALUATIONS_MAX,
    Case,
    Check,
    ExpectedAlert,
    ExpectedState,
    Suite,
    WrittenAcknowledgement,
    WrittenSilence,
)
from pool_monitor.alerts.rule_tests.written import FINDING, WrittenSeries
from pool_monitor.findings import CONDITIONS
from pool_monitor.snapshot import WINDOW_NAMES

_STATES: tuple[ExpectedState, ...] = ("pending", "firing", "recovering")
_FLAGS = ("silenced", "inhibited", "acknowledged", "muted", "flapping", "unknown")
_NO_PROMQL = "there is no PromQL here; test alerts with alert_rule_test"


# -- series -----------------------------------------------------------------------------------------------------------


class _Points(NamedTuple):
    metric: str
    labels: dict[str, str]
    values: str
    unit: Unit
    node: Node


def _series(fields: Fields) -> _Points | None:
    name, values = fields.get("series"), fields.get("values")
    if name is None:
        return None
    metric, labels = name
    unit: Unit = ""
    if metric.startswith(FINDING):
        _check_labels(fields, metric, labels, (), ("pool", "worker"))
    else:
        found = METRICS[metric]
        unit = found.unit
        _check_labels(fields, metric, labels, found.labels, ("window",) if found.windowed else ())
    return None if values is None else _Points(metric, labels, values, unit, fields.nodes["values"])


def _check_labels(
    fields: Fields, metric: str, labels: Mapping[str, str], needed: tuple[str, ...], others: tuple[str, ...]
) -> None:
    for name in labels:
        if name not in (*needed, *others):
            known = ", ".join((*needed, *others)) or "none"
            fields.wrong("series", f"{metric} has no label {name}; its labels are: {known}")
    for name in needed:
        if not labels.get(name):
            fields.wrong("series", f'{metric} needs the label {name}, as in {metric}{{{name}="..."}}')
    if labels.get("window", WINDOW_NAMES[0]) not in WINDOW_NAMES:
        fields.wrong("series", f"the label window is one of {', '.join(WINDOW_NAMES)}")


def _named(node: ScalarNode) -> tuple[str, dict[str, str]]:
    metric, labels = name_of_series(node.text)
    if metric.startswith(FINDING):
        _known(metric.removeprefix(FINDING), CONDITIONS, "finding")
    else:
        _known(metric, METRICS, "metric")
    return metric, labels


def _known(name: str, names: Mapping[str, object], noun: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "pool-monitor rules metrics lists the metrics"
        raise ValueError(f"{shown(name)} is not a {noun}; {hint}")


_SERIES = Section(
    "series",
    "a series",
    (
        Entry("series", Text("a series", _named, {"type": "string"}), "Its metric and labels.", required=True),
        Entry("values", text("values, such as 0+10x5", most=1_000_000), "Its points.", required=True),
    ),
    _series,
)


# -- what is expected -------------------------------------------------------------------------------------------------


def _expected(fields: Fields) -> ExpectedAlert:
    labels, annotations = dict(fields.get("exp_labels", ())), fields.get("exp_annotations")
    return ExpectedAlert(
        labels=labels,
        annotations=None if annotations is None else dict(annotations),
        state=fields.get("state"),
        flags={name: fields.get(name) for name in _FLAGS if name in fields},
    )


_EXPECTED = Section(
    "expected",
    "an alert that is expected",
    (
        Entry("exp_labels", LABELS, "All of its labels."),
        Entry("exp_annotations", TEXTS, "All of its annotations. Default: any."),
        Entry("state", choice(_STATES, "a state"), "Its state. Default: firing or recovering."),
        *(Entry(name, FLAG, f"Whether it is {name}. Default: either.") for name in _FLAGS),
    ),
    _expected,
)


def _check(fields: Fields) -> Check:
    return Check(
        alertname=fields.get("alertname", ""),
        time=fields.get("eval_time", 0.0),
        expected=_good(fields, "exp_alerts"),
        line=fields.node.line,
        column=fields.node.column,
    )


_CHECK = Section(
    "check",
    "a check",
    (
        Entry("eval_time", MOMENT, "When it is checked.", required=True),
        Entry("alertname", ALERT_NAME, "The rule.", required=True),
        Entry("exp_alerts", ListOf(_EXPECTED, "a list of alerts", at_most=MANY), "The alerts. Default: none."),
    ),
    _check,
)


def _silence(fields: Fields) -> WrittenSilence:
    return WrittenSilence(
        matchers={
            label: wanted if isinstance(wanted, str) else dict(wanted) for label, wanted in fields.get("matchers", ())
        },
        starts_at=fields.get("starts_at", 0.0),
        ends_at=fields.get("ends_at"),
    )


_GLOB = MapOf(
    text("glob", "glob"), text("a shell pattern"), "a shell pattern, such as {glob: text*}", at_least=1, at_most=1
)
_SILENCE = Section(
    "written_silence",
    "a silence",
    (
        Entry(
            "matchers",
            MapOf(LABEL_NAME, Either(LABEL_VALUE, _GLOB), "labels", at_least=1),
            "The labels that it matches.",
            required=True,
        ),
        Entry("starts_at", MOMENT, "When it begins. Default: at the beginning."),
        Entry("ends_at", MOMENT, "When it ends. Default: never."),
    ),
    _silence,
)


def _acknowledgement(fields: Fields) -> WrittenAcknowledgement:
    return WrittenAcknowledgement(
        alertname=fields.get("alertname", ""),
        at=fields.get("at", 0.0),
        labels=dict(fields.get("labels", ())),
        line=fields.node.line,
        column=fields.node.column,
    )


_ACKNOWLEDGEMENT = Section(
    "written_acknowledgement",
    "an acknowledgement",
    (
        Entry("at", MOMENT, "When somebody acknowledges.", required=True),
        Entry("alertname", ALERT_NAME, "The rule.", required=True),
        Entry("labels", LABELS, "Labels of its alerts. Default: all of them."),
    ),
    _acknowledgement,
)


# -- tests ------------------------------------------------------------------------------------------------------------


def _case(fields: Fields) -> Case:
    interval = fields.get("interval", 60.0)
    series = []
    for one in fields.get("input_series", ()) or ():
        if one is None:
            continue
        try:
            course = course_of(one.values, interval, one.unit)
        except ValueError as error:
            fields.problems.add(one.node, f"{fields.place}.input_series", str(error))
            continue
        labels = {name: value for name, value in one.labels.items() if name != "window"}
        series.append(WrittenSeries(one.metric, one.labels.get("window"), labels_of(labels), course))
    seen = set()
    for found in series:
        if found[:3] in seen:
            fields.wrong("input_series", f"the series {found.metric}{dict(found.labels)} is there twice")
        seen.add(found[:3])
    return Case(
        name=fields.get("name", ""),
        line=fields.node.line,
        start=fields.get("start_timestamp", 0.0),
        interval=interval,
        series=tuple(series),
        checks=_good(fields, "alert_rule_test"),
        silences=_good(fields, "silences"),
        acknowledgements=_good(fields, "acknowledgements"),
        notifications=_good(fields, "exp_notifications"),
        quiet=_good(fields, "exp_no_notifications"),
        faults=_good(fields, "faults"),
    )


def _good(fields: Fields, name: str) -> tuple[Any, ...]:
    """Return the items of a list that could be read."""
    return tuple(one for one in fields.get(name, ()) or () if one is not None)


def _list_of(section: Section, words: str) -> ListOf:
    return ListOf(section, f"a list of {words}", at_most=MANY, named=True)


_CASE = Section(
    "case",
    "a test",
    (
        Entry("name", LINE, "What it is about."),
        Entry("interval", SECONDS, "Between two points of a series. Default: `1m`."),
        Entry("input_series", _list_of(_SERIES, "series"), "What the service measures."),
        Entry("alert_rule_test", _list_of(_CHECK, "checks"), "Which alerts there are, and when."),
        Entry("silences", _list_of(_SILENCE, "silences"), "Silences that are set."),
        Entry("acknowledgements", _list_of(_ACKNOWLEDGEMENT, "acknowledgements"), "What somebody acknowledges."),
        Entry("exp_notifications", _list_of(NOTIFICATION, "notifications"), "What arrives at receivers, and when."),
        Entry("exp_no_notifications", _list_of(QUIET, "times"), "When nothing arrives."),
        Entry("faults", _list_of(FAULT, "faults"), "What receivers answer. Default: everything arrives."),
        Entry("start_timestamp", START, "When it begins. Default: 1970."),
        Entry("promql_expr_test", Anything(_NO_PROMQL), "Not read."),
        Entry("external_labels", LABELS, "Read and not used."),
        Entry("external_url", LINE, "Read and not used."),
    ),
    _case,
)


class _Draft(NamedTuple):
    rule_files: tuple[str, ...]
    interval: float
    cases: tuple[Case, ...]


def _suite(fields: Fields) -> _Draft:
    interval = fields.get("evaluation_interval", 60.0)
    cases: tuple[Case, ...] = _good(fields, "tests")
    for case in cases:
        last = case.end
        if last / interval > EVALUATIONS_MAX:
            fields.wrong("tests", f"a test with {last / interval:,.0f} evaluations; {EVALUATIONS_MAX:,} are the most")
    return _Draft(fields.get("rule_files", ()), interval, cases)


_RULE_FILES = ListOf(LINE, "a list of rule files", at_least=1)
_SUITE = Section(
    "suite",
    "a file of tests",
    (
        Entry("rule_files", _RULE_FILES, "The rules; * and ? stand for others.", required=True),
        Entry("evaluation_interval", SECONDS, "Between two evaluations. Default: `1m`."),
        Entry("tests", _list_of(_CASE, "tests"), "The tests.", required=True),
        Entry("group_eval_order", Anything(), "Not used: a rule comes after those that it names."),
        Entry("fuzzy_compare", FLAG, "Read and not used: no numbers are compared."),
    ),
    _suite,
)  # fmt: skip


class ReadSuite(NamedTuple):
    """A file of tests, or why there is none."""

    suite: Suite | None
    problems: tuple[Problem, ...]


def read_suite(data: bytes, name: str) -> ReadSuite:
    """Return the tests in the file *name*, whose content is *data*. Looks up which rule files there are."""
    problems = Problems(name)
    source = decoded(data, problems)
    root = None if source is None else nodes_of(source, problems)
    draft: _Draft | None = None
    if root is not None:
        try:
            draft = _SUITE.read(root, "", problems)
        except Invalid as error:
            note(error, root, "", problems)
    elif not problems.errors:
        problems.add(Node(1, 1), "", "the file says nothing; needs rule_files and tests")
    if draft is None or problems.errors:
        return ReadSuite(None, tuple(problems.in_order()))
    folder = Path(name).parent
    files = [path for pattern in draft.rule_files for path in _files(folder, pattern)]
    suite = Suite(file=name, rule_files=tuple(dict.fromkeys(files)), interval=draft.interval, cases=draft.cases)
    return ReadSuite(suite, tuple(problems.in_order()))


def _files(folder: Path, pattern: str) -> list[str]:
    path = os.fspath(folder / pattern)
    found = sorted(glob.glob(path)) if glob.has_magic(path) else []  # noqa: PTH207 - patterns may be absolute
    return found or [path]
