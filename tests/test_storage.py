"""What a history keeps: every tier true to what was counted, whatever the clock, the size and the age do."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_monitor.errors import ConfigError
from pool_monitor.metrics.block import CHUNK_BITS, CHUNKS, Block, merge
from pool_monitor.metrics.columns import DISTRIBUTIONS
from pool_monitor.metrics.histogram import BUCKETS, HIGHEST_NS, RELATIVE_ERROR, quantiles
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.series import Names
from pool_monitor.storage import HistoryConfig, Reader, reader, store
from pool_monitor.storage.pending import PendingBlock
from tests.helpers import stores
from tests.helpers.stores import NAMES, T0, calls, everything, fat, history_file, marks, rows_in, starts, writing

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
EVER = 10**9
ALL_KEPT = HistoryConfig(tiers=((1, EVER), (10, EVER), (60, EVER), (3600, EVER)))


# -- true at every age --------------------------------------------------------------------------------------------


def drawn(seed: int, shape: str, n: int) -> list[int]:
    """*n* durations in ns, distributed as real ones are."""
    rng = np.random.default_rng(seed)
    seconds = {
        "heavy-tailed": lambda: 0.001 * (1 + rng.pareto(1.1, n)),
        "bimodal": lambda: np.where(rng.random(n) < 0.95, rng.normal(1e-4, 1e-5, n), rng.normal(0.05, 0.01, n)),
        "constant": lambda: np.full(n, 0.02),
        "tiny": lambda: rng.uniform(1e-6, 5e-6, n),
    }[shape]()
    return np.clip(seconds * 1e9, 1_000, HIGHEST_NS).astype(int).tolist()


seconds_of_calls = st.dictionaries(
    st.integers(0, len(NAMES.rows) - 1),
    st.builds(
        drawn,
        st.integers(0, 2**32),
        st.sampled_from(["heavy-tailed", "bimodal", "constant", "tiny"]),
        st.integers(0, 60),
    ),
    max_size=3,
)
clock_steps = st.one_of(st.just(1), st.integers(2, 15), st.integers(-70, -1), st.sampled_from([3600, 7300, -3600]))
histories = st.lists(st.tuples(clock_steps, seconds_of_calls), min_size=1, max_size=40)


def latencies(block: Block, row: int) -> np.ndarray:
    """The whole histogram of the latencies of *row*."""
    dense = np.zeros((int(block.cells.chunks.max(initial=0)) + 1) << CHUNK_BITS, np.int64)
    dense[block.cells.places(block.cells.chunks)] = block.cells.counts
    first = row * len(DISTRIBUTIONS) * CHUNKS << CHUNK_BITS
    found = dense[first : first + BUCKETS]
    return np.pad(found, (0, BUCKETS - len(found)))


def rows_by_key(recording: Recording) -> dict[Any, tuple[list[int], list[float]]]:
    """What is known of every row, by its name, with the percentiles of its latency."""
    total = stores.merged(recording)
    return {
        recording.names.rows[row]: (
            [*total.tallies[at].tolist(), *total.maxima[at].tolist()],
            quantiles(latencies(total, row), SHARES).tolist(),
        )
        for at, row in enumerate(total.rows.tolist())
    }


@given(histories)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_tier_gives_the_percentiles_of_everything_merged_in_memory(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, dict[int, list[int]]]]
) -> None:
    path = tmp_path_factory.mktemp("history") / "history.db"
    second, blocks, exact = T0, [], dict[Any, list[int]]()
    with writing(path, ALL_KEPT) as made:
        for step, by_row in history:
            second += step
            blocks.append(stores.block(by_row))
            made.write([PendingBlock(second, 1, blocks[-1], NAMES)], second + 1)
            made.tidy(second + 1)
            for row, durations in by_row.items():
                exact.setdefault(NAMES.rows[row], []).extend(durations)
    in_memory = rows_by_key(Recording(NAMES, [TimedBlock(T0, 1, merge(blocks))]))
    with Reader(path) as found:
        for step in (1, 10, 60, 3600):
            recording = everything(found, step)
            by_key = rows_by_key(recording)
            assert repr(by_key) == repr({key: in_memory[key] for key in by_key})  # repr: NaN is NaN
            assert by_key.keys() == in_memory.keys()
            assert stores.merged(recording).pool_sums.tolist() == merge(blocks).pool_sums.tolist()
            for key, durations in exact.items():
                for share, estimate in zip(SHARES, by_key[key][1], strict=True):
                    if durations:
                        true = sorted(durations)[math.ceil(round(share * 1000) * len(durations) / 1000) - 1] / 1e9
                        assert abs(estimate - true) <= true * RELATIVE_ERROR * (1 + 1e-9)


# -- rolling up ---------------------------------------------------------------------------------------------------


def test_a_slot_of_the_next_tier_is_made_when_a_second_of_another_one_comes(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(4), ALL_KEPT)
    assert rows_in(path) == {1: 4}
    history_file(path, range(4, 10), ALL_KEPT)
    assert rows_in(path) == {1: 10}
    history_file(path, [10], ALL_KEPT)
    assert rows_in(path) == {1: 11, 10: 1}
    with Reader(path) as found:
        assert sorted(starts(found.read(T0, T0 + 20, 10))) == [
            0,
            10,
        ]  # the second is not rolled up yet, and here all the same
        assert marks(found.read(T0, T0 + 10, 10)) == sum(range(10))


def test_every_tier_is_made_of_the_one_before(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(100))
    assert rows_in(path) == {1: 63, 4: 24, 16: 5}  # 60 s of the finest are kept, and what is deleted with the next roll
    with Reader(path) as found:
        last = found.read(T0 + 80, T0 + 112, 16)
        assert sorted(starts(last)) == [80, 84, 88, 92, 96, 97, 98, 99]  # four seconds of the newest four
        assert [marks(everything(found, step)) for step in (4, 16)] == [sum(range(100))] * 2


def test_a_clock_that_steps_back_makes_slots_that_add_up(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", [*range(8), *range(2, 10)], ALL_KEPT)
    history_file(path, [3600], ALL_KEPT)
    with Reader(path) as found:
        assert Counter(starts(found.read(T0, T0 + 10, 1))) == Counter([*range(8), *range(2, 10)])
        for step in (10, 60, 3600):
            assert marks(found.read(T0, T0 + 3600, step)) == sum(range(8)) + sum(range(2, 10))


def test_a_clock_that_steps_back_by_hours_makes_a_second_slot_of_the_same_time(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", [0, 1, 7200, 7201, 2, 3, 7202, 20], ALL_KEPT)
    with Reader(path) as found:
        assert sorted(starts(found.read(T0, T0 + 10, 10))) == [0, 0]
        assert marks(found.read(T0, T0 + 3600, 10)) == 0 + 1 + 2 + 3 + 20
        assert calls(everything(found, 3600)) == 8


def test_time_in_which_nothing_ran_is_a_gap_and_no_slot_of_zeros(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", [0, 1, 500, 501, 90_000], ALL_KEPT)
    with Reader(path) as found:
        assert sorted(starts(found.read(T0, T0 + 3600, 10))) == [0, 500]
        assert {start // 3600 for start in starts(everything(found, 3600))} == {0, 25}


def test_the_next_process_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    for first in (0, 7, 14, 50, 51):
        history_file(path, range(first, first + 7))
    with Reader(path) as found:
        total = sum(sum(range(first, first + 7)) for first in (0, 7, 14, 50, 51))
        assert marks(everything(found, 16)) == marks(everything(found, 4)) == total
        assert found.pools() == ("text",)
        assert set(everything(found, 16).names.rows) == {NAMES.rows[0]}


def test_what_waited_to_be_rolled_up_when_its_process_died_is_rolled_up_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with writing(path) as made:
        made.write(stores.pending_blocks(range(40)), T0 + 40)  # and no more: it was killed then
    assert rows_in(path) == {1: 40}
    history_file(path, [40])
    assert rows_in(path) == {1: 41, 4: 10, 16: 2}


def test_a_backlog_is_rolled_up_a_bounded_part_at_a_time_and_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    seconds = 3 * store.ROLLED_AT_ONCE + 1
    with writing(path, ALL_KEPT) as made:
        made.write(stores.pending_blocks(range(seconds)), T0 + seconds)
        made.tidy(T0 + seconds)
        first = rows_in(path)[10]
        assert first <= store.ROLLED_AT_ONCE // 10 + 1
        for _ in range(4):
            made.tidy(T0 + seconds)
    with Reader(path) as found:
        assert first < rows_in(path)[10]
        for step in (1, 10, 60, 3600):
            assert marks(everything(found, step)) == sum(range(seconds))


def test_a_block_that_cannot_be_read_is_left_out_and_counted_and_holds_up_nothing(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(6), ALL_KEPT)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE blocks SET body = zeroblob(length(body)) WHERE start = ?", (T0 + 3,))
    with writing(path, ALL_KEPT) as made:
        stores.write(made, range(6, 12))
        assert made.damaged == 1
    with Reader(path) as found:
        assert marks(everything(found, 10)) == sum(range(12)) - 3
        assert found.damaged == 0
        assert marks(everything(found, 1)) == sum(range(12)) - 3
        assert found.damaged == 1


# -- expiry -------------------------------------------------------------------------------------------------------


def test_a_tier_keeps_what_ended_within_its_retention(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(201))
    with Reader(path) as found:
        kept = starts(everything(found, 1))
        assert sorted(kept) == list(range(141, 201))
        assert found.tiers()[0].since == T0 + 141
        assert min(starts(everything(found, 4))) == 0
        assert marks(everything(found, 4)) == sum(range(201))


def test_what_was_recorded_before_a_pause_is_left_and_makes_room_as_new_slots_come(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(100))
    history_file(path, [86_400])
    with Reader(path) as found:
        assert min(starts(everything(found, 1))) < 100
    history_file(path, range(86_401, 86_440))
    with Reader(path) as found:
        kept = starts(everything(found, 1))
        assert 60 <= len(kept) <= 63
        assert sorted(kept)[-40:] == list(range(86_400, 86_440))
    history_file(path, range(86_440, 86_500))
    with Reader(path) as found:
        assert min(starts(everything(found, 1))) >= 86_400
        assert marks(found.read(T0, T0 + 3600, 16)) == sum(range(100))


def test_what_is_not_rolled_up_yet_never_expires(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with writing(path) as made:
        stores.write(made, range(3))
        for _ in range(3):
            made.tidy(T0 + 10**7)
    with Reader(path) as found:
        assert marks(everything(found, 16)) == sum(range(3))


def test_after_everything_has_expired_new_blocks_are_rolled_up_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    short = HistoryConfig(tiers=((1, 10), (4, 20)))
    history_file(path, range(50), short)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM blocks")
    history_file(path, range(100, 109), short)
    assert rows_in(path)[4] == 2


def test_a_file_that_outlived_itself_is_cleared_a_bounded_part_at_a_time(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(900), ALL_KEPT)
    sizes = [rows_in(path)[1]]
    with writing(path, HistoryConfig(tiers=((1, 300), *ALL_KEPT.tiers[1:]))) as made:
        while len(sizes) < 2 or sizes[-1] < sizes[-2]:
            made.tidy(T0 + 86_400)
            sizes.append(rows_in(path)[1])
    assert all(before - after <= store.DELETED_AT_ONCE for before, after in pairwise(sizes))
    assert sizes[-1] == 300


# -- size ---------------------------------------------------------------------------------------------------------


MIB = 2**20


def size_of(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


LIMITED = HistoryConfig(tiers=((1, EVER), (4, EVER), (16, EVER)), size_limit=8 * MIB)


def test_the_file_and_its_log_stay_below_the_limit_and_the_newest_is_there(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    filled = []
    with writing(path, LIMITED) as made:
        for number in range(70):
            pending = fat(number)
            made.write([pending], pending.start + 1)
            made.tidy(pending.start + 1)
            assert size_of(path) <= made.usage().file_bytes <= LIMITED.size_limit
            filled.append(size_of(path))
    assert max(filled) > LIMITED.size_limit * 0.7
    with Reader(path) as found:
        finest, middle, coarsest = found.tiers()
        assert starts(found.read(finest.since, T0 + 70, 1))[-1] == 69
        assert finest.since > max(middle.since, T0)  # the tier that takes up most goes first
        assert coarsest.since == 0
        assert min(starts(everything(found, 16))) == 0


def test_a_clock_that_was_ahead_for_a_while_leaves_what_comes_after_it_readable(tmp_path: Path) -> None:
    path, day = tmp_path / "history.db", 86_400
    with writing(path, LIMITED) as made:
        for number in [*range(day, day + 30), *range(11)]:
            made.write([fat(number)], T0 + number + 1)
            made.tidy(T0 + number + 1)
    assert rows_in(path)[1] < 40
    with Reader(path) as found:
        assert found.tiers()[0].since == T0
        assert starts(found.read(T0, T0 + 11, 1)) == list(range(11))


def test_what_is_not_rolled_up_yet_goes_when_there_is_nothing_else_to_make_room_with(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with writing(path, LIMITED) as made:
        for number in range(30):
            made.write([fat(number)], T0 + number)
            made.tidy(T0 + number)
        for number in range(30, 50):
            made.write([fat(number)], T0 + number)
        assert rows_in(path)[1] >= 20
        for number in range(50, 80):
            made.write([fat(number)], T0 + number)
            assert size_of(path) <= made.usage().file_bytes <= LIMITED.size_limit
        assert 16 not in rows_in(path)


def test_a_lower_limit_shrinks_the_file(tmp_path: Path) -> None:
    path, limit = tmp_path / "history.db", 8 * MIB
    with writing(path, ALL_KEPT) as made:
        for number in range(45):
            made.write([fat(number)], T0 + 45)
    assert size_of(path) > 1.3 * limit
    with writing(path, HistoryConfig(tiers=ALL_KEPT.tiers, size_limit=limit)) as made:
        for number in range(45, 75):
            made.write([fat(number, rows=1)], T0 + number)
            made.tidy(T0 + number)
    assert size_of(path) <= limit


def test_what_expired_is_given_back_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with writing(path, HistoryConfig(tiers=((1, 4), (4, 8), (16, 32)))) as made:
        made.write([fat(number % 9)._replace(start=T0 + number) for number in range(40)], T0 + 40)
        before = size_of(path)
        for _ in range(60):
            made.tidy(T0 + 10**6)
    assert size_of(path) < before / 2


def test_a_program_that_reads_for_ever_cannot_make_the_log_grow_without_bound(tmp_path: Path) -> None:
    path, limit = tmp_path / "history.db", 8 * MIB
    config = HistoryConfig(tiers=ALL_KEPT.tiers, size_limit=limit)
    with writing(path, config) as made, closing(sqlite3.connect(path, isolation_level=None)) as other:
        stores.write(made, [0])
        made.connection.execute("PRAGMA busy_timeout = 1")
        other.execute("BEGIN")
        other.execute("SELECT * FROM blocks").fetchall()
        numbers = count(1)

        def write_one() -> None:
            made.write([fat(next(numbers))], T0 + 99)

        log = path.with_name(path.name + "-wal")
        while log.stat().st_size <= limit // 8:
            write_one()
        with pytest.raises(OSError, match="blocks the clearing of its log"):
            write_one()
        assert size_of(path) < limit
        other.execute("COMMIT")
        write_one()


# -- names --------------------------------------------------------------------------------------------------------


def test_names_that_no_block_has_are_removed_and_the_others_are_not(tmp_path: Path) -> None:
    path, hour = tmp_path / "history.db", 3600
    config = HistoryConfig(tiers=((1, 24), (60, 24 * 60)))
    names = Names(tuple(("text", f"operation {number}", None) for number in range(100)), ("text",))
    with writing(path, config) as made:
        for number in range(100):
            start = T0 + number * hour
            made.write([PendingBlock(start, 1, stores.block({number: [1000], 0: [1000]}), names)], start + 1)
            made.tidy(start + 1)
    with closing(sqlite3.connect(path)) as connection:
        stored = {row[0] for row in connection.execute("SELECT operation FROM names WHERE operation IS NOT NULL")}
    assert {"operation 0"} < stored <= {"operation 0", *(f"operation {number}" for number in range(70, 100))}
    with Reader(path) as found:
        assert {key[1] for key in everything(found, 60).names.rows} >= {f"operation {n}" for n in range(76, 100)}


def test_a_name_is_kept_as_long_as_blocks_that_were_held_for_hours_before_they_were_written(tmp_path: Path) -> None:
    path, hour = tmp_path / "history.db", 3600
    with writing(path, HistoryConfig(tiers=((1, 60), (60, 300)))) as made:
        for number in range(0, 6 * hour, hour // 2):
            made.write(stores.pending_blocks([number, number + 1]), T0 + 6 * hour)  # and no more
        for now in (T0 + 10 * hour, T0 + 11 * hour):
            made.write([PendingBlock(now, 1, stores.block({1: [1000]}), NAMES)], now + 1)
            made.tidy(now + 1)
    with Reader(path) as found:
        recording = everything(found, 60)
        assert min(starts(recording)) > 3 * hour
        assert set(recording.names.rows) == set(NAMES.rows[:2])


def test_a_file_whose_names_are_gone_is_damaged(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(9))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM names")
    with Reader(path) as found, pytest.raises(ConfigError, match="it is damaged: names are missing"):
        found.read(T0, T0 + 16, 16)


def test_rows_that_changed_hands_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    others = NAMES._replace(rows=(("text", "render", "0"), *NAMES.rows[1:]))
    with writing(path) as made:
        made.write(
            [*stores.pending_blocks([0, 1]), *stores.pending_blocks([2, 3], others), *stores.pending_blocks([4])],
            T0 + 5,
        )
        made.tidy(T0 + 5)
    with Reader(path) as found:
        recording = found.read(T0, T0 + 16, 16)
        total = stores.merged(recording)
        by_name = {recording.names.rows[row][1]: int(total.tallies[at, 0]) for at, row in enumerate(total.rows)}
        assert by_name == {"parse": 3, "render": 2}


def test_any_text_can_be_a_name(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    odd = ["", "\0", "a\0b", "\ud800", "naïve 'quoted' \"name\"; DROP TABLE blocks", "x" * 200]
    names = Names(tuple(("text", name, "0") for name in odd), ("text",))
    with writing(path) as made:
        made.write([PendingBlock(T0, 1, stores.block({row: [1000] for row in range(len(odd))}), names)], T0 + 1)
        made.tidy(T0 + 1)
    with Reader(path) as found:
        expected = [name if name != "\ud800" else "\\ud800" for name in odd]
        assert [key[1] for key in everything(found, 1).names.rows] == expected


# -- reading ------------------------------------------------------------------------------------------------------


def test_an_answer_is_made_of_the_coarsest_slots_that_fit_it(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(100), HistoryConfig(tiers=((1, EVER), (4, EVER), (16, EVER))))
    with Reader(path) as found:
        lengths = {step: {timed.length for timed in found.read(T0, T0 + 48, step).blocks} for step in (1, 3, 4, 12, 16)}
        assert lengths == {1: {1}, 3: {1}, 4: {4}, 12: {4}, 16: {16}}
        # No block of more than a second begins there.
        assert {timed.length for timed in found.read(T0 + 7, T0 + 39, 16).blocks} == {1}
        assert marks(found.read(T0 + 7, T0 + 39, 16)) == sum(range(7, 39))


def test_ranges_side_by_side_count_everything_once(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(300), ALL_KEPT)
    with Reader(path) as found:
        for step in (1, 10, 60):
            cuts = [T0, T0 + 37, T0 + 60, T0 + 121, T0 + 3600]
            assert sum(marks(found.read(*cut, step)) for cut in pairwise(cuts)) == sum(range(300))


def test_a_question_from_before_what_is_kept_is_refused_and_says_what_there_is(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(1000))
    with Reader(path) as found:
        with pytest.raises(ConfigError) as refused:
            found.read(T0 + 500, T0 + 600, 1)
        said = str(refused.value)
        assert "steps of 1 s are not kept from 20" in said
        assert "steps of 4 s from 20" in said
        assert said.endswith("ask for a step of 4 s")
        assert calls(found.read(T0 + 500, T0 + 600, 4)) == 100
        with pytest.raises(ConfigError, match="ask for a step of 16 s"):
            found.read(T0, T0 + 600, 4)
        assert calls(found.read(T0, T0 + 1600, 16)) == 1000


def test_a_step_no_slot_fits_into_is_refused(tmp_path: Path) -> None:
    with Reader(history_file(tmp_path / "history.db", range(9), HistoryConfig(tiers=((4, 60), (8, 60))))) as found:
        with pytest.raises(
            ConfigError, match=r"has steps of 4, 8 s; a step of 6 s is no multiple of any; ask for a multiple of one"
        ):
            found.read(T0, T0 + 9, 6)
        for start, end, step in ((5, 5, 4), (6, 5, 4), (0, 5, 0)):
            with pytest.raises(ConfigError, match="needs an end after the start, and a step of at least 1 s"):
                found.read(start, end, step)


def test_too_much_at_once_is_refused_and_a_larger_step_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = history_file(tmp_path / "history.db", range(600), ALL_KEPT)
    monkeypatch.setattr(reader, "BLOCKS_LIMIT", 100)
    with Reader(path) as found:
        with pytest.raises(ConfigError, match=r"there are 600 blocks .* ask for a larger step or for less time"):
            found.read(T0, T0 + 600, 1)
        assert calls(found.read(T0, T0 + 600, 10)) == 600
        # From the middle of a step the finest would be true to the second, but it is too much.
        assert {timed.length for timed in found.read(T0 + 3, T0 + 590, 60).blocks} == {10}
        monkeypatch.setattr(reader, "BYTES_LIMIT", 1000)
        with pytest.raises(ConfigError, match="MiB that one query may read"):
            found.read(T0, T0 + 600, 10)


def test_an_empty_history_has_no_extent_and_answers_with_nothing(tmp_path: Path) -> None:
    with Reader(history_file(tmp_path / "history.db", [])) as found:
        assert found.extent() is None
        assert found.pools() == ()
        assert found.read(T0, T0 + 60, 1) == Recording(Names((), ()), [])


def test_blocks_are_found_by_index(tmp_path: Path) -> None:
    path, asked = tmp_path / "history.db", list[str]()
    with writing(path) as made, Reader(path) as found:
        stores.write(made, range(50))
        for connection in (made.connection, found._connection):
            connection.set_trace_callback(asked.append)
        stores.write(made, range(50, 100))
        everything(found, 16)
        for connection in (made.connection, found._connection):
            connection.set_trace_callback(None)
        questions = {asking.split("WHERE")[0]: asking for asking in asked if " FROM blocks" in asking}
        assert len(questions) >= 6
        for asking in questions.values():
            plan = made.connection.execute(f"EXPLAIN QUERY PLAN {asking}").fetchall()
            assert not [row for row in plan if "SCAN blocks" in row[3] or "TEMP B-TREE" in row[3]], asking


def test_the_extent_reaches_over_all_tiers(tmp_path: Path) -> None:
    with Reader(history_file(tmp_path / "history.db", range(5, 700))) as found:
        assert found.extent() == (T0, T0 + 700)  # it begins with the coarsest block that is left


def test_numbers_and_names_of_an_answer_are_those_in_use(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with writing(path) as made:
        made.write([fat(0, rows=50)], T0 + 1)
        made.write([PendingBlock(T0 + 20, 1, stores.block({1: [1000]}), NAMES)], T0 + 21)
    with Reader(path) as found:
        recording = found.read(T0 + 16, T0 + 32, 1)
        assert recording.names == Names((NAMES.rows[1],), ("text",))
        assert [timed.block.rows.tolist() for timed in recording.blocks] == [[0]]


@pytest.mark.parametrize(
    ("tiers", "said"),
    [
        ((), "needs at least one"),
        (((0, 60),), "a step and a retention"),
        (((10, 5),), "the retention not below the step"),
        (((2, 60), (5, 600)), "step 5 needs to be a multiple of 2"),
        (((10, 60), (10, 600)), "step 10 needs to be a multiple"),
        (((1, 600), (10, 60)), "keep coarser steps at least as long"),
    ],
)
def test_tiers_that_make_no_sense_are_refused(tiers: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        HistoryConfig(tiers=tiers)


def test_tiers_can_be_lists_as_in_a_toml_file() -> None:
    config = HistoryConfig(tiers=[[1, 60], [5, 600]])  # type: ignore[arg-type]
    assert config.tiers == ((1, 60), (5, 600))


def test_only_we_can_read_what_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.db"
    with writing(path) as made:
        stores.write(made, range(3))
        assert sorted(file.name for file in path.parent.iterdir()) == [
            "history.db", "history.db-shm", "history.db-wal", "history.db.lock"
        ]  # fmt: skip
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["history.db"]
