"""The present as rules read it: every metric, the findings as the dashboard shows them, and what is unknown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from pool_monitor import Monitor, findings
from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.inputs import Input, Inputs, Labels, Sample
from pool_monitor.alerts.past import Past
from pool_monitor.alerts.reach import check_reach
from pool_monitor.alerts.reader import LiveReader
from pool_monitor.alerts.rule import (
    Absolute,
    CheckedRule,
    Forecast,
    Level,
    Origin,
    RateOfChange,
    SloBurn,
    Threshold,
)
from pool_monitor.clock import ManualClock
from pool_monitor.config import HistoryConfig, MonitorConfig, ServiceConfig
from pool_monitor.findings import CONDITIONS
from pool_monitor.snapshot import (
    AlertingView,
    FaultView,
    HeartbeatView,
    HistoryView,
    OtlpView,
    PressureView,
    ResourceView,
    SamplingView,
    Snapshot,
)
from tests.helpers import samples
from tests.test_monitor import Gauges

POOL: Labels = (("pool", "text"),)


def slot(number: int) -> Labels:
    return (("pool", "text"), ("worker", f"text-{number}"))


def of(metric: str, kind: Any = "value", **fields: Any) -> Input:
    return Input(metric=metric, kind=kind, **fields)


def read(snapshot: Snapshot, *wanted: Input) -> Inputs:
    return LiveReader(lambda _window: iter([snapshot])).inputs(wanted, 5.0)


def known(snapshot: Snapshot, one: Input) -> dict[Labels, Sample]:
    return {sample.labels: sample for sample in read(snapshot, one).samples[one]}


def full() -> Snapshot:
    """A Snapshot in which no part is missing."""
    found = samples.snapshot()
    history = HistoryView(
        path="h.db", degraded=None, held=1, dropped=2, file_bytes=3, size_limit=4, flush_seconds=0.1, disk_free=5
    )
    sampling = SamplingView(
        interval=1.0, wanted_interval=1.0, cpu_ratio=0.01, sample_cpu=0.01, sample_seconds=0.1, workers=4, overdue=None
    )
    otlp = OtlpView(endpoint="x", exported=1, failed=2, rejected=3, last_error=None)
    alerting = AlertingView(rules=1, interval=5.0, heartbeat=HeartbeatView(every=30.0))
    monitor = replace(found.monitor, history=history, resources=sampling, otlp=otlp, alerts=alerting)
    host = replace(found.resources.host, pressure=PressureView(cpu=0.1, memory=0.2, io=0.3))
    return replace(found, monitor=monitor, resources=replace(found.resources, host=host))


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_every_metric_is_read_from_every_instance() -> None:
    snapshot = full()
    [pool] = snapshot.pools.values()
    for name, metric in METRICS.items():
        found = known(snapshot, of(name))
        assert {tuple(label for label, _ in labels) for labels in found} == {tuple(metric.labels)}, name
        expected = {"pool": 1, "operation": len(pool.operations), "worker": len(pool.workers)}.get(metric.scope, 1)
        assert len(found) == expected, name
        assert all(sample.value is None or type(sample.value) is float for sample in found.values()), name


@pytest.mark.parametrize(
    ("metric", "value_of"),
    [
        ("pool.waiting", lambda pool: pool.waiting),
        ("pool.utilisation", lambda pool: pool.busy / pool.size),
        ("pool.error_ratio", lambda pool: pool.total.error_ratio),
        ("pool.queue.p95", lambda pool: pool.total.queue.p95),
        ("pool.deaths", lambda pool: pool.deaths),
    ],
)
def test_a_value_is_that_of_the_snapshot(metric: str, value_of: Any) -> None:
    snapshot = samples.snapshot()
    assert known(snapshot, of(metric))[POOL].value == value_of(snapshot.pools["text"])


@pytest.mark.parametrize(
    ("metric", "calls"),
    [
        ("operation.error_ratio", 506),
        ("operation.rate", 506),
        ("operation.errors", 506),
        ("operation.latency.p99", 492),
        ("operation.queue.mean", 492),
        ("operation.rejected", 506),
        ("pool.waiting", None),
        ("pool.busy_ratio", None),
        ("worker.rss", None),
        ("loop.lag.p99", None),
    ],
)
def test_a_value_from_calls_says_from_how_many(metric: str, calls: int | None) -> None:
    assert next(iter(known(samples.snapshot(), of(metric)).values())).calls == calls


def test_refused_calls_count_as_samples_of_refusals() -> None:
    snapshot = samples.with_pool(samples.snapshot(), calls=0, rejected=30)
    assert known(snapshot, of("pool.rejected"))[POOL] == Sample(POOL, 30.0, 30)


def test_what_is_unknown_is_none_and_what_does_not_exist_is_absent() -> None:
    quiet = samples.empty()
    assert known(quiet, of("pool.error_ratio"))[POOL] == Sample(POOL, None, 0)
    assert known(quiet, of("operation.error_ratio")) == {}
    assert known(quiet, of("worker.rss")) == {slot(number): Sample(slot(number), None) for number in range(4)}
    assert known(quiet, of("host.memory_used")) == {(): Sample((), None)}
    assert known(quiet, of("host.pressure.cpu")) == {}
    assert known(quiet, of("monitor.history.file_bytes")) == {}
    assert known(replace(quiet, pools={}), of("pool.waiting")) == {}


def test_a_flag_is_one_or_zero() -> None:
    snapshot = samples.with_worker(samples.snapshot(), "text-1", crash_loop=True)
    found = known(snapshot, of("worker.crash_loop"))
    assert [found[slot(number)].value for number in range(4)] == [0.0, 1.0, 0.0, 0.0]


def test_one_snapshot_is_made_for_each_window_that_is_used() -> None:
    made: list[str] = []

    def snapshot(window: str) -> Iterator[Snapshot]:
        made.append(window)
        yield samples.snapshot(window=window)

    wanted = [
        of("pool.rate", window="1h"),
        of("pool.rate", window="1m"),
        of("pool.errors", window="1m"),
        of("pool.busy"),
    ]
    found = LiveReader(snapshot).inputs(wanted, 5.0)
    assert made == ["1m", "5m", "1h"]
    assert {*found.samples} == {*wanted}
    assert found.at == samples.START + samples.UPTIME
    made.clear()
    LiveReader(snapshot).inputs([], 5.0)
    assert made == ["5m"], "for the time"


def test_reading_can_be_interrupted_between_snapshots() -> None:
    reader = LiveReader(lambda window: iter([samples.snapshot(window=window)]))
    pieces = list(reader.reading([of("pool.rate", window="1m"), of("pool.rate", window="5m")], 5.0))
    assert set(pieces[:-1]) == {None}
    assert len(pieces) > 2
    assert pieces[-1] is not None


def test_reading_can_be_interrupted_between_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty pools at once would hold the event loop for 20 ms."""
    read_pools: list[str] = []
    monitor = Monitor([Gauges(f"pool{number}") for number in range(3)])
    monkeypatch.setattr(monitor, "_detail", lambda name, _window: read_pools.append(name))
    reading = LiveReader(monitor.context.snapshot_in_steps).reading([], 5.0)
    assert {1, 2, 3} <= {len(read_pools) for _ in reading}


