"""A service that is killed at any moment: no change that it told is lost, and timers go on where they were."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from pool_monitor.storage.state_store import TRANSITIONS_ALWAYS, TRANSITIONS_MAX, SavedState, read_state
from tests.helpers.alert_life import ETERNAL, ETERNAL_FINGERPRINT, INTERVAL, RULES, SLOW
from tests.helpers.gates import IN_GATES
from tests.helpers.support import controlled

Change = tuple[str, str, str, str]
"""Fingerprint, from, to, severity."""


class Said(NamedTuple):
    """What one life told."""

    changes: list[Change]
    steps: int
    silences: list[str]
    acks: int


class Lives:
    """Services with one state file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._nursery = controlled("tests.helpers.alert_life")
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._into: IO[str] = self._nursery.stdin
        self._out: IO[str] = self._nursery.stdout

    def one(self, step: int, wall: float, *, steps: int, delay: float = 0.0, killed: bool = True) -> Said:
        """Live from *step* on for so many steps, and be killed *delay* seconds later, or end as a service does."""
        print(self.path, step, wall, 0 if killed else steps, file=self._into, flush=True)
        pid = int(self._out.readline().split()[1])
        lines: list[list[str]] = []
        if killed:
            while sum(line[0] == "step" for line in lines) < steps:
                lines.append(self._line())
                assert lines[-1][0] != "ended", "by itself"
            time.sleep(delay)  # any moment is as good as the other
            os.kill(pid, signal.SIGKILL)
        end = ["dead"] if killed else ["ended", "0"]
        while (line := self._line()) != end:
            assert line[0] not in {"dead", "ended"}, line
            lines.append(line)
        by_word = Counter(line[0] for line in lines)
        changes = [(line[1], line[2], line[3], line[4]) for line in lines if line[0] == "change"]
        return Said(changes, by_word["step"], [line[1] for line in lines if line[0] == "silence"], by_word["ack"])

    def _line(self) -> list[str]:
        line = self._out.readline().split()
        assert line, "the nursery has ended"
        assert line[0] in {"change", "step", "silence", "ack", "dead", "ended"}, line
        return line

    def close(self) -> None:
        self._into.close()
        assert self._nursery.wait(10) == 0
        self._out.close()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    with closing(Lives(tmp_path / "state.db")) as made:
        yield made


class Ledger:
    """What the file must have after all that was told."""

    def __init__(self) -> None:
        self._seq = 0
        self._states: dict[str, tuple[str, str]] = {}
        """What each alert is after its latest change (`told`), by fingerprint."""
        self._counted = 0.0
        self._silences: set[str] = set()
        self._acknowledged = False
        self.steps = self.lives = 0

    def check(self, said: Said, found: SavedState) -> None:
        self._check_changes(said, found)
        self._check_alerts(found)
        self._check_timer(said, found)
        self._silences.update(said.silences)
        assert self._silences <= found.rows["silences"].keys()
        self._acknowledged = self._acknowledged or said.acks > 0
        assert not self._acknowledged or list(found.rows["acknowledgements"]) == [ETERNAL_FINGERPRINT]
        self.steps += said.steps
        self.lives += 1

    def _check_changes(self, said: Said, found: SavedState) -> None:
        """What was told is a prefix of what is stored, without a gap, and each change follows from the one before."""
        stored = [(one.seq, json.loads(one.value)) for one in found.transitions if one.seq > self._seq]
        assert [seq for seq, _change in stored] == list(range(self._seq + 1, found.seq + 1))
        changes = [(one["fingerprint"], one["from"], one["to"], one["severity"]) for _seq, one in stored]
        assert changes[: len(said.changes)] == said.changes
        for fingerprint, before, after, severity in changes:
            state, _severity = self._states.get(fingerprint, ("inactive", ""))
            assert before == state or (before, state) == ("inactive", "resolved")  # one that is not shown any more
            self._states[fingerprint] = told(after, severity)
        self._seq = found.seq

    def _check_alerts(self, found: SavedState) -> None:
        stored = {alert["fingerprint"]: told(alert["state"], alert["severity"]) for alert in decoded(found)}
        active = {key: value for key, value in self._states.items() if value[0] not in ("inactive", "resolved")}
        assert {key: value for key, value in stored.items() if value[0] != "resolved"} == active
        for fingerprint, (state, _severity) in stored.items():
            assert state == self._states[fingerprint][0]

    def _check_timer(self, said: Said, found: SavedState) -> None:
        """The timer of an alert that is pending for ever has counted every step, but for the first one of each life,
        before which nobody looked. At most one step was stored and not told.
        """
        [counted] = [alert["bad_for"][0] for alert in decoded(found) if alert["alert"] == ETERNAL] or [0.0]
        steps = (counted - self._counted) / INTERVAL
        assert max(said.steps - 1, 0) <= steps <= said.steps
        self._counted = counted


def told(state: str, severity: str) -> tuple[str, str]:
    """What receivers of an alert know: a pending one may change its level without a word."""
    return state, severity if state == "firing" else ""


def decoded(found: SavedState) -> list[dict[str, Any]]:
    return [json.loads(row) for row in found.rows["alerts"].values()]


VERY_MANY = pytest.param(300, marks=[*IN_GATES, pytest.mark.timeout(600)])


@pytest.mark.parametrize("kills", [6, VERY_MANY])
def test_nothing_that_was_told_is_lost_and_timers_go_on_whenever_a_service_is_killed(lives: Lives, kills: int) -> None:
    moments, ledger = random.Random(kills), Ledger()
    for _ in range(kills):
        # The clock on the wall is somewhere else in each life.
        wall = 1_700_000_000 + moments.uniform(-1, 1) * 10 ** moments.randint(0, 8)
        said = lives.one(
            ledger.steps, wall, steps=moments.randint(0, 8), delay=moments.choice([0.0, moments.random() / 50])
        )
        if lives.path.exists():  # else it had not come as far as making the file
            ledger.check(said, read_state(lives.path))
    said = lives.one(ledger.steps, 1_700_000_000, steps=3, killed=False)
    found = read_state(lives.path)
    ledger.check(said, found)
    assert said.steps == 3
    assert min(found.seq, TRANSITIONS_ALWAYS) <= len(found.transitions) <= TRANSITIONS_MAX
    assert found.seq > ledger.steps  # or nothing has happened
    check_slow(found, ledger)
    written = [json.loads(line)["seq"] for line in lives.path.with_suffix(".jsonl").read_text().splitlines()]
    assert written == list(range(1, found.seq + 1))


def check_slow(found: SavedState, ledger: Ledger) -> None:
    """Rules that need more time than a life has fire after the steps of several, neither sooner nor later."""
    states = {str(alert["alert"]): alert["state"] for alert in decoded(found)}
    seen = set()
    for number in range(1, SLOW + 1):
        needed = 10 * number
        state = states[f"Rule{number}"]
        if needed <= ledger.steps - ledger.lives:
            assert state == "firing"
        elif needed > ledger.steps + ledger.lives:
            assert state == "pending"
        seen.add(state)
    assert "firing" in seen
    assert len(states) <= RULES
