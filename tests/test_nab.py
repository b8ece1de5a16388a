"""Scoring detectors on the Numenta data: the scores of small files are computed by hand, and bad data are named."""

from __future__ import annotations

import json
import math
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_anomaly, nab
from benchmarks.__main__ import main as command
from benchmarks.bench_anomaly import PlainZ
from benchmarks.nab import PROFILES, Judge, Series
from pool_monitor.alerts import THRESHOLD

ROWS, FIRST, LAST = 40, 20, 29  # rows 0 to 5 do not count
STANDARD, LOW_FP, LOW_FN = PROFILES.values()
BEGIN = datetime(2014, 4, 1)  # noqa: DTZ001  as in the files


def series(*windows: tuple[int, int], rows: int = ROWS) -> Series:
    times = [BEGIN + timedelta(minutes=5 * row) for row in range(rows)]
    return Series("a/b.csv", times, [0.0] * rows, list(windows or ((FIRST, LAST),)))


def judged(scores: dict[int, float], *windows: tuple[int, int], rows: int = ROWS) -> Judge:
    return Judge([series(*windows, rows=rows)], [[scores.get(row, 0.0) for row in range(rows)]])


def sigmoid(x: float) -> float:
    return math.tanh(2.5 * x)


LATE = sigmoid(0.1) / sigmoid(1)  # the last of ten rows
BEHIND = sigmoid(5 / 9)  # five rows behind a window of ten


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ([], (0, 0, 0)),
        ([20], (100, 100, 100)),
        ([20, 21, 29], (100, 100, 100)),
        ([29], (50 + 50 * LATE, 50 + 50 * LATE, 100 * (2 + LATE) / 3)),
        ([20, 10], (94.5, 89, 100 * 2.89 / 3)),
        ([10], (-5.5, -11, -11 / 3)),
        ([20, 34], (100 - 5.5 * BEHIND, 100 - 11 * BEHIND, 100 - 11 / 3 * BEHIND)),
        ([20, 5], (100, 100, 100)),
    ],
)
def test_the_score_of_a_small_file(declared: list[int], expected: tuple[float, float, float]):
    judge = judged(dict.fromkeys(declared, 0.9))
    assert [judge.at(0.5, weights).score for weights in PROFILES.values()] == pytest.approx(expected)


def test_far_behind_a_window_a_false_alarm_costs_all_of_its_weight():
    assert judged({59: 0.9}, rows=60).at(0.5, STANDARD).score == pytest.approx(-5.5)


def test_the_best_threshold_is_between_the_scores():
    judge = judged({20: 0.8, 10: 0.9, 11: 0.5})
    best = judge.best(STANDARD)
    assert (best.threshold, best.found, best.false) == (0.8, 1, 1)
    assert best.score == pytest.approx(94.5)
    assert judge.at(0.5, STANDARD).score == pytest.approx(89)
    assert judge.at(0.85, STANDARD) == pytest.approx((-5.5, 0.85, 0, 1))
    assert judge.at(0.95, STANDARD).score == 0


def test_to_declare_nothing_is_best_where_everything_else_is_worse():
    assert judged({10: 0.9, 11: 0.9}).best(STANDARD) == (0.0, nab.NOTHING, 0, 0)


def test_rows_of_equal_score_are_declared_together():
    assert judged({}).best(STANDARD).score == 0  # 34 rows of score 0, of which ten are in the window


def test_one_threshold_holds_for_all_files():
    scores = [
        [0.9 if row == 20 else 0.0 for row in range(ROWS)],
        [0.7 if row in (20, 10) else 0.0 for row in range(40)],
    ]
    judge = Judge([series(), series()], scores)
    assert judge.windows == 2
    assert judge.at(0.8, STANDARD).score == pytest.approx(50)
    assert judge.at(0.6, STANDARD).score == pytest.approx(100 * (4 - 0.11) / 4)


def test_a_window_within_the_first_rows_can_be_neither_found_nor_missed():
    judge = judged({20: 0.9}, (1, 3), (FIRST, LAST))
    assert judge.at(0.5, STANDARD).score == pytest.approx(100 * 2 / 3)


def test_of_a_long_file_750_rows_do_not_count():
    assert len(judged({}, rows=10_000).rows) == 9_250


def test_without_a_window_false_alarms_are_below_nothing():
    assert Judge([series()._replace(windows=[])], [[1.0] * ROWS]).at(0.5, STANDARD).score == pytest.approx(-374)


