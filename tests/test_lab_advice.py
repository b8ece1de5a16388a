"""``python -m benchmarks lab advice``: how recommendations are compared with labels, written and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lab.advice import by_pattern, each, main, row, scores
from benchmarks.lab.advised import Subject, Verdict, judge
from benchmarks.lab.scenario import ADVICE, Scenario, load, parse

LEAK, OTHER = Subject("leak", "worker text-1"), Subject("leak", "worker text-2")
SLOW = Subject("slow_operation", "operation a")
ANY, BUSY = Subject("overloaded", "*"), Subject("overloaded", "pool text")
FIRST, EVERYWHERE = Subject("leak", "worker text-0"), Subject("leak", "pool text")
SLOW_WORK, SLOW_POOL = Subject("slow_operation", "operation work"), Subject("slow_operation", "pool text")
CUT = [
    "healthy-steady",
    "healthy-step",
    "healthy-brief-flash",
    "healthy-bursty",
    "healthy-deploys",
    "healthy-one-crash",
    "healthy-cores",
    "healthy-loop",
    "healthy-quota",
    "healthy-time-out",
    "overloaded-steady",
    "overloaded-bursty",
    "flash-crowd",
    "cold-start-churn",
    "time-out-tight",
    "throttled",
    "loop-lag",
    "loop-lag-often",
    "neighbour",
    "oversubscribed",
]


def labelled(labels: list[Subject], also: list[Subject]) -> Scenario:
    rows: dict[str, Any] = {
        "name": "one",
        "duration_s": 30,
        "wait_target_s": 0.1,
        "n0": 2,
        "service": {"kind": "constant", "mean_s": 0.1},
        "rate": {"kind": "linear", "points": [[0, 2.0], [30, 2.0]]},
        "labels": [one._asdict() for one in labels],
        "also_true": [one._asdict() for one in also],
    }
    return parse(rows)


@pytest.mark.parametrize(
    ("labels", "also", "opened", "found", "missed", "false"),
    [
        ([], [], [], [], [], []),
        ([LEAK], [], [LEAK], [LEAK], [], []),
        ([LEAK], [], [], [], [LEAK], []),
        ([], [], [LEAK], [LEAK], [], [LEAK]),
        ([LEAK], [SLOW], [LEAK, SLOW], [LEAK], [], []),
        ([LEAK], [SLOW], [SLOW], [], [LEAK], []),
        ([LEAK], [], [OTHER], [OTHER], [LEAK], [OTHER]),
        ([ANY], [], [BUSY], [BUSY], [], []),
        ([LEAK], [LEAK], [LEAK], [LEAK], [], []),
        ([EVERYWHERE], [], [FIRST, LEAK], [FIRST, LEAK], [], []),
        ([EVERYWHERE], [], [LEAK], [LEAK], [EVERYWHERE], []),
        ([FIRST, LEAK], [], [EVERYWHERE], [EVERYWHERE], [], []),
        ([LEAK], [], [EVERYWHERE], [EVERYWHERE], [LEAK], [EVERYWHERE]),
        ([SLOW_POOL], [], [SLOW_WORK], [SLOW_WORK], [], []),
        ([SLOW_WORK], [], [SLOW_POOL], [SLOW_POOL], [], []),
        ([LEAK], [SLOW_WORK], [LEAK, SLOW_POOL], [LEAK], [], []),
    ],
)  # fmt: skip
def test_a_recommendation_is_right_false_or_does_not_count(
    labels: list[Subject], also: list[Subject], opened: list[Subject], found: Any, missed: Any, false: Any
) -> None:
    verdict = judge(labelled(labels, also), 7, opened)
    assert verdict == Verdict("one", 7, tuple(labels), tuple(found), tuple(missed), tuple(false))


def test_precision_and_recall_count_labels_and_recommendations() -> None:
    verdicts = [
        Verdict("a", 1, (LEAK, SLOW), (LEAK,), (SLOW,), ()),
        Verdict("b", 1, (), (LEAK,), (), (LEAK,)),
        Verdict("c", 1, (), (), (), ()),
    ]
    assert scores(verdicts) == (2, 1, 1, 0.5, 0.5)
    assert scores(verdicts, "leak") == (1, 0, 1, 0.5, 1.0)
    table = by_pattern(verdicts)
    assert "1 of the 2 runs without a label" in table.about
    assert table.rows[-1] == ["total", "2", "1", "1", "0.500", "0.500"]
    assert ["throttled", "0", "0", "0", "-", "-"] in table.rows


def test_a_verdict_is_written_as_lists_of_patterns_and_subjects() -> None:
    written = row(Verdict("a", 3, (LEAK,), (), (LEAK,), ()))
    leak = {"pattern": "leak", "subject": "worker text-1"}
    assert written == {"scenario": "a", "seed": 3, "expected": [leak], "found": [], "missed": [leak], "false": []}


def test_a_short_quiet_scenario_brings_silence() -> None:
    assert [one.found for one in each([labelled([], [])], [1, 2], processes=0)] == [(), ()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "5-1"], "5-1"),
        (["--only", "nothing like it"], "nothing like it"),
        (["--scenarios", "not there.json"], "not there.json"),
    ],
)
def test_arguments_that_cannot_be_followed_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_fault_that_is_not_known_is_refused_and_not_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(ADVICE.read_text())[:1]
    rows[0]["faults"] = [{"kind": "earthquake", "at_s": 0}]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(rows))
    assert main(["--scenarios", str(path), "--json", str(tmp_path / "out.json")]) == 2
    assert "earthquake" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
@pytest.mark.gate
def test_the_command_plays_all_seeds_on_all_processors_and_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert main(["--only", "healthy-few-calls", "--seeds", "1-3", "--json", str(out)]) == 0
    assert [one["seed"] for one in json.loads(out.read_text())] == [1, 2, 3]
    assert "total" in capsys.readouterr().out


@pytest.mark.timeout(300)
@pytest.mark.slow
@pytest.mark.gate
def test_a_cut_of_the_labelled_scenarios_is_advised_well() -> None:
    scenarios = [one for one in load(ADVICE) if one.name in CUT]
    assert len(scenarios) == len(CUT)
    verdicts = list(each(scenarios, [1]))
    _expected, _missed, _false, precision, recall = scores(verdicts)
    assert precision >= 0.95, [one for one in verdicts if one.false]
    assert recall >= 0.9, [one for one in verdicts if one.missed]
    assert not any(one.found for one in verdicts if not one.expected)
