"""The catalogue is true: every event matches its entry, and every entry is emitted."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import CircuitOpen, Pool, PoolClosed, PoolError, telemetry
from pool_monitor.config import PoolConfig
from pool_monitor.emit import PoolIdentity
from pool_monitor.events import (
    ABSENT,
    CATALOGUE,
    OPERATION_EXCEPTION,
    OPERATION_STOP,
    WORKER_CRASH,
    WORKER_TRANSITION,
)
from pool_monitor.pool import call_events
from pool_monitor.pool.call import Call, Options
from pool_monitor.pool.worker import Worker
from pool_monitor.telemetry import CapturedEvent
from tests.helpers.support import eventually, ops_pool, running, words

OURS = {name for name in CATALOGUE if name[0] in {"pool", "telemetry"}}
TARGETS_OWN = ("ops", "told")


async def troubled_life() -> None:
    """Make workers of a pool die, hang and be recycled, once each."""
    impatient = {"health_interval": 0.05, "health_timeout": 0.05, "health_misses": 2}
    pool = ops_pool(
        name="trouble", restart_limit=0, restart_period=0.3, backoff_min=0.01, backoff_max=0.01, recycle_calls=20,
        recycle_jitter=0, breaker_failures=2, breaker_open=0.5, breaker_trials=1, breaker_successes=1, **impatient,
    )  # fmt: skip
    async with pool:
        await pool.run("tell", 1)
        await pool.run("tell_much", 3000)
        await pool.pause()
        await pool.resume()
        await pool.restart()
        for _ in range(20):
            await pool.run("echo")
        slot = pool._calls().workers["trouble-0"]
        await eventually(lambda: slot.processes == 3 and not slot.recycling)

        stuck = await running(pool, "stuck_in_c")
        await eventually(lambda: pool.workers()[0].health == "busy")
        os.kill(pool.workers()[0].pid or 0, signal.SIGSTOP)
        await eventually(lambda: pool.workers()[0].health == "stuck")
        stuck.cancel()
        await eventually(lambda: pool.status().idle == 1)
        os.kill(pool.workers()[0].pid or 0, signal.SIGSTOP)
        await eventually(lambda: pool.workers()[0].health == "unresponsive" or pool.status().starting)
        await eventually(lambda: pool.status().idle == 1)

        while pool.status().breaker != "open":
            await pool.try_run("kill_self")
        assert isinstance((await pool.try_run("echo")).error, CircuitOpen)
        await eventually(lambda: pool.status().idle == 1)
        while (await pool.try_run("echo")).error is not None:
            await asyncio.sleep(0.01)
        await eventually(lambda: not pool.workers()[0].crash_loop)


async def interrupted_life(folder: Path) -> None:
    """Run a pool whose workers cannot be started for a while."""
    away = folder / "away"
    target = folder / "depends.py"
    target.write_text(
        f"import pathlib\nassert not pathlib.Path({str(away)!r}).exists()\n\nclass Ops:\n    def echo(self): pass\n"
    )
    fields: dict[str, Any] = {"backoff_min": 0.01, "backoff_max": 0.01, "breaker_failures": 2}
    async with Pool(f"{target}:Ops", size=1, name="interrupted", **fields) as pool:
        away.touch()
        os.kill(pool.workers()[0].pid or 0, signal.SIGKILL)
        await eventually(lambda: pool.status().breaker == "open")
        away.unlink()
        await eventually(lambda: pool.status().breaker == "half_open")
        await pool.run("echo")


async def eventful_life(folder: Path) -> None:
    """Make everything happen to a pool that can, once."""
    gate = folder / "gate"
    pool = ops_pool(name="life", max_size=4, session_limit=2, queue_limit=2, cancel_grace=0.05, retries=1, shed=False)
    async with pool:
        await pool.run("echo", 1)
        async for _ in pool.stream("count", 3):
            pass
        await pool.run("noise")
        for operation, argument in [("fail", "as asked"), ("echo", object()), ("text", 100_000_000), ("die", 3)]:
            await pool.try_run(operation, argument)
        await pool.try_run("kill_self")
        await pool.try_run("send_garbage")
        await pool.options(idempotent=True, session="a").run("die_once", str(folder / "once"))
        await pool.options(timeout=0.05).try_run("sleep", 60)
        await pool.options(timeout=0.05).try_run("stuck_in_c")

        cancelled = await running(pool, "sleep", 60)
        cancelled.cancel()
        await eventually(lambda: pool.status().idle == 1)

        first = await running(pool, "until_exists", str(gate))
        late = asyncio.ensure_future(pool.options(timeout=0.05).try_run("echo"))
        queued = asyncio.ensure_future(pool.run("echo"))
        await eventually(lambda: pool.status().waiting == 2)
        await pool.session("a").try_run("echo")  # one too many
        await late
        queued.cancel()
        gate.touch()
        await first

        for session_id in ("a", "b", "c", "a", "a"):
            await pool.session(session_id).run("remember", "x")
        pool.session("c").end()

        await pool.resize(2)
        await eventually(lambda: pool.status().idle == 2)
        elsewhere = await running(pool, "sleep", 60, worker="life-0")
        await pool.session("a").run("remember", "y")
        elsewhere.cancel()
        await eventually(lambda: pool.status().idle == 2)
        await pool.resize(1)
        await eventually(lambda: len(pool.workers()) == 1)

        def broken(*_args: Any) -> None:
            raise ValueError("broken")

        telemetry.attach("broken", ("pool", "operation", "stop"), broken)
        await pool.run("echo")

        stuck = await running(pool, "stuck_in_c")
        assert (await pool.drain(0.05)).abandoned == 1
        with pytest.raises(PoolError):
            await stuck
        with pytest.raises(PoolClosed):
            await pool.run("echo")


@pytest.fixture(scope="module")
async def lived(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> list[CapturedEvent]:
    with telemetry.capture() as events:
        await eventful_life(tmp_path_factory.mktemp("life"))
        await troubled_life()
        telemetry.configure()
        await interrupted_life(tmp_path_factory.mktemp("interrupted"))
    return events


async def test_every_event_is_as_the_catalogue_says(lived: list[CapturedEvent]) -> None:
    problems = {
        f"{'.'.join(event.name)}: {problem}"
        for event in lived
        if event.name != TARGETS_OWN
        for problem in (CATALOGUE[event.name].problems(*event[1:]) if event.name in CATALOGUE else ["not catalogued"])
    }
    assert problems == set()


async def test_every_event_of_the_catalogue_is_emitted(lived: list[CapturedEvent]) -> None:
    assert OURS - {event.name for event in lived} == set()


async def test_every_optional_key_is_sometimes_present(lived: list[CapturedEvent]) -> None:
    for name in OURS:
        spec, happened = CATALOGUE[name], [event for event in lived if event.name == name]
        for side, declared in ((1, spec.measurements), (2, spec.metadata)):
            for key, text in declared.items():
                if text.partition(":")[0].endswith("?"):
                    assert any(key in event[side] for event in happened), f"{spec.dotted} never has {key}"


async def test_every_start_has_exactly_one_end(lived: list[CapturedEvent]) -> None:
    starts = Counter(event.metadata["call_id"] for event in lived if event.name == ("pool", "operation", "start"))
    ends = Counter(
        event.metadata["call_id"]
        for event in lived
        if event.name in {("pool", "operation", "stop"), ("pool", "operation", "exception")}
    )
    assert starts == ends
    assert set(starts.values()) == {1}


async def test_checkouts_and_checkins_and_processes_come_in_pairs(lived: list[CapturedEvent]) -> None:
    count = Counter(words(lived))
    ready = count["pool.worker.ready"]
    assert ready == count["pool.worker.crash"] + count["pool.worker.terminate"]
    errors = [event.metadata for event in lived if event.name == ("pool", "error")]
    assert count["pool.worker.init"] == ready + sum(error["category"] == "initialization" for error in errors)
    held_up_to_the_end = count["pool.worker.checkout"] - count["pool.worker.checkin"]
    assert 0 < held_up_to_the_end <= ready


async def test_words_with_a_closed_meaning_take_every_value_the_catalogue_lists(lived: list[CapturedEvent]) -> None:
    def seen(dotted: str, key: str) -> set[Any]:
        return {event.metadata[key] for event in lived if ".".join(event.name) == dotted}

    assert seen("pool.operation.exception", "outcome") == {"error", "timeout", "cancelled", "worker_lost", "rejected"}
    assert seen("pool.operation.exception", "kind") == {"error", "cancelled"}
    assert seen("pool.queue.reject", "reason") == {
        "saturated",
        "timeout",
        "closed",
        "circuit_open",  # "deadline": see test_supervision.py
    }
    assert seen("pool.worker.terminate", "reason") == {
        "close", "resize", "recycle", "timeout", "cancel", "health", "protocol"
    }  # fmt: skip
    assert seen("pool.worker.health_check", "verdict") == {"responsive", "late", "busy", "stuck", "unresponsive"}
    assert seen("pool.worker.recycle", "reason") == {"restart", "calls"}  # "age", "rss": see test_supervision.py
    assert seen("pool.worker.crash_loop", "state") == {"entered", "left"}
    assert seen("pool.session.affinity", "result") == {"new", "hit", "miss", "broken"}
    assert seen("pool.session.expire", "reason") == {"limit"}  # "ttl": see test_pool.py
    assert seen("pool.worker.output", "stream") == {"stdout", "stderr"}
    assert seen("pool.operation.start", "session_kind") == {"none", "hint"}  # "strict": see the lane of a call


async def test_two_clocks_are_never_mixed(lived: list[CapturedEvent]) -> None:
    hour_ns = 3_600 * 10**9
    for event in lived:
        for key, value in event.measurements.items():
            assert value >= 0 or key == "relative_duration", (event.name, key)
            if key == "system_time":
                assert abs(value - time.time_ns()) < hour_ns
            elif key == "monotonic_time":
                assert abs(value - time.monotonic_ns()) < hour_ns
            elif key.endswith(("duration", "uptime")):
                assert value < hour_ns


async def test_a_calls_times_fit_into_each_other(lived: list[CapturedEvent]) -> None:
    for event in lived:
        if event.name[:2] == ("pool", "operation") and event.name[2] != "start":
            times = event.measurements
            assert times["queue_duration"] + times.get("execution_duration", 0) <= times["duration"]


async def test_a_pools_life_begins_with_init_and_ends_with_terminate(lived: list[CapturedEvent]) -> None:
    names = words(lived, of="pool.")
    assert (names[0], names[-1]) == ("pool.init", "pool.terminate")
    pool_events = [name for name in names if name.count(".") == 1]
    assert pool_events.index("pool.init") < pool_events.index("pool.ready") < pool_events.index("pool.drain")


# -- lanes --------------------------------------------------------------------------------------------------------


class Lane:
    """A handler of pool.operation.stop that takes only numbers: it must not be called with mappings."""

    def __init__(self) -> None:
        self.received: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def __enter__(self) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
        telemetry.attach("lane", OPERATION_STOP.name, self.mapped, bind=self.bind)
        return self.received

    def __exit__(self, *_error: object) -> None:
        assert telemetry.detach("lane")  # it had not failed

    def bind(self, *labels: str) -> Any:
        return lambda *numbers: self.received.append((labels, numbers))

    def mapped(self, *_args: Any) -> None:
        raise AssertionError("called with mappings")


@pytest.mark.parametrize("default", ["hint", "strict"])
async def test_the_lane_of_a_call_has_the_same_values_as_its_mappings(default: str) -> None:
    with telemetry.capture(OPERATION_STOP.name) as events, Lane() as by_lane:
        async with ops_pool(affinity=default) as pool:
            await pool.run("echo", 1)
            await pool.session("a").run("remember", 1)
            for affinity in ("hint", "strict"):
                await pool.session("b", affinity=affinity).run("remember", 1)
                await pool.options(affinity=affinity).run("echo", 1)
    by_mappings = [
        (
            tuple(event.metadata[label] for label in OPERATION_STOP.labels),
            tuple(event.measurements.get(number, ABSENT) for number in OPERATION_STOP.numbers),
        )
        for event in events
    ]
    assert by_lane == by_mappings
    assert [labels for labels, _ in by_lane] == [
        ("ops", operation, "ops-0", kind, pool.instance)
        for operation, kind in [
            ("echo", "none"),
            ("remember", default),
            ("remember", "hint"),
            ("echo", "none"),
            ("remember", "strict"),
            ("echo", "none"),
        ]
    ]


async def test_a_lane_that_fails_does_not_reach_the_pool() -> None:
    def bind(*_labels: str) -> Any:
        return lambda: "takes no numbers"

    telemetry.attach("bad", OPERATION_STOP.name, lambda *_args: None, bind=bind)
    with telemetry.capture() as events:
        async with ops_pool() as pool:
            assert await pool.run("echo", 1) == 1
    names = words(events)
    assert names.index("telemetry.handler.failure") < names.index("pool.operation.stop")
    assert "bad" not in {handler.id for handler in telemetry.list_handlers()}


async def test_unlimited_operation_names_do_not_fill_the_cache_of_a_worker() -> None:
    future = asyncio.get_running_loop().create_future()
    worker = Worker("p", 0, 100, PoolConfig())
    with Lane():
        for number in range(3000):
            call = Call(number, f"op{number}", (), {}, Options(), future, None, 0.0, 100)
            call.worker, call.queue_ns = worker, 20
            call_events.ended(PoolIdentity.new("p"), call, None, None, 150)
    assert 0 < sum(map(len, worker.records.values())) <= 1000


async def test_what_was_not_measured_is_absent_in_the_lane_too() -> None:
    future = asyncio.get_running_loop().create_future()
    call = Call(1, "echo", (), {}, Options(), future, None, 0.0, 100)
    call.worker, call.queue_ns = Worker("p", 0, 100, PoolConfig()), 20
    with Lane() as by_lane:
        call_events.ended(PoolIdentity("p", "1f"), call, None, None, 150)
    assert by_lane == [(("p", "echo", "p-0", "none", "1f"), (50, 20, ABSENT))]


def test_lanes_are_made_of_declared_keys_that_are_always_there_or_may_be_absent() -> None:
    for spec in CATALOGUE.values():
        assert spec.numbers or not spec.labels, spec.dotted
        assert all(spec.metadata[label].startswith("str: ") for label in spec.labels), spec.dotted
        assert all(number in spec.measurements for number in spec.numbers), spec.dotted
    assert OPERATION_STOP.labels


# -- the catalogue itself -----------------------------------------------------------------------------------------


def test_problems_of_an_event_are_put_in_words() -> None:
    good = {"duration": 1, "queue_duration": 1, "attempts": 1}
    about = {
        "pool": "p",
        "pool_instance": "1f",
        "operation": "o",
        "call_id": 1,
        "session_kind": "none",
        "kind": "error",
        "outcome": "error",
        "category": "c",
        "error": "E",
        "reason": "r",
    }
    assert OPERATION_EXCEPTION.problems(good, about) == []
    assert OPERATION_EXCEPTION.problems({**good, "execution_duration": 5}, {**about, "worker": "w"}) == []
    assert OPERATION_EXCEPTION.problems({**good, "rows": 1}, about) == ["undeclared key 'rows'"]
    assert OPERATION_EXCEPTION.problems(good, {**about, "tenant": "a"}) == ["undeclared key 'tenant'"]
    assert OPERATION_EXCEPTION.problems({"duration": 1, "attempts": 1}, about) == ["missing key 'queue_duration'"]
    assert OPERATION_EXCEPTION.problems({**good, "duration": 0.5}, about) == ["'duration' is 0.5, not ns"]
    assert OPERATION_EXCEPTION.problems({**good, "attempts": True}, about) == ["'attempts' is True, not count"]
    assert OPERATION_EXCEPTION.problems(good, {**about, "call_id": "1"}) == ["'call_id' is '1', not int"]
    assert "missing key 'pid'" in WORKER_CRASH.problems({"uptime": 1}, {})


def test_every_entry_says_what_it_means_and_in_which_unit() -> None:
    for name, spec in CATALOGUE.items():
        assert spec.name == name
        assert spec.meaning.endswith("."), spec.dotted
        for text in [*spec.measurements.values(), *spec.metadata.values()]:
            kind, _, meaning = text.partition(": ")
            assert kind.rstrip("?") in {
                "ns",
                "count",
                "bytes",
                "str",
                "int",
                "float",
                "bool",
                "ratio",
                "dict",
                "tuple",
                "any",
            }, text
            assert meaning, text
    assert WORKER_TRANSITION.dotted == "pool.worker.transition"
