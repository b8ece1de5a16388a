"""The life of alerts beside Prometheus: beside a port of its rule, and beside the real ``promtool test rules``."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.alerts import alert as alert_module
from pool_monitor.alerts import engine as engine_module
from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.engine import AlertKey
from pool_monitor.alerts.lifecycle import LIFE, Phase
from pool_monitor.alerts.rule import Absolute, CheckedRule, Level, Threshold
from tests.helpers.alert_scripts import START, Script, instance
from tests.helpers.prometheus_reference import PrometheusRule

AS_PROMETHEUS = {
    Phase.INACTIVE: "inactive",
    Phase.PENDING: "pending",
    Phase.FIRING: "firing",
    Phase.RECOVERING: "firing",
    Phase.RESOLVED: "inactive",
}
HOLDS, KEEPS, STEPS = (0, 0, 15, 20, 30, 45, 60, 90, 300), (0, 0, 15, 20, 30, 60), (15, 15, 15, 15, 1, 7.25, 30, 60)
POOLS = ("a", "b", "c")


def above(name: str, bound: float, hold: float, keep: float) -> CheckedRule:
    kind = Threshold(metric="pool.waiting", above=True, levels=(Level("warning", Absolute(bound)),))
    return CheckedRule(alert=name, kind=kind, for_=hold, keep_firing_for=keep, no_data_for=0.0)


class Pair:
    """The same rules in the engine and in the reference."""

    def __init__(self, chance: random.Random, rules: int) -> None:
        self.chance = chance
        self.bounds = {f"R{number}": chance.uniform(10, 90) for number in range(rules)}
        self.reference = {name: PrometheusRule(0, 0) for name in self.bounds}
        self.script = Script()
        self.values: dict[str, float] = dict.fromkeys(POOLS, 0.0)
        for name in self.bounds:
            self.draw(name)
        self.load()

    def draw(self, name: str) -> None:
        one = self.reference[name]
        one.hold, one.keep = self.chance.choice(HOLDS), self.chance.choice(KEEPS)

    def load(self) -> None:
        assert self.script.rules(
            *(above(name, bound, self.reference[name].hold, self.reference[name].keep)
              for name, bound in self.bounds.items())
        ) == []  # fmt: skip

    def go_on(self) -> int:
        """Let some time pass, compare everything, and return the number of comparisons."""
        chance = self.chance
        for pool in POOLS:
            if chance.random() < 0.4:
                self.values[pool] = chance.uniform(0, 100)
        if chance.random() < 0.05:
            for name in self.bounds:
                if chance.random() < 0.5:
                    self.draw(name)
            self.load()
        self.script.see(self.values, chance.choice(STEPS))
        ours = self.script.engine.alerts
        return sum(self.compare(name, ours) for name in self.bounds)

    def compare(self, name: str, ours: Mapping[AlertKey, Alert]) -> int:
        reference, bound, now = self.reference[name], self.bounds[name], self.script.at
        reference.evaluate(now, {pool for pool, value in self.values.items() if value > bound})
        for pool in POOLS:
            expected, found = reference.instances.get(pool), ours.get(AlertKey(name, instance(pool)))
            assert self.seen(found) == (
                ("inactive", None, None)
                if expected is None or expected.state == "inactive"
                else (expected.state, expected.active_at, expected.fired_at)
            ), (name, pool, now - START, reference.hold, reference.keep)
            if expected is not None and expected.resolved_at is not None and now - expected.resolved_at < 900:
                assert found is not None
                assert found.resolved_at == expected.resolved_at
        return 3 * len(POOLS)

    @staticmethod
    def seen(found: Alert | None) -> tuple[str, float | None, float | None]:
        if found is None or AS_PROMETHEUS[found.state] == "inactive":
            return "inactive", None, None
        return AS_PROMETHEUS[found.state], found.active_since, found.fired_at


def compared(seeds: Sequence[int], rules: int = 12, evaluations: int = 60) -> int:
    """Compare engine and reference for each seed. Return the number of comparisons."""
    count = 0
    for seed in seeds:
        pair = Pair(random.Random(seed), rules)
        count += sum(pair.go_on() for _ in range(evaluations))
    return count


def test_alerts_live_as_those_of_prometheus():
    assert compared(range(20)) > 100_000


@pytest.mark.slow
@pytest.mark.gate
def test_alerts_live_as_those_of_prometheus_for_long():
    assert compared(range(1000, 1100)) > 600_000


# -- does the comparison find mistakes?

Advance = Callable[[Alert, int, float, float, float], Phase]


def _advance(change: Callable[[Advance], Advance]) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Alert, "advance", change(Alert.advance))

    return mutate


def _keep_counts_from_the_last_bad_value(real: Advance) -> Advance:
    def advance(one: Alert, level: int, elapsed: float, for_: float, keep: float) -> Phase:
        if not level and one.good_for < 0:
            one.good_for = 0.0
        return real(one, level, elapsed, for_, keep)

    return advance


def _keep_goes_on_after_a_bad_value(real: Advance) -> Advance:
    def advance(one: Alert, level: int, elapsed: float, for_: float, keep: float) -> Phase:
        good_for = one.good_for
        phase = real(one, level, elapsed, for_, keep)
        one.good_for = max(good_for, one.good_for)
        return phase

    return advance


def _for_begins_an_evaluation_early(real: Advance) -> Advance:
    def advance(one: Alert, level: int, elapsed: float, for_: float, keep: float) -> Phase:
        return real(one, level, elapsed, max(for_ - elapsed, 0.0), keep)

    return advance


def _for_goes_on_after_a_good_value(real: Advance) -> Advance:
    before: dict[tuple[str, Any], float] = {}

    def advance(one: Alert, level: int, elapsed: float, for_: float, keep: float) -> Phase:
        key = one.alert, one.instance
        if level and one.bad_for[0] < 0:
            one.bad_for[0] = before.get(key, 0.0)
        phase = real(one, level, elapsed, for_, keep)
        before[key] = max(one.bad_for[0], before.get(key, 0.0))
        return phase

    return advance


def _strict(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alert_module, "SLACK", -1e-6)


def _life(phase: Phase, finding: str, after: Phase) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setitem(LIFE.table[phase], finding, after)  # type: ignore[arg-type]

    return mutate


MUTATIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "for and keep_firing_for take an evaluation longer at the edge": _strict,
    "keep_firing_for counts from the last bad value": _advance(_keep_counts_from_the_last_bad_value),
    "keep_firing_for goes on after a bad value": _advance(_keep_goes_on_after_a_bad_value),
    "for begins an evaluation early": _advance(_for_begins_an_evaluation_early),
    "for goes on after a good value": _advance(_for_goes_on_after_a_good_value),
    "a pending alert survives a good value": _life(Phase.PENDING, "over", Phase.PENDING),
    "a raised for does not affect alerts that fire": _life(Phase.FIRING, "early", Phase.FIRING),
    "keep_firing_for is ignored": _life(Phase.FIRING, "good", Phase.RESOLVED),
    "resolved alerts are forgotten early": lambda patch: patch.setattr(engine_module, "SHOWN_FOR", 30.0),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_comparison_finds_a_mistake(name: str, monkeypatch: pytest.MonkeyPatch):
    MUTATIONS[name](monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        compared(range(3))


# -- promtool

PROMTOOL = shutil.which("promtool")
STEP = 15


def _version() -> tuple[int, ...]:
    if PROMTOOL is None:
        return ()
    shown = subprocess.run([PROMTOOL, "--version"], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"version (\d+)\.(\d+)", shown.stdout + shown.stderr)
    return tuple(map(int, found.groups())) if found else ()


needs_promtool = pytest.mark.skipif(
    _version() < (2, 42), reason="needs promtool 2.42 or later (Debian: apt install prometheus)"
)


def written(seed: int, rules: int, evaluations: int) -> tuple[list[CheckedRule], dict[str, list[float | None]]]:
    """Return random rules, and the values of each instance; None: the instance is gone."""
    chance = random.Random(seed)
    # Where values vanish, Prometheus keeps on firing, and we have lost the data: only rules without it agree.
    found = [
        above(f"R{number}", chance.uniform(10, 90), chance.choice(HOLDS), chance.choice(KEEPS) if seed % 2 else 0)
        for number in range(rules)
    ]
    values: dict[str, list[float | None]] = {}
    for pool in POOLS:
        now: float | None = 0.0
        values[pool] = []
        for _ in range(evaluations):
            if chance.random() < 0.4:
                now = None if not seed % 2 and chance.random() < 0.2 else round(chance.uniform(0, 100), 3)
            values[pool].append(now)
    return found, values


def ours(rules: Sequence[CheckedRule], values: dict[str, list[float | None]]) -> list[dict[tuple[str, str], str]]:
    """Return the state of each alert after each evaluation."""
    script, found = Script(*rules), []
    for number in range(len(values["a"])):
        script.see({pool: value for pool, row in values.items() if (value := row[number]) is not None}, STEP)
        states = {
            (key.alert, key.instance[0][1]): AS_PROMETHEUS[one.state] for key, one in script.engine.alerts.items()
        }
        found.append({key: state for key, state in states.items() if state != "inactive"})
    return found


def promtool_files(
    folder: Path, rules: Sequence[CheckedRule], values: dict[str, list[float | None]], told: list[dict[Any, str]]
) -> Path:
    """Write the rules, and a test that expects what *told* has. Return the path of the test. JSON is YAML."""
    groups = []
    for one in rules:
        assert isinstance(one.kind, Threshold)
        assert isinstance(one.kind.levels[0].bound, Absolute)
        groups.append(
            {
                "alert": one.alert,
                "expr": f"waiting > {one.kind.levels[0].bound.value!r}",
                "for": f"{one.for_:.0f}s",
                "keep_firing_for": f"{one.keep_firing_for:.0f}s",
            }
        )
    (folder / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": groups}]}))
    series = [
        {
            "series": f'waiting{{pool="{pool}"}}',
            "values": " ".join("stale" if value is None else f"{value!r}" for value in row),
        }
        for pool, row in values.items()
    ]
    expected = [
        {
            "expr": "ALERTS",
            "eval_time": f"{number * STEP}s",
            "exp_samples": [
                {"labels": f'ALERTS{{alertname="{alert}",alertstate="{state}",pool="{pool}"}}', "value": 1}
                for (alert, pool), state in found.items()
            ],
        }
        for number, found in enumerate(told)
    ]
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{STEP}s",
        "tests": [{"interval": f"{STEP}s", "input_series": series, "promql_expr_test": expected}],
    }
    path = folder / "test.yml"
    path.write_text(json.dumps(test))
    return path


def promtool(path: Path) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True, timeout=50, check=False)


@needs_promtool
@pytest.mark.parametrize("seed", [1, 2], ids=["keep_firing_for", "vanishing"])
def test_promtool_agrees(tmp_path: Path, seed: int):
    rules, values = written(seed, 8, 30)
    told = ours(rules, values)
    ran = promtool(promtool_files(tmp_path, rules, values, told))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert sum(map(len, told)) > 100


@needs_promtool
def test_promtool_notices_what_is_wrong(tmp_path: Path):
    rules, values = written(1, 4, 20)
    told = ours(rules, values)
    key = next(iter(told[-1]))
    told[-1][key] = "pending" if told[-1][key] == "firing" else "firing"
    assert promtool(promtool_files(tmp_path, rules, values, told)).returncode == 1


@needs_promtool
@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("seed", range(10, 18))
def test_promtool_agrees_for_long(tmp_path: Path, seed: int):
    rules, values = written(seed, 40, 80)
    told = ours(rules, values)
    ran = promtool(promtool_files(tmp_path, rules, values, told))
    assert ran.returncode == 0, ran.stdout + ran.stderr
