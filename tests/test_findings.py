"""Findings: every kind has one pure check, the numbers behind it, and words."""

from __future__ import annotations

import re

import msgspec
import pytest
from msgspec.structs import replace

from pool_monitor import findings
from pool_monitor.findings import CAUSES, CONDITIONS, DOUBTS, EFFECTS, LIMITS, STRAINS, Finding
from pool_monitor.findings.monitor import undelivered
from pool_monitor.snapshot import (
    FaultLevel,
    FaultView,
    HistoryView,
    MonitorView,
    PoolSummary,
    ResourceView,
    SamplingView,
    Snapshot,
)
from pool_monitor.view.notices import WORDS
from tests.helpers import alert_samples, samples
from tests.helpers.programs import ROOT
from tests.helpers.samples import with_pool, with_worker

TROUBLED_RULES = alert_samples.alerting(
    failing={"Odd": "no metric of that name"}, reload_error="rules.yaml:3:1: unknown key", state_degraded="disk full",
    evaluated_age=90.0, refused=2, receivers=alert_samples.troubled()["receivers"],
)  # fmt: skip


def everything() -> list[Snapshot]:
    """Return Snapshots that together have every kind of finding."""
    base = samples.snapshot()
    history = HistoryView(
        path="h.db", degraded="disk full", held=1, dropped=0, file_bytes=None, size_limit=1, flush_seconds=None
    )
    doubtful = replace(
        base.monitor, collecting=False, dropped=2, handler_failures=1, weights={"pool.error": 0}, history=history
    )
    kept = replace(history, degraded=None, file_bytes=95, size_limit=100, disk_free=4, disk_total=100)
    short = replace(
        base.monitor, collecting=False, mode="off", degraded={"collector": "no room", "otlp": "gone"}, series=500,
        memory_bytes=90_000_000, history=kept, alerts=TROUBLED_RULES,
    )  # fmt: skip
    bad = with_pool(base, rejected=900, errors=1770, error_ratio=0.5, deaths=9, waiting=64, queue_limit=64)
    troubles = {
        "text-0": {"state": "terminated"},
        "text-1": {"state": "degraded"},
        "text-2": {"state": "initializing"},
        "text-3": {"health": "stuck"},
    }
    for slot, changes in troubles.items():
        bad = with_worker(bad, slot, **changes)
    busy = base
    for slot in base.pools["text"].workers:
        busy = with_worker(busy, slot, state="busy", state_age=300.0)
    trend = replace(base.pools["text"].trend, ok=(0.0,) * 300, errors=(0.0,) * 300)
    return [
        replace(bad, monitor=doubtful),
        replace(base, monitor=short),
        replace(base, monitor=replace(base.monitor, overflowed=3)),
        with_pool(base, state="paused", waiting=3),
        with_pool(base, state="draining"),
        with_pool(base, breaker="open"),
        with_pool(base, breaker="half_open"),
        with_pool(busy, busy=4, idle=0, trend=trend),
        with_worker(base, "text-0", crash_loop=True, last_error="crash: signal 9"),
        with_worker(base, "text-0", state="terminated", last_error="start: no"),
        *(replace(base, resources=ResourceView(faults=(fault(kind, pool),))) for kind, pool in KINDS_OF_FAULTS),
    ]


