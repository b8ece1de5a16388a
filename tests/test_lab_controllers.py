"""The controllers of the laboratory that the tuner is compared with, and how runs are named, made and judged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.lab.command import main
from benchmarks.lab.controllers import HPA_FAST, HPA_UTIL, Fixed, Hpa, Oracle, RayServe
from benchmarks.lab.options import seeds_of
from benchmarks.lab.runs import Job, Score, checked_controllers, scored
from benchmarks.lab.scenario import parse
from benchmarks.lab.simulator import PolicyFailed
from benchmarks.lab.table import judged, means
from pool_monitor.errors import ConfigError
from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.policy import Policy
from tests.helpers.sized import QUIET


def seen(now: float, size: int, busy: int, waiting: int = 0) -> Observation:
    return QUIET._replace(now=now, wall=now, size=size, busy=busy, idle=max(size - busy, 0), waiting=waiting)


def sizes(policy: Policy, size: int, seconds: int, busy: Callable[[int], int]) -> dict[int, int]:
    """The size from each second on in which it changes, of a pool that follows *policy* at once."""
    changed = {}
    for second in range(seconds):
        wanted = policy.decide(seen(float(second), size, min(busy(second), size), max(busy(second) - size, 0)))
        if wanted is not None and wanted != size:
            changed[second] = size = wanted
    return changed


def test_hpa_leaves_a_pool_alone_within_its_tolerance():
    assert sizes(Hpa(), 10, 600, lambda _second: 7) == {}


def test_hpa_raises_and_at_most_doubles_in_a_period():
    assert list(sizes(Hpa(HPA_FAST), 10, 7, lambda _second: 60).values()) == [15]  # it sees at most ten busy workers
    grown = sizes(Hpa(HPA_FAST), 4, 100, lambda _second: 60)
    assert list(grown.values())[-1] == 64
    steps = [4, *grown.values()]
    assert all(after <= max(2 * before, before + 4) for before, after in itertools.pairwise(steps))
    assert all(later - sooner >= 5 for sooner, later in itertools.pairwise(grown))


@pytest.mark.parametrize(("settings", "window"), [(HPA_UTIL, 300), (HPA_FAST, 60)])
def test_hpa_lowers_only_to_what_it_wanted_at_most_in_its_window(settings, window):
    changed = sizes(Hpa(settings), 20, 2 * window + 60, lambda second: 14 if second < 60 else 7)
    first = min(changed)
    assert window + 45 <= first <= window + 60 + settings.period_s
    assert list(changed.values())[-1] == 10


def test_ray_serve_waits_30_seconds_to_raise_and_600_to_lower():
    changed = sizes(RayServe(), 10, 1500, lambda second: 20 if second < 300 else 4)
    up, down = min(changed), next(second for second, size in changed.items() if size < 25 and second > 300)
    assert 30 <= up <= 60
    assert down >= 900


def test_the_fixed_size_of_equal_hours_is_rounded_up_and_kept_in_the_range():
    assert Fixed.of_equal_hours(5.5, 1800, 2, 64).size == 11
    assert Fixed.of_equal_hours(5.51, 1800, 2, 64).size == 12
    assert Fixed.of_equal_hours(0.1, 1800, 2, 64).size == 2


def test_the_oracle_looks_ahead_by_a_start_and_a_second():
    oracle = Oracle(lambda second: 10 if second >= 5 else 2)
    assert [oracle.decide(seen(1.0 + second, 2, 2)) for second in range(5)] == [2, 10, 10, 10, 10]


@pytest.mark.parametrize(
    ("text", "found"), [("1-5", [1, 2, 3, 4, 5]), ("7", [7]), ("1,3-4,3", [1, 3, 4]), (" 2 , 1 ", [2, 1])]
)
def test_seeds_are_written_as_ranges_and_lists(text, found):
    assert seeds_of(text) == found


@pytest.mark.parametrize("text", ["", "a", "5-1", "1-", "1-99999", "-1", "1.5"])
def test_seeds_that_are_none_are_refused_by_name(text):
    with pytest.raises(ConfigError, match="--seeds"):
        seeds_of(text)


def test_a_controller_that_does_not_exist_is_refused_with_those_that_do():
    assert checked_controllers(["tuner", "hpa", "tuner"]) == ["tuner", "hpa"]
    with pytest.raises(ConfigError, match="no controller 'hpa2'; there are tuner, hpa"):
        checked_controllers(["hpa2"])
    with pytest.raises(ConfigError, match="nowhere"):
        checked_controllers(["nowhere:Policy"])


def score(scenario: str, controller: str, violations: float, seed: int = 1, hours: float = 10.0) -> Score:
    return Score(scenario, controller, seed, violations, 0.01, hours, 2, 12)


def test_the_tuner_is_judged_against_the_peers_of_the_same_runs():
    scores = [
        score("S1-steady", "tuner", 0.001),
        score("S1-steady", "tuner", 0.003, seed=2),
        score("S1-steady", "hpa-fast", 0.001),
        score("S1-steady", "fixed", 0.5),
        score("S1-steady", "oracle", 0.01, hours=5.0),
    ]
    assert means(scores)["S1-steady", "tuner"].violations == pytest.approx(0.002)
    told = {words: reached for reached, words in judged(scores, {"S1-steady": 0.5})}
    missed = [words for words, reached in told.items() if not reached]
    assert len(told) == 6
    assert [words.split(",")[0] for words in missed] == [
        "violations 0.20%",
        "S1-steady: violations 0.20%",
        "worker-hours 2.00x of the oracle's",
    ]


SHORT = {
    "name": "short",
    "duration_s": 60,
    "wait_target_s": 0.1,
    "cold_start_s": 2.0,
    "n0": 4,
    "n_min": 2,
    "n_max": 16,
    "queue_limit": 5000,
    "patience_s": 30.0,
    "cores": None,
    "kappa": 0.0,
    "service": {"kind": "lognormal", "mean_s": 0.1, "cv": 1.0},
    "rate": {"kind": "linear", "points": [[0.0, 20.0], [60.0, 20.0]]},
    "slowdown": [],
}


@pytest.mark.slow
@pytest.mark.gate
def test_lab_writes_the_figures_of_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scenarios, out = tmp_path / "scenarios.json", tmp_path / "out.json"
    scenarios.write_text(json.dumps([SHORT]))
    asked = ["--scenarios", str(scenarios), "--seeds", "1-2", "--json", str(out), "--controllers", "tuner,fixed,oracle"]
    assert main(asked) == 0
    rows = json.loads(out.read_text())
    assert [(row["controller"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("fixed", "oracle", "tuner") for seed in (1, 2)
    ]
    names = {"scenario", "controller", "seed", "violations", "p95_wait_s", "worker_hours", "reversals", "peak"}
    assert all(row.keys() == names and 0 <= row["violations"] <= 1 and row["worker_hours"] > 0 for row in rows)
    assert "Pool size: mean of 2 seeds" in capsys.readouterr().out


class Once:
    """A policy that remembers whether it was asked before, and answers what it is given."""

    def __init__(self, answer: object = None) -> None:
        self.answer, self.asked = answer, 0

    def decide(self, observation: Observation) -> object:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return min(observation.size + 1, 3 + self.asked) if self.answer is None else self.answer


once, word, broken, half = Once(), Once("four"), Once(ValueError("boom")), Once(5.6)


def test_an_instance_begins_each_run_as_it_was_written():
    job = Job(parse(SHORT, "short"), 1, f"{__name__}:once")
    assert scored(job) == scored(job)
    assert once.asked == 0


def test_a_policy_may_answer_with_a_fraction():
    assert scored(Job(parse(SHORT, "short"), 1, f"{__name__}:half")).peak == 6


@pytest.mark.parametrize(
    ("name", "words"), [("word", "decide() returned 'four'"), ("broken", "ValueError: boom (test_lab_controllers.py:")]
)
def test_a_policy_that_fails_is_named_with_what_it_did(name, words):
    with pytest.raises(PolicyFailed) as failed:
        scored(Job(parse(SHORT, "short"), 1, f"{__name__}:{name}"))
    assert f"{__name__}:{name}, seed 1: the policy failed 1 s after the beginning of short: " in str(failed.value)
    assert words in str(failed.value)


def test_a_file_that_cannot_be_written_is_refused_before_the_runs(tmp_path, capsys):
    for command in ([], ["advice"]):
        assert main([*command, "--json", str(tmp_path / "none" / "out.json")]) == 2
        assert main([*command, "--json", str(tmp_path)]) == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "named"), [({"colour": "red"}, "colour"), ({"faults": [{"kind": "flood"}]}, "flood")]
)
def test_lab_refuses_what_it_does_not_know_by_name(change, named, tmp_path, capsys):
    scenarios = tmp_path / "scenarios.json"
    scenarios.write_text(json.dumps([SHORT | change]))
    assert main(["--scenarios", str(scenarios)]) == 2
    assert named in capsys.readouterr().err
