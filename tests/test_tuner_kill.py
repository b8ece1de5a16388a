"""A service that is killed at any moment of a trial: later the setting has its old value, or what was decided."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from pool_monitor.tuner.trial import FINAL, RUNNING, WAITING, TrialStage
from tests.helpers.gates import in_gates, thinned
from tests.helpers.support import controlled
from tests.helpers.tuned_life import AFTER, BEFORE, KNOB

ENDS = sorted(KNOB)


class Life(NamedTuple):
    """What one life said."""

    points: list[str]
    value: float | None
    """At its end; None: it was killed."""
    states: list[str]
    """Of all trials, at its end."""

    @property
    def stored(self) -> list[TrialStage]:
        """The states of the trial, as they were stored."""
        labels = [point.split() for point in self.points]
        return [TrialStage(last) for word, *_, last in labels if word == "after_commit" and last != "-"]

    @property
    def sets(self) -> list[float]:
        """The values that were set, or were about to be."""
        return [float(point.split()[1]) for point in self.points if point.startswith("before_set")]


class Lives:
    """Services with one state file, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._nursery = controlled("tests.helpers.tuned_life")
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._into: IO[str] = self._nursery.stdin
        self._out: IO[str] = self._nursery.stdout

    def anew(self) -> None:
        """Begin with another state file."""
        self._number += 1

    def one(self, end: str, last: int = 0, *, survives: bool) -> Life:
        """Live, and be killed at the point *last*; 0: to the end."""
        path = self._folder / f"{self._number}.db"
        print(path, end, last, int(survives), file=self._into, flush=True)
        points, value, states = [], None, []
        while (line := self._out.readline().split()) not in (["dead"], ["ended", "0"]):
            assert line, "the nursery has ended"
            assert line[0] in {"point", "end"}, line
            if line[0] == "point":
                points.append(" ".join(line[1:]))
            else:
                value, states = float(line[1]), line[2:]
        assert (line == ["dead"]) == (value is None)
        return Life(points, value, states)

    def close(self) -> None:
        self._into.close()
        assert self._nursery.wait(10) == 0
        self._out.close()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    with closing(Lives(tmp_path)) as made:
        yield made


def check(before: Sequence[Life], last: Life) -> None:
    """Whether *last* has made good what was under way when the lives *before* it were killed."""
    assert last.value is not None
    stages = [TrialStage(state) for state in last.states]
    assert set(stages) <= FINAL | {TrialStage.KEPT}, "the decision is recorded"
    assert len(stages) == 1, "and it is one trial from its proposal to its end"
    assert last.value == (AFTER if stages == [TrialStage.KEPT] else BEFORE)
    stored = [stage for life in before for stage in life.stored]
    if stored and stored[-1] in RUNNING:
        assert stages == [TrialStage.ROLLED_BACK]
        assert set(last.sets) <= {BEFORE}, "the old value first, and nothing after it"


@pytest.mark.parametrize("end", thinned(ENDS, 3))
def test_nothing_is_changed_before_it_is_stored(lives: Lives, end: str):
    life = lives.one(end, survives=True)
    check([], life)
    assert life.points.index("after_commit applying") < life.points.index(f"before_set {AFTER:g}")
    assert life.states == ["kept" if end == "kept" else "rolled_back"]
    wanted = {"kept": [AFTER], "rolled_back": [AFTER, BEFORE], "undone": [AFTER, BEFORE]}
    assert life.sets == wanted[end]
    assert [point.split()[1] for point in life.points if point.startswith("event")][-1] == life.states[0]


@pytest.mark.parametrize(
    ("end", "survives"), [in_gates("undone", True), in_gates("rolled_back", False), in_gates("kept", False)]
)
def test_a_kill_at_any_point_leaves_the_old_value_or_a_recorded_decision(lives: Lives, end: str, survives: bool):
    """*survives*: the setting has its value from before the kill, as that of another program has. Else it is that of a
    pool, which begins with the value of its configuration.
    """
    points = lives.one(end, survives=survives).points
    killed_in = set()
    for last in range(1, len(points) + 1):
        lives.anew()
        first = lives.one(end, last, survives=survives)
        assert first.points == points[:last]
        killed_in |= set(first.stored[-1:])
        check([first], lives.one(end, survives=survives))
    assert killed_in >= RUNNING - (set() if end != "kept" else {TrialStage.ROLLING_BACK, TrialStage.VERIFYING})
    assert killed_in & WAITING


@pytest.mark.gate
@pytest.mark.slow
def test_kills_while_a_kill_is_made_good_leave_the_same(lives: Lives):
    rng = random.Random(16)
    for _ in range(12):
        lives.anew()
        end, before = rng.choice(ENDS), []
        for _ in range(3):
            before.append(lives.one(end, rng.randint(1, 30), survives=True))
            if before[-1].value is not None:
                break
        last = before.pop() if before[-1].value is not None else lives.one(end, survives=True)
        check(before, last)


# -- a real service -----------------------------------------------------------------------------------------------


def service(path: Path, *stage: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.helpers.tuned_service", str(path), *stage],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


@pytest.mark.parametrize(
    ("stage", "found"),
    [in_gates("awaiting_approval", "awaiting_approval")]
    + [in_gates(stage.value, "rolled_back") for stage in sorted(RUNNING)],
)
def test_a_service_that_was_killed_in_a_trial_begins_with_the_old_value(tmp_path: Path, stage: str, found: str):
    killed = service(tmp_path / "state.db", stage)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = service(tmp_path / "state.db")
    assert again.returncode == 0, again.stderr
    said = json.loads(again.stdout)
    assert (said["value"], said["states"]) == (BEFORE, [found])
    assert all(reason for reason in said["reason"])
