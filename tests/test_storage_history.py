"""The history beside a running service: what goes wrong with a file is told, kept in memory, and made up for."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.clock import ManualClock
from pool_monitor.errors import ConfigError
from pool_monitor.metrics.block import merge
from pool_monitor.storage import History, HistoryConfig, Reader, history, lock, schema, sqlite_file
from tests.helpers import stores
from tests.helpers.programs import ROOT, Program, short_dir
from tests.helpers.stores import NAMES, SMALL, T0, calls, everything, history_file, marks, writing
from tests.helpers.support import controlled, eventually

LAZY = HistoryConfig(tiers=SMALL.tiers, flush_interval=3600.0)
"""Flushes only when told to."""


class Owner:
    """Whoever has a history: puts one block after the other, and notes what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self.clock = ManualClock(T0)
        self.put_marks = 0
        self._next = 0

    async def open(self, config: HistoryConfig = LAZY) -> History:
        return await History.open(
            self.path,
            config,
            clock=self.clock,
            on_degrade=self.told.append,
            on_recover=lambda: self.told.append("recovered"),
        )

    def put(self, target: History, blocks: int = 1) -> None:
        for number in range(self._next, self._next + blocks):
            self.clock.advance(1)
            target.put(*stores.pending_blocks([number])[0])
            self.put_marks += number
        self._next += blocks


@pytest.fixture
async def owner(tmp_path: Path, no_leaks: None) -> Owner:
    return Owner(tmp_path / "history.db")


@pytest.fixture
async def opened(owner: Owner) -> AsyncIterator[History]:
    made = await owner.open()
    yield made
    await made.close()


def marks_in(path: Path) -> int:
    with Reader(path) as found:
        return marks(everything(found, 16))


# -- when all is well ---------------------------------------------------------------------------------------------


async def test_what_was_put_is_in_the_file_a_flush_later(owner: Owner, opened: History) -> None:
    owner.put(opened, 3)
    assert opened.stats().held == 3
    assert marks_in(owner.path) == 0
    assert await opened.flush()
    assert opened.stats().held == opened.stats().held_bytes == 0
    assert marks_in(owner.path) == owner.put_marks
    assert owner.told == []


async def test_flushes_come_by_themselves(owner: Owner) -> None:
    made = await owner.open(HistoryConfig(tiers=SMALL.tiers, flush_interval=0.01))
    owner.put(made, 2)
    await eventually(lambda: not made.stats().held and marks_in(owner.path) == owner.put_marks)
    await made.close()


async def test_closing_writes_what_is_held_and_leaves_one_file(owner: Owner) -> None:
    made = await owner.open()
    owner.put(made, 5)
    await made.close()
    assert [file.name for file in owner.path.parent.iterdir()] == ["history.db"]
    assert marks_in(owner.path) == owner.put_marks
    owner.put(made)
    assert not await made.flush()  # it is closed
    assert (made.stats().held, made.stats().dropped) == (0, 1)
    await made.close()


async def test_a_question_is_answered_from_the_file_and_from_what_is_not_in_it_yet(
    owner: Owner, opened: History
) -> None:
    owner.put(opened, 30)
    await opened.flush()
    owner.put(opened, 10)
    for step in (1, 4, 16):
        recording = await opened.read(T0, T0 + 48, step)
        assert marks(recording) == owner.put_marks
        assert recording.names == NAMES._replace(rows=NAMES.rows[:1])
    assert calls(await opened.read(T0 + 32, T0 + 36, 1)) == 4
    assert await opened.extent() == (T0, T0 + 40)


async def test_a_question_asked_while_blocks_are_written_counts_them_once(owner: Owner, opened: History) -> None:
    for _ in range(20):
        owner.put(opened, 5)
        flushed = asyncio.ensure_future(opened.flush())
        assert marks(await opened.read(T0, T0 + 128, 16)) == owner.put_marks
        assert await flushed
        assert marks(await opened.read(T0, T0 + 128, 16)) == owner.put_marks