def test_an_input_that_does_not_exist_costs_only_itself() -> None:
    good, bad = of("pool.rate"), of("pool.rat")
    odd, past, finding = of("pool.rate", window="2h"), of("pool.rate", back=60.0), of("nope", "finding")
    found = read(samples.snapshot(), good, bad, odd, past, finding)
    assert {*found.samples} == {good}
    assert "the nearest: pool.rate" in found.errors[bad]
    assert "no window '2h'" in found.errors[odd]
    assert "the past is not read" in found.errors[past]
    assert "no finding 'nope'" in found.errors[finding]


def test_what_is_covered_begins_anew_after_a_gap_and_outlasts_the_window() -> None:
    now = samples.snapshot(window="1m")
    reader = LiveReader(lambda _window: iter([now]))
    wanted = [of("pool.rate", window="1m")]

    def covered(uptime: float, covered_seconds: float) -> float:
        nonlocal now
        now = replace(now, uptime=uptime, covered_seconds=covered_seconds)
        return reader.inputs(wanted, 5.0).covered

    assert covered(30, 30) == 30
    assert covered(1000, 59.5) == 1000
    assert covered(5000, 2) == 2  # the machine slept
    assert covered(5100, 59.2) == 102


# -- findings ---------------------------------------------------------------------------------------------------------


