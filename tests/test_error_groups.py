"""Error groups: exact counts in every window, bounds, samples, and the way from a failure to a reader."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tracemalloc
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor import Monitor, Pool, PoolError, emit, telemetry
from pool_monitor.adapters import MonitoredExecutor
from pool_monitor.cli.errors import command
from pool_monitor.clock import ManualClock
from pool_monitor.config import HistoryConfig, MetricsConfig, MonitorConfig
from pool_monitor.emit import PoolIdentity
from pool_monitor.errors import ConfigError
from pool_monitor.events import OPERATION_EXCEPTION
from pool_monitor.metrics import WINDOWS, Collector
from pool_monitor.metrics.error_groups import (
    NAMES_LIMIT,
    NAMES_SHOWN,
    OTHER,
    SAMPLE_BYTES,
    SAMPLES_SHOWN,
    ErrorGroups,
    FailedCall,
    sample_of,
)
from pool_monitor.metrics.ladder import Mode
from pool_monitor.service.client import Address, open_client
from pool_monitor.snapshot import ErrorGroup
from pool_monitor.storage import Reader
from pool_monitor.storage.error_groups import counts_limit, groups_limit
from pool_monitor.testing import InlinePool
from tests.helpers import stores
from tests.helpers.gates import in_gates
from tests.helpers.programs import runtime_dir

__all__ = ["runtime_dir"]
pytestmark = pytest.mark.usefixtures("runtime_dir", "no_leaks")

MS = 1_000_000
TRACE = 'Traceback (most recent call last):\n  File "/srv/app/job.py", line 7, in run\n    step()\nValueError: {}\n'


def fail(message: str = "no", error: str = "ValueError", outcome: str = "error", **more: Any) -> None:
    metadata = {
        "pool": "p",
        "operation": "work",
        "worker": "p-0",
        "outcome": outcome,
        "error": error,
        "message": message,
    }
    OPERATION_EXCEPTION.event.emit({"duration": MS, "queue_duration": MS, "attempts": 1}, {**metadata, **more})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def collector(clock: ManualClock):
    made = Collector(["p"], clock, error_groups=16)
    made.attach()
    yield made
    made.detach()


def later(collector: Collector, clock: ManualClock, seconds: int) -> None:
    """Let time pass, with a tick in every second."""
    for _ in range(seconds):
        clock.advance(1)
        collector.tick()


def groups(collector: Collector, window: str = "5m") -> tuple[ErrorGroup, ...]:
    return collector.errors.of("p", WINDOWS[window])


# -- counting -----------------------------------------------------------------------------------------------------


def test_three_kinds_of_ten_thousand_failures_are_three_groups_with_exact_counts(collector, clock) -> None:
    draw = random.Random(13)
    kinds = {
        "ValueError": lambda: f"order {uuid.UUID(int=draw.getrandbits(128))} has {draw.randint(0, 10**9)} items",
        "KeyError": lambda: repr(f"user-{draw.getrandbits(40):x}"),
        "RuntimeError": lambda: f"request {draw.getrandbits(32):08x} took {draw.random() * 100:.3f} s",
    }
    expected: Counter[str] = Counter()
    for number in range(10_000):
        error = draw.choices([*kinds], [6, 3, 1])[0]
        message = kinds[error]()
        fail(message, error, traceback=TRACE.format(message))
        expected[error] += 1
        if number % 1000 == 0:
            clock.advance(1)
    found = groups(collector)
    assert [(group.type, group.count, group.total) for group in found] == [(e, n, n) for e, n in expected.most_common()]
    assert {group.message for group in found} == {"order <id> has <n> items", "<quoted>", "request <id> took <n>"}
    assert {group.frames for group in found} == {("job.py:run",)}


PAUSES = st.sampled_from([0, 0, 0, 1, 7, 61, 400])
STEPS = st.tuples(
    PAUSES, st.integers(0, 5), st.sampled_from(["error", "timeout", "cancelled", "worker_lost", "rejected"])
)


@settings(max_examples=20)
@given(st.lists(STEPS, max_size=40))
def test_the_counts_of_all_groups_add_up_to_the_failed_calls_in_every_window(steps: list[tuple[int, int, str]]) -> None:
    clock = ManualClock()
    collector = Collector(["p"], clock, series_limit=30, error_groups=3)
    collector.attach()
    try:
        for pause, kind, outcome in steps:
            clock.advance(pause)
            fail("x", f"E{kind}", outcome)
            for window in WINDOWS:
                counted = sum(group.count for group in groups(collector, window))
                assert counted == collector.pool_stats("p", WINDOWS[window]).total.errors
        everything = collector.errors.of("p", WINDOWS["1h"])
        failed = sum(outcome not in ("cancelled", "rejected") for _, _, outcome in steps)
        assert sum(group.total for group in everything) <= failed
        if failed and all(pause < 60 for pause, _, _ in steps):
            assert sum(group.total for group in everything) == failed
    finally:
        collector.detach()


def test_sampled_events_count_with_their_weight(collector) -> None:
    telemetry.configure(sample={"pool.operation.exception": 4})
    try:
        for _ in range(400):
            fail()
        [group] = groups(collector)
        assert group.count == collector.pool_stats("p", WINDOWS["5m"]).total.errors
        assert group.count % 4 == 0
    finally:
        telemetry.configure()


def test_after_a_time_without_collecting_the_windows_of_groups_are_empty_too(collector, clock) -> None:
    fail("before")
    later(collector, clock, 2)
    collector.memory._change(Mode.OFF, "no memory")
    later(collector, clock, 2)
    fail("meanwhile")
    collector.memory._change(Mode.COUNTERS, "memory")
    fail("after")
    for window in WINDOWS:
        assert [group.message for group in groups(collector, window)] == ["after"]
        assert collector.pool_stats("p", WINDOWS[window]).total.errors == 1


@pytest.mark.parametrize("mode", [Mode.SAMPLED, Mode.COUNTERS])
def test_counts_of_groups_stay_exact_when_less_is_kept_of_each_call(collector, mode: Mode) -> None:
    collector.memory._change(mode, "no memory")
    for number in range(100):
        fail(f"case {number}")
    [group] = groups(collector)
    assert group.count == collector.pool_stats("p", WINDOWS["5m"]).total.errors == 100


def test_an_event_with_impossible_durations_counts_neither_as_a_call_nor_in_a_group(collector) -> None:
    for duration in (-1, "x", 1.5, None, 2**70):
        metadata = {"pool": "p", "operation": "work", "outcome": "error", "error": "E", "message": "m"}
        telemetry.execute(OPERATION_EXCEPTION.name, {"duration": duration, "queue_duration": 0}, metadata)
    assert groups(collector) == ()
    assert collector.pool_stats("p", WINDOWS["5m"]).total.errors == 0


def test_a_group_leaves_a_window_and_keeps_its_total(collector, clock) -> None:
    fail("first")
    later(collector, clock, 30)
    fail("first")
    fail("second")
    assert [(group.message, group.count) for group in groups(collector, "1m")] == [("first", 2), ("second", 1)]
    later(collector, clock, 45)
    assert [(group.message, group.count) for group in groups(collector, "1m")] == [("first", 1), ("second", 1)]
    later(collector, clock, 45)
    assert groups(collector, "1m") == ()
    assert [(group.count, group.total) for group in groups(collector, "5m")] == [(2, 2), (1, 1)]
    first = groups(collector, "5m")[0]
    assert (first.first_seen, first.last_seen) == (1_700_000_000.0, 1_700_000_030.0)
    assert first.rate == pytest.approx(2 / 120, rel=0.01)


def test_times_follow_the_wall_clock_when_it_is_set(collector, clock) -> None:
    fail()
    clock.step_wall(3600)
    clock.advance(2)
    assert groups(collector)[0].first_seen == pytest.approx(1_700_003_600, abs=1)


def test_beyond_the_limit_failures_count_in_other_and_old_groups_make_room(collector, clock) -> None:
    for number in range(20):
        fail("x", f"Error{number:c<3}")
    found = groups(collector)
    assert len(found) == 17
    assert (found[0].fingerprint, found[0].type, found[0].count) == (OTHER, OTHER, 4)
    clock.advance(3700)
    for number in range(5):
        fail("x", f"New{number}")
    found = groups(collector, "1h")
    assert sorted(group.type for group in found) == [f"New{number}" for number in range(5)]
    fail("x", "New5")
    for number in range(20):
        fail("x", f"Later{number}")
    other = next(group for group in groups(collector, "1h") if group.type == OTHER)
    assert other.count == 10  # six new ones and ten later ones are in groups
    assert sum(group.total for group in groups(collector, "1h")) == 20 + 6 + 20


def test_the_pools_own_errors_are_groups_by_their_reason_without_names(collector) -> None:
    for worker, seconds in (("p-0", 1), ("p-1", 2.5)):
        reason = f"work was not done within its timeout of {seconds} s, on {worker}"
        fail(None, "OperationTimeout", "timeout", worker=worker, reason=reason, stack=f"File in {worker}")
    for code in (9, 9, 11):
        reason = f"work: worker p-0 ended during the call: signal {code}\nits last lines on stderr:\n{uuid.uuid4()}"
        fail(None, "WorkerDied", "worker_lost", reason=reason)
    found = {(group.type, group.message): group for group in groups(collector)}
    timeout = found["OperationTimeout", "<operation> was not done within its timeout of <n>, on <worker>"]
    assert (timeout.count, timeout.workers, timeout.frames) == (2, ("p-0", "p-1"), ())
    assert timeout.sample.stack == "File in p-0"
    died = {message: group.count for (error, message), group in found.items() if error == "WorkerDied"}
    assert died == {f"worker <worker> ended during the call: signal {code}": n for code, n in ((9, 2), (11, 1))}


# -- names and samples --------------------------------------------------------------------------------------------


def test_the_most_frequent_operations_and_workers_are_named(collector) -> None:
    for number in range(30):
        fail(operation=f"op{number % 12}", worker=f"p-{number % 3}")
        fail(operation="often", worker="p-2")
    [group] = groups(collector)
    assert group.operations[0] == "often"
    assert len(group.operations) == NAMES_SHOWN
    assert group.workers == ("p-2", "p-0", "p-1")


def test_a_sample_has_no_secrets_and_is_the_first_failure_until_a_minute_has_passed(collector, clock) -> None:
    secret = "password=hunter2 of bob@example.org"
    trace = TRACE.format(secret)
    fail(f"1 {secret}", traceback=trace)
    clock.advance(30)
    fail(f"2 {secret}", traceback=trace)
    [group] = groups(collector)
    assert group.message == "<n> password=<secret> of <email>"
    assert group.sample.message == "1 password=<secret> of <email>"
    assert group.sample.at == 1_700_000_000.0
    assert "hunter2" not in repr(group)
    assert "bob" not in repr(group)
    clock.advance(31)
    fail(f"3 {secret}", traceback=trace)
    assert groups(collector)[0].sample.message == "3 password=<secret> of <email>"
    fail(f"4 {secret}", traceback=trace, stack=f"in f({secret})")
    assert groups(collector)[0].sample.stack == "in f(password=<secret> of <email>)"


@given(st.text(), st.text(), st.text(), st.integers(1, 4000))
@settings(max_examples=50)
def test_a_sample_is_never_larger_than_its_bound(message: str, trace: str, stack: str, times: int) -> None:
    sample = sample_of(FailedCall("E", message * times, "o" * 999, "w" * 999, trace * times, stack * times))
    assert len(msgspec.msgpack.encode(sample)) <= SAMPLE_BYTES


def test_a_long_traceback_keeps_its_end_in_whole_lines() -> None:
    trace = "".join(f'  File "/a/b.py", line {at}, in f{at}\n' for at in range(5000)) + "ValueError: x\n"
    kept = sample_of(FailedCall("E", "m", "o", "w", trace)).traceback
    first, second, *_, last = kept.splitlines()
    assert first == "[the beginning is left out]"
    assert second.startswith("  File ")
    assert last == "ValueError: x"


def test_no_line_of_a_private_key_is_left_where_a_traceback_is_cut() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "secret words\n" * 2000 + "-----END RSA PRIVATE KEY-----\n"
    kept = sample_of(FailedCall("E", "m", "o", "w", f"{TRACE}{key}the end")).traceback
    assert kept is not None
    assert kept.endswith("<private-key>\nthe end")
    assert "words" not in kept
    lines = "-----BEGIN CERTIFICATE-----\n" + "plain words\n" * 2000
    assert "words" in (sample_of(FailedCall("E", "m", "o", "w", lines)).traceback or "")


@pytest.mark.parametrize("text", ["mail to {}@example.org failed", "login with password={} failed"])
def test_the_same_error_of_two_users_is_one_group(collector, text: str) -> None:
    for user in ("ann", "bob", "carol.k"):
        fail(text.format(user))
    assert [(group.count, group.message) for group in groups(collector)] == [
        (3, text.format("{}").replace("{}@example.org", "<email>").replace("{}", "<secret>"))
    ]


def test_a_snapshot_has_samples_of_the_most_frequent_groups_only(clock) -> None:
    collector = Collector(["p"], clock)
    collector.attach()
    for number in range(50):
        for _ in range(50 - number):
            fail("m", f"E{number:c>3}")
    found = groups(collector)
    assert [group.sample is not None for group in found] == [True] * SAMPLES_SHOWN + [False] * 18
    assert all(group.sample for group in collector.errors.of("p", WINDOWS["5m"], samples=100))
    collector.detach()


@pytest.mark.parametrize("value", [7, b"x", ["x"], "\ud800", "\0\x1b[2J", object()])
def test_metadata_of_any_type_does_no_harm(collector, value: object) -> None:
    fail("m", traceback=value, stack=value, reason=value)
    fail(value, error=value)
    assert sum(group.count for group in groups(collector)) == 2
    assert msgspec.json.encode(groups(collector))
    assert collector.collecting


# -- bounds -------------------------------------------------------------------------------------------------------


def flooded(store: ErrorGroups, failures: int) -> None:
    """Note failures that all differ in the words of their messages."""
    words = [f"{chr(97 + first)}{chr(97 + second)}g" for first in range(26) for second in range(26)]
    for number in range(failures):
        message = f"{words[number % 676]} {words[number // 676]} " + "z" * 150
        failure = FailedCall("E", message, f"op {number % 1000}", f"p-{number % 64}", TRACE.format(message))
        store.note("p", failure, number * MS, number * MS)


@pytest.mark.parametrize("failures", [5000, in_gates(100_000)])
def test_any_number_of_distinct_messages_stays_within_the_bound(failures: int) -> None:
    store = ErrorGroups(["p"], 256)
    flooded(store, failures)
    pool = store._pools["p"]
    assert store.nbytes <= ErrorGroups.bytes_for(1, 256)
    assert (len(pool._groups), len(store._names)) == (256, NAMES_LIMIT)
    assert sum(group.total for group in [*pool._groups.values(), pool._other]) == failures
    assert pool._other.total == failures - 256


def test_the_bound_is_more_than_what_the_interpreter_allocates() -> None:
    flooded(ErrorGroups(["p"], 256), 10)  # what is made once
    tracemalloc.start()
    try:
        store = ErrorGroups(["p"], 256)
        flooded(store, 1500)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / 2 < store.nbytes
    assert held < ErrorGroups.bytes_for(1, 256)


def test_groups_are_part_of_the_memory_of_the_collector(collector) -> None:
    before = collector.memory_bytes()
    fail("x" * 500)
    assert 3000 < collector.memory_bytes() - before < 300_000


# -- where failures come from -------------------------------------------------------------------------------------


class Shop:
    def order(self, number: int) -> None:
        self.check(number)

    def check(self, number: int) -> None:
        raise ValueError(f"order {uuid.uuid4()} has {number} items")

    def find(self, key: str) -> object:
        return {}[key]


@pytest.mark.parametrize("make", [Pool, InlinePool])
async def test_failures_of_a_pool_become_groups_in_a_snapshot(make: type[Pool]) -> None:
    async with make("tests.targets.shop:Shop", name="shop", size=2) as pool, Monitor(pool) as monitor:
        calls = [pool.run("order", number) for number in range(20)] + [pool.run("find", f"k{n}") for n in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, PoolError) for result in results)
        first, second = monitor.snapshot().pools["shop"].error_groups
    assert (first.type, first.count, first.message) == ("ValueError", 20, "order <id> has <n> items")
    assert first.frames == ("shop.py:check", "shop.py:order")
    assert set(first.workers) <= {"shop-0", "shop-1"}
    assert "in check" in first.sample.traceback
    assert (second.type, second.count, second.frames) == ("KeyError", 5, ("shop.py:find",))
    assert second.operations == ("find",)


@pytest.mark.processes
async def test_a_worker_that_dies_and_a_call_that_is_too_slow_are_groups_too() -> None:
    async with (
        Pool("tests.targets.shop:Shop", name="shop", size=2, cancel_grace=0.05) as pool,
        Monitor(pool) as monitor,
    ):
        with pytest.raises(PoolError):
            await pool.run("die")
        with pytest.raises(PoolError):
            await pool.options(timeout=0.05).run("sleep", 30)
        found = {group.type: group for group in monitor.snapshot().pools["shop"].error_groups}
    assert "signal 9" in found["WorkerDied"].message
    assert found["OperationTimeout"].message.startswith("<operation> was not done within its timeout")


async def test_failures_of_adapters_and_of_other_pools_have_message_and_traceback() -> None:
    def broken() -> None:
        raise ValueError("no page 7")

    from concurrent.futures import ThreadPoolExecutor

    with telemetry.capture(OPERATION_EXCEPTION.name) as seen:
        with MonitoredExecutor(ThreadPoolExecutor(1), name="threads") as executor:
            with pytest.raises(ValueError, match="no page"):
                await asyncio.wrap_future(executor.submit(broken))
            executor.status()
        with pytest.raises(ValueError, match="no page"), emit.operation(PoolIdentity.new("own"), "render"):
            broken()
    assert len(seen) == 2
    for event in seen:
        assert event.metadata["message"] == "no page 7"
        assert event.metadata["traceback"].endswith("in broken\nValueError: no page 7\n")


# -- the history --------------------------------------------------------------------------------------------------


def config(path: Path, **history: Any) -> MonitorConfig:
    return MonitorConfig(history=HistoryConfig(path=str(path), **history))


async def test_groups_survive_in_the_history_with_when_they_were_first_seen(tmp_path: Path) -> None:
    path, seen = tmp_path / "shop.db", []
    for _ in range(2):
        async with InlinePool(Shop, name="shop", size=1) as pool, Monitor(pool, config=config(path)) as monitor:
            await asyncio.gather(*(pool.run("order", number) for number in range(5)), return_exceptions=True)
            [group] = monitor.snapshot().pools["shop"].error_groups
            seen.append(group.first_seen)
    assert seen[0] == seen[1]
    with Reader(path) as reader:
        first, last, found = reader.error_groups(0, 2_000_000_000)
    [kept] = found["shop"]
    assert (kept.count, kept.total, kept.message) == (10, 10, "order <id> has <n> items")
    assert kept.first_seen == pytest.approx(seen[0], abs=1e-3)
    assert kept.sample.traceback.endswith("items\n")
    assert first == 0
    assert last >= kept.last_seen


def count_of(number: int, second: int, times: int = 1, error: str = "E") -> Any:
    from pool_monitor.metrics.error_groups import GroupCount

    at = float(stores.T0 + second)
    return GroupCount(
        "text",
        ErrorGroup(
            fingerprint=f"{number:016x}", type=error, message="m", count=times, total=times, first_seen=at, last_seen=at
        ),
    )


def written(path: Path, seconds: dict[int, list[Any]], settings: HistoryConfig = stores.SMALL) -> Path:
    with stores.writing(path, settings) as made:
        for second, counts in seconds.items():
            [pending] = stores.pending_blocks([second])
            made.write([pending._replace(errors=tuple(counts))], stores.T0 + second + 1)
            made.tidy(stores.T0 + second + 1)
    return path


def counts_in(path: Path, start: int = 0, end: int = 10**6) -> dict[str, int]:
    with Reader(path) as reader:
        _, _, found = reader.error_groups(stores.T0 + start, stores.T0 + end)
    return {group.fingerprint[-2:]: group.count for group in found.get("text", [])}


def test_counts_of_a_period_are_exact_in_whole_steps(tmp_path: Path) -> None:
    path = written(tmp_path / "h.db", {second: [count_of(second % 3, second)] for second in range(96)})
    assert counts_in(path) == {"00": 32, "01": 32, "02": 32}
    assert counts_in(path, 0, 48) == {"00": 16, "01": 16, "02": 16}
    assert counts_in(path, 16, 17) == {"00": 5, "01": 6, "02": 5}  # one step of 16 s


def test_the_file_keeps_a_bounded_number_of_groups_and_loses_no_count(tmp_path: Path) -> None:
    small = msgspec.structs.replace(stores.SMALL, size_limit=8 * 2**20)
    limit = groups_limit(small)
    path = written(tmp_path / "h.db", {second: [count_of(second, second, 2)] for second in range(3 * limit)}, small)
    found = counts_in(path)
    with closing(sqlite3.connect(path)) as connection:
        [(groups,)] = connection.execute("SELECT count(*) FROM error_groups").fetchall()
    assert groups <= limit + 1
    assert found["er"] == 2 * (3 * limit - (groups - 1))
    with Reader(path) as reader:
        _, _, everything = reader.error_groups(0, stores.T0 + 10**6)
    assert sum(group.count for group in everything["text"]) == 6 * limit


def test_the_groups_other_of_pools_that_are_gone_leave_the_file(tmp_path: Path) -> None:
    small = HistoryConfig(tiers=((10, 60),), size_limit=8 * 2**20)
    seconds = {10 * number: [count_of(1, 10 * number)._replace(pool=f"p{number}")] for number in range(150)}
    path = written(tmp_path / "h.db", seconds, small)
    with closing(sqlite3.connect(path)) as connection:
        [(groups,)] = connection.execute("SELECT count(*) FROM error_groups").fetchall()
        [(others,)] = connection.execute("SELECT count(*) FROM error_groups WHERE fingerprint = 'other'").fetchall()
    assert groups <= groups_limit(small) + others
    assert others <= 7  # those of the last minute
    with Reader(path) as reader:
        _, _, found = reader.error_groups(stores.T0 + 1440, stores.T0 + 1500)
    assert sum(group.count for groups_of in found.values() for group in groups_of) == 6


def test_old_counts_expire_with_their_tier_and_never_exceed_the_bound(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pool_monitor.storage.error_groups.counts_limit", lambda _config: 40)
    tiers = HistoryConfig(tiers=((10, 60), (60, 10**8)))
    path = written(tmp_path / "h.db", {second: [count_of(1, second)] for second in range(0, 1200, 10)}, tiers)
    with closing(sqlite3.connect(path)) as connection:
        rows = dict(connection.execute("SELECT step, count(*) FROM error_counts GROUP BY step").fetchall())
        gone = dict(connection.execute("SELECT step, gone FROM error_tiers").fetchall())
    assert sum(rows.values()) <= 40 + 7
    assert set(gone) <= {10, 60}
    assert counts_limit(HistoryConfig()) == 200_000
    assert counts_in(path, 1140, 1200) == {"01": 6}


DAMAGE = [
    "message = x'ff'", "frames = '['", "sample = x'00ff'", "first_seen = 1e300", "last_seen = -1e300", "total = -1",
    "type = x'07'", "operations = '[7]'",
]  # fmt: skip


def test_damaged_groups_are_left_out_and_the_others_are_shown(tmp_path: Path) -> None:
    numbers = range(len(DAMAGE) + 1)
    path = written(tmp_path / "h.db", {0: [count_of(number, 0) for number in numbers]})
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, column in enumerate(DAMAGE):
            connection.execute(f"UPDATE error_groups SET {column} WHERE fingerprint = ?", (f"{number:016x}",))
        connection.execute(
            "UPDATE error_groups SET sample = ? WHERE sample IS NULL",
            (b'{"at":1.7e9,"message":"\\u001b[31mm","operation":"o","worker":"w"}',),
        )
    told = CliRunner().invoke(command, [str(path), "--full"], catch_exceptions=False)
    assert told.exit_code == 0
    assert "1 failure in 1 group" in told.output
    assert ": o on w" in told.output
    assert "\x1b" not in told.output


@pytest.mark.parametrize("period", [("--start", "2099-01-01T00:00Z"), ("--end", "1999-01-01T00:00Z")])
def test_a_period_of_which_the_file_has_nothing_is_told_apart_from_one_without_errors(tmp_path: Path, period) -> None:
    path = written(tmp_path / "h.db", {0: [count_of(1, 0)]})
    told = CliRunner().invoke(command, [str(path), *period])
    assert isinstance(told.exception, ConfigError)
    assert "the recorded period is from" in str(told.exception)


def test_a_file_of_the_first_version_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    path = written(tmp_path / "h.db", {second: [] for second in range(5)})
    with closing(sqlite3.connect(path)) as connection:
        for table in (
            "error_groups",
            "error_counts",
            "error_tiers",
            "gauges",
            "gauge_marks",
            "evaluations",
            "transitions",
        ):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    assert counts_in(path) == {}
    written(path, {9: [count_of(1, 9)]})
    assert counts_in(path) == {"01": 1}


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE error_groups SET frames = '{'",
        "UPDATE error_groups SET message = zeroblob(100000)",
        "UPDATE error_groups SET total = 'x'",
        "UPDATE error_groups SET sample = zeroblob(100)",
        "UPDATE error_groups SET sample = zeroblob(10000000)",
        "UPDATE error_groups SET first_seen = 'inf'",
        "UPDATE error_groups SET first_seen = 9e999",
        """UPDATE error_groups SET sample = CAST('{"at": 1e300, "message": ""}' AS BLOB)""",
        "UPDATE error_groups SET workers = '[1, 2]'",
        "UPDATE error_counts SET count = 9223372036854775807",
        "UPDATE error_counts SET count = -5",
        "UPDATE error_counts SET count = 'x'",
        "INSERT OR REPLACE INTO error_tiers VALUES (4, 'x')",
        "UPDATE error_groups SET pool = x'ff'",
    ],
)
def test_a_crafted_file_costs_the_group_and_nothing_else(tmp_path: Path, harm: str) -> None:
    path = written(tmp_path / "h.db", {1: [count_of(1, 1)]})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(harm)
        connection.commit()
    assert counts_in(path) in ({}, {"01": 1})
    written(path, {2: [count_of(2, 2)]})
    assert counts_in(path)["02"] == 1


# -- readers ------------------------------------------------------------------------------------------------------


async def test_errors_are_answered_over_http_by_window_and_pool() -> None:
    async with InlinePool(Shop, name="shop", size=1) as pool, Monitor(pool) as monitor:
        await asyncio.gather(*(pool.run("find", f"k{n}") for n in range(4)), return_exceptions=True)
        async with open_client(Address("it", monitor.address, "http://localhost")) as service:
            report = await service.errors("1m", "shop")
            [group] = report.pools["shop"]
            assert (group.count, group.sample.operation) == (4, "find")
            assert report.start == report.end - report.covered_seconds
            with pytest.raises(PoolError, match="pool 'no' was not measured"):
                await service.errors("1m", "no")
            with pytest.raises(PoolError, match="there is no window '2m'"):
                await service.errors("2m")


async def test_the_number_of_groups_is_a_setting() -> None:
    limited = MonitorConfig(metrics=MetricsConfig(error_groups=1))
    async with InlinePool(Shop, name="shop", size=1) as pool, Monitor(pool, config=limited) as monitor:
        await asyncio.gather(pool.run("find", "k"), return_exceptions=True)
        await asyncio.gather(pool.run("order", 1), return_exceptions=True)
        assert [group.type for group in monitor.snapshot().pools["shop"].error_groups] == [OTHER, "KeyError"]
