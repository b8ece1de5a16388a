"""Files that were made to do harm, or that a disk has made so: an answer or an error in words, in bounded time and
memory, and a writer that goes on with everything else.
"""

from __future__ import annotations

import sqlite3
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pytest

from pool_monitor.cli.report_sources import ReportQuery, from_store
from pool_monitor.clock import ManualClock
from pool_monitor.errors import ConfigError
from pool_monitor.metrics import block
from pool_monitor.metrics.block import Block
from pool_monitor.metrics.columns import PEAKS, POOL_SUMS
from pool_monitor.metrics.series import Names
from pool_monitor.storage import History, HistoryConfig, HistoryMetrics, Reader, reader, sqlite_file, store
from pool_monitor.storage.block_encoding import unpacked
from pool_monitor.storage.pending import PendingBlock
from pool_monitor.view import period_report
from tests.helpers import stores
from tests.helpers.stores import SMALL, T0, calls, everything, fat, history_file, marks, writing

SECONDS = 40
LAST = f"start = {T0 + SECONDS - 1}"
MOST = 2**63 - 1
REFUSED = (ConfigError, sqlite3.Error, OSError)


def numbers(kind: str, values: Any) -> tuple[str, bytes]:
    return kind, np.array(values, kind).tobytes()


def body(**changes: tuple[str, bytes]) -> bytes:
    """A block with two calls, some of whose arrays are others."""
    names = ("rows", "tallies", "maxima", "chunks", "lengths", "offsets", "counts", "pools", "sums", "peaks")
    _version, *arrays = msgspec.msgpack.decode(
        stores.block({1: [1000, 2000]}, pools=(2,)).encode()
    )  # as the names are numbered
    return zlib.compress(msgspec.msgpack.encode([1, *(dict(zip(names, arrays, strict=True)) | changes).values()]), 1)