async def test_a_second_in_which_nothing_was_counted_is_not_kept(opened: History) -> None:
    opened.put(T0, 1, merge([]), NAMES)
    assert opened.stats().held == 0


async def test_it_says_how_it_is_doing(owner: Owner, opened: History) -> None:
    before = opened.stats()
    assert (before.held, before.dropped, before.damaged, before.flush_seconds) == (0, 0, 0, None)
    assert before.blocks == {1: 0, 4: 0, 16: 0}
    owner.put(opened, 21)
    assert opened.stats().held_bytes > 21 * 100
    await opened.flush()
    stats = opened.stats()
    assert stats.path == str(owner.path)
    assert stats.degraded is None
    assert stats.flush_seconds is not None
    assert stats.blocks == {1: 21, 4: 5, 16: 1}
    assert 4096 < (stats.file_bytes or 0) < stats.size_limit == LAZY.size_limit


async def test_a_cancelled_flush_harms_nothing(owner: Owner, opened: History) -> None:
    owner.put(opened, 3)
    flush = asyncio.ensure_future(opened.flush())
    await asyncio.sleep(0)
    flush.cancel()
    with suppress(asyncio.CancelledError):
        await flush
    assert await opened.flush()
    assert marks_in(owner.path) == owner.put_marks


@pytest.mark.parametrize("ending", ["asyncio.run(main())", "asyncio.new_event_loop().run_until_complete(main())"])
def test_a_program_that_forgets_to_close_it_ends_all_the_same(
    tmp_path: Path, ending: str, program: Callable[..., Program]
) -> None:
    path = tmp_path / "history.db"
    text = (
        "import asyncio\nfrom pool_monitor.storage import History\nfrom tests.helpers import stores\n"
        "async def main():\n"
        f"    history = await History.open({str(path)!r}, stores.SMALL)\n"
        "    history.put(*stores.pending_blocks([5])[0])\n    assert await history.flush()\n"
        "    main.history = history\n" + ending
    )
    assert program("-c", text).ended().code == 0
    assert marks_in(path) == 5


# -- when the file cannot be written ------------------------------------------------------------------------------

Mend = Callable[[], object]


async def full(opened: History, _tidy_up: ExitStack) -> Mend:
    """The database may not grow by another page; what is opened anew may."""
    connection = opened._connection
    assert connection is not None

    def fill() -> None:
        pages = sqlite_file.int_pragma(connection.store.connection, "page_count")
        sqlite_file.pragma(connection.store.connection, f"max_page_count = {pages}")

    await connection.run(fill)
    return lambda: None


async def locked(opened: History, tidy_up: ExitStack) -> Mend:
    """Somebody else is writing, and does not come to an end."""
    other = tidy_up.enter_context(closing(sqlite3.connect(opened.path, isolation_level=None)))
    other.execute("BEGIN EXCLUSIVE")
    return lambda: other.execute("ROLLBACK")


async def deleted(opened: History, _tidy_up: ExitStack) -> Mend:
    """The directory is gone."""
    shutil.rmtree(opened.path.parent)
    opened.path.parent.write_text("in its place")
    return opened.path.parent.unlink


async def replaced(opened: History, _tidy_up: ExitStack) -> Mend:
    """Something else is in its place."""
    opened.path.unlink()
    opened.path.write_text("dear diary")
    return opened.path.unlink


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (full, "database or disk is full; free space on the disk"),
        (locked, "database is locked; another program holds it locked"),
        (deleted, "Not a directory"),
        (replaced, "another file has replaced it"),
    ],
)
async def test_what_cannot_be_written_is_held_and_written_when_it_can(
    owner: Owner,
    opened: History,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[History, ExitStack], Awaitable[Mend]],
    reason: str,
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.01)
    await opened._connection.run(lambda: opened._connection.store.connection.execute("PRAGMA busy_timeout = 10"))  # type: ignore[union-attr]
    owner.put(opened, 9)
    assert await opened.flush()
    in_file = owner.put_marks
    with ExitStack() as tidy_up:
        mend = await trouble(opened, tidy_up)
        for tries in range(1, 2 if trouble is full else 4):  # opened anew, the file is not full any more
            owner.put(opened, 5)
            opened.put(*stores.fat(50))
            assert not await opened.flush()
            assert [reason in told for told in owner.told] == [True]  # once
            assert str(owner.path) in owner.told[0]
            assert opened.degraded is not None
            assert opened.stats().degraded == opened.degraded
            assert opened.stats().disk_free is None  # what the last flush read may have changed
            assert opened.stats().held == 6 * tries
            assert [pending.start - T0 for pending in opened._held][:5] == list(range(9, 14))  # still in their order
            assert opened.stats().dropped == 0
        mend()
        assert await opened.flush()
    assert owner.told[1:] == ["recovered"]
    assert opened.degraded is None
    assert opened.stats().disk_free is not None
    assert opened.stats().held == 0
    lost = in_file if trouble in (deleted, replaced) else 0
    assert marks_in(owner.path) == owner.put_marks - lost


