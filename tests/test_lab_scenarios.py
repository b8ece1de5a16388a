"""Scenarios of the laboratory: what is drawn from them, and which of them are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.lab import write_advice, write_open
from benchmarks.lab.scenario import ADVICE, POOL_SIZE, Scenario, ScenarioError, load, parse
from benchmarks.lab.traffic import draw
from tests.helpers.gates import thinned

FINGERPRINTS: dict[str, list[tuple[int, float, float, float]]] = json.loads("""{
 "S1-steady": [
  [144339, 0.003608, 1799.998446, 14421.2296],
  [144057, 0.024107, 1799.995254, 14452.7306],
  [143982, 0.001814, 1799.996563, 14379.9919],
  [144186, 0.029552, 1799.959171, 14421.9594],
  [143888, 0.001926, 1799.977492, 14451.3164]
 ],
 "S2-step": [
  [120377, 0.019992, 1799.999774, 12075.4485],
  [120371, 0.044964, 1799.999865, 12011.3286],
  [119810, 0.036155, 1799.982309, 11952.3175],
  [120323, 0.0163, 1799.988244, 12017.3603],
  [120570, 0.039814, 1799.938805, 12061.307]
 ],
 "S3-ramp": [
  [162112, 0.048975, 1799.98457, 16223.108],
  [161473, 0.097801, 1799.983939, 16144.9217],
  [162356, 0.03452, 1799.84676, 16193.1934],
  [162079, 0.119651, 1799.877518, 16192.6202],
  [161177, 0.034059, 1799.984792, 16063.1667]
 ],
 "S4-diurnal": [
  [288150, 0.094446, 3599.986397, 28808.3442],
  [287320, 0.025477, 3599.927865, 28758.6991],
  [288094, 0.0559, 3599.934749, 28776.3311],
  [288431, 0.03907, 3599.995717, 28867.9626],
  [288354, 0.008404, 3599.975516, 28830.4973]
 ],
 "S5-flash": [
  [98423, 0.021159, 1799.973515, 9804.175],
  [97971, 0.014925, 1799.959703, 9798.7141],
  [97963, 0.002582, 1799.957075, 9792.7914],
  [98175, 0.055037, 1799.982983, 9806.9951],
  [97923, 0.030189, 1799.985809, 9774.2919]
 ],
 "S6-llm-bimodal": [
  [18914, 0.1149, 3599.883547, 38275.8116],
  [19049, 0.033454, 3599.566502, 38694.3569],
  [19310, 0.041212, 3599.846778, 37930.2171],
  [19139, 0.324402, 3599.923187, 38785.7196],
  [19233, 0.282153, 3599.937743, 38071.4759]
 ],
 "S7-slowdown": [
  [143763, 0.011147, 1799.984569, 14357.1578],
  [143405, 0.026863, 1799.998561, 14311.0561],
  [143757, 0.006254, 1799.991428, 14350.2423],
  [144121, 0.012357, 1799.997082, 14511.7585],
  [143761, 0.004493, 1799.988027, 14387.1942]
 ],
 "S8-contention": [
  [152230, 0.030013, 1799.986278, 15189.5547],
  [152582, 0.004507, 1799.999022, 15268.1085],
  [152612, 0.013929, 1799.940172, 15305.3591],
  [152667, 0.018303, 1799.994235, 15276.6785],
  [153285, 0.014792, 1799.997268, 15311.8172]
 ],
 "S9-mmpp": [
  [270850, 0.075086, 3599.984094, 27005.7794],
  [299218, 0.043943, 3599.975024, 29956.8917],
  [273245, 0.020125, 3599.979285, 27300.8594],
  [286880, 0.127648, 3599.998945, 28720.7157],
  [286178, 0.072479, 3599.996327, 28652.0664]
 ]
}""")
"""Of the study, by scenario, for the seeds 1 to 5: calls, first and last arrival, sum of the service times."""
OPEN = {one.name: one for one in load(POOL_SIZE)}


@pytest.mark.parametrize(("name", "seed"), thinned([(name, seed) for seed in range(1, 6) for name in FINGERPRINTS], 7))
def test_the_traffic_of_the_open_scenarios_is_that_of_the_study(name: str, seed: int) -> None:
    drawn = draw(OPEN[name], seed)
    first, last = drawn.arrivals[[0, -1]].tolist()
    found = (len(drawn.arrivals), round(first, 6), round(last, 6), round(float(drawn.services.sum()), 4))
    assert found == pytest.approx(tuple(FINGERPRINTS[name][seed - 1]), abs=1e-9)


def row(**more: Any) -> dict[str, Any]:
    service = {"kind": "lognormal", "mean_s": 0.1, "cv": 1.0}
    rate = {"kind": "linear", "points": [[0, 5.0], [60, 5.0]]}
    return {"name": "one", "duration_s": 60, "wait_target_s": 0.1, "n0": 2, "service": service, "rate": rate, **more}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"rss": {"base_bytes": 1.0, "spikes": 2}}, "spikes"),
        ({"faults": [{"kind": "flood", "at_s": 0}]}, "flood"),
        ({"faults": [{"kind": "slow", "factor": 2.0, "mood": 1}]}, "mood"),
        ({"faults": [{"kind": "slow"}]}, "factor"),
        ({"faults": [{"kind": "slow", "factor": 2.0, "subject": "operation draw"}]}, "operation draw"),
        ({"faults": [{"kind": "leak", "bytes_per_hour": 1.0, "subject": "worker text-99"}]}, "worker text-99"),
        ({"faults": [{"kind": "pin", "share": 0.5, "subject": "host"}]}, "host"),
        ({"faults": [{"kind": "slow", "factor": 0.0}]}, "factor = 0"),
        ({"faults": [{"kind": "errors", "ratio": 1.5}]}, "ratio = 1.5"),
        ({"faults": [{"kind": "restart"}]}, "every_s"),
        ({"faults": [{"kind": "slow", "factor": 2.0, "at_s": 9, "until_s": 3}]}, "until_s = 3"),
        ({"labels": [{"pattern": "tired", "subject": "pool text"}]}, "tired"),
        ({"labels": [{"pattern": "leak", "subject": "werker 3"}]}, "labels[0]: subject = 'werker 3'"),
        ({"also_true": [{"pattern": "leak", "subject": "text-3"}]}, "also_true[0]: subject = 'text-3'"),
        ({"faults": [{"kind": "flood"}]}, "the kinds are slow, pin, leak"),
        ({"service": {"kind": "weibull", "mean_s": 0.1}}, "'weibull' - at `$.service.kind`: the kinds are lognormal"),
        ({"rate": {"kind": "square"}}, "the kinds are linear"),
        ({"rate": {"kind": "linear", "points": [[5, 1.0], [0, 1.0]]}}, "rate.points"),
        ({"operations": [{"name": "a", "share": 0.4, "service": row()["service"]}]}, "0.4"),
        ({"rate": {"kind": "linear", "points": []}}, "0 points"),
        ({"rate": {"kind": "mmpp", "low": 1, "high": 2, "mean_sojourn_s": 0}}, "mean_sojourn_s = 0"),
        ({"rate": {"kind": "sine", "mean": 1, "amplitude": 0.5, "period_s": 0}}, "period_s = 0"),
        ({"rate": {"kind": "linear", "points": [[0, 1e9], [60, 1e9]]}}, "60000000000 calls"),
        ({"n0": "many"}, "n0"),
        ({"cores": 0}, "cores = 0"),
    ],
)
def test_a_scenario_that_cannot_be_played_is_refused_by_name(more: dict[str, Any], named: str) -> None:
    with pytest.raises(ScenarioError, match="'one'") as refused:
        parse(row(**more), "file.json[0]")
    assert named in str(refused.value)
    assert str(refused.value).startswith("file.json[0]")


@pytest.mark.parametrize("text", ["{}", "[]", "nothing", "[3]"])
def test_a_file_that_holds_no_scenarios_is_refused(tmp_path: Any, text: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=r"some\.json"):
        load(path)


def test_the_files_of_scenarios_are_what_their_writers_write() -> None:
    assert json.loads(POOL_SIZE.read_text()) == list(write_open.scenarios())
    assert json.loads(ADVICE.read_text()) == json.loads(json.dumps(write_advice.scenarios()))


def test_the_labelled_scenarios_are_small_and_of_every_pattern() -> None:
    scenarios = load(ADVICE)
    assert {label.pattern for one in scenarios for label in one.labels} == set(write_advice.PATTERNS)
    assert all(mean_calls(one) <= 350_000 for one in scenarios)


def mean_calls(scenario: Scenario) -> float:
    seconds = np.arange(0, scenario.duration_s, 10.0)
    return float(scenario.rates(seconds, 1).sum() * 10)


def test_operations_take_their_shares_and_their_own_times() -> None:
    slow = {"kind": "lognormal", "mean_s": 2.0, "cv": 0.5}
    mixed = [{"name": "a", "share": 0.75, "service": row()["service"]}, {"name": "b", "share": 0.25, "service": slow}]
    drawn = draw(parse(row(operations=mixed, duration_s=4000, rate=row()["rate"])), 3)
    of_b = drawn.operations == 1
    assert of_b.mean() == pytest.approx(0.25, abs=0.02)
    assert drawn.services[of_b].mean() == pytest.approx(2.0, rel=0.05)
    assert drawn.services[~of_b].mean() == pytest.approx(0.1, rel=0.05)


def test_other_faults_leave_the_calls_as_they_are() -> None:
    slow = parse(row(faults=[{"kind": "slow", "factor": 2.0}]))
    assert np.array_equal(draw(parse(row()), 4).services, draw(slow, 4).services)
