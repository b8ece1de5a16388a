"""What the state file keeps: everything that was committed, whatever the disk, the clock and other programs do."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_monitor.clock import ManualClock
from pool_monitor.errors import ConfigError
from pool_monitor.storage import state, state_store
from pool_monitor.storage.sqlite_file import int_pragma, pragma
from pool_monitor.storage.state import Changes, MemoryState, StateFile
from pool_monitor.storage.state_store import (
    STATE,
    TABLES,
    SavedState,
    SavedTransition,
    StateStore,
    Table,
    nothing_saved,
)
from tests.helpers.stores import history_file
from tests.helpers.support import eventually

pytestmark = pytest.mark.usefixtures("no_leaks")
T0 = 1_700_000_000.0


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave syncs out: they would take most of the time of these tests, and nothing here cuts the power."""

    def run(connection: sqlite3.Connection, text: str) -> int | str | None:
        pragma(connection, "synchronous = OFF")
        return None if text == "synchronous = FULL" else pragma(connection, text)

    monkeypatch.setattr(state_store, "pragma", run)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


class Owner:
    """Opens state files and knows what it was told of them."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, ManualClock(T0)
        self.told: list[str] = []
        self._opened: list[StateFile] = []

    async def open(self) -> StateFile:
        opened = await StateFile.open(
            self.path,
            clock=self.clock,
            on_degrade=self.told.append,
            on_recover=lambda: self.told.append("recovered"),
        )
        self._opened.append(opened)
        return opened

    async def close(self) -> None:
        for opened in self._opened:
            await opened.close()


@pytest.fixture
async def owner(path: Path) -> AsyncIterator[Owner]:
    made = Owner(path)
    yield made
    await made.close()


def alerts(**rows: bytes | None) -> Changes:
    return Changes({"alerts": rows})


def transitions(*numbers: int, at: float = T0) -> list[SavedTransition]:
    return [SavedTransition(number, at, f"transition {number}".encode()) for number in numbers]


async def saved_in(path: Path) -> SavedState:
    opened = await StateFile.open(path)
    try:
        return opened.load()
    finally:
        await opened.close()


# -- what is kept -------------------------------------------------------------------------------------------------


async def test_what_was_committed_is_there_after_a_restart(owner: Owner) -> None:
    first = await owner.open()
    assert first.load()[:3] == nothing_saved()[:3]
    assert await first.commit(Changes({"alerts": {"a": b"1", "b": b"2"}, "silences": {"s": b"3"}}, transitions(1, 2)))
    assert await first.commit(Changes({"alerts": {"a": None, "b": b"4"}}, transitions(3)))
    assert await first.commit()
    await first.close()
    found = await saved_in(owner.path)
    assert (found.rows["alerts"], found.rows["silences"], found.rows["memories"]) == ({"b": b"4"}, {"s": b"3"}, {})
    assert found.transitions == transitions(1, 2, 3)
    assert (found.seq, found.unusable) == (3, 0)


def test_each_transaction_is_synced_to_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_store, "pragma", pragma)
    with closing(StateStore(path, "id")) as store:
        assert int_pragma(store.connection, "synchronous") == 2
        assert pragma(store.connection, "journal_mode") == "wal"


row_changes: st.SearchStrategy[Mapping[Table, Mapping[str, bytes | None]]] = st.dictionaries(
    st.sampled_from(TABLES),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), st.none() | st.binary(max_size=5), max_size=3),
    max_size=3,
)


@given(st.lists(st.tuples(row_changes, st.integers(0, 2), st.booleans(), st.booleans()), max_size=8))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_file_has_what_all_commits_add_up_to(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, int, bool, bool]]
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.db"
    model: dict[str, dict[str, bytes]] = {table: {} for table in TABLES}
    seq, opened = 0, await StateFile.open(path)
    for rows, count, whole, restart in steps:
        if whole:
            model = {table: {} for table in TABLES}
        for table, changed in rows.items():
            for key, value in changed.items():
                model[table].pop(key, None)
                if value is not None:
                    model[table][key] = value
        assert await opened.commit(Changes(rows, transitions(*range(seq + 1, seq + count + 1)), whole))
        seq += count
        if restart:
            await opened.close()
            opened = await StateFile.open(path)
            assert opened.load().rows == model
    await opened.close()
    found = await saved_in(path)
    assert found.rows == model
    assert found.transitions == transitions(*range(1, seq + 1))
    assert found.seq == seq


async def test_commits_at_once_are_all_kept(owner: Owner) -> None:
    opened = await owner.open()
    rows = {f"alert {number}": str(number).encode() for number in range(50)}
    assert all(await asyncio.gather(*(opened.commit(alerts(**{key: value})) for key, value in rows.items())))
    await opened.close()
    assert (await saved_in(owner.path)).rows["alerts"] == rows


async def test_a_commit_whose_caller_is_cancelled_is_kept_all_the_same(owner: Owner) -> None:
    opened = await owner.open()
    going = asyncio.ensure_future(opened.commit(alerts(a=b"1")))
    await asyncio.sleep(0)
    going.cancel()
    with suppress(asyncio.CancelledError):
        await going
    assert await opened.commit()
    await opened.close()
    assert (await saved_in(owner.path)).rows["alerts"] == {"a": b"1"}


async def test_a_number_of_a_transition_is_used_once_also_when_all_are_deleted(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_store, "TRANSITIONS_MAX", 3)
    opened = await owner.open()
    assert await opened.commit(Changes({}, transitions(*range(1, 11))))
    await opened.close()
    with closing(sqlite3.connect(owner.path)) as other, other:
        assert other.execute("SELECT seq FROM transitions").fetchall() == [(8,), (9,), (10,)]
        other.execute("DELETE FROM transitions")
    assert (await saved_in(owner.path)).seq == 10


async def test_old_transitions_are_deleted_and_a_clock_that_is_ahead_deletes_only_some(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_store, "TRANSITIONS_ALWAYS", 5)
    opened = await owner.open()
    assert await opened.commit(Changes({}, transitions(*range(1, 21))))
    owner.clock.step_wall(10 * 365 * 86_400)
    assert await opened.commit(Changes({}, transitions(21)))
    await opened.close()
    assert [one.seq for one in (await saved_in(owner.path)).transitions] == [17, 18, 19, 20, 21]


async def test_the_bytes_of_rows_are_counted_however_they_change(owner: Owner) -> None:
    opened = await owner.open()
    there: dict[str, bytes | None] = {}
    for number in range(30):
        some = {f"k{(number * 7 + row) % 11}": None if (number + row) % 3 == 0 else bytes(number) for row in range(5)}
        there |= some
        assert await opened.commit(Changes({"alerts": some}))
        kept = {name: value for name, value in there.items() if value is not None}
        assert opened.held_bytes == sum(len(name) + len(value) for name, value in kept.items())
    await opened.close()


async def test_what_is_too_large_is_left_out_and_counted_and_the_rest_is_kept(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "ROWS_LIMIT", 1000)
    monkeypatch.setattr(state, "ROW_LIMIT", 500)
    opened = await owner.open()
    fat = SavedTransition(2, T0, bytes(state_store.TRANSITION_LIMIT + 1))
    assert await opened.commit(Changes({"alerts": {"fits": bytes(400), "fat": bytes(600)}}, [*transitions(1), fat]))
    assert await opened.commit(alerts(too=bytes(400), much=bytes(400)))
    assert opened.left_out == 3
    assert opened.held_bytes <= 1000
    assert await opened.commit(alerts(fits=bytes(600)))  # the row is outdated, so it may not stay as it was
    await opened.close()
    found = await saved_in(owner.path)
    assert set(found.rows["alerts"]) == {"too"}
    assert (found.transitions, found.seq) == (transitions(1), 2)


async def test_a_name_that_has_no_utf8_form_is_a_name(owner: Owner) -> None:
    opened = await owner.open()
    assert await opened.commit(Changes({"memories": {"rule \ud800": b"1"}}))
    assert await opened.commit(Changes({"memories": {"rule \ud800": b"2"}}))
    await opened.close()
    assert (await saved_in(owner.path)).rows["memories"] == {r"rule \ud800": b"2"}


async def test_without_a_file_nothing_is_kept_and_nothing_is_missing() -> None:
    kept = MemoryState()
    assert await kept.commit(alerts(a=b"1"))
    assert kept.load() == nothing_saved()
    assert (kept.path, kept.degraded) == (None, None)
    await kept.close()


# -- whose file it is ---------------------------------------------------------------------------------------------


async def test_the_file_is_for_us_alone(owner: Owner) -> None:
    opened = await owner.open()
    assert await opened.commit(alerts(a=b"1"))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in owner.path.parent.iterdir()}
    assert modes.keys() >= {"state.db", "state.db-wal", "state.db.lock"}
    assert set(modes.values()) == {0o600}
    await opened.close()
    assert [file.name for file in owner.path.parent.iterdir()] == ["state.db"]


async def test_a_second_process_is_refused_by_the_name_of_the_file(owner: Owner) -> None:
    await owner.open()
    with pytest.raises(ConfigError) as refused:
        await StateFile.open(owner.path)
    assert str(owner.path) in str(refused.value)
    assert f"process {os.getpid()} writes to it" in str(refused.value)


def made_by_hand(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def of_the_right_form(path: Path, *statements: str) -> None:
    made_by_hand(path, *STATE.migrations[0], f"PRAGMA application_id = {STATE.application}", "PRAGMA user_version = 1")
    made_by_hand(path, *statements)


def overwritten(path: Path, offset: int) -> None:
    of_the_right_form(path, *(f"INSERT INTO alerts VALUES ('{number}', zeroblob(900))" for number in range(40)))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 300)


def cut_off(path: Path) -> None:
    of_the_right_form(path, *(f"INSERT INTO alerts VALUES ('{number}', zeroblob(900))" for number in range(40)))
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("dear diary"), "is not a saved state file"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"?" * 9000), "it is damaged; move it away"),
        (lambda path: made_by_hand(path, "CREATE TABLE bookmarks (url)"), "is a database of another program"),
        (lambda path: history_file(path, range(3)), "is a database of another program"),
        (lambda path: of_the_right_form(path, "PRAGMA user_version = 9"), "is a saved state of version 9"),
        (lambda path: of_the_right_form(path, "DROP TABLE silences"), "its tables are not those of a saved state"),
        (lambda path: of_the_right_form(path, "CREATE TRIGGER t DELETE ON alerts BEGIN SELECT 1; END"), "its tables"),
        (cut_off, "it is damaged"),
        (lambda path: overwritten(path, 4096 * 2), "it is damaged"),
        (lambda path: overwritten(path, 4096 * 9), "it is damaged"),
        (lambda path: path.mkdir(), "is a directory"),
        (os.mkfifo, "is not a regular file"),
    ],
)
async def test_a_file_that_is_not_ours_is_refused_in_words_and_left_as_it_is(
    path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigError) as refused:
        await StateFile.open(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]


@pytest.mark.parametrize("suffix", ["-wal", "-shm", ".lock"])
async def test_a_link_beside_the_file_does_not_choose_what_is_written(path: Path, suffix: str) -> None:
    other = path.with_name("other")
    other.write_text("something of value")
    path.with_name(path.name + suffix).symlink_to(other)
    with pytest.raises(ConfigError, match=r"symbolic link|not a regular file"):
        await StateFile.open(path)
    assert other.read_text() == "something of value"


async def test_rows_that_cannot_be_ours_are_left_out_and_counted(path: Path) -> None:
    of_the_right_form(
        path,
        "INSERT INTO alerts VALUES ('sound', x'31'), ('a number', 5), ('a text', 'text')",
        "INSERT INTO alerts VALUES (x'ff', x'31')",
        "INSERT INTO transitions VALUES (1, 1.5, x'31'), (2, 'never', x'31'), (3, 9e999, 7), (-4, 1.5, x'31')",
        "INSERT INTO meta VALUES ('seq', 'many'), ('id', 'ab')",
    )
    found = await saved_in(path)
    assert found.rows["alerts"] == {"sound": b"1"}
    assert (found.transitions, found.seq, found.unusable) == ([SavedTransition(1, 1.5, b"1")], 1, 6)


async def test_a_crafted_row_takes_no_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_store, "ROWS_LIMIT", 100_000)
    of_the_right_form(path, "INSERT INTO alerts VALUES ('large', zeroblob(2000000)), ('sound', x'31')")
    found = await saved_in(path)
    assert (found.rows["alerts"], found.unusable) == ({"sound": b"1"}, 1)
    made_by_hand(path, "INSERT INTO alerts VALUES (hex(zeroblob(100000)), x'31')")
    with pytest.raises(ConfigError, match="it is damaged"):
        await StateFile.open(path)


# -- when the file cannot be written ------------------------------------------------------------------------------

Mend = Callable[[], object]


async def full(opened: StateFile, _path: Path, _monkeypatch: pytest.MonkeyPatch) -> Mend:
    """The database may not grow by another page; what is opened anew may."""
    connection = opened._connection
    assert connection is not None

    def fill() -> None:
        pages = int_pragma(connection.store.connection, "page_count")
        pragma(connection.store.connection, f"max_page_count = {pages}")

    await connection.run(fill)
    return lambda: None


async def locked(_opened: StateFile, path: Path, _monkeypatch: pytest.MonkeyPatch) -> Mend:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


async def vanished(_opened: StateFile, path: Path, _monkeypatch: pytest.MonkeyPatch) -> Mend:
    path.unlink()
    return lambda: None


async def read_only(opened: StateFile, _path: Path, _monkeypatch: pytest.MonkeyPatch) -> Mend:
    connection = opened._connection
    assert connection is not None
    await connection.run(lambda: connection.store.connection.execute("PRAGMA query_only = 1"))
    return lambda: None


async def moved(_opened: StateFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> Mend:
    """The directory is gone, and nothing can be put in its place."""
    away = path.parent.with_name("away")
    path.parent.rename(away)
    path.parent.write_text("in the way")

    def back() -> None:
        path.parent.unlink()
        away.rename(path.parent)

    return back


async def defective(opened: StateFile, _path: Path, monkeypatch: pytest.MonkeyPatch) -> Mend:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect of ours")

    patched = pytest.MonkeyPatch()
    patched.setattr(state_store.StateStore, "write", fail)
    return patched.undo


@pytest.mark.parametrize("fail", [full, locked, vanished, read_only, moved, defective])
async def test_what_cannot_be_written_is_kept_in_memory_and_written_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[..., Any]
) -> None:
    monkeypatch.setattr("pool_monitor.storage.sqlite_file.BUSY_S", 0.01)
    (tmp_path / "var").mkdir()
    owner = Owner(tmp_path / "var" / "state.db")
    opened = await owner.open()
    assert await opened.commit(Changes({"alerts": {"before": b"1", "gone": b"1"}}, transitions(1)))
    mend = await fail(opened, owner.path, monkeypatch)
    large = bytes(9000)
    if fail is vanished:  # it is missed at once, and made anew
        assert not await opened.commit(Changes({"alerts": {"gone": None, "meanwhile": large}}, transitions(2)))
    else:
        assert not await opened.commit(Changes({"alerts": {"meanwhile": large}}, transitions(2)))
        assert not await opened.commit(alerts(gone=None))  # not tried again yet
    assert opened.degraded is not None
    assert str(owner.path) in opened.degraded
    assert owner.told == [opened.degraded]
    mend()
    owner.clock.advance(61)
    assert await opened.commit(), opened.degraded
    assert opened.degraded is None
    assert owner.told[1:] == ["recovered"]
    assert await opened.commit(alerts(after=b"1"))
    await owner.close()
    found = await saved_in(owner.path)
    assert found.rows["alerts"] == {"before": b"1", "meanwhile": large, "after": b"1"}
    assert [one.seq for one in found.transitions] == ([2] if fail is vanished else [1, 2])
    assert found.seq == 2


async def test_closing_writes_what_could_not_be_written_before(owner: Owner) -> None:
    opened = await owner.open()
    await full(opened, owner.path, pytest.MonkeyPatch())
    assert not await opened.commit(alerts(a=bytes(9000)))
    await opened.close()
    assert (await saved_in(owner.path)).rows["alerts"] == {"a": bytes(9000)}


async def test_transitions_that_cannot_be_written_are_bounded(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "TRANSITIONS_MAX", 5)
    opened = await owner.open()
    await full(opened, owner.path, monkeypatch)
    assert not await opened.commit(Changes({"alerts": {"a": bytes(9000)}}, transitions(1)))
    for number in range(2, 20):
        assert not await opened.commit(Changes({}, transitions(number)))
    assert opened.held_bytes < 9200
    await opened.close()
    assert [one.seq for one in (await saved_in(owner.path)).transitions] == [15, 16, 17, 18, 19]


async def test_another_file_in_its_place_is_not_overwritten(owner: Owner, tmp_path: Path) -> None:
    other = Owner(tmp_path / "other.db")
    theirs = await other.open()
    assert await theirs.commit(alerts(theirs=b"1"))
    await theirs.close()
    opened = await owner.open()
    assert await opened.commit(alerts(ours=b"1"))
    other.path.rename(owner.path)
    before = owner.path.read_bytes()
    assert not await opened.commit(alerts(more=b"1"))
    owner.clock.advance(61)
    assert not await opened.commit()
    assert "another file has replaced it; restart the service" in str(opened.degraded)
    await opened.close()
    assert owner.path.read_bytes() == before


async def test_a_disk_that_does_not_answer_holds_a_commit_for_a_bounded_time(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "COMMIT_MAX_S", 0.05)
    answers = threading.Event()
    opened = await owner.open()
    assert opened._connection is not None
    store = opened._connection.store
    write = store.write
    monkeypatch.setattr(store, "write", lambda *given: answers.wait(20) and write(*given))
    assert not await opened.commit(alerts(a=b"1"))
    assert "has not answered" in str(opened.degraded)
    owner.clock.advance(61)
    assert not await opened.commit(alerts(b=b"1"))  # without waiting again
    answers.set()
    await eventually(lambda: opened.degraded is None)
    assert await opened.commit()
    await opened.close()
    assert (await saved_in(owner.path)).rows["alerts"] == {"a": b"1", "b": b"1"}


async def test_a_disk_that_does_not_answer_at_the_start_costs_the_file_alone(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "OPEN_MAX_S", 0.05)
    answers = threading.Event()
    monkeypatch.setattr(state, "StateStore", lambda *given: answers.wait(20) and state_store.StateStore(*given))
    opened = await owner.open()
    assert "has not answered" in str(opened.degraded)
    assert opened.load() == nothing_saved()
    assert not await opened.commit(alerts(a=b"1"))
    answers.set()
    await opened.close()
    monkeypatch.undo()
    assert (await saved_in(owner.path)).rows["alerts"] == {}  # nothing was known of it


def refuse_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(state_store, "OwnedFile", refuse)


async def test_a_file_that_can_only_be_read_at_the_start_is_read_and_written_later(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await owner.open()
    assert await first.commit(Changes({"alerts": {"a": b"1"}}, transitions(1)))
    await first.close()
    with monkeypatch.context() as patched:
        refuse_to_write(patched)
        opened = await owner.open()
        assert "Read-only file system" in str(opened.degraded)
        assert opened.load().rows["alerts"] == {"a": b"1"}
        assert not await opened.commit(Changes({"alerts": {"b": b"2"}}, transitions(2)))
    owner.clock.advance(61)
    assert await opened.commit(), opened.degraded
    await opened.close()
    found = await saved_in(owner.path)
    assert found.rows["alerts"] == {"a": b"1", "b": b"2"}
    assert found.transitions == transitions(1, 2)


async def test_a_file_that_cannot_be_read_at_the_start_is_left_as_it_is(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await owner.open()
    assert await first.commit(alerts(a=b"1"))
    await first.close()
    before = owner.path.read_bytes()
    with monkeypatch.context() as patched:
        refuse_to_write(patched)
        patched.setattr(state, "read_state", lambda path: Path(path, "not a directory").stat())
        opened = await owner.open()
    assert "left as it is until the next start" in str(opened.degraded)
    owner.clock.advance(61)
    assert not await opened.commit(alerts(b=b"2"))
    await opened.close()
    assert owner.path.read_bytes() == before


FULL_FROM_THE_START = """
import asyncio, resource, sys
from pool_monitor.storage.state import Changes, StateFile

async def main():
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    opened = await StateFile.open(sys.argv[1])
    print(sorted(opened.load().rows["alerts"]), bool(opened.degraded))
    print(await opened.commit(Changes({"alerts": {"meanwhile": b"1"}})))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await opened.close()

asyncio.run(main())
"""


async def test_a_service_that_starts_on_a_full_disk_has_what_was_saved(owner: Owner) -> None:
    first = await owner.open()
    assert await first.commit(alerts(before=b"1"))
    await first.close()
    said = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FULL_FROM_THE_START, owner.path],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert said.stdout == "['before'] True\nFalse\n"
    assert set((await saved_in(owner.path)).rows["alerts"]) == {"before", "meanwhile"}