@pytest.mark.parametrize(("file", "share"), [("history.db-wal", 0), ("history.db-wal", 2), ("history.db", 0)])
async def test_a_file_or_a_log_that_is_cut_off_is_noticed_with_the_next_flush(
    owner: Owner, opened: History, file: str, share: int
) -> None:
    for _ in range(2):
        owner.put(opened, 40)
        assert await opened.flush()
    cut = owner.path.with_name(file)
    os.truncate(cut, cut.stat().st_size // share if share else 0)
    before = owner.put_marks
    owner.put(opened, 5)
    assert not await opened.flush()
    assert "another program has truncated the file or its log; blocks may be lost" in owner.told[0]
    assert opened.stats().held == 5
    assert await opened.flush()
    assert owner.told[1:] == ["recovered"]
    await opened.close()
    with closing(sqlite3.connect(owner.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with Reader(owner.path) as found:
        assert marks(found.read(T0 + 80, T0 + 96, 1)) == owner.put_marks - before


async def test_a_log_that_another_program_moves_into_the_file_is_no_harm(owner: Owner, opened: History) -> None:
    for _ in range(3):
        owner.put(opened, 20)
        assert await opened.flush()
        with closing(sqlite3.connect(owner.path)) as other:
            assert sqlite_file.pragma(other, "wal_checkpoint(TRUNCATE)") == 0
        assert owner.path.with_name("history.db-wal").stat().st_size == 0
    assert owner.told == []


def damage(path: Path, *tables: str) -> None:
    """Write over the first page of each of *tables*."""
    with closing(sqlite3.connect(path)) as connection:
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_master").fetchall())
    with path.open("r+b") as file:
        for table in tables:
            file.seek(4096 * (pages[table] - 1))
            file.write(b"\xa5" * 4096)


@pytest.mark.parametrize("table", ["tiers", "blocks"])
async def test_a_damaged_file_is_left_alone_until_it_is_moved_away(owner: Owner, table: str) -> None:
    path = history_file(owner.path, range(500))
    damage(path, table)
    as_found = path.read_bytes()
    made = await owner.open()
    owner.put(made, 3)
    assert not await made.flush()
    assert len(owner.told) == 1
    assert "it is damaged; move it away, and a new file is begun" in owner.told[0]
    assert path.read_bytes() == as_found
    assert not [
        file.name
        for file in path.parent.iterdir()
        if file.name not in {"history.db", "history.db-shm", "history.db-wal"}
    ]
    path.rename(path.with_name("damaged.db"))
    path.with_name("history.db-wal").unlink(missing_ok=True)
    assert await made.flush()
    await made.close()
    assert marks_in(path) == owner.put_marks


async def test_blocks_that_memory_has_no_room_for_are_dropped_oldest_first_and_counted(owner: Owner) -> None:
    owner.path.write_text("dear diary")
    made = await owner.open(HistoryConfig(tiers=LAZY.tiers, flush_interval=3600.0, memory_limit=2**20))
    one = stores.block({0: range(1000, 10**9, 10**5)})
    for number in range(2000):
        made.put(T0 + number, 1, one, NAMES)
        assert made.stats().held_bytes <= 2**20
    stats = made.stats()
    assert stats.held + stats.dropped == 2000
    assert stats.dropped > 100
    owner.path.unlink()
    assert await made.flush()
    with Reader(owner.path) as found:
        assert found.extent() is not None
        assert found.extent()[1] == T0 + 2000  # type: ignore[index]
        assert len(everything(found, 1).blocks) <= stats.held
    await made.close()


async def test_a_block_that_no_reader_would_take_is_dropped_and_counted(
    owner: Owner, opened: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "ROOM_LIMIT", 100_000)
    opened.put(*stores.fat(0))
    owner.put(opened, 2)
    assert await opened.flush()
    assert opened.stats().dropped == 1
    assert marks_in(owner.path) == owner.put_marks


async def test_one_that_was_never_written_gives_up_what_it_holds_when_it_is_closed(owner: Owner) -> None:
    owner.path.write_text("dear diary")
    made = await owner.open()
    owner.put(made, 4)
    assert marks(await made.read(T0, T0 + 16, 1)) == owner.put_marks  # from memory
    assert await made.extent() == (T0, T0 + 4)
    await made.close()
    assert made.stats().dropped == 4
    assert made.stats().held == 0
    assert owner.path.read_text() == "dear diary"


async def test_pauses_between_tries_grow_and_have_a_bound(owner: Owner) -> None:
    owner.path.write_text("dear diary")
    made = await owner.open(HistoryConfig(flush_interval=0.5))
    pauses = []
    for _ in range(12):
        pauses.append(made._interval())
        await made.flush()
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == history.RETRY_MAX_S
    owner.path.unlink()
    assert await made.flush()
    assert made._interval() == 0.5
    await made.close()


async def test_a_defect_costs_the_blocks_it_met_and_no_more(owner: Owner, opened: History) -> None:
    owner.put(opened, 2)
    await opened.flush()
    opened.put(T0 + 50, 1, stores.block({7: [1000]}), NAMES)  # a row that has no name
    assert not await opened.flush()
    assert len(owner.told) == 1
    owner.put(opened, 2)
    assert await opened.flush()
    assert opened.stats().dropped == 1
    assert opened.stats().held_bytes == 0
    assert marks_in(owner.path) == owner.put_marks


async def test_blocks_of_the_file_that_cannot_be_read_are_counted(owner: Owner) -> None:
    history_file(owner.path, range(3))
    with closing(sqlite3.connect(owner.path)) as connection, connection:
        connection.execute("UPDATE blocks SET body = zeroblob(9) WHERE start = ?", (T0 + 1,))
    made = await owner.open()
    opening = made._connection
    assert opening is not None
    owner.put(made, 20)
    assert await made.flush()
    assert made.stats().damaged == 1
    opening.store.write = None  # type: ignore[assignment, method-assign]
    owner.put(made)
    assert not await made.flush()
    assert made.stats().damaged == 1  # of whichever connection
    await made.close()


async def test_a_disk_that_does_not_answer_does_not_keep_the_owner_from_ending(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "CLOSE_MAX_S", 0.05)
    made = await owner.open()
    connection = made._connection
    assert connection is not None
    answers = threading.Event()
    monkeypatch.setattr(connection.store, "write", lambda *_: answers.wait(20))
    owner.put(made, 3)
    await made.close()
    assert owner.told == [f"{owner.path}: the disk has not answered for 0 s"]
    await eventually(made._task.done)  # so that the loop can be closed, too
    answers.set()
    await eventually(lambda: not connection._thread.is_alive())


async def test_a_disk_that_does_not_answer_does_not_keep_the_owner_from_beginning(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, make = threading.Event(), history.Store

    def slow(*arguments: Any) -> history.Store:
        answers.wait(20)
        return make(*arguments)

    monkeypatch.setattr(history, "OPEN_MAX_S", 0.05)
    monkeypatch.setattr(history, "Store", slow)
    made = await owner.open()
    assert owner.told == [f"{owner.path}: the disk has not answered for 0 s"]
    owner.put(made, 3)
    assert made.degraded is not None
    answers.set()
    assert await made.flush()
    assert made.degraded is None
    assert made.stats().held == 0
    await made.close()


async def test_what_could_not_be_written_to_the_end_is_logged(
    owner: Owner, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no directory")
    made = await history.History.open(tmp_path / "file" / "x.db")
    owner.put(made, 3)
    with caplog.at_level(logging.WARNING):
        await made.close()
    assert "the end of the history was not written" in caplog.text


async def test_one_that_is_given_up_while_it_is_opened_leaves_the_file_to_others(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, opening, make = threading.Event(), threading.Event(), history.Store

    def slow(*arguments: Any) -> history.Store:
        opening.set()
        answers.wait(20)
        return make(*arguments)

    monkeypatch.setattr(history, "Store", slow)
    given_up = asyncio.ensure_future(owner.open())
    await eventually(opening.is_set)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    answers.set()
    await eventually(lambda: not [thread for thread in threading.enumerate() if "_connection_worker" in thread.name])
    made = await owner.open()
    assert owner.told == []
    await made.close()


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """*directory* as it is to somebody who may not write to it: root may always."""
    directory.chmod(0o555)
    if not os.geteuid():
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        directory.chmod(0o755)


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A directory that everybody can get to; those pytest makes are the user's alone."""
    path = short_dir()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


async def test_a_read_only_directory_is_told_and_written_to_when_it_can_be(public_dir: Path) -> None:
    owner = Owner(public_dir / "history.db")
    with read_only(public_dir):
        made = await owner.open()
        owner.put(made, 3)
        assert not await made.flush()
        assert len(owner.told) == 1
        assert "Permission denied" in owner.told[0]
    assert await made.flush()
    await made.close()
    assert owner.told[1:] == ["recovered"]
    assert marks_in(owner.path) == owner.put_marks


def test_a_file_that_may_not_grow_any_further_is_as_a_full_disk(
    tmp_path: Path, program: Callable[..., Program]
) -> None:
    """In a process of its own, with the system's limit on the size of files."""
    done = program("-m", "tests.helpers.stores", "full", str(tmp_path / "history.db")).ended()
    assert done.err == ""
    assert done.code == 0
    first, *rest = done.out.splitlines()
    assert "disk I/O error" in first or "full" in first
    assert rest == ["recovered", "held 0, dropped 0"]
    with Reader(tmp_path / "history.db") as found:
        written = calls(everything(found, 16))
        assert marks(everything(found, 16)) == sum(range(written))
        assert written > 10


# -- who may write ------------------------------------------------------------------------------------------------


async def test_a_second_writer_is_refused_and_takes_over_when_the_first_has_ended(owner: Owner) -> None:
    first = await owner.open()
    second = Owner(owner.path)
    waiting = await second.open()
    assert len(second.told) == 1
    assert f"process {os.getpid()} writes to it; use a separate file for each process" in second.told[0]
    owner.put(first, 4)
    second.put(waiting, 4)
    assert await first.flush()
    assert not await waiting.flush()
    assert marks_in(owner.path) == owner.put_marks
    await first.close()
    assert await waiting.flush()
    assert second.told[1:] == ["recovered"]
    await waiting.close()
    assert marks_in(owner.path) == owner.put_marks + second.put_marks


async def test_a_writer_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    nursery = controlled("tests.helpers.stores")
    with nursery:
        assert nursery.stdin
        assert nursery.stdout
        print(path, 0, file=nursery.stdin, flush=True)
        pid = int(nursery.stdout.readline().split()[1])
        nursery.stdout.readline()  # something is flushed
        owner = Owner(path)
        made = await owner.open()
        assert f"process {pid} writes to it" in owner.told[0]
        os.kill(pid, 9)
        nursery.stdin.close()
        assert nursery.wait(10) == 0
    assert await made.flush()
    await made.close()


def test_a_lock_that_its_last_holder_removes_at_this_moment_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, take, taken = tmp_path / "history.db.lock", lock._take, []

    def removed_meanwhile(*arguments: Any) -> None:
        take(*arguments)
        if not taken:
            file.unlink()
        taken.append(arguments)

    monkeypatch.setattr(lock, "_take", removed_meanwhile)
    with closing(lock.Lock(tmp_path / "history.db")):
        assert len(taken) == 2
        assert file.read_text() == f"{os.getpid()}\n"
        with pytest.raises(ConfigError, match="use a separate file for each process"):
            lock.Lock(tmp_path / "history.db")
    assert not file.exists()


def made_by_hand(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("dear diary, " * 100), "is not a history file"),
        (lambda path: path.write_bytes(b"?"), "is not a history file"),
        (lambda path: made_by_hand(path, "CREATE TABLE bookmarks (url)"), "is a database of another program"),
        (lambda path: made_by_hand(path, "PRAGMA application_id = 7"), "is a database of another program"),
        (lambda path: made_by_hand(path, "PRAGMA user_version = 7"), "is a database of another program"),
        (
            lambda path: made_by_hand(path, f"PRAGMA application_id = {schema.APPLICATION}", "PRAGMA user_version=99"),
            "is a history of version 99, but this pool_monitor reads versions up to",
        ),
        (
            lambda path: history_file(path, range(9), HistoryConfig(tiers=((1, 60), (5, 600)))),
            "has steps of 1, 5 s, but 1, 4, 16 s are configured; use the steps of the file, or another file",
        ),
        (lambda path: path.mkdir(), "is a directory"),
    ],
)  # fmt: skip
async def test_a_file_that_is_not_ours_to_write_is_left_as_it_is(
    owner: Owner, make: Callable[[Path], object], said: str
) -> None:
    make(owner.path)
    as_found = owner.path.read_bytes() if owner.path.is_file() else None
    made = await owner.open()
    owner.put(made, 2)
    await made.close()
    assert len(owner.told) == 1
    assert str(owner.path) in owner.told[0]
    assert said in owner.told[0]
    assert [file.name for file in owner.path.parent.iterdir()] == ["history.db"]
    assert (owner.path.read_bytes() if owner.path.is_file() else None) == as_found


async def test_retentions_can_be_changed(owner: Owner) -> None:
    history_file(owner.path, range(50))
    made = await owner.open(HistoryConfig(tiers=((1, 10), (4, 20), (16, 10**8))))
    owner.put(made, 60)
    for _ in range(3):  # a bounded part at a time
        await made.flush()
    await made.close()
    with Reader(owner.path) as found:
        assert [tier.retention for tier in found.tiers()] == [10, 20, 10**8]
        assert len(everything(found, 1).blocks) < 20
        assert calls(everything(found, 16)) == 110


def test_an_empty_file_becomes_a_history(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.touch()
    with pytest.raises(ConfigError, match="is a history of version 0"):
        Reader(path)
    history_file(path, range(20))
    assert marks_in(path) == sum(range(20))


def migrate_too(monkeypatch: pytest.MonkeyPatch, *migrations: tuple[str, ...]) -> None:
    """Have a history with *migrations* after those that it has."""
    longer = schema.HISTORY._replace(migrations=schema.HISTORY.migrations + migrations)
    monkeypatch.setattr(schema, "HISTORY", longer)


def test_a_file_of_an_earlier_version_is_read_and_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = history_file(tmp_path / "history.db", range(20))
    current = len(schema.HISTORY.migrations)
    migrate_too(monkeypatch, ("CREATE TABLE alerts (id INTEGER)",), ("ALTER TABLE alerts ADD COLUMN name TEXT",))
    assert marks_in(path) == sum(range(20))
    history_file(path, range(20, 40))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id, name FROM alerts").fetchall() == []
        assert connection.execute("PRAGMA user_version").fetchone() == (current + 2,)
    assert marks_in(path) == sum(range(40))


def test_a_file_from_before_gauges_has_counts_and_no_gauges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        first = schema.HISTORY.migrations[: schema.GAUGES_SINCE - 1]
        before.setattr(schema, "HISTORY", schema.HISTORY._replace(migrations=first))
        path = tmp_path / "history.db"
        with closing(sqlite3.connect(path)) as connection:
            for statement in itertools.chain.from_iterable(first):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
            connection.execute("PRAGMA user_version = 1")
            connection.execute("INSERT INTO tiers (step, retention) VALUES (1, 600)")
            connection.commit()
    with Reader(path) as found:
        assert found.gauges(0, 100, 1) == []
        assert found.read(0, 100, 1).blocks == []


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = history_file(tmp_path / "history.db", range(20))
    before = schema.HISTORY
    migrate_too(monkeypatch, ("CREATE TABLE alerts (id INTEGER)", "INSERT INTO nowhere"))
    with pytest.raises(sqlite3.OperationalError), writing(path):
        pass
    monkeypatch.setattr(schema, "HISTORY", before)
    assert marks_in(path) == sum(range(20))
    history_file(path, range(20, 30))


# -- reading wherever it lies -------------------------------------------------------------------------------------


def test_a_file_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with writing(path) as made:
        stores.write(made, [0])
        with Reader(path) as found:
            for number in range(1, 100):
                stores.write(made, [number])
                assert marks(everything(found, 16)) == sum(range(number + 1))


def killed(path: Path, numbers: range) -> Path:
    """A file of a process that was killed: with its log."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.helpers import stores\n"
        "with stores.writing(Path(sys.argv[1])) as made:\n"
        f"    stores.write(made, {numbers!r})\n    os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert path.with_name("history.db-wal").stat().st_size
    return path


def test_what_a_killed_process_left_in_its_log_is_read(tmp_path: Path) -> None:
    assert marks_in(killed(tmp_path / "history.db", range(50))) == sum(range(50))


@pytest.mark.parametrize("without", ["", "history.db-shm"])
def test_what_a_killed_process_left_is_read_where_nothing_can_be_written(public_dir: Path, without: str) -> None:
    path = killed(public_dir / "history.db", range(50))
    if without:
        (public_dir / without).unlink()  # as in a copy
    for file in public_dir.iterdir():
        file.chmod(0o444)
    files = sorted(public_dir.iterdir())
    with read_only(public_dir):
        assert marks_in(path) == sum(range(50))
    assert sorted(public_dir.iterdir()) == files


def test_a_file_that_was_closed_is_read_where_nothing_can_be_written(public_dir: Path) -> None:
    path = history_file(public_dir / "history.db", range(50))
    path.chmod(0o444)
    with read_only(public_dir):
        assert marks_in(path) == sum(range(50))
    assert list(public_dir.iterdir()) == [path]


def test_a_copy_without_its_log_has_what_was_moved_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with writing(path) as made:
        stores.write(made, range(50))
        sqlite_file.pragma(made.connection, "wal_checkpoint(TRUNCATE)")
        stores.write(made, range(50, 60))
        copy = Path(shutil.copy(path, tmp_path / "copy.db"))
        assert marks_in(path) == sum(range(60))
    assert marks_in(copy) == sum(range(50))


@pytest.mark.parametrize("name", ["with space.db", "per%20cent.db", "what?mode=rw#.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    assert marks_in(history_file(tmp_path / name, range(20))) == sum(range(20))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no such file; a monitor with a history creates it"),
        (lambda path: path.mkdir(), "is a directory; name the file in it"),
        (lambda path: path.write_text("dear diary"), "is not a history file"),
        (lambda path: path.write_bytes(sqlite_file._MAGIC + b"?" * 9000), "it is damaged"),
        (lambda path: made_by_hand(path, "CREATE TABLE bookmarks (url)"), "is a database of another program"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path, make: Callable[[Path], Any], said: str) -> None:
    make(tmp_path / "history.db")
    with pytest.raises(ConfigError, match=said) as refused:
        Reader(tmp_path / "history.db")
    assert str(tmp_path / "history.db") in str(refused.value)


def test_damage_found_while_reading_is_told_in_words(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(500))
    damage(path, "blocks")
    with pytest.raises(ConfigError, match="it is damaged"):
        marks_in(path)
