"""The part of the grammar of tests that is about delivery: what arrives at receivers, and what they answer."""

from __future__ import annotations

from typing import get_args

from pool_monitor.alerts.delivery.digest import DIGEST
from pool_monitor.alerts.delivery.escalation import ESCALATED, FALLBACK
from pool_monitor.alerts.delivery.notification import Status
from pool_monitor.alerts.delivery.reasons import ALL_RESOLVED, FIRST, FLAPPING, LEVEL, NEW, REPEAT, SOME_RESOLVED
from pool_monitor.alerts.rehearsal import Upshot
from pool_monitor.alerts.rule_file.fields import Entry, Fields, ListOf, Section, Text
from pool_monitor.alerts.rule_file.nodes import ScalarNode
from pool_monitor.alerts.rule_file.scalars import ALERT_NAME, DURATION, FLAG, NAME, choice, whole
from pool_monitor.alerts.rule_tests.faults import WITHOUT_ANSWER, answered, broken
from pool_monitor.alerts.rule_tests.notation import LABELS, MANY, MOMENT, SECONDS, TEXTS
from pool_monitor.alerts.rule_tests.suite import ExpectedNotification, ExpectedQuiet, ExpectedToldAlert, Fault

REASONS = (FIRST, NEW, SOME_RESOLVED, ALL_RESOLVED, REPEAT, LEVEL, FLAPPING, ESCALATED, FALLBACK, DIGEST)
_FLAGS = ("flapping", "delayed")
_STATUS = choice(get_args(Status), "a status")
_COUNT = whole("a whole number", 0, 1_000_000)
_RECEIVER = Entry("receiver", NAME, "The receiver.", required=True)


# -- what is expected -------------------------------------------------------------------------------------------------


def _told(fields: Fields) -> ExpectedToldAlert:
    labels, annotations = fields.get("exp_labels"), fields.get("exp_annotations")
    return ExpectedToldAlert(
        alertname=fields.get("alertname", ""),
        labels=None if labels is None else dict(labels),
        annotations=None if annotations is None else dict(annotations),
        status=fields.get("status"),
        flags={name: fields.get(name) for name in _FLAGS if name in fields},
        line=fields.node.line,
        column=fields.node.column,
    )


_TOLD = Section(
    "told_alert",
    "an alert that is told",
    (
        Entry("alertname", ALERT_NAME, "The rule.", required=True),
        Entry("exp_labels", LABELS, "All of its labels. Default: any."),
        Entry("exp_annotations", TEXTS, "All of its annotations. Default: any."),
        Entry("status", _STATUS, "Whether it fires or is resolved. Default: either."),
        Entry("flapping", FLAG, "Whether it is told to be flapping. Default: either."),
        Entry("delayed", FLAG, "Whether it ended before it could be told that it fires. Default: either."),
    ),
    _told,
)


def _notification(fields: Fields) -> ExpectedNotification:
    alerts = fields.get("exp_alerts")
    return ExpectedNotification(
        receiver=fields.get("receiver", ""),
        time=fields.get("at", fields.get("eval_time", 0.0)),
        status=fields.get("status"),
        reason=fields.get("reason"),
        firing=fields.get("firing"),
        resolved=fields.get("resolved"),
        alerts=None if alerts is None else tuple(one for one in alerts if one is not None),
        line=fields.node.line,
        column=fields.node.column,
    )


NOTIFICATION = Section(
    "expected_notification",
    "a notification",
    (
        Entry("at", MOMENT, "When it arrives."),
        Entry("eval_time", MOMENT, "The same as `at`."),
        _RECEIVER,
        Entry("status", _STATUS, "`firing` or `resolved`. Default: either."),
        Entry("reason", choice(REASONS, "a reason"), "Why it is told. Default: any."),
        Entry("firing", _COUNT, "How many alerts fire. Default: any."),
        Entry("resolved", _COUNT, "How many alerts are resolved. Default: any."),
        Entry("exp_alerts", ListOf(_TOLD, "a list of alerts", at_most=MANY), "Its alerts. Default: any."),
    ),
    _notification,
    one_of=("at", "eval_time"),
    kinds="notification",
)


def _quiet(fields: Fields) -> ExpectedQuiet:
    starts_at, ends_at = fields.get("from", 0.0), fields.get("to")
    if ends_at is not None and ends_at <= starts_at and not fields.bad("from", "to"):
        fields.wrong("to", "is not after the beginning of that time")
    return ExpectedQuiet(
        receiver=fields.get("receiver", ""),
        starts_at=starts_at,
        ends_at=ends_at,
        line=fields.node.line,
        column=fields.node.column,
    )


QUIET = Section(
    "expected_quiet",
    "a time in which nothing arrives",
    (
        _RECEIVER,
        Entry("from", MOMENT, "When it begins. Default: at the beginning."),
        Entry("to", MOMENT, "When it ends: what arrives then is not in it. Default: the end of the test."),
    ),
    _quiet,
)


# -- faults -----------------------------------------------------------------------------------------------------------


def _respond(node: ScalarNode) -> int | str:
    if node.text in WITHOUT_ANSWER:
        return node.text
    if node.text.isdecimal() and 200 <= int(node.text) <= 599:
        return int(node.text)
    raise ValueError(f"{node.shown} is neither an HTTP status from 200 to 599 nor one of {', '.join(WITHOUT_ANSWER)}")


def _fault(fields: Fields) -> Fault:
    respond, starts_at, length = fields.get("respond", 500), fields.get("at", 0.0), fields.get("for")
    retry_after = fields.get("retry_after")
    if retry_after is not None and isinstance(respond, str):
        fields.wrong("retry_after", "belongs to an answer: needs respond with an HTTP status, such as 429")
    return Fault(
        receiver=fields.get("receiver", ""),
        starts_at=starts_at,
        ends_at=None if length is None else starts_at + length,
        upshot=broken(respond) if isinstance(respond, str) else Upshot(answered(respond, retry_after)),
        line=fields.node.line,
        column=fields.node.column,
    )


FAULT = Section(
    "fault",
    "a fault",
    (
        _RECEIVER,
        Entry("at", MOMENT, "From when on.", required=True),
        Entry("for", SECONDS, "For how long. Default: for one attempt."),
        Entry(
            "respond",
            Text(
                f"an HTTP status, such as 503, or one of {', '.join(WITHOUT_ANSWER)}",
                _respond,
                {"anyOf": [{"type": "integer", "minimum": 200, "maximum": 599}, {"enum": list(WITHOUT_ANSWER)}]},
            ),
            "What comes of an attempt.",
            required=True,
        ),
        Entry("retry_after", DURATION, "The header `Retry-After` of the answer."),
    ),
    _fault,
)