BODIES: dict[str, Any] = {
    "is text": "hello",
    "is a number": 5,
    "is text with NUL in it": "a\0" * 1000,
    "is empty": b"",
    "is noise": np.random.default_rng(1).bytes(500),
    "is cut off": body()[:-3],
    "is nested deeply": zlib.compress(b"\x91" * 200_000 + b"\xc0"),
    "is a map": zlib.compress(msgspec.msgpack.encode({"a": 1})),
    "is of another version": zlib.compress(msgspec.msgpack.encode([2, 3])),
    "has too few arrays": zlib.compress(msgspec.msgpack.encode([1, ("|u1", b"")])),
    "holds objects": body(rows=("|O", b"\0" * 8)),
    "holds arrays of arrays": body(rows=("(1000000000,)u1", b"")),
    "holds fractions": body(rows=("<f8", b"\0" * 8)),
    "has a negative row": body(rows=numbers("<i8", [-1])),
    "has only a call without a name": body(rows=numbers("<i8", [7]), chunks=numbers("<i8", [7 * 48 + 5])),
    "has a row like no other": body(rows=numbers("<i8", [2**31]), chunks=numbers("<i8", [2**31 * 48])),
    "has the highest row": body(rows=numbers("<u8", [2**64 - 1])),
    "has a row twice": body(
        rows=numbers("<i8", [1, 1]), tallies=numbers("<i8", [1] * 20), maxima=numbers("<i8", [1] * 6)
    ),
    "has buckets of another row": body(chunks=numbers("<i8", [10**6])),
    "has a negative chunk": body(chunks=numbers("<i8", [-5])),
    "has buckets beyond a chunk": body(offsets=numbers("|u1", [200, 255])),
    "has an empty chunk": body(lengths=numbers("|u1", [0])),
    "has a chunk that is too long": body(lengths=numbers("<u2", [258])),
    "has counts that are negative": body(counts=numbers("<i8", [-1, 5])),
    "has the highest counts": body(counts=numbers("<i8", [MOST, MOST])),
    "has high counts": body(counts=numbers("<i8", [2**61, 2**61])),
    "has the highest sums": body(tallies=numbers("<i8", [2**62 - 1] * 10), maxima=numbers("<i8", [2**62 - 1] * 3)),
    "has high sums of pools": body(
        sums=numbers("<i8", [2**62 - 1] * POOL_SUMS), peaks=numbers("<i8", [2**62 - 1] * PEAKS)
    ),
    "has negative sums of pools": body(sums=numbers("<i8", [-5] * POOL_SUMS)),
    "has an unknown pool": body(pools=numbers("|u1", [77])),
    "has no pool": body(pools=numbers("|u1", []), sums=numbers("|u1", []), peaks=numbers("|u1", [])),
}
UTF8 = "x'435245415445205441424c452074696572732028ff'"
OF_NAMES = "(SELECT rootpage FROM sqlite_master WHERE name = 'names')"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
COLUMNS: dict[str, tuple[str, ...]] = {
    "blocks.start": ("'text'", "x'00'", f"{MOST}", f"{-MOST}", "1.5", "253402300800", "-1", "59999999999"),
    "blocks.length": ("'x'", "0", "-5", f"{MOST}", "1.5"),
    "blocks.step": ("'x'", "0", "-1"),
    "blocks.id": (f"{MOST}", "-5"),
    "tiers.step": ("step * 1000000000000", "step * 7 - 6", "-step"),
    "tiers.retention": ("'x'", "-1", f"{MOST}", "0"),
    "tiers.rolled": ("'x'", "-1", f"{MOST}"),
    "tiers.gone": ("'x'", f"{MOST}", f"{-MOST}", "50000000000", "1.5"),
    "names.id": (f"id + {2**31}", f"id + {2**62}", "-id"),
    "names.pool": ("x'ff'", "CAST(x'ff' AS TEXT)", "5", "''"),
    "names.operation": ("NULL", "x'00'", "'a' || char(0) || 'b'"),
    "names.worker": ("7.5",),
    "names.seen": ("'x'", f"{MOST}"),
}
SCHEMAS: dict[str, tuple[str, ...]] = {
    "a view that never ends for blocks": (
        "DROP TABLE blocks",
        f"CREATE VIEW blocks AS {ENDLESS} SELECT x AS id, 1 AS step, x AS start, 1 AS length, x'00' AS body FROM c",
    ),
    "a view that never ends for tiers": (
        "DROP TABLE tiers",
        f"CREATE VIEW Tiers AS {ENDLESS} SELECT x AS step, 1000 AS retention, 0 AS rolled, 0 AS gone FROM c",
    ),
    "a view that never ends for names": (
        "DROP TABLE names",
        f"CREATE VIEW names AS {ENDLESS} SELECT x AS id, 'p' AS pool, 'o' AS operation, '' AS worker FROM c",
    ),
    "a trigger that never ends": (
        f"CREATE TRIGGER t AFTER INSERT ON blocks BEGIN DELETE FROM names WHERE id IN ({ENDLESS} SELECT x FROM c); END",
    ),
    "a trigger that keeps what expires": ("CREATE TRIGGER t BEFORE DELETE ON blocks BEGIN SELECT RAISE(IGNORE); END",),
    "an index on an expression": ("CREATE INDEX i ON blocks (length(hex(body)))",),
    "a generated column": (
        "DROP TABLE tiers",
        "CREATE TABLE tiers (step INTEGER PRIMARY KEY, retention INTEGER, rolled INTEGER, gone INTEGER AS (step + 1))",
    ),
    "a table less": ("DROP TABLE names",),
    "no tiers": ("DELETE FROM tiers",),
    "a schema that is no text": (
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET sql = CAST({UTF8} AS TEXT) WHERE name = 'tiers'",
    ),
    "a table in the place of another": (
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET rootpage = {OF_NAMES} WHERE name = 'blocks'",
    ),
    "a schema that clears the screen": (
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET name = char(27) || '[2J', sql = char(27) || '[2J' WHERE name = 'blocks_by_age'",
    ),
    "a version below zero": ("PRAGMA user_version = -5",),
    "numbers of blocks used up": (f"UPDATE sqlite_sequence SET seq = {MOST}",),
}


@cache
def as_written() -> bytes:
    with TemporaryDirectory() as directory:
        return history_file(Path(directory) / "history.db", range(SECONDS)).read_bytes()


def crafted(path: Path, *statements: str, blob: Any = None) -> Path:
    path.write_bytes(as_written())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement, () if blob is None else (blob,))
    return path


def told(path: Path) -> str:
    """All that a report says of *path*, in every form, or the error."""
    try:
        found = from_store(str(path), ReportQuery(by_operation=True))
    except ConfigError as error:
        return f"{error}" if str(path) in str(error) else pytest.fail(f"which file? {error}")
    return period_report.text(found.report) + str(msgspec.json.encode(found.report)) + str(found.steps)


