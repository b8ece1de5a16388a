"""The texts of notices. `pool_monitor.findings` and the rules of alerts decide what needs attention; this module words
each finding and each alert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from pool_monitor import findings
from pool_monitor.findings import Finding, Kind, Level, Levels
from pool_monitor.snapshot import AlertView, PoolDetail, PoolSummary, Snapshot, TrialView
from pool_monitor.view import advice_words, alert_words
from pool_monitor.view import format as fmt
from pool_monitor.view.alert_findings import still_told, told_alerts
from pool_monitor.view.freshness import Freshness
from pool_monitor.view.text import clean, one_line

SYMBOLS: dict[Level, str] = {"bad": "✖", "warn": "▲"}

NAMES_MAX = 3
"""Up to this many slots, all are named. Beyond it, only their number and the first name are given."""


class Notice(NamedTuple):
    level: Level
    text: str


def notices(
    snapshot: Snapshot, pool: PoolDetail | None, freshness: Freshness, levels: Levels | None = None
) -> list[Notice]:
    """Return all notices, worst first. *pool* is the pool that is shown; each other pool with findings gets one notice,
    its worst. *levels* are the levels of the shares; None computes them (`findings.levels`).

    The order within a level: outdated numbers, what keeps calls from running, alerts, the other pools, the resources of
    the service, what makes numbers doubtful, the effects, the resources of the pool's workers, and what the tuner
    rolled back. The first sentence of a text is the headline; the rest is detail. `view.alert_findings` says what is
    told of alerts and findings.
    """
    levels = findings.levels(snapshot) if levels is None else levels
    undone = [_of_trial(trial) for trial in advice_words.rolled_back(snapshot)]
    alerts = [_of_alert(alert) for alert in told_alerts(snapshot, levels)]
    doubts = _told(snapshot, findings.doubts(snapshot))
    strains = _told(snapshot, findings.of_resources(snapshot))
    if pool is None:
        return _worst_first([*_freshness_notices(freshness), *alerts, *strains, *doubts, *undone])
    others = [other for other in snapshot.pools.values() if other is not pool]
    return _worst_first(
        [
            *_freshness_notices(freshness),
            *_told(snapshot, findings.causes(snapshot, pool, levels)),
            *alerts,
            *(notice for other in others for notice in _other_pool_notices(snapshot, other, levels)),
            *strains,
            *doubts,
            *_told(snapshot, findings.effects(snapshot, pool, levels)),
            *_told(snapshot, findings.of_resources(snapshot, pool.name)),
            *undone,
        ]
    )


def pool_notices(snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> list[Notice]:
    """Return the notices of the findings of one pool, worst first."""
    return _told(snapshot, findings.of_pool(snapshot, pool, levels))


def notices_for_summary(pool: PoolSummary) -> list[Notice]:
    """Return the notices of a pool over the time of a Summary, worst first."""
    return [_notice(finding) for finding in findings.of_summary(pool)]


def headline(notice: Notice) -> str:
    """Return the first sentence of a notice."""
    return notice.text.partition("; ")[0]


def _notice(finding: Finding) -> Notice:
    return Notice(finding.level, WORDS[finding.kind](finding))


def _told(snapshot: Snapshot, found: Iterable[Finding]) -> list[Notice]:
    return list(map(_notice, still_told(snapshot, found)))


def _of_alert(alert: AlertView) -> Notice:
    summary = f": {one_line(alert.summary)}" if alert.summary else ""
    return Notice(alert_words.level_of(alert.severity), f"{alert_words.name(alert)}{summary}")


def _of_trial(trial: TrialView) -> Notice:
    return Notice("warn", f"{advice_words.trial_name(trial)} was rolled back: {one_line(trial.reason)}")


def _worst_first(found: Iterable[Notice]) -> list[Notice]:
    return sorted(found, key=lambda notice: notice.level != "bad")


def _freshness_notices(freshness: Freshness) -> Iterable[Notice]:
    if freshness.reason:
        yield Notice("bad", f"connection lost: {one_line(freshness.reason)}")
    elif freshness.state == "STALE":
        yield Notice("warn", f"no snapshot for {fmt.whole_age(freshness.seconds)}: these numbers are old")


def _other_pool_notices(snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> Iterable[Notice]:
    for notice in pool_notices(snapshot, pool, levels)[:1]:
        yield Notice(notice.level, f"pool {clean(pool.name)}: {headline(notice)}")


# -- the sentences ----------------------------------------------------------------------------------------------------


def _names(finding: Finding) -> str:
    return ", ".join(map(clean, finding.names))


def _waiting_calls(finding: Finding) -> str:
    waiting = finding.counts["waiting"]
    return f"{fmt.plural(waiting, 'call')} {'waits' if waiting == 1 else 'wait'}"


def _number(noun: str, words: str) -> Callable[[Finding], str]:
    """Return a function that words a value as a number of *noun*, followed by *words*."""
    return lambda finding: f"{fmt.plural(int(finding.value or 0), noun)} {words}"


def _workers(word: str) -> Callable[[Finding], str]:
    """Return a function that words how many workers are *word*, and which."""

    def sentence(finding: Finding) -> str:
        names = finding.names
        named = _names(finding) if len(names) <= NAMES_MAX else f"{clean(names[0])}, …"
        return f"{fmt.plural(len(names), 'worker')} {word}: {named}"

    return sentence


def _one_or_number(finding: Finding) -> str:
    return _names(finding) if len(finding.names) == 1 else fmt.plural(len(finding.names), "worker")


def _cannot_start(finding: Finding) -> str:
    return f"{_one_or_number(finding)} cannot start: {clean(finding.reason or '')}"


def _crash_loop(finding: Finding) -> str:
    verb = "is in a crash loop" if len(finding.names) == 1 else "in a crash loop"
    return f"{_one_or_number(finding)} {verb}{f': {clean(finding.reason)}' if finding.reason else ''}"


def _held(finding: Finding) -> str:
    waiting = f"; {_waiting_calls(finding)}" if finding.counts["waiting"] else ""
    workers = fmt.plural(finding.counts["busy"], "worker")
    return f"all {workers} busy, nothing has ended for {fmt.whole_age(finding.value or 0.0)}{waiting}"


def _rejected(finding: Finding) -> str:
    rejected, calls = finding.counts["rejected"], finding.counts["calls"]
    causes = [f"{fmt.count(number)} {clean(cause)}" for cause, number in finding.causes.items() if number]
    since = f"; since the start: {', '.join(causes)}" if causes else ""
    share = fmt.percent(finding.value)
    return f"{fmt.count(rejected)} of {fmt.plural(calls + rejected, 'call')} rejected ({share}){since}"


def _died(finding: Finding) -> str:
    deaths = finding.counts["deaths"]
    when = f" in the last {clean(finding.window)}" if finding.window else ""
    text = f"{fmt.plural(deaths, 'worker')} died{when}"
    how = ": " if deaths == 1 else ", the latest: "  # the others may have had other causes
    return f"{text}{how}{clean(finding.reason)}" if finding.reason else text


def _failed(finding: Finding) -> str:
    most = next(iter(finding.causes), None)
    mostly = f", mostly with category {clean(most)}" if most else ""
    return f"{fmt.percent(finding.value)} of {fmt.plural(finding.counts['calls'], 'call')} failed{mostly}"


def _queue(finding: Finding) -> str:
    waiting, limit = finding.counts["waiting"], finding.counts["queue_limit"]
    return f"queue{' is full' if waiting >= limit else ''}: {fmt.count(waiting)} of {fmt.count(limit)} places taken"


_KEPT = {
    "sampled": "percentiles come from a sample",
    "counters": "no durations are recorded",
    "off": "nothing is counted",
}


def _mode_reduced(finding: Finding) -> str:
    mode = _names(finding)
    return f"monitor is short of memory: {_KEPT.get(mode, mode)}; {clean(finding.reason or 'it returns by itself')}"


def _used(finding: Finding, words: Callable[[int], str]) -> str:
    return f"{words(finding.counts['used'])} of {words(finding.counts['limit'])}"


def _history_disk(finding: Finding) -> str:
    left = fmt.percent(1 - (finding.value or 0.0))
    return f"the disk of the history has {left} left ({fmt.size(finding.counts['free'])})"


def _rules_failing(finding: Finding) -> str:
    number = len(finding.names)
    named = _names(finding) if number <= NAMES_MAX else f"{clean(finding.names[0])}, …"
    why = one_line(finding.reason or "")
    return f"{fmt.plural(number, 'rule')} {'fails' if number == 1 else 'fail'}: {named}; {why}"


def _undelivered(finding: Finding) -> str:
    owed, names = finding.counts["owed"], finding.names
    to = ", ".join(map(one_line, names[:NAMES_MAX])) + (", …" if len(names) > NAMES_MAX else "")
    why = f": {one_line(finding.reason)}" if finding.reason else ""
    return f"{fmt.plural(owed, 'message')} to {to} {'has' if owed == 1 else 'have'} not arrived{why}"


_SUBJECTS = {"loop": "event loop", "process": "this service"}
"""The words for subjects of faults whose names alone do not say what they are."""


def subject(name: str) -> str:
    """Return the subject of a fault in words."""
    return _SUBJECTS.get(name) or clean(name)


def _fault(finding: Finding) -> str:
    """Word a fault of a resource: what it is about, and the reason that was emitted with it."""
    names = list(map(subject, finding.names))
    more = f" (and {fmt.plural(len(names) - 1, 'other')})" if len(names) > 1 else ""
    return f"{names[0]}{more}: {clean(finding.reason or finding.kind)}"


WORDS: dict[Kind, Callable[[Finding], str]] = {
    "collecting_stopped": lambda _: "monitor stopped collecting: numbers stand still",
    "events_dropped": _number("event", "dropped: counts are lower bounds"),
    "handlers_detached": _number("telemetry handler", "failed and detached"),
    "events_filtered_out": lambda finding: f"filtered out, and counted as nothing: {_names(finding)}",
    "history_degraded": lambda finding: f"the history is not written: {clean(finding.reason or '')}",
    "mode_reduced": _mode_reduced,
    "part_degraded": lambda finding: f"{_names(finding)} of the monitor is degraded: {clean(finding.reason or '')}",
    "series_overflowed": _number("event", "counted under 'other': no histogram series was left"),
    "series_near": lambda finding: f"{_used(finding, fmt.count)} histogram series are used",
    "memory_near": lambda finding: f"{_used(finding, fmt.size)} of the monitor's memory limit are used",
    "history_near": lambda finding: f"{_used(finding, fmt.size)} of the history's size limit are used",
    "history_disk": _history_disk,
    "rules_failing": _rules_failing,
    "rules_late": lambda finding: f"rules were last evaluated {fmt.whole_age(finding.value or 0.0)} ago",
    "rules_stale": lambda finding: f"the rules were not read again: {one_line(finding.reason or '')}",
    "state_degraded": lambda finding: f"states of alerts are not stored: {one_line(finding.reason or '')}",
    "alerts_refused": _number("alert", "refused: a rule has too many instances"),
    "undelivered": _undelivered,
    "paused": lambda finding: f"pool is paused: {_waiting_calls(finding)}",
    "not_running": lambda finding: f"pool is {finding.reason}",
    "cannot_start": _cannot_start,
    "crash_loop": _crash_loop,
    "breaker_open": lambda _: "circuit breaker is open: calls are refused",
    "breaker_half_open": lambda _: "circuit breaker is half open: a few calls are let through on trial",
    "held": _held,
    "rejected": _rejected,
    "dead": _workers("dead"),
    "degraded": _workers("degraded, not answering"),
    "starting": _workers("starting"),
    "stuck": lambda finding: f"{_names(finding)} neither answers nor computes",
    "died": _died,
    "failed": _failed,
    "waiting": _queue,
    **dict.fromkeys(findings.STRAINS, _fault),
}
"""The sentence for each kind of finding."""
