"""The balanced policy beside a fast autoscaler, on loads for which neither was designed."""

from __future__ import annotations

import json

import pytest

from benchmarks.lab.controllers import HPA_FAST, Hpa
from benchmarks.lab.scenario import load
from benchmarks.lab.simulator import run
from benchmarks.lab.write_others import OTHERS, scenarios
from pool_monitor.tuner.sizing import make_policy
from tests.helpers.gates import IN_GATES

SCENARIOS = {scenario.name: scenario for scenario in load(OTHERS)}
FEW_CALLS = ["O21-rare-bursts", "O22-five-times-slower", "O23-small-bottleneck"]
"""A few of those whose runs are short."""


def test_the_file_of_other_loads_is_the_one_that_its_program_writes():
    assert json.loads(OTHERS.read_text(encoding="utf-8")) == json.loads(json.dumps(scenarios()))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [pytest.param(name, marks=IN_GATES) for name in FEW_CALLS])
def test_the_policy_is_not_behind_a_fast_autoscaler_where_it_was_not_tuned(name):
    scenario = SCENARIOS[name]
    ours, theirs = (run(scenario, 1, policy) for policy in (make_policy("balanced"), Hpa(HPA_FAST)))
    assert ours.violations <= max(0.01, theirs.violations) + 0.005
    assert ours.out_of_range == 0