def goes_on(path: Path) -> None:
    """A writer refuses it, or counts what comes, once, and rolls it up."""
    try:
        with writing(path) as made:
            made.write(stores.pending_blocks(range(SECONDS, SECONDS + 12)), T0 + SECONDS + 12)
            for _turn in range(3):
                made.tidy(T0 + SECONDS + 12)
    except REFUSED:
        return
    with closing(sqlite3.connect(path)) as connection:
        rolled = connection.execute(f"SELECT count(*) FROM blocks WHERE step = 4 AND start >= {T0 + SECONDS}")
        assert rolled.fetchone() == (2,)


@pytest.mark.parametrize("kind", BODIES)
def test_a_block_that_was_made_by_hand_costs_itself_at_most(tmp_path: Path, kind: str) -> None:
    path = crafted(tmp_path / "history.db", f"UPDATE blocks SET body = ? WHERE {LAST}", blob=BODIES[kind])
    assert "pool text" in told(path) or "names are missing" in told(path)
    goes_on(path)
    crafted(path.with_name("all.db"), "UPDATE blocks SET body = ?", blob=BODIES[kind])
    told(path.with_name("all.db"))


@pytest.mark.parametrize(("column", "value"), [(column, value) for column in COLUMNS for value in COLUMNS[column]])
def test_a_column_that_holds_anything_is_an_answer_or_an_error_in_words(
    tmp_path: Path, column: str, value: str
) -> None:
    table, name = column.split(".")
    for where in ("", f" WHERE {LAST}") if table == "blocks" and name != "id" else ("",):
        path = tmp_path / f"{len(where)}.db"
        try:
            crafted(path, f"UPDATE OR IGNORE {table} SET {name} = {value}{where}")
        except sqlite3.IntegrityError:
            continue
        told(path)
        if table != "blocks" or where:
            with closing(sqlite3.connect(path)) as connection:
                integral = connection.execute("SELECT count(*) FROM blocks WHERE typeof(start) = 'integer'").fetchone()
            if integral == (SECONDS + 12,):
                goes_on(path)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_that_is_not_ours_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    path = crafted(tmp_path / "history.db", *SCHEMAS[kind])
    said = told(path)
    if kind != "numbers of blocks used up":
        assert "damaged" in said or "version -5" in said
        assert said.isprintable()
    goes_on(path)


def test_what_another_program_keeps_in_the_file_beside_ours_does_no_harm(tmp_path: Path) -> None:
    path = crafted(tmp_path / "history.db", "CREATE TABLE notes (text)", "CREATE VIEW v AS SELECT 1", "ANALYZE")
    assert "pool text" in told(path)
    goes_on(path)


# -- time and memory ----------------------------------------------------------------------------------------------


