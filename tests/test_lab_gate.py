"""A cut of the laboratory that must hold before a change is merged: the tuner on the open scenarios, with one seed.

The whole table, with five seeds and all peers, is printed by ``python -m benchmarks lab``.
"""

from __future__ import annotations

import signal

import pytest

from benchmarks.lab.controllers import HPA_FAST, Hpa
from benchmarks.lab.runs import Job, score_of
from benchmarks.lab.scenario import POOL_SIZE, load
from benchmarks.lab.simulator import run
from benchmarks.lab.table import judged
from benchmarks.lab.tuned import Tuned
from tests.helpers.programs import until

pytestmark = [pytest.mark.slow, pytest.mark.gate, pytest.mark.timeout(180)]
SCENARIOS = {scenario.name: scenario for scenario in load(POOL_SIZE)}
SEED = 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_tuner_meets_the_thresholds_on_each_open_scenario(name):
    scenario = SCENARIOS[name]
    outcome = run(scenario, SEED, Tuned(scenario))
    score = score_of(Job(scenario, SEED, "tuner"), outcome)
    told = list(judged([score], {name: scenario.duration_s / 3600}))
    assert told
    assert [words for reached, words in told if not reached] == []
    assert outcome.out_of_range == 0


@pytest.mark.parametrize("name", ["S2-step", "S5-flash", "S8-contention"])
def test_the_tuner_violates_less_than_a_fast_autoscaler(name):
    scenario = SCENARIOS[name]
    assert run(scenario, SEED, Tuned(scenario)).violations < run(scenario, SEED, Hpa(HPA_FAST)).violations


def test_the_same_seed_gives_the_same_run():
    scenario = SCENARIOS["S6-llm-bimodal"]
    first, second = (run(scenario, SEED, Tuned(scenario))._replace(spent_s=0.0) for _ in range(2))
    assert first == second


_IDLE = """
from benchmarks.lab.processes import executor
with executor(2) as pool:
    print(list(pool.map(abs, [1, 2])), flush=True)
    input()
"""


def test_processes_end_with_a_laboratory_that_is_killed(program):
    lab = program("-c", _IDLE)
    assert lab.process.stdout.readline() == b"[1, 2]\n"
    assert lab.children()
    lab.send(signal.SIGKILL)
    until(lambda: not lab.left_over())
