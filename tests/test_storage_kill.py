"""A writer that is killed at any moment: nothing is damaged, nothing that was flushed is lost or counted twice."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest

from pool_monitor.storage import Reader
from tests.helpers import stores
from tests.helpers.gates import IN_GATES
from tests.helpers.support import controlled


class Writer:
    """Children that write to one file, one after the other, each where the one before was killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._nursery = controlled("tests.helpers.stores")
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._into: IO[str] = self._nursery.stdin
        self._out: IO[str] = self._nursery.stdout

    def killed(self, first: int, *, after: int, delay: float) -> int | None:
        """Have a child write from block *first* on, and kill it after so many reports and *delay* seconds.

        Returns the last block it said was flushed.
        """
        print(self.path, first, file=self._into, flush=True)
        pid = int(self._out.readline().split()[1])
        said = [int(self._out.readline().split()[1]) for _ in range(after)]
        time.sleep(delay)  # any moment is as good as the other
        os.kill(pid, signal.SIGKILL)
        said += [int(line.split()[1]) for line in iter(self._out.readline, "dead\n")]
        return max(said, default=None)

    def close(self) -> None:
        self._into.close()
        assert self._nursery.wait(10) == 0
        self._out.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with closing(Writer(tmp_path / "history.db")) as made:
        yield made


VERY_MANY = pytest.param(200, marks=[*IN_GATES, pytest.mark.timeout(600)])


@pytest.mark.parametrize("kills", [20, VERY_MANY])
def test_a_killed_writer_leaves_a_prefix_of_what_it_wrote_and_the_next_one_goes_on_from_there(
    writer: Writer, kills: int
) -> None:
    moments = random.Random(kills)
    written = 0
    for _ in range(kills):
        flushed = writer.killed(
            written, after=moments.randint(0, 12), delay=moments.choice([0.0, moments.random() / 50])
        )
        if flushed is None and not writer.path.exists():
            continue  # it had not come as far as making the file
        found = intact(writer.path)
        assert found >= written if flushed is None else found > flushed
        written = found
    assert written > 10 * kills  # or it was always killed before it did anything


def intact(path: Path) -> int:
    """How many blocks the file has; fails when anything in it is damaged, missing before the last, or there twice."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return 0
    with Reader(path) as reader:
        if reader.extent() is None:
            return 0
        coarsest = stores.everything(reader, 16)
        found = stores.calls(coarsest)
        assert stores.marks(coarsest) == sum(range(found))  # so it is 0, 1, 2 ... and nothing else
        for step in (1, 4):
            # A finer tier has all since some moment; up to the end, and once.
            recording = stores.everything(reader, step)
            calls = stores.calls(recording)
            assert stores.marks(recording) == sum(range(found - calls, found))
            assert calls >= min(found, {1: 59, 4: 597}[step])
        assert not reader.damaged
    return found