def most_memory(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte for a block, three for an answer."""
    for module in (block, store):
        monkeypatch.setattr(module, "ROOM_LIMIT", 2**20)
    monkeypatch.setattr("pool_monitor.storage.block_encoding.ROOM_LIMIT", 2**20)
    monkeypatch.setattr(reader, "BLOCK_ROOM", 2**20)
    monkeypatch.setattr(reader, "ROOM_LIMIT", 3 * 2**20)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("where", [LAST, "1"])
def test_blocks_that_unpack_to_gigabytes_are_not_unpacked(tmp_path: Path, where: str) -> None:
    bomb = zlib.compress(bytes(64 * 2**20), 9)
    path = crafted(tmp_path / "history.db", f"UPDATE blocks SET body = ? WHERE {where}", blob=bomb)
    said: list[str] = []
    assert most_memory(lambda: said.append(told(path))) < 16 * 2**20
    assert (
        "1 block of the file cannot be read" if where == LAST else "in memory the answer takes more than the 3 MiB"
    ) in said[0]
    assert most_memory(lambda: goes_on(path)) < 16 * 2**20


@pytest.mark.usefixtures("little_room")
def test_arrays_of_zeros_are_counted_as_what_they_take_in_memory(tmp_path: Path) -> None:
    rows = 10_000  # 14 bytes each as they are packed, 112 in memory
    zeros = zlib.compress(
        msgspec.msgpack.encode(
            [
                1, numbers("<u2", range(1, rows + 1)), ("|u1", bytes(10 * rows)), ("|u1", bytes(3 * rows)),
                *[("|u1", b"")] * 7,
            ]
        ), 9,
    )  # fmt: skip
    with pytest.raises(ValueError, match="it is too large"):
        unpacked(zeros)
    assert isinstance(unpacked(body()), Block)


def test_what_would_be_too_large_as_one_block_is_rolled_up_as_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (block, store):
        monkeypatch.setattr(module, "ROOM_LIMIT", 2**18)
    path, every = tmp_path / "history.db", 3200
    names = Names(tuple(("text", f"operation {row}", None) for row in range(every)), ("text",))
    with writing(path, HistoryConfig(tiers=((1, 10**6), (60, 10**6)))) as made:
        for number in range(61):
            pending = fat(number % 4, rows=every // 4)
            rows = pending.block.rows + every // 4 * (number % 4)
            made.write([PendingBlock(T0 + number, 1, pending.block._replace(rows=rows), names)], T0 + 61)
        made.tidy(T0 + 61)
        assert made.damaged == 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT rolled FROM tiers WHERE step = 60").fetchone() == (60,)
        bodies = connection.execute("SELECT body FROM blocks WHERE step = 60").fetchall()
    assert len(bodies) > 1
    assert sum(len(unpacked(packed).rows) for (packed,) in bodies) >= every


def test_an_answer_with_too_many_names_or_pools_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.db"
    with writing(path) as made:
        made.write([fat(0, rows=50)], T0 + 1)
        stores.write(made, [1, 2])
    for limit, value, said in (
        ("NAMES_LIMIT", 40, "the answer has 52 names, more than the 40 that one query may read"),
        ("NAMES_ROOM", 300, "the names are longer than"),
        ("POOLS_LIMIT", 0, "the answer has more than the 0 pools"),
    ):
        with monkeypatch.context() as patched, Reader(path) as found:
            patched.setattr(reader, limit, value)
            with pytest.raises(ConfigError, match=said):
                found.read(T0, T0 + 16, 1)


def test_a_table_with_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = history_file(tmp_path / "history.db", range(51))
    monkeypatch.setattr("pool_monitor.cli.report_sources.ROWS_LIMIT", 50)
    with pytest.raises(ConfigError, match="1 operations in 51 steps are more than 50 rows; ask for a larger --step"):
        from_store(str(path), ReportQuery(step=1, start=T0, by_operation=True))


def test_what_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = history_file(tmp_path / "history.db", range(SECONDS))
    with Reader(path) as found:
        monkeypatch.setattr(sqlite_file, "_STEPS_BETWEEN", 1)
        monkeypatch.setattr(sqlite_file, "WORK_MAX_S", -1.0)
        for ask in (found.extent, found.pools, found.tiers, lambda: found.read(T0, T0 + 16, 1), lambda: Reader(path)):
            with pytest.raises(ConfigError, match="it takes longer than -1 s; it is damaged, or the disk is very slow"):
                ask()
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        store.Store(path, SMALL)


# -- beside a running service -------------------------------------------------------------------------------------


async def test_a_running_history_answers_in_words_and_rolls_up_what_else_there_is(tmp_path: Path) -> None:
    path, clock = tmp_path / "history.db", ManualClock(T0)
    made = await History.open(path, HistoryConfig(tiers=SMALL.tiers, flush_interval=3600.0), clock=clock)
    asked = HistoryMetrics(made, clock)

    async def put(first: int, last: int) -> None:
        for pending in stores.pending_blocks(range(first, last)):
            clock.advance(1)
            made.put(*pending)
        assert await made.flush(), made.degraded

    await put(0, 10)
    # Whose the numbers of these are is not in the file: what they are rolled up into cannot be read either.
    known = [
        odd
        for kind, odd in BODIES.items()
        if kind not in ("has an unknown pool", "has a row like no other", "has only a call without a name")
    ]
    for number, odd in zip(count(10, 4), known, strict=False):
        await put(number, number + 4)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE blocks SET body = ? WHERE start = ?", (odd, T0 + number + 3))
        assert (await asked.range(T0, step="16s")).points
    await put(number + 4, number + 100)
    stats = made.stats()
    assert stats.degraded is None
    assert stats.damaged >= len(known) * 2 // 3
    assert calls(await made.read(T0 + number + 60, T0 + number + 100, 1)) == 40
    assert marks(await made.read(T0 + (number + 19) // 16 * 16, T0 + number + 200, 16)) > 0
    await made.close()


def test_times_that_no_calendar_has_are_refused(tmp_path: Path) -> None:
    with Reader(history_file(tmp_path / "history.db", range(9))) as found:
        for start, end in ((-(10**11), T0), (T0, 10**18), (-MOST - 5, T0)):
            with pytest.raises(ConfigError, match="needs seconds since the epoch that a datetime can hold"):
                found.read(start, end, 1)
        assert calls(everything(found, 16)) == 9