class Loud:
    def handle(self, _timestamp: object, value: float) -> float:
        return value


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match=r"a/b.csv: a score is from 0 to 1, and one was 7.0"):
        nab.scores_of(Loud, [series()._replace(values=[0.0, 7.0, *[0.0] * 38])])


# -- files ------------------------------------------------------------------------------------------------------------


def written(folder: Path, values: list[float] | None = None) -> Path:
    made = series()
    (folder / "labels").mkdir()
    (folder / "data" / "a").mkdir(parents=True)
    spans = [[f"{made.times[first]}.000000", f"{made.times[last]}.000000"] for first, last in made.windows]
    (folder / "labels" / "combined_windows.json").write_text(json.dumps({"a/b.csv": spans}))
    lines = [f"{at},{value}" for at, value in zip(made.times, values or made.values, strict=True)]
    (folder / "data" / "a" / "b.csv").write_text("\n".join(["timestamp,value", *lines]) + "\n")
    return folder


def test_files_are_read_as_they_are_laid_out(tmp_path: Path):
    assert nab.load(written(tmp_path)) == [series()]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("labels/combined_windows.json", None, "No such file"),
        ("labels/combined_windows.json", "{", "cannot be read"),
        ("labels/combined_windows.json", "[]", "no files are named in it"),
        ("labels/combined_windows.json", '{"a/b.csv": [["2014-04-01 00:00:00"]]}', "cannot be read"),
        ("labels/combined_windows.json", '{"a/b.csv": 3}', "cannot be read"),
        ("labels/combined_windows.json", '{"a/b.csv": [["1999-01-01", "1999-01-02"]]}', "it has no"),
        ("data/a/b.csv", None, "No such file"),
        ("data/a/b.csv", "timestamp,value\n2014-04-01 00:00:00,many\n", "cannot be read"),
        ("data/a/b.csv", "timestamp,value\nyesterday,1\n", "cannot be read"),
        ("data/a/b.csv", "time,number\n1,2\n", "it has no 'timestamp'"),
        ("data/a/b.csv", "timestamp,value\n2014-04-01 00:00:00\n", "cannot be read"),
        ("data/a/b.csv", "\x00\xff", "it has no"),
    ],
)
def test_bad_data_are_named(tmp_path: Path, file: str, text: str | None, said: str):
    path = written(tmp_path) / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        nab.load(tmp_path)
    assert str(path) in str(caught.value) or "data" in str(caught.value)


# -- the command ------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *given])
    command()


def test_the_command_prints_and_writes_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(bench_anomaly, "DAYS", 0.01)
    monkeypatch.setattr(bench_anomaly, "SEEDS", 1)
    monkeypatch.setattr(bench_anomaly, "ROUNDS", 1)
    out = tmp_path / "out.json"
    values = [1.0 + row % 2 / 50 for row in range(ROWS)]
    values[35] = 1e6
    run(monkeypatch, "anomaly", "--data", str(written(tmp_path, values)), "--json", str(out))
    found: dict[str, Any] = json.loads(out.read_text())
    assert found.keys() == {"best", "fixed", "threshold"}
    assert found["threshold"] == THRESHOLD
    assert found["best"] == 0
    assert found["fixed"] < 0
    text = capsys.readouterr().out
    assert all(title in text for title in ("Numenta Anomaly Benchmark", "false alarms a day", "cost of a value"))


@pytest.mark.parametrize("given", [["anomaly"], ["anomaly", "--data", "nowhere"], ["anomaly", "--json", "x"]])
def test_without_data_the_command_says_how_to_get_them(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *given)
    assert ended.value.code == 2
    assert "git clone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_figures_that_cannot_be_written_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "anomaly", "--data", str(written(tmp_path)), "--json", str(tmp_path / "no" / "out.json"))
    assert ended.value.code == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_options_of_one_benchmark_are_refused_by_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        run(monkeypatch, "telemetry", "--data", "x")
    assert "--data and --json need anomaly before them" in capsys.readouterr().err


def test_the_peer_is_the_plain_definition():
    peer = PlainZ(100)
    values = [float((row * 7919) % 101) for row in range(150)]
    for value in values[:-1]:
        peer.handle(0.0, value)
    mean = sum(values[49:149]) / 100
    deviation = abs(values[149] - mean) / math.sqrt(sum((each - mean) ** 2 for each in values[49:149]) / 100)
    assert peer.handle(0.0, values[149]) == pytest.approx(deviation / (1 + deviation))