def test_every_kind_of_finding_is_read() -> None:
    found = read(samples.snapshot(), *(of(kind, "finding") for kind in CONDITIONS))
    assert (len(found.samples), dict(found.errors)) == (len(CONDITIONS), {})


def test_a_finding_of_a_pool_has_its_level_and_limit() -> None:
    snapshot = samples.with_pool(samples.snapshot(), waiting=60)
    assert known(snapshot, of("waiting", "finding")) == {POOL: Sample(POOL, 60 / 64, None, (2.0, 0.8))}
    assert known(samples.with_pool(snapshot, waiting=0), of("waiting", "finding")) == {}


def test_each_worker_that_a_finding_names_is_an_instance() -> None:
    snapshot = samples.with_worker(samples.snapshot(), "text-1", crash_loop=True, last_error="crash: signal 9")
    snapshot = samples.with_worker(snapshot, "text-3", crash_loop=True)
    found = known(snapshot, of("crash_loop", "finding"))
    assert found.keys() == {slot(1), slot(3)}
    assert found[slot(1)] == Sample(slot(1), None, None, (2.0,), "signal 9")


def _faults(*faults: FaultView, age: float = 0.5) -> Snapshot:
    found = full()
    return replace(found, resources=replace(found.resources, faults=faults, sampled_age=age))


def _fault(kind: str = "leak", level: Any = "warn", subject: str = "worker text-0", **fields: Any) -> FaultView:
    return FaultView(kind=kind, level=level, subject=subject, since=0.0, **fields)


def test_each_worker_with_a_fault_has_its_own_numbers() -> None:
    snapshot = _faults(
        _fault(level="bad", pool="text", worker="text-2", value=3e6, limit=1e6, reason="grows\nby 3 MB/s"),
        _fault(pool="text", worker="text-0", value=1e6, reason="grows by 1 MB/s"),
        _fault(subject="process", value=2e6, reason="the service grows"),
    )
    found = known(snapshot, of("leak", "finding"))
    assert found == {
        slot(2): Sample(slot(2), 3e6, None, (2.0, 1e6), "grows by 3 MB/s"),
        slot(0): Sample(slot(0), 1e6, None, (1.0,), "grows by 1 MB/s"),
        (): Sample((), 2e6, None, (1.0,), "process: the service grows"),
    }


def test_findings_of_one_instance_are_one_sample_of_the_worst() -> None:
    monitor = replace(full().monitor, degraded={"otlp": "refused", "socket": "no room"})
    found = known(replace(full(), monitor=monitor), of("part_degraded", "finding"))
    assert found == {(): Sample((), None, None, (1.0,), "otlp: refused; socket: no room")}
    faults = _faults(_fault("orphan", subject="process 7", value=1.0), _fault("orphan", "bad", "process 8", value=2.0))
    [sample] = known(faults, of("orphan", "finding")).values()
    assert (sample.value, sample.more, sample.note) == (2.0, (2.0,), "process 8; process 7")


def test_a_note_is_bounded_and_has_no_control_characters() -> None:
    found = known(_faults(_fault(subject="host", reason="\x1b[31mred\x00\u202e" + "x" * 5000)), of("leak", "finding"))
    [sample] = found.values()
    assert sample.note.isprintable()
    assert len(sample.note) == 500


def test_faults_are_unknown_while_resources_are_not_sampled() -> None:
    kind, blocked = of("memory", "finding"), of("blocked", "finding")
    found = read(_faults(age=60.0), kind, blocked)
    assert "not been measured for 60 s" in found.errors[kind]
    assert found.samples[blocked] == ()
    assert known(replace(full(), resources=ResourceView()), kind) == {}, "where they are never measured, there are none"