REASONS = {
    "blocked": "the event loop has run no callback for 0.6 s, it runs app.py:7 in work",
    "lag": "1 % of callbacks over 300 ms late, blocked in app.py:7 in work",
    "memory": "memory: 14.2 GiB of 16 GiB in use (89 %)",
    "oom": "the kernel has killed a process for want of memory within 60 s",
    "leak": "its memory grows by 12 MiB a minute and reaches its limit of 512 MiB in 18 min (15 min to 22 min)",
    "cpu": "93 % of the processors in use",
    "throttled": "20 % of the time throttled by the cgroup",
    "disk": "disk of /srv/var: 3.1 GiB of 100 GiB free (3.1 %)",
    "shm": "shared memory: 4.0 MiB of 64 MiB free (6.2 %)",
    "fds": "descriptors: 950 of 1024 in use (93 %)",
    "fd_leak": "its descriptors grow by 6.0 a minute and reach the limit of 1024 in 2.5 h (2.4 h to 2.6 h)",
    "processes": "processes and threads: 950 of 1024 in use (93 %)",
    "threads": "threads of the user: 950 of 1024 in use (93 %)",
    "stopped": "the process is stopped (state T)",
    "hot_idle": "uses 99 % of a processor without a call",
    "zombie": "a process that has ended is not reaped, for 12 s",
    "orphan": "was left behind by the service with pid 66, which has ended: python left.py",
}
KINDS_OF_FAULTS = [*((kind, None) for kind in STRAINS), ("leak", "text"), ("memory", "text")]


def fault(kind: str, pool: str | None, level: FaultLevel = "warn", worker: str = "text-0") -> FaultView:
    about = {"subject": "host"} if pool is None else {"subject": f"worker {worker}", "pool": pool, "worker": worker}
    reason = REASONS.get(kind, f"{kind} has its reason")
    return FaultView(kind=kind, level=level, value=2.0, limit=1.0, since=1.0, reason=reason, **about)


def found_in(snapshot: Snapshot) -> list[Finding]:
    pool = snapshot.pools["text"]
    of_pool = findings.of_pool(snapshot, pool, findings.levels(snapshot))
    return [*findings.doubts(snapshot), *findings.of_resources(snapshot), *of_pool]


def test_every_kind_has_one_check_and_words() -> None:
    assert WORDS.keys() == CONDITIONS.keys()
    assert len(CONDITIONS) == len(DOUBTS) + len(CAUSES) + len(EFFECTS) + len(STRAINS)
    assert LIMITS.keys() <= CONDITIONS.keys()


def test_every_check_finds_its_own_kind_and_no_other() -> None:
    kinds = set()
    for snapshot in everything():
        pool, levels = snapshot.pools["text"], findings.levels(snapshot)
        for kind, doubt in DOUBTS.items():
            assert {found.kind for found in doubt(snapshot.monitor)} <= {kind}
        for kind, check in {**CAUSES, **EFFECTS}.items():
            assert {found.kind for found in check(snapshot, pool, levels)} <= {kind}
        for kind, strain in STRAINS.items():
            assert {found.kind for found in strain(snapshot)} <= {kind}
        kinds |= {found.kind for found in found_in(snapshot)}
    assert kinds == CONDITIONS.keys()


def test_the_playbook_has_a_line_for_every_kind() -> None:
    table = (
        (ROOT / "docs" / "OPERATIONS_PLAYBOOK.md").read_text(encoding="utf-8").partition("| text on the screen |")[2]
    )
    cells = re.findall(r"^\| (.*?) \| .* \|$", table, re.MULTILINE)
    known = [words.strip() for cell in cells for words in re.split(r", | or |…", cell) if words.strip()]
    for snapshot in everything():
        for found in found_in(snapshot):
            assert any(words in WORDS[found.kind](found) for words in known), found.kind


@pytest.mark.parametrize("index", range(len(everything())))
def test_checks_are_pure(index: int) -> None:
    snapshot = everything()[index]
    before = msgspec.json.encode(snapshot)
    first, second = found_in(snapshot), found_in(snapshot)
    assert first
    assert first == second
    assert msgspec.json.encode(snapshot) == before
    assert found_in(msgspec.json.decode(before, type=Snapshot)) == first


def test_a_finding_has_its_value_and_the_bound_it_reached() -> None:
    for snapshot in everything():
        for found in found_in(snapshot):
            assert found.limit is None or (found.value is not None and found.value >= found.limit)
            assert found.level in {"bad", "warn"}


