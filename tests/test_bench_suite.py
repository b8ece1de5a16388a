"""The benchmark suite: what it keeps of a run, and what it says has moved."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.suite import __main__ as suite
from benchmarks.suite import baseline
from benchmarks.suite.baseline import Cost, Suite, compare
from benchmarks.suite.pieces import PIECES


def cost(**fields: float) -> Cost:
    return Cost(
        **{
            "unit": "call",
            "ns": 100.0,
            "reference": "pipe",
            "ratio": 2.0,
            "peak_bytes": 1000,
            "kept_bytes": 0.0,
            **fields,
        }
    )


def test_the_baseline_has_every_piece():
    assert list(baseline.read().costs) == list(PIECES)


def test_a_run_is_kept_without_the_names_of_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(baseline, "LAST", tmp_path / "suite.json")
    monkeypatch.setattr(suite, "LAST", tmp_path / "suite.json")
    assert suite.run(["-k", "guarded and 0", "-p", "no:cacheprovider"]) == 0
    reduced = baseline.reduced(tmp_path / "suite.json")
    baseline.write(reduced, tmp_path / "baseline.json")
    assert baseline.read(tmp_path / "baseline.json") == reduced
    assert list(reduced.costs) == ["guarded emit, 0 handlers"]
    assert 0 < reduced.costs["guarded emit, 0 handlers"].ratio < 10
    text = (tmp_path / "baseline.json").read_text()
    for name in (platform.node(), str(baseline.ROOT), os.environ.get("USER", "")):
        assert not name or name not in text


def test_a_comparison_says_by_how_much_each_piece_moved():
    now = {"a": cost(ratio=3.0), "b": cost(peak_bytes=500), "c": cost()}
    table, failures = compare(Suite("here", now), Suite("there", {"a": cost(), "b": cost()}))
    moved = [(row[0], row[5], row[-1]) for row in table.rows]
    assert moved == [("a", "x 1.50 slower", "x 1.00"), ("b", "x 1.00", "x 0.50 less"), ("c", "new", "-")]
    assert failures == []
    assert "here" in tables.text(table)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ratio": 20.0}, "a: takes 10.0 times as long as in the baseline"),
        ({"peak_bytes": 100_000}, "a: takes 100,000 bytes, 1,000 in the baseline"),
        ({"kept_bytes": 40.0}, "a: each call keeps 40 bytes, 0 in the baseline"),
    ],
)
def test_what_is_more_than_twice_the_baseline_fails_the_comparison(fields: dict[str, float], said: str):
    _, failures = compare(Suite("here", {"a": cost(**fields)}), Suite("there", {"a": cost()}))
    assert failures == [said]


def test_without_a_run_the_comparison_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(suite, "LAST", baseline.ROOT / "not" / "there.json")
    assert suite.report() == 2
    assert capsys.readouterr().err == "not/there.json does not exist; make bench-suite writes it\n"
