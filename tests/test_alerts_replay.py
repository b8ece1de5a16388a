"""A replay comes to the transitions of the service that was recorded, one by one."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import Monitor
from pool_monitor.alerts.defaults import default_rules
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.inputs import Inputs, Sample
from pool_monitor.alerts.recording import Player, Recorder, decode_transitions
from pool_monitor.alerts.replay import Replay
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.rule_file import load
from pool_monitor.clock import ManualClock
from pool_monitor.config import HistoryConfig, MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.config.alerts import AlertsConfig, StateConfig
from pool_monitor.snapshot import AlertTransition
from pool_monitor.storage import Reader
from tests.helpers.alert_scripts import instance, rule, threshold
from tests.test_monitor import Gauges

NEVER = 3600.0
RULES = """
rules:
  - alert: Waiting
    threshold: {metric: pool.waiting, levels: {warning: 4, critical: 12}, clear_below: 2}
    for: 30s
    keep_firing_for: 45s
    annotations: {summary: "{value} wait in {pool}"}
  - {alert: Unusual, threshold: {metric: pool.waiting, above: {times: 2, of: own 1h median}}, for: 15s}
  - {alert: Odd, anomaly: {metric: pool.waiting}, for: 15s}
  - {alert: Full, threshold: {metric: pool.waiting, above: {ratio: 50%, of: limit}}}
  - alert: Both
    all: [{metric: pool.waiting, above: 6}, {not: {metric: pool.busy, above: 2}}, {alert: Waiting}]
    for: 30s
  - {alert: Either, any: [{metric: pool.busy, above: 5}, {finding: waiting}], on_no_data: fire}
  - {alert: Silent, absence: {metric: pool.rate, window: 1m}, for: 2m, match: {pool: text}}
  - {alert: Findings, finding: [waiting, dead]}
  - {alert: Failing, threshold: {metric: operation.error_ratio, window: 1m, above: 5%}, min_samples: 2}
  - {alert: Fell, rate_of_change: {metric: pool.waiting, against: 5m, falls_by: 50%, rises_by: 100%}}