def test_a_finding_carries_the_numbers_of_the_snapshot() -> None:
    by_kind = {found.kind: found for found in found_in(everything()[0])}
    failed = by_kind["failed"]
    assert (failed.pool, failed.level, failed.value, failed.limit) == ("text", "bad", 0.5, LIMITS["failed"].bad)
    assert failed.counts == {"calls": 3540, "errors": 1770}
    assert by_kind["dead"].names == ("text-0",)
    assert by_kind["waiting"].value == 1.0
    assert by_kind["history_degraded"].reason == "disk full"
    assert by_kind["history_degraded"].pool is None


BASE = samples.snapshot().monitor
HISTORY = HistoryView(
    path="h.db", degraded=None, held=0, dropped=0, file_bytes=1, size_limit=100, flush_seconds=None
)  # fmt: skip


def about_monitor(monitor: MonitorView) -> list[tuple[str, str]]:
    return [(found.kind, found.level) for check in DOUBTS.values() for found in check(monitor)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"mode": "sampled"}, [("mode_reduced", "warn")]),
        ({"mode": "counters"}, [("mode_reduced", "warn")]),
        ({"mode": "off", "collecting": False}, [("mode_reduced", "bad")]),
        ({"collecting": False}, [("collecting_stopped", "bad")]),
        ({"series": 89, "series_limit": 100}, []),
        ({"series": 90, "series_limit": 100}, [("series_near", "warn")]),
        ({"series": 100, "series_limit": 100, "overflowed": 1}, [("series_overflowed", "warn")]),
        ({"memory_bytes": 899, "memory_limit_bytes": 1000}, []),
        ({"memory_bytes": 900, "memory_limit_bytes": 1000}, [("memory_near", "warn")]),
        ({"degraded": {"collector": "told by its mode"}}, []),
        ({"degraded": {"otlp": "gone", "ticker": "stuck"}}, [("part_degraded", "warn")] * 2),
        ({"degraded": {"history": "its task ended"}}, [("part_degraded", "warn")]),
    ],
)
def test_the_monitor_is_judged_at_its_limits(changes, expected) -> None:
    assert about_monitor(replace(BASE, **changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"file_bytes": None}, []),
        ({"file_bytes": 89}, []),
        ({"file_bytes": 90}, [("history_near", "warn")]),
        ({"degraded": "disk full"}, [("history_degraded", "warn")]),
        ({"disk_free": 10, "disk_total": 100}, []),
        ({"disk_free": 9, "disk_total": 100}, [("history_disk", "warn")]),
        ({"disk_free": 5, "disk_total": 100}, [("history_disk", "warn")]),
        ({"disk_free": 4, "disk_total": 100}, [("history_disk", "bad")]),
        ({"disk_free": None, "disk_total": 100}, []),
        ({"disk_free": 0, "disk_total": 0}, []),
    ],
)
def test_the_history_is_judged_at_its_limits(changes, expected) -> None:
    history = replace(HISTORY, **changes)
    degraded = {"history": history.degraded} if history.degraded else {}
    assert about_monitor(replace(BASE, history=history, degraded=degraded)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"failing": {"A": "no", "B": "no"}}, ["rules_failing"]),
        ({"reload_error": "x"}, ["rules_stale"]),
        ({"state_degraded": "x"}, ["state_degraded"]),
        ({"refused": 1}, ["alerts_refused"]),
        ({"evaluated_age": 89.9}, []),
        ({"evaluated_age": 90.0}, ["rules_late"]),
        ({"evaluated_age": 299.0, "interval": 60.0}, []),
        ({"evaluated_age": 300.0, "interval": 60.0}, ["rules_late"]),
        ({"evaluated_age": None}, []),
        ({"evaluated_age": 300.0, "rules": 0}, []),
    ],
)
def test_the_evaluation_of_rules_is_judged_at_its_limits(changes, expected) -> None:
    found = about_monitor(replace(BASE, alerts=alert_samples.alerting(**changes)))
    assert found == [(kind, "warn") for kind in expected]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"owed": 3, "oldest_debt": 299.9}, []),
        ({"owed": 3, "oldest_debt": 300.0}, ["undelivered"]),
        ({"owed": 1, "parked": 1, "oldest_debt": 0.0}, ["undelivered"]),
        ({"owed": 34, "held_back": 34, "oldest_debt": 18.0, "state": "open"}, []),
        ({"lost": 7, "failed": 9}, []),
    ],
)
def test_messages_are_judged_by_their_age_and_by_what_is_refused(changes, expected) -> None:
    late = replace(alert_samples.receivers()[0], last_error="HTTP 404", **changes)
    found = about_monitor(replace(BASE, alerts=alert_samples.alerting(receivers=(*alert_samples.receivers(), late))))
    assert found == [(kind, "warn") for kind in expected]