def test_the_level_of_a_share_has_the_hysteresis_of_the_dashboard() -> None:
    now = samples.snapshot()
    reader, wanted = LiveReader(lambda _window: iter([now])), [of("waiting", "finding"), of("failed", "finding")]
    levels = findings.NO_LEVELS
    for number, waiting in enumerate((0, 40, 52, 48, 42, 40, 28, 26, 25, 0)):
        now = replace(samples.with_pool(samples.snapshot(), waiting=waiting), seq=number)
        levels = findings.levels(now, levels)
        found = reader.inputs(wanted, 5.0)
        seen = {sample.more[0] for sample in found.samples[wanted[0]]}
        assert seen == {{"warn": 1.0, "bad": 2.0}[level] for (_, kind), level in levels.items() if kind == "waiting"}


# -- with a monitor ---------------------------------------------------------------------------------------------------


async def test_a_monitor_reads_the_present_and_the_past_of_its_pools() -> None:
    clock, gauges = ManualClock(), Gauges("text")
    config = MonitorConfig(service=ServiceConfig(socket=False))
    async with Monitor(gauges, config=config, clock=clock) as monitor:
        now, before = of("operation.calls", window="1m"), of("operation.calls", window="1m", back=60.0)
        for _second in range(130):
            gauges.call()
            clock.advance(1)
            monitor.snapshot("1m")
        past = Past(monitor.metrics, lambda: monitor.history, clock, 5.0, config.history)
        reader = LiveReader(monitor.context.snapshot_in_steps, past)
        await reader.prepare([now, before])
        found = reader.inputs([now, before], 5.0)
        assert dict(found.errors) == {}
        assert [sample.value for sample in found.samples[now]] == [pytest.approx(60, abs=1)]
        assert [sample.value for sample in found.samples[before]] == [pytest.approx(60, abs=1)]
        assert found.covered == pytest.approx(130, abs=2)


# -- how far back -----------------------------------------------------------------------------------------------------


def rule(kind: Any) -> CheckedRule:
    return CheckedRule(alert="X", kind=kind, origin=Origin("rules.yaml", 3, 5))


BURN = SloBurn(pool="*", objective=0.999, period=30 * 86_400.0)


def fell(against: float, metric: str = "pool.rate", window: str | None = "5m") -> RateOfChange:
    return RateOfChange(metric=metric, window=window, against=against, falls_by=0.5)


def runs_out(window: float, metric: str = "worker.rss") -> Forecast:
    return Forecast(metric=metric, reaches=Absolute(1e9), within=21_600.0, window=window)


@pytest.mark.parametrize(
    ("kind", "history", "words"),
    [
        (fell(3300), None, None),
        (fell(3600), None, "looks back 1h 5m, and memory keeps 1h; add [history] with a path, which keeps 365d"),
        (fell(3600), {}, None),
        (runs_out(3600), None, None),
        (runs_out(7200), None, "looks back 2h"),
        (BURN, None, "looks back 3d"),
        (BURN, {}, None),
        (BURN, {"tiers": ((10, 86_400),)}, "of [history]"),
        (fell(86_400 * 30), {}, "steps of at most 300 s for 7d; keep the tier with the step 60 for 2592300 s or more"),
        (fell(7200, window="1m"), {"tiers": ((120, 86_400),)}, "add a tier with a step of at most 60 s"),
        (fell(60, "pool.sessions", None), None, "earlier values of pool.sessions"),
        (runs_out(3600, "pool.busy_ratio"), None, "earlier values of pool.busy_ratio"),
        (Threshold(metric="pool.rate", window="1h", above=True, levels=(Level("warning", Absolute(1)),)), None, None),
    ],
)
def test_rules_that_look_too_far_back_are_named_with_the_remedy(
    kind: Any, history: dict[str, Any] | None, words: str | None
) -> None:
    config = HistoryConfig() if history is None else HistoryConfig(path="history.db", **history)
    found = check_reach([rule(kind)], config)
    if words is None:
        assert found == []
    else:
        [problem] = found
        assert str(problem).startswith("rules.yaml:3:5: rule 'X': ")
        assert words in str(problem)