"""


class Service:
    """A service of one pool that is recorded. The test moves its clock and sets its gauges."""

    def __init__(self, folder: Path, rules: str, *, state: bool = True, defaults: bool = False) -> None:
        self.clock, self.pool = ManualClock(), Gauges("text")
        self.rules, self.store = folder / "rules.yaml", folder / "history.db"
        self.rules.write_text(rules)
        self.chance = random.Random(5)
        self.config = MonitorConfig(
            service=ServiceConfig(socket=False),
            resources=ResourcesConfig(enabled=False),
            state=StateConfig(path=str(folder / "state.db") if state else None),
            history=HistoryConfig(path=str(self.store)),
            alerts=AlertsConfig(rules=(str(self.rules),), interval=NEVER, default_rules=defaults),
        )

    async def live(self, evaluations: int, every: float = 15.0) -> list[AlertTransition]:
        """Live for a while. Return what has changed."""
        async with Monitor(self.pool, config=self.config, clock=self.clock) as monitor:
            before = monitor.alerts.history(1)
            for number in range(evaluations):
                self.clock.advance(every)
                burst = number % 60 in range(20, 32)
                self.pool.of_pool = {
                    "waiting": int(self.chance.expovariate(1 / (9 if burst else 1.5))),
                    "busy": self.chance.choice((0, 1, 2, 6)),
                    "queue_limit": 16,
                }
                if number % 40 > 12:
                    self.pool.call()
                await monitor.alerts.evaluate()
                await self.evaluated(monitor)
            seq = before[0].seq if before else 0
            return [one for one in reversed(monitor.alerts.history(10_000)) if one.seq > seq]

    async def evaluated(self, monitor: Monitor) -> None:
        """Called after each evaluation."""


def replayed(store: Path, rules: Iterable[CheckedRule]) -> tuple[list[AlertTransition], Replay]:
    replay = Replay(rules)
    with Reader(store) as reader:
        return changes(replay, (body for _at, body in reader.evaluations())), replay


def changes(replay: Replay, bodies: Iterable[bytes]) -> list[AlertTransition]:
    return [change for recorded in Player().play(bodies) for change in replay.step(recorded)]


async def test_a_recorded_hour_is_replayed_transition_by_transition_over_restarts(tmp_path: Path) -> None:
    service = Service(tmp_path, RULES, defaults=True)
    lived = [one for evaluations in (55, 20, 45) for one in await service.live(evaluations, 30.0)]
    found, replay = replayed(service.store, [*default_rules(), *load([service.rules]).rules])
    assert found == lived
    assert (replay.evaluations, replay.restarts) == (120, 2)
    assert {one.alert for one in lived} >= {"Waiting", "Full", "Both", "Either", "Findings", "Silent", "Unusual"}
    assert {one.to_state for one in lived} == {"inactive", "pending", "firing", "recovering", "resolved"}
    with Reader(service.store) as reader:
        stored = decode_transitions(body for _at, body in reader.transitions(0, 2e9))
    assert stored == (lived, 0)


async def test_without_a_state_file_a_restart_forgets_in_the_replay_too(tmp_path: Path) -> None:
    service = Service(tmp_path, RULES, state=False)
    lived = [one for evaluations in (28, 30) for one in await service.live(evaluations)]
    found, _ = replayed(service.store, load([service.rules]).rules)
    assert _plain(found) == _plain(lived)


def _plain(changes: Sequence[AlertTransition]) -> list[Any]:
    return [(one.at, one.alert, one.labels, one.from_state, one.to_state, one.reason) for one in changes]


async def test_a_rule_is_in_force_while_all_that_it_reads_is_recorded(tmp_path: Path) -> None:
    service = Service(tmp_path, "rules: [{alert: A, threshold: {metric: pool.waiting, above: 3}}]")
    await service.live(25)
    service.rules.write_text("rules: [{alert: B, threshold: {metric: pool.busy, above: 0}}]")
    await service.live(5)
    (tmp_path / "other.yaml").write_text(RULES)
    found, replay = replayed(service.store, load([tmp_path / "other.yaml"]).rules)
    assert (replay.evaluated["Waiting"], replay.evaluated["Odd"], replay.evaluated["Silent"]) == (25, 25, 0)
    assert replay.evaluated["Both"] == 0
    assert [one for one in found if one.alert == "Waiting"][-1].reason == "rule_removed"


values = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 40).map(float), max_size=3),
    min_size=1,
    max_size=70,
)
rules = st.builds(
    lambda above, levels, hold, keep, on_no_data, no_data_for: rule(
        kind=threshold(levels=levels, above=above),
        for_=hold, keep_firing_for=keep, on_no_data=on_no_data, no_data_for=no_data_for,
    ),
    st.booleans(), st.integers(1, 3), st.sampled_from([0.0, 5.0, 12.0]), st.sampled_from([0.0, 5.0, 30.0]),
    st.sampled_from(["resolve", "keep", "fire"]), st.sampled_from([None, 0.0, 20.0]),
)  # fmt: skip


@given(rules, values, st.lists(st.floats(0, 60), min_size=70, max_size=70))
def test_what_is_recorded_of_any_rule_is_replayed(one: CheckedRule, frames: list[Any], elapsed: list[float]) -> None:
    engine, recorder = Engine(5.0), Recorder(5.0, keeps_state=True)
    engine.set_rules([one], 0.0)
    lived, bodies, at = [], [], 1e9
    for frame, seconds in zip(frames, elapsed, strict=False):
        at += seconds
        samples = tuple(Sample(instance(name), value) for name, value in frame.items())
        inputs = Inputs(at, seconds, dict.fromkeys(engine.wanted, samples))
        lived += engine.step(inputs)
        bodies.append(recorder.encode(inputs))
    found = changes(Replay([one]), bodies)
    assert _plain(found) == _plain(lived)


@pytest.mark.parametrize("interval", [5.0, 30.0])
def test_the_interval_of_the_service_decides_when_values_are_unknown_for_too_long(interval: float) -> None:
    recorder, one = Recorder(interval, keeps_state=False), rule()
    bodies = []
    for number in range(8):
        samples = (Sample(instance("p"), 15.0 if number < 2 else None),)
        inputs = Inputs(1e9 + 20 * number, 20.0, dict.fromkeys(Replay([one]).wanted, samples))
        bodies.append(recorder.encode(inputs))
    found = changes(Replay([one]), bodies)
    assert [(change.to_state, change.reason) for change in found] == [("firing", ""), ("resolved", "no_data")]
    assert found[1].at == 1e9 + (20 * 3 if interval == 5.0 else 20 * 7)