def test_receivers_that_are_not_told_are_named_the_one_that_refuses_first() -> None:
    receivers = (
        replace(alert_samples.receivers()[0], owed=2, oldest_debt=900.0, last_error="HTTP 503"),
        replace(alert_samples.receivers()[1], owed=1, parked=1, oldest_debt=5.0, last_error="HTTP 404"),
    )
    [found] = undelivered(replace(BASE, alerts=alert_samples.alerting(receivers=receivers)))
    assert (found.names, found.value, found.reason) == (("pager", "ops"), 3, "HTTP 404")
    assert WORDS["undelivered"](found) == "3 messages to pager, ops have not arrived: HTTP 404"
    assert list(undelivered(replace(BASE, alerts=None))) == []


def test_a_state_file_that_cannot_be_written_is_told_once() -> None:
    degraded = {"alerts": "disk full"}
    assert about_monitor(replace(BASE, degraded=degraded)) == [("part_degraded", "warn")]
    alerting = alert_samples.alerting(state_degraded="disk full")
    assert about_monitor(replace(BASE, degraded=degraded, alerts=alerting)) == [("state_degraded", "warn")]


def test_a_full_disk_is_told_once() -> None:
    """Where resources are measured, the disk is one of them."""
    history = replace(HISTORY, disk_free=1, disk_total=100)
    assert about_monitor(replace(BASE, history=history)) == [("history_disk", "bad")]
    sampling = SamplingView(
        interval=1, wanted_interval=1, cpu_ratio=None, sample_cpu=None, sample_seconds=None, workers=1, overdue=None
    )
    assert about_monitor(replace(BASE, history=history, resources=sampling)) == []


def test_a_summary_is_judged_by_the_same_shares() -> None:
    pool = everything()[0].pools["text"]
    summary = PoolSummary(
        covered_seconds=300.0,
        total=pool.total,
        operations={},
        workers={},
        by_category={},
        by_session_kind={},
        busy_seconds=1.0,
        utilisation=None,
        deaths=pool.deaths,
        size=4.0,
        busy=None,
        busy_max=None,
        waiting=None,
        waiting_max=None,
    )
    found = findings.of_summary(summary, "text")
    assert [(one.kind, one.level, one.pool) for one in found] == [
        ("rejected", "bad", "text"),
        ("died", "bad", "text"),
        ("failed", "bad", "text"),
    ]
    (died,) = [one for one in found if one.kind == "died"]
    assert (died.value, died.limit) == (9, 8), "deaths, not deaths per worker: people read it as the value of an alert"


def test_the_faults_of_a_kind_are_one_finding_per_pool_the_worst_first() -> None:
    faults = (
        fault("leak", "text"),
        fault("leak", "text", "bad", "text-1"),
        fault("leak", "other", worker="other-0"),
        fault("memory", None),
        fault("crash_loop", "text"),
        fault("of a later version", None),
    )
    snapshot = replace(samples.snapshot(), resources=ResourceView(faults=faults))
    (leak,) = findings.of_resources(snapshot, "text")
    assert (leak.kind, leak.level, leak.names, leak.reason) == (
        "leak", "bad", ("text-1", "text-0"), REASONS["leak"]
    )  # fmt: skip
    assert [(found.kind, found.names) for found in findings.of_resources(snapshot)] == [("memory", ("host",))]
    assert WORDS["leak"](leak) == f"text-1 (and 1 other): {REASONS['leak']}"
