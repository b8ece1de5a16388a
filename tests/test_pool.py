"""The pool as its callers see it: the contracts of its docstrings, and the behaviour in case of failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool_monitor import (
    ConfigError,
    Monitor,
    OperationCancelled,
    OperationError,
    OperationTimeout,
    PayloadError,
    Pool,
    PoolClosed,
    PoolError,
    PoolSaturated,
    ProtocolError,
    QueueTimeout,
    Rejected,
    StartError,
    UnknownOperation,
    WorkerDied,
    telemetry,
)
from pool_monitor.pool.stream_buffer import STREAM_HIGH
from tests.helpers.support import (
    OPS,
    TARGETS,
    Leftovers,
    alive,
    eventually,
    metadata,
    ops_pool,
    pid_of,
    read,
    running,
    words,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "both_pools")


@pytest.fixture
async def pool(no_leaks: None, both_pools: str) -> AsyncIterator[Pool]:
    """A pool of one worker, entered and left in different tasks, as test fixtures do."""
    made = ops_pool(max_size=8)
    await asyncio.ensure_future(made.__aenter__())
    yield made
    await asyncio.ensure_future(made.__aexit__(None, None, None))


# -- run, stream, map ---------------------------------------------------------------------------------------------


async def test_run_passes_arguments_and_gives_the_result(pool: Pool) -> None:
    assert await pool.run("add", 2) == 3
    assert await pool.run("add", 2, right=5) == 7
    assert await pool.options(timeout=5, idempotent=True).run("echo", {"deep": [1, {"er": None}]}) == {
        "deep": [1, {"er": None}]
    }


async def test_a_thousand_calls_at_once_just_work(pool: Pool) -> None:
    assert await asyncio.gather(*(pool.run("echo", number) for number in range(1000))) == list(range(1000))


async def test_workers_share_the_work_and_each_has_one_call_at_a_time() -> None:
    async with ops_pool(size=2) as pool:
        tasks = [await running(pool, "sleep", 0.2) for _ in range(2)]
        assert [worker.operation for worker in pool.workers()] == ["sleep", "sleep"]
        late = asyncio.ensure_future(pool.run("pid"))
        await eventually(lambda: pool.status().waiting == 1)
        await asyncio.gather(*tasks, late)


async def test_stream_gives_items_while_the_operation_runs(pool: Pool) -> None:
    async with aclosing(pool.stream("count_forever", None, 0.01)) as items:
        assert await anext(items) == 0
        assert pool.status().busy == 1
        assert [await anext(items) for _ in range(2)] == [1, 2]
    assert await read(pool.stream("count", 1000)) == list(range(1000))
    assert await read(pool.stream("count", 0)) == []


async def test_items_before_an_error_are_delivered_first(pool: Pool) -> None:
    got: list[int] = []
    with pytest.raises(OperationError, match="no more"):
        await read(pool.stream("count_then_fail", 5), into=got)
    assert got == [0, 1, 2, 3, 4]


@pytest.mark.processes("breaks into the worker of a process")
async def test_a_stream_whose_end_comes_with_its_last_items_leaves_the_worker_usable(pool: Pool) -> None:
    for _ in range(3):
        async with aclosing(pool.stream("burst", 200)) as items:
            assert await anext(items) == 0
            await eventually(lambda: pool.status().idle == 1)
            assert await pool.options(timeout=5).run("echo", "next") == "next"
            assert [item async for item in items] == list(range(1, 200))


async def test_a_slow_reader_makes_the_worker_wait_and_little_is_held_here(pool: Pool) -> None:
    async with aclosing(pool.stream("count_forever", None, 0.0, 64 * 1024)) as items:
        await anext(items)
        [call] = pool._calls()._open.values()
        assert call.items is not None
        buffer = call.items.buffer
        await eventually(lambda: len(buffer) >= STREAM_HIGH)
        before = len(buffer)
        await asyncio.sleep(0.2)  # there is no event to wait for: nothing must happen
        assert len(buffer) == before <= STREAM_HIGH + 2
        for _ in range(500):  # the stream goes on when it is read again
            await anext(items)


async def test_small_items_are_held_up_to_one_read(pool: Pool) -> None:
    async with aclosing(pool.stream("count_forever")) as items:
        await anext(items)
        [call] = pool._calls()._open.values()
        assert call.items is not None
        buffer = call.items.buffer
        await eventually(lambda: len(buffer) >= STREAM_HIGH)
        await asyncio.sleep(0.2)
        assert len(buffer) <= STREAM_HIGH + 64 * 1024 // 8


async def test_leaving_a_stream_early_closes_the_generator_and_frees_the_worker(pool: Pool, tmp_path: Path) -> None:
    pid = await pool.run("pid")
    async with aclosing(pool.stream("count_forever", str(tmp_path / "closed"))) as items:
        async for item in items:
            if item == 100:
                break
    await eventually((tmp_path / "closed").exists)
    assert await pool.run("pid") == pid
    assert pool.status().waiting == 0


async def test_a_stream_nobody_ever_reads_never_begins(pool: Pool) -> None:
    with telemetry.capture(("pool", "operation")) as events:
        await pool.stream("count", 3).aclose()
    assert events == []


async def test_map_gives_results_in_order_or_as_they_come() -> None:
    async with ops_pool(size=2) as pool:
        assert await read(pool.map("add", range(50), right=1)) == list(range(1, 51))
        pauses = [0.3, 0.0, 0.0]
        assert await read(pool.map("sleep", pauses)) == pauses
        assert (await read(pool.map("sleep", pauses, ordered=False)))[-1] == 0.3

        async def endless() -> AsyncIterator[int]:
            number = 0
            while True:
                yield number
                number += 1

        got = []
        async with aclosing(pool.map("echo", endless())) as results:
            async for result in results:
                got.append(result)
                if len(got) == 20:
                    break
        assert got == list(range(20))
        assert await read(pool.map("echo", [])) == []


async def test_map_reads_its_input_only_as_far_as_calls_may_be_in_flight(pool: Pool) -> None:
    read = []

    def items() -> Any:
        for number in range(100):
            read.append(number)
            yield number

    async with aclosing(pool.map("echo", items(), in_flight=3)) as results:
        assert await anext(results) == 0
        assert len(read) <= 3
    with pytest.raises(ConfigError, match="in_flight=0"):
        await anext(pool.map("echo", [1], in_flight=0))


async def test_a_map_makes_no_more_calls_than_the_queue_takes() -> None:
    async def numbers() -> AsyncIterator[int]:  # never waits
        for number in range(500):
            yield number

    async with ops_pool(size=1, queue_limit=20) as pool:
        for items in (range(500), numbers()):
            assert await read(pool.map("echo", items, in_flight=100_000)) == list(range(500))


async def test_map_gives_results_while_a_slow_source_has_no_more_to_give(pool: Pool) -> None:
    feed: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while (number := await feed.get()) < 3:
            yield number

    feed.put_nowait(0)
    async with asyncio.timeout(10):
        got = []
        async for result in pool.map("add", source()):  # each result makes the source yield the next item
            got.append(result)
            feed.put_nowait(result)
    assert got == [1, 2, 3]


async def test_what_the_input_of_a_map_raises_comes_after_the_results_before_it(pool: Pool) -> None:
    def items() -> Any:
        yield from (1, 2)
        raise ZeroDivisionError

    got: list[int] = []
    with pytest.raises(ZeroDivisionError):
        await read(pool.map("echo", items()), into=got)
    assert got == [1, 2]


async def test_map_raises_the_first_error_in_its_place_or_gives_it(pool: Pool) -> None:
    got: list[int] = []
    with pytest.raises(OperationError, match="TypeError"):
        await read(pool.map("add", [1, 2, "x", 3]), into=got)
    assert got == [2, 3]
    await eventually(lambda: pool.status().waiting == pool.status().busy == 0)
    results = await read(pool.map("add", [1, "x", 3], return_exceptions=True))
    assert results[::2] == [2, 4]
    assert isinstance(results[1], OperationError)


async def test_try_run_returns_what_went_wrong(pool: Pool) -> None:
    good = await pool.try_run("echo", 5)
    assert (good.result, good.error, good.worker) == (5, None, "ops-0")
    assert (await pool.try_run("count", 3)).result == [0, 1, 2]
    bad = await pool.try_run("fail")
    assert isinstance(bad.error, OperationError)
    assert (bad.result, bad.worker) == (None, "ops-0")
    late = await pool.options(timeout=0.05).try_run("sleep", 60)
    assert isinstance(late.error, OperationTimeout)
    assert late.seconds >= 0.05


async def test_try_run_on_a_pool_that_is_not_entered_returns_the_error() -> None:
    result = await ops_pool().try_run("echo")
    assert isinstance(result.error, PoolClosed)
    assert (result.result, result.worker) == (None, None)


# -- operations and options ---------------------------------------------------------------------------------------


async def test_an_unknown_operation_is_named_with_those_there_are(pool: Pool) -> None:
    with pytest.raises(UnknownOperation, match=r"pool 'ops': no operation 'ech'; its target has add, .*echo"):
        await pool.run("ech")
    with pytest.raises(UnknownOperation, match="no operation '_channel'"):
        await pool.run("_channel")
    with pytest.raises(UnknownOperation, match=r"'count' is a generator; iterate over stream\('count'"):
        await pool.run("count", 3)
    with pytest.raises(UnknownOperation, match="no worker 'ops-9'; there are ops-0"):
        await pool.options(worker="ops-9").run("echo")
    assert pool.status().waiting == 0


@pytest.mark.processes("compares process ids")
async def test_a_call_can_insist_on_a_worker() -> None:
    async with ops_pool(size=3) as pool:
        pids = {worker.id: worker.pid for worker in pool.workers()}
        for name, pid in pids.items():
            assert [await pool.options(worker=name).run("pid") for _ in range(3)] == [pid] * 3
        busy = await running(pool, "sleep", 0.2, worker="ops-1")
        assert (
            await pool.options(worker="ops-1").run("pid") == pids["ops-1"]
        )  # waits for this worker, although others are free
        await busy


async def test_a_higher_priority_and_another_key_go_before_a_burst(pool: Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = await running(pool, "until_exists", str(gate))
    order: list[str] = []

    async def call(name: str, **options: Any) -> None:
        await pool.options(**options).run("echo")
        order.append(name)

    calls = [call("a1", key="a"), call("a2", key="a"), call("b1", key="b"), call("urgent", priority=1)]
    tasks = [asyncio.ensure_future(each) for each in calls]
    await eventually(lambda: pool.status().waiting == 4)
    gate.touch()
    await asyncio.gather(first, *tasks)
    assert order == ["urgent", "a1", "b1", "a2"]


# -- the queue and its bounds -------------------------------------------------------------------------------------


async def test_one_call_more_than_may_wait_is_refused_at_once(tmp_path: Path) -> None:
    async with ops_pool(queue_limit=2) as pool:
        gate = tmp_path / "gate"
        first = await running(pool, "until_exists", str(gate))
        waiting = [asyncio.ensure_future(pool.run("echo", number)) for number in range(2)]
        await eventually(lambda: pool.status().waiting == 2)
        with telemetry.capture(("pool",)) as events, pytest.raises(PoolSaturated, match="raise queue_limit") as refusal:
            await pool.run("echo")
        error = refusal.value
        assert (error.pool, error.waiting, error.size, error.waited_s) == ("ops", 2, 1, 0.0)
        assert (error.retryable, error.severity, error.category) == (True, "warning", "resource")
        assert words(events) == ["pool.operation.start", "pool.queue.reject", "pool.operation.exception"]
        with pytest.raises(PoolSaturated):
            await read(pool.stream("count", 3))
        gate.touch()
        assert await asyncio.gather(first, *waiting) == [None, 0, 1]
        assert await pool.run("echo", "again") == "again"


async def test_without_a_queue_a_call_is_taken_by_an_idle_worker_or_refused() -> None:
    async with ops_pool(queue_limit=0) as pool:
        assert await pool.run("echo", 1) == 1
        task = await running(pool, "sleep", 60)
        with pytest.raises(PoolSaturated):
            await pool.run("echo")
        task.cancel()


async def test_calls_that_wait_for_one_worker_or_one_session_count_though_others_are_idle(tmp_path: Path) -> None:
    async with ops_pool(size=2, queue_limit=3) as pool:
        gate = tmp_path / "gate"
        first = await running(pool, "until_exists", str(gate), worker="ops-0", session="s")
        for caller in (pool.options(worker="ops-0"), pool.options(session="s")):
            waiting = [asyncio.ensure_future(caller.run("echo", number)) for number in range(10)]
            await eventually(lambda: pool.status().waiting == 3)
            results = await asyncio.gather(*waiting[3:], return_exceptions=True)
            assert all(isinstance(result, PoolSaturated) for result in results)
            assert await pool.run("echo", "other") == "other"  # an idle worker takes it at once
            for task in waiting:
                task.cancel()
            await eventually(lambda: pool.status().waiting == 0)
        gate.touch()
        await first


async def test_refusals_leave_no_complaint_of_asyncio_behind(caplog: pytest.LogCaptureFixture) -> None:
    import gc

    async with ops_pool(queue_limit=0) as pool:
        task = await running(pool, "sleep", 60)
        for _ in range(3):
            with pytest.raises(PoolSaturated):
                await pool.run("echo")
        gc.collect()
        task.cancel()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_deadline_that_passes_in_the_queue_is_a_queue_timeout(pool: Pool) -> None:
    first = await running(pool, "sleep", 60)
    with telemetry.capture(("pool",)) as events, pytest.raises(QueueTimeout, match="no worker became free") as refusal:
        await pool.options(timeout=0.1).run("echo")
    assert isinstance(refusal.value, TimeoutError)
    assert isinstance(refusal.value, Rejected)
    assert refusal.value.waited_s >= 0.1
    [end] = [event for event in events if event.name == ("pool", "operation", "exception")]
    assert (end.metadata["outcome"], "worker" in end.metadata) == ("rejected", False)
    assert end.measurements["queue_duration"] == end.measurements["duration"] >= 100_000_000
    assert not first.done()
    first.cancel()


@pytest.mark.processes("sleeps in C, where a thread cannot be interrupted")
async def test_a_deadline_that_passes_on_a_worker_is_an_operation_timeout(pool: Pool) -> None:
    pid = await pool.run("pid")
    with pytest.raises(OperationTimeout, match=r"sleep was not done within its timeout of 0\.1 s, on ops-0") as failure:
        await pool.options(timeout=0.1).run("sleep", 60)
    assert isinstance(failure.value, TimeoutError)
    assert (failure.value.outcome, failure.value.category) == ("timeout", "timeout")
    assert await pool.run("pid") == pid  # interrupted, not killed


async def test_one_deadline_covers_waiting_and_running(pool: Pool) -> None:
    first = await running(pool, "sleep", 0.3)
    with telemetry.capture(("pool", "operation", "exception")) as events, pytest.raises(OperationTimeout):
        await pool.options(timeout=0.5).run("sleep", 0.4)
    assert events[0].measurements["duration"] < 600_000_000  # the timeout covers the wait too: not 0.3 + 0.5 s
    assert events[0].measurements["queue_duration"] > 200_000_000
    await first


async def test_a_call_waits_no_longer_than_max_wait_but_may_run_longer() -> None:
    async with ops_pool(max_wait=0.2) as pool:
        first = await running(pool, "sleep", 0.6)
        with pytest.raises(QueueTimeout):
            await pool.options(timeout=20).run("echo")
        assert await first == 0.6
        with pytest.raises(OperationTimeout):
            await pool.options(timeout=0.4).run("sleep", 60)


async def test_a_timeout_of_a_stream_covers_the_whole_of_it(pool: Pool) -> None:
    with pytest.raises(OperationTimeout):
        await read(pool.options(timeout=0.2).stream("count_forever", None, 0.01))
    assert await pool.run("echo", 1) == 1


# -- cancellation -------------------------------------------------------------------------------------------------


async def test_cancelled_in_the_queue_a_call_leaves_no_trace(pool: Pool) -> None:
    first = await running(pool, "sleep", 0.2)
    with telemetry.capture(("pool",)) as events:
        task = asyncio.ensure_future(pool.run("die"))
        await eventually(lambda: pool.status().waiting == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.status().waiting == 0
        await first
    ends = [event for event in events if event.name == ("pool", "operation", "exception")]
    assert [(end.metadata["kind"], end.metadata["outcome"]) for end in ends] == [("cancelled", "cancelled")]
    assert "crash" not in str(words(events))


@pytest.mark.parametrize(("operation", "arguments"), [("sleep", [60]), ("spin", []), ("later", [1, 60])])
@pytest.mark.processes("sleeps in C, where a thread cannot be interrupted")
async def test_cancelled_while_it_runs_an_operation_is_interrupted_and_the_worker_kept(
    operation: str, arguments: list[Any]
) -> None:
    async with ops_pool(cancel_grace=10.0) as pool:
        pid = await pool.run("pid")
        task = await running(pool, operation, *arguments)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await pool.run("pid") == pid


@pytest.mark.parametrize(("operation", "arguments"), [("stuck_in_c", []), ("stubborn", [60, 1])])
@pytest.mark.processes("holds the interpreter for good")
async def test_an_operation_that_cannot_be_interrupted_costs_its_worker_and_no_capacity(
    pool: Pool, operation: str, arguments: list[Any]
) -> None:
    pid = await pool.run("pid")
    with telemetry.capture(("pool", "worker", "terminate")) as events:
        task = await running(pool, operation, *arguments)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await pool.run("pid") != pid
    assert metadata(events, "reason") == ["cancel"]
    assert not psutil.pid_exists(pid)
    assert pool.status().restarts == 1


async def test_cancelled_at_the_moment_its_answer_is_there_a_call_ends_once(pool: Pool) -> None:
    for _ in range(50):
        with telemetry.capture(("pool", "operation")) as events:
            task = asyncio.ensure_future(pool.run("echo", 1))
            await asyncio.sleep(0)
            await asyncio.sleep(random.random() * 0.001)
            task.cancel()
            await asyncio.wait([task])
            await eventually(lambda: pool.status().idle == 1)
        assert len(events) == 2
    assert await pool.run("echo", 1) == 1


async def test_a_call_cancelled_as_it_is_handed_over_does_not_take_the_next_one_along(pool: Pool) -> None:
    for _ in range(30):
        task = asyncio.ensure_future(pool.run("sleep", 60))
        await asyncio.sleep(0)  # admitted and sent in this very step
        task.cancel()
        assert await pool.run("echo", "mine") == "mine"


@pytest.mark.processes("compares process ids")
async def test_a_late_answer_reaches_nobody() -> None:
    async with ops_pool(cancel_grace=10.0) as pool:
        pid = await pool.run("pid")
        with pytest.raises(OperationTimeout):
            await pool.options(timeout=0.1).run("stubborn", 0.4, "late")
        assert pool.status().busy == 1  # the call has ended for its caller, and still occupies the worker
        assert await pool.run("echo", "mine") == "mine"
        assert await pool.run("pid") == pid


@pytest.mark.parametrize("session", [None, "s"])
async def test_a_result_that_a_held_up_loop_reads_past_the_deadline_does_not_count(session: str | None) -> None:
    async with ops_pool() as pool, Monitor(pool) as monitor:
        caller = pool.options(timeout=0.2, session=session)
        call = asyncio.create_task(caller.run("remember", 1) if session else caller.run("echo", 1))
        await asyncio.sleep(0)  # the call is sent
        time.sleep(0.4)  # its result arrives, and the blocked loop does not read it
        with pytest.raises(OperationTimeout, match=r"was read 0\.\d+ s later: something blocks the event loop"):
            await call
        operation = "remember" if session else "echo"
        assert monitor.snapshot().pools["ops"].operations[operation].timeouts == 1
        if session:
            assert pool.session(session).data == {}
        assert await pool.run("echo", 2) == 2
        assert pool.status().busy == 0


@pytest.mark.processes("breaks the protocol")
async def test_an_answer_to_a_call_that_is_not_open_costs_the_worker_that_gave_it(pool: Pool) -> None:
    with pytest.raises(ProtocolError, match=f"an answer to call {1 << 40}, which is not open"):
        await pool.run("send_stranger")
    assert await pool.run("echo", 1) == 1


async def test_anyio_and_asyncio_timeouts_cancel_like_any_other(pool: Pool) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await pool.run("sleep", 60)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.run("sleep", 60), 0.1)
    assert await pool.run("echo", 1) == 1


# -- sessions -----------------------------------------------------------------------------------------------------


async def test_a_session_keeps_its_data_and_prefers_its_worker() -> None:
    async with ops_pool(size=3) as pool:
        with telemetry.capture(("pool", "session")) as events:
            async with pool.session("user-42") as session:
                assert session.id == "user-42"
                assert session.data == {}
                for word in "abc":
                    await session.run("remember", word)
                assert session.data == {"words": ["a", "b", "c"]}
            assert await pool.session("user-42").run("remember", "d") == ["a", "b", "c", "d"]
            assert await pool.options(session="other").run("remember", "x") == ["x"]
        assert words(events, of="pool.session.start") == ["pool.session.start"] * 2
        affinity = [event for event in events if event.name[-1] == "affinity"]
        assert metadata(affinity, "result") == ["new", "hit", "hit", "hit", "new"]
        assert len({event.metadata["worker"] for event in affinity[:4]}) == 1
        assert pool.status().sessions == 2


async def test_what_is_done_to_a_copy_of_the_data_does_not_change_the_session(pool: Pool) -> None:
    session = pool.session("s")
    await session.run("remember", "a")
    session.data["words"].append("forged")
    assert await session.run("remember", "b") == ["a", "b"]


async def test_options_of_a_session_and_of_options_add_up(pool: Pool) -> None:
    session = pool.session("s")
    assert await session.options(timeout=5).options(priority=1).run("remember", "a") == ["a"]
    with pytest.raises(OperationTimeout):
        await session.options(timeout=0.05).options(priority=1).run("sleep", 60)
    assert session.data == {"words": ["a"]}


@pytest.mark.processes("kills a worker")
async def test_session_data_survives_a_killed_worker(pool: Pool) -> None:
    session = pool.session("s")
    await session.run("remember", "a")
    with telemetry.capture(("pool", "session", "affinity")) as events:
        os.kill(pid_of(pool), signal.SIGKILL)
        await eventually(lambda: pool.status().restarts == 1 and pool.status().idle == 1)
        assert await session.run("remember", "b") == ["a", "b"]
    assert metadata(events, "result") == ["broken"]


async def test_a_session_goes_elsewhere_when_its_worker_is_busy() -> None:
    async with ops_pool(size=2) as pool:
        session = pool.session("s")
        await session.run("remember", "a")
        last = pool._calls().sessions.table.get("s")
        assert last is not None
        busy = await running(pool, "sleep", 60, worker=last.worker)
        with telemetry.capture(("pool", "session", "affinity")) as events:
            assert await session.run("remember", "b") == ["a", "b"]
        assert metadata(events, "result") == ["miss"]
        busy.cancel()


async def test_calls_of_one_session_do_not_overlap_and_lose_no_update() -> None:
    async with ops_pool(size=3) as pool:
        results = await asyncio.gather(*(pool.session("s").run("bump", 0.01) for _ in range(20)))
        assert results == list(range(1, 21))
        assert pool.session("s").data == {"number": 20}


async def test_a_failed_or_cancelled_call_changes_no_data_and_lets_the_next_go_on(pool: Pool) -> None:
    session = pool.session("s")
    await session.run("bump")
    slow = await running(pool, "bump", 60, session="s")
    behind = [asyncio.ensure_future(session.run("bump")) for _ in range(3)]
    await eventually(lambda: pool.status().waiting == 3)
    behind[1].cancel()
    slow.cancel()
    results = await asyncio.gather(slow, *behind, return_exceptions=True)
    assert [results[1], results[3]] == [2, 3]
    with pytest.raises(OperationError):
        await session.run("fail")
    assert session.data == {"number": 3}


async def test_many_calls_of_a_session_that_cannot_be_sent_fail_one_by_one(pool: Pool) -> None:
    session = pool.session("s")
    first = await running(pool, "sleep", 0.2, session="s")
    bad = [asyncio.ensure_future(session.run("echo", object())) for _ in range(2000)]
    last = asyncio.ensure_future(session.run("echo", "fine"))
    results = await asyncio.gather(first, *bad, last, return_exceptions=True)
    assert (results[0], results[-1]) == (0.2, "fine")
    assert all(isinstance(result, PayloadError) for result in results[1:-1])


async def test_ended_sessions_are_forgotten(pool: Pool) -> None:
    session = pool.session("s")
    await session.run("remember", "a")
    with telemetry.capture(("pool", "session")) as events:
        assert session.end() is True
        assert session.end() is False
        assert await session.run("remember", "b") == ["b"]
    assert words(events) == ["pool.session.end", "pool.session.start", "pool.session.affinity"]
    assert events[0].measurements == {"calls": 1, "sessions": 0}


async def test_a_session_ended_while_calls_wait_lets_them_end(pool: Pool) -> None:
    session = pool.session("s")
    first = await running(pool, "bump", 0.2, session="s")
    behind = [asyncio.ensure_future(session.run("bump")) for _ in range(3)]
    await eventually(lambda: pool.status().waiting == 3)
    session.end()
    assert await asyncio.gather(first, *behind) == [1, 2, 3, 4]
    assert session.data == {}
    assert await session.run("bump") == 1


async def test_too_many_sessions_drop_the_one_unused_longest_never_one_at_work() -> None:
    async with ops_pool(size=2, session_limit=2) as pool:
        busy = await running(pool, "bump", 60, session="busy")
        with telemetry.capture(("pool", "session", "expire")) as events:
            for name in ("a", "b", "c"):
                await pool.session(name).run("remember", name)
            assert await pool.session("c").run("remember", "again") == ["c", "again"]
        assert [(event.metadata["session"], event.metadata["reason"]) for event in events] == [
            ("a", "limit"),
            ("b", "limit"),
        ]
        assert pool.status().sessions == 2
        busy.cancel()


async def test_a_new_session_is_kept_when_all_others_are_at_work() -> None:
    async with ops_pool(size=2, session_limit=1) as pool:
        busy = await running(pool, "bump", 60, session="busy")
        assert await pool.session("new").run("remember", "a") == ["a"]
        assert await pool.session("new").run("remember", "b") == ["a", "b"]
        busy.cancel()


async def test_a_session_expires_when_it_was_unused_for_its_time_to_live() -> None:
    async with ops_pool(session_ttl=0.2) as pool:
        with telemetry.capture(("pool", "session", "expire")) as events:
            await pool.session("old").run("bump", 0.3)  # longer than ``session_ttl``
            await pool.session("young").run("bump")
            assert events == []
            await asyncio.sleep(0.25)
            await pool.session("new").run("bump")
        assert {event.metadata["session"] for event in events} == {"old", "young"}
        assert set(metadata(events, "reason")) == {"ttl"}


async def test_session_data_that_cannot_be_kept_fails_the_call_and_changes_nothing() -> None:
    async with ops_pool(session_data_limit=1000) as pool:
        session = pool.session("s")
        await session.run("remember", "a")
        with pytest.raises(PayloadError, match=r"session\.data takes \d+ bytes, over the limit of 1000"):
            await session.run("hoard", 2000)
        with pytest.raises(PayloadError, match=r"session\.data must be a dict, not 'list'"):
            await session.run("ruin")
        assert await session.run("remember", "b") == ["a", "b"]


# -- payloads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle"])
async def test_what_cannot_be_carried_fails_its_own_call_only(codec: str) -> None:
    async with ops_pool(codec=codec) as pool:
        pid = await pool.run("pid")
        with pytest.raises(PayloadError, match=f"the arguments cannot be carried as {codec}") as failure:
            await pool.run("echo", open_file := open(os.devnull))  # noqa: PTH123, SIM115
        open_file.close()
        assert (failure.value.category, failure.value.outcome) == ("communication", "error")
        if codec != "pickle":
            with pytest.raises(PayloadError, match=f"the result cannot be carried as {codec}"):
                await pool.run("unserialisable")
        assert await pool.run("pid") == pid


async def test_with_pickle_any_object_passes_and_poison_costs_its_own_call_only() -> None:
    async with ops_pool(codec="pickle") as pool:
        pid = await pool.run("pid")
        assert await pool.run("echo", {1, 2, (3, 4)}) == {1, 2, (3, 4)}
        with pytest.raises(PayloadError, match="the result cannot be rebuilt"):
            await pool.run("poison")
        with pytest.raises(OperationError, match="poison_error: Unpicklable: one"):
            await pool.run("poison_error")
        with pytest.raises(PayloadError, match="the arguments cannot be rebuilt"):
            await pool.run("echo", Poison("one", "two"))
        assert await pool.run("pid") == pid


class Poison(Exception):
    """Can be pickled here, and cannot be unpickled in a worker, which does not find this class."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


async def test_too_large_arguments_results_and_items_fail_their_own_call_only() -> None:
    async with ops_pool(frame_limit=10_000) as pool:
        pid = await pool.run("pid")
        with pytest.raises(PayloadError, match=r"the arguments take \d+ bytes, over the frame limit of 10000"):
            await pool.run("echo", "x" * 10_001)
        with pytest.raises(PayloadError, match=r"the result takes \d+ bytes, over the frame limit of 10000"):
            await pool.run("text", 10_001)
        with pytest.raises(PayloadError, match=r"an item takes \d+ bytes, over the frame limit"):
            await read(pool.stream("count_forever", None, 0.0, 10_001))
        assert len(await pool.run("text", 9_000)) == 9_000
        assert await pool.run("pid") == pid


# -- workers that die ---------------------------------------------------------------------------------------------


@pytest.mark.processes("kills a worker")
async def test_a_call_whose_worker_dies_is_told_how_and_its_last_words(pool: Pool) -> None:
    with telemetry.capture(("pool", "worker", "crash")) as events, pytest.raises(WorkerDied) as failure:
        await pool.run("die", 3)
    error = failure.value
    assert (error.worker, error.exit_code, error.stderr) == ("ops-0", 3, "last words")
    assert "exit code 3" in str(error)
    assert "last words" in str(error)
    assert error.retryable
    assert (events[0].metadata["exit_code"], events[0].metadata["operation"]) == (3, "die")
    with pytest.raises(WorkerDied, match=r"signal 9 \(SIGKILL\)") as failure:
        await pool.run("kill_self")
    assert failure.value.exit_code == -9
    assert await pool.run("echo", 1) == 1


@pytest.mark.processes("kills a worker")
async def test_the_other_calls_do_not_notice_that_a_worker_died() -> None:
    async with ops_pool(size=2) as pool:
        victim = await running(pool, "kill_self")
        others = [asyncio.ensure_future(pool.run("echo", number)) for number in range(100)]
        assert await asyncio.gather(*others) == list(range(100))
        with pytest.raises(WorkerDied):
            await victim
        await eventually(lambda: pool.status().idle == 2)


@pytest.mark.processes("kills a worker")
async def test_a_worker_killed_while_idle_costs_nobody_anything(pool: Pool) -> None:
    with telemetry.capture(("pool",)) as events:
        os.kill(pid_of(pool), signal.SIGKILL)
        await eventually(lambda: pool.status().idle == 0)
        assert await pool.run("echo", 1) == 1
    assert [event.metadata["exit_code"] for event in events if event.name[-1] == "crash"] == [-9]
    assert words(events, of="pool.recovery") == ["pool.recovery"]


@pytest.mark.processes("kills a worker")
async def test_an_idempotent_call_is_sent_again_and_any_other_is_not(pool: Pool, tmp_path: Path) -> None:
    with telemetry.capture(("pool",)) as events:
        assert await pool.options(idempotent=True).run("die_once", str(tmp_path / "one")) == "survived"
    assert words(events, of="pool.retry") == ["pool.retry"]
    [stop] = [event for event in events if event.name == ("pool", "operation", "stop")]
    assert stop.measurements["attempts"] == 2
    with pytest.raises(WorkerDied):
        await pool.run("die_once", str(tmp_path / "two"))


@pytest.mark.processes("kills a worker")
async def test_a_stream_collected_at_the_end_is_begun_anew_when_its_worker_dies(pool: Pool, tmp_path: Path) -> None:
    for stop in (3, 500):  # fewer items than are held for a slow reader, and more
        marker = str(tmp_path / str(stop))
        with telemetry.capture(("pool", "retry")) as retries:
            got = await pool.options(idempotent=True).try_run("count_and_die_once", stop, marker)
        assert (got.error, got.result) == (None, list(range(stop)))
        assert len(retries) == 1


@pytest.mark.processes("kills a worker")
async def test_an_idempotent_call_is_given_up_after_its_retries() -> None:
    async with ops_pool(retries=1) as pool:
        with telemetry.capture(("pool",)) as events, pytest.raises(WorkerDied):
            await pool.options(idempotent=True).run("die")
        assert words(events, of="pool.retry") == ["pool.retry"]


@pytest.mark.processes("kills a worker")
async def test_an_idempotent_call_is_sent_again_while_the_pool_drains(tmp_path: Path) -> None:
    async with ops_pool() as pool:
        pid = pid_of(pool)
        task = await running(pool, "until_exists", str(tmp_path / "gate"), "done", idempotent=True)
        drain = asyncio.ensure_future(pool.drain(20))
        await eventually(lambda: pool.status().state == "draining")
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: pool.status().restarts == 1 and pool.status().busy == 1)
        (tmp_path / "gate").touch()
        assert await task == "done"
        assert (await drain).finished == 1


@pytest.mark.processes("kills a worker")
async def test_a_stream_that_has_given_items_is_not_begun_again(pool: Pool) -> None:
    got: list[int] = []
    with pytest.raises(WorkerDied):
        await read(pool.options(idempotent=True).stream("count_then_die", 3), into=got)
    assert got == [0, 1, 2]


@pytest.mark.processes("kills a worker")
async def test_an_answer_that_came_with_the_end_of_the_worker_is_delivered(pool: Pool) -> None:
    big = "x" * 1_000_000
    for restarts, value in enumerate([1, big], start=1):
        assert await pool.run("reply_and_die", value) == value
        await eventually(lambda restarts=restarts: pool.status().restarts == restarts and pool.status().idle == 1)


@pytest.mark.processes("kills a worker")
async def test_what_a_worker_started_dies_with_it(pool: Pool) -> None:
    company = await pool.run("company")
    assert alive(company)
    os.kill(pid_of(pool), signal.SIGKILL)
    await eventually(lambda: not alive(company))


@pytest.mark.processes("kills a worker")
async def test_killed_workers_leave_no_zombies(pool: Pool) -> None:
    for _ in range(3):
        pid = pid_of(pool)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda pid=pid: pool.status().idle == 1 and pid_of(pool) != pid)
        assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("operation", ["send_oversized", "send_empty", "send_garbage", "send_unknown"])
@pytest.mark.processes("breaks the protocol")
async def test_nonsense_on_the_wire_costs_that_worker_and_that_call(pool: Pool, operation: str) -> None:
    pid = pid_of(pool)
    with telemetry.capture(("pool",)) as events, pytest.raises(ProtocolError, match="worker ops-0 broke the protocol"):
        await pool.run(operation)
    assert await pool.run("pid") != pid
    assert words(events, of="pool.error") == ["pool.error"]
    assert [event.metadata["reason"] for event in events if event.name[-1] == "terminate"] == ["protocol"]


@pytest.mark.parametrize(("operation", "error"), [("send_truncated", WorkerDied), ("close_everything", ProtocolError)])
@pytest.mark.processes("breaks the protocol")
async def test_a_worker_that_hangs_up_costs_that_call(pool: Pool, operation: str, error: type[PoolError]) -> None:
    with pytest.raises(error):
        await pool.run(operation)
    assert await pool.run("echo", 1) == 1


@pytest.mark.processes("breaks the protocol")
async def test_a_worker_that_spoke_nonsense_while_idle_is_handed_nothing_more(pool: Pool) -> None:
    with telemetry.capture(("pool",)) as events:
        await pool.run("nonsense_when_idle")
        loop = asyncio.get_running_loop()
        handed: asyncio.Future[Any] = loop.create_future()

        def at_once(*_told: Any) -> None:
            handed.set_result(asyncio.ensure_future(pool.run("echo", "mine")))

        telemetry.attach("at once", ("pool", "error"), at_once)
        assert await (await handed) == "mine"
        telemetry.detach("at once")
    assert words(events, of="pool.error") == ["pool.error"]


@pytest.mark.processes("kills a worker")
async def test_ends_are_noticed_where_the_system_has_no_process_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    async with ops_pool(size=2) as pool:
        with pytest.raises(WorkerDied, match="exit code 3"):
            await pool.options(worker="ops-0").run("die")
        os.kill(pid_of(pool, 1), signal.SIGKILL)
        await eventually(lambda: pool.status().restarts == 2 and pool.status().idle == 2)
        assert await pool.run("echo", 1) == 1


# -- starting -----------------------------------------------------------------------------------------------------


async def test_nothing_starts_before_the_pool_is_entered_and_calls_are_refused() -> None:
    pool = ops_pool()
    assert (pool.status().state, pool.status().busy, pool.workers()) == ("new", 0, [])
    with pytest.raises(PoolClosed, match="not entered yet"):
        await pool.run("echo")
    assert repr(pool) == "<Pool 'ops' [new]>"


async def test_a_pool_is_entered_once() -> None:
    pool = ops_pool()
    async with pool:
        assert repr(pool) == "<Pool 'ops' [running | 0 busy, 1 idle, 0 starting of 1 | 0 waiting]>"
        with pytest.raises(PoolError, match="entered already"):
            await pool.__aenter__()
        assert await pool.run("echo", 1) == 1
    with pytest.raises(PoolError, match="entered already"):
        await pool.__aenter__()


async def test_a_closed_pool_refuses_calls_and_says_so() -> None:
    async with ops_pool() as pool:
        assert await pool.run("echo", 1) == 1
    for caller in (pool, pool.session("s"), pool.options(worker="ops-0")):
        with pytest.raises(PoolClosed) as refusal:
            await caller.run("echo")
        assert not refusal.value.retryable
    with pytest.raises(PoolClosed):
        await pool.resize(2)
    assert (pool.status().state, pool.status().completed) == ("closed", 4)
    assert pool.workers() == []


@pytest.mark.processes("makes a pool of processes itself")
async def test_a_target_that_loads_too_slowly_is_a_start_error(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(StartError, match=r"had not loaded '.*slow\.py:X' after 0\.3 s; raise start_timeout"):
        async with Pool(f"{tmp_path}/slow.py:X", size=2, start_timeout=0.3):
            pass


@pytest.mark.processes("starts processes that cannot be")
async def test_a_pool_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    leftovers = Leftovers()
    (tmp_path / "slow.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)\n"
    )
    failing: list[Pool] = [
        Pool(f"{TARGETS}/raises.py:Ops", size=2),
        Pool(OPS, size=2, python="/no/such/python"),
        Pool(OPS, size=2, python="/bin/false"),
        Pool(OPS, size=2, init_args=(1,)),
        Pool(f"{tmp_path}/slow.py:X", size=2, start_timeout=0.2, kill_grace=0.1),
    ]
    for pool in failing:
        with pytest.raises(StartError):
            async with pool:
                pass
        assert pool.status().state == "closed"
        await eventually(lambda: not leftovers.found())


async def test_a_pool_that_cannot_start_tells_of_no_warm_up() -> None:
    with telemetry.capture(("pool",)) as events, pytest.raises(StartError):
        async with ops_pool(size=2, init_args=(1,)):
            pass
    assert "pool.terminate" in words(events)
    assert "pool.warmup" not in words(events)


@pytest.mark.processes("kills a worker")
async def test_a_pool_without_descriptors_left_says_so_and_survives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ops_pool(backoff_min=0.01, backoff_max=0.01) as pool:
        leftovers, real = Leftovers(), os.pipe
        left = iter([False, True, False])

        def none_left() -> tuple[int, int]:  # one attempt fails at its first pipe, the next at its second
            if next(left, True):
                return real()
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pipe", none_left)
        with telemetry.capture(("pool", "error")) as events:
            os.kill(pid_of(pool), signal.SIGKILL)
            await eventually(lambda: pool.status().idle == 0)
            assert await pool.run("echo", 1) == 1
        assert len(events) == 2
        assert "Too many open files" in events[0].metadata["reason"]
        await eventually(lambda: "descriptors" not in leftovers.found() or len(leftovers.found()["descriptors"]) <= 2)


@pytest.mark.processes("kills a worker")
async def test_workers_restart_when_the_working_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.chdir(folder)
    async with ops_pool() as pool:
        folder.rmdir()
        os.kill(pid_of(pool), signal.SIGKILL)
        await eventually(lambda: pool.status().idle == 0)
        assert await pool.run("echo", 1) == 1
    monkeypatch.chdir(tmp_path)


@pytest.mark.processes("kills a worker")
async def test_a_worker_that_dies_while_it_starts_is_started_again(tmp_path: Path) -> None:
    """Make a target that loads in the first process, dies on import in the second, and loads in all later ones."""
    (tmp_path / "moody.py").write_text(
        "import os, pathlib\n"
        "log = pathlib.Path(__file__).with_suffix('.log')\n"
        "starts = len(log.read_text()) if log.exists() else 0\n"
        "log.write_text('x' * (starts + 1))\n"
        "if starts == 1: os._exit(9)\n"
        "class Moody:\n    def starts(self): return starts\n    def die(self): os._exit(1)\n"
    )
    async with Pool(f"{tmp_path}/moody.py:Moody", size=1, backoff_min=0.01, backoff_max=0.01) as pool:
        with telemetry.capture(("pool",)) as events:
            with pytest.raises(WorkerDied):
                await pool.run("die")
            assert await pool.run("starts") == 2
        assert [event.metadata["category"] for event in events if event.name == ("pool", "error")] == ["initialization"]
        [recovery] = [event for event in events if event.name == ("pool", "recovery")]
        assert recovery.measurements["attempts"] == 2


@pytest.mark.processes("is about a zygote")
async def test_a_pool_whose_zygote_is_not_ready_yet_is_left_at_once(no_leaks: None, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "heavy.py").write_text(f"import time\nopen({str(begun)!r}, 'w').close()\ntime.sleep(3)\n")
    pool = ops_pool(start_method="zygote", sys_path=(str(tmp_path),), preload=("heavy",), kill_grace=0.01)
    entering = asyncio.ensure_future(pool.__aenter__())
    while not begun.exists():
        await asyncio.sleep(0.005)
    entering.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait([entering])
    assert pool.status().state == "closed"


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20, 100])
async def test_entering_can_be_cancelled_at_any_moment(turns: int) -> None:
    pool = ops_pool(size=2)
    task = asyncio.ensure_future(pool.__aenter__())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
        await pool.__aexit__(None, None, None)  # entering was finished before it was cancelled
    assert pool.status().state == ("closed" if turns else "new")


@pytest.mark.parametrize("turns", [1, 20])
async def test_a_pool_that_is_drained_while_it_is_entered_does_not_open(turns: int) -> None:
    pool = ops_pool(size=50, warmup="sequential")  # so that entering takes many turns, even if workers are threads
    entering = asyncio.ensure_future(pool.__aenter__())
    for _ in range(turns):
        await asyncio.sleep(0)
    assert pool.status().state == "starting"
    assert await pool.drain() == (0, 0, 0)
    with pytest.raises(PoolClosed, match="drained before it was ready"):
        await entering
    assert pool.status().state == "closed"


async def test_a_pool_can_be_resized_as_soon_as_it_is_being_entered() -> None:
    pool = ops_pool(max_size=2)
    entering = asyncio.ensure_future(pool.__aenter__())
    await asyncio.sleep(0)
    await pool.resize(2)
    await entering
    await eventually(lambda: pool.status().idle == 2)
    await pool.__aexit__(None, None, None)


async def test_a_pool_that_is_paused_while_it_is_entered_is_paused_until_it_is_resumed() -> None:
    pool = ops_pool()
    entering = asyncio.ensure_future(pool.__aenter__())
    await asyncio.sleep(0)
    await pool.pause()
    await entering
    assert pool.status().state == "paused"
    call = asyncio.ensure_future(pool.run("echo", 1))
    await eventually(lambda: pool.status().waiting == 1)
    await pool.resume()
    assert await call == 1
    await pool.__aexit__(None, None, None)


async def test_a_pool_may_have_no_workers_at_first() -> None:
    async with ops_pool(size=0, min_size=0) as pool:
        assert pool.status().size == 0
        task = asyncio.ensure_future(pool.run("echo", 1))
        await eventually(lambda: pool.status().waiting == 1)
        await pool.resize(1)
        assert await task == 1


# -- resize -------------------------------------------------------------------------------------------------------


async def test_resize_starts_and_retires_workers(pool: Pool) -> None:
    with telemetry.capture(("pool",)) as events:
        await pool.resize(3)
        assert pool.size == pool.status().size == 3
        await eventually(lambda: pool.status().idle == 3)
        assert [worker.id for worker in pool.workers()] == ["ops-0", "ops-1", "ops-2"]
        await pool.resize(1)
        await eventually(lambda: len(pool.workers()) == 1)
        assert pool.workers()[0].id == "ops-0"
    resizes = [event.measurements for event in events if event.name == ("pool", "resize")]
    assert resizes == [{"size_before": 1, "size_after": 3}, {"size_before": 3, "size_after": 1}]
    assert sorted(event.metadata["reason"] for event in events if event.name[-1] == "terminate") == ["resize"] * 2
    with pytest.raises(ConfigError, match=r"Pool\(size=9\): must lie from min_size=1 to max_size=8"):
        await pool.resize(9)


async def test_a_busy_worker_is_retired_after_its_call(pool: Pool, tmp_path: Path) -> None:
    await pool.resize(2)
    await eventually(lambda: pool.status().idle == 2)
    tasks = [await running(pool, "until_exists", str(tmp_path / "gate"), number) for number in range(2)]
    await pool.resize(1)
    assert pool.status().busy == 2
    (tmp_path / "gate").touch()
    assert await asyncio.gather(*tasks) == [0, 1]
    await eventually(lambda: len(pool.workers()) == 1)
    assert await pool.run("echo", 1) == 1


@pytest.mark.processes("kills a worker")
async def test_a_retired_worker_that_crashes_in_its_last_call_is_not_replaced(pool: Pool) -> None:
    await pool.resize(2)
    await eventually(lambda: pool.status().idle == 2)
    task = await running(pool, "sleep", 60, worker="ops-1")
    other = await running(pool, "sleep", 60, worker="ops-0")
    pinned = asyncio.ensure_future(pool.options(worker="ops-1").run("echo"))
    await eventually(lambda: pool.status().waiting == 1)
    await pool.resize(1)
    os.kill(pid_of(pool, 1), signal.SIGKILL)
    with pytest.raises(WorkerDied):
        await task
    with pytest.raises(PoolClosed, match="'ops-1' has been retired"):
        await pinned
    await eventually(lambda: len(pool.workers()) == 1)
    other.cancel()


async def test_resizing_while_workers_start_and_stop_settles_at_the_last_size(pool: Pool) -> None:
    for size in (4, 1, 3, 2, 5, 2):
        await pool.resize(size)
        await asyncio.sleep(0.02)
    await eventually(lambda: len(pool.workers()) == 2 and pool.status().idle == 2)
    assert await asyncio.gather(*(pool.run("echo", number) for number in range(20))) == list(range(20))


@pytest.mark.processes("makes a pool of processes itself")
async def test_shrinking_while_the_pool_starts_lets_it_start(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "gated.py").write_text(
        "import os, time\n"
        "taken = os.path.join(os.path.dirname(__file__), 'taken')\n"
        "try:\n    os.close(os.open(taken, os.O_CREAT | os.O_EXCL))\n"
        "except FileExistsError:\n    time.sleep(60)\n"
        "class Gated:\n    def echo(self, value): return value\n"
    )
    pool = Pool(f"{tmp_path}/gated.py:Gated", name="gated", size=2)  # one of the two workers never loads
    entering = asyncio.ensure_future(pool.__aenter__())
    await eventually(lambda: pool.status().idle == 1)
    [slow] = [worker for worker in pool._calls().workers.values() if worker.lifecycle.state.value == "initializing"]
    if slow.index == 0:  # the higher slot is retired first: make the slow slot the surplus
        slow.index = 9
    await pool.resize(1)
    async with asyncio.timeout(20):
        await entering
    assert await pool.run("echo", 1) == 1
    await pool.__aexit__(None, None, None)
    assert not gate.exists()


async def test_resizing_a_pool_that_drains_is_refused_and_cannot_hold_up_its_end() -> None:
    async with ops_pool(max_size=4) as pool:
        await pool.drain(1)
        with pytest.raises(PoolClosed, match="a pool that is draining"):
            await pool.resize(3)


# -- drain and close ----------------------------------------------------------------------------------------------


async def test_drain_lets_accepted_calls_end_and_refuses_new_ones(pool: Pool, tmp_path: Path) -> None:
    tasks = [await running(pool, "until_exists", str(tmp_path / "gate"), 1)]
    tasks += [asyncio.ensure_future(pool.run("echo", number)) for number in (2, 3)]
    await eventually(lambda: pool.status().waiting == 2)
    with telemetry.capture(("pool", "drain")) as events:
        drain = asyncio.ensure_future(pool.drain(20))
        await eventually(lambda: pool.status().state == "draining")
        with pytest.raises(PoolClosed, match="draining"):
            await pool.run("echo")
        (tmp_path / "gate").touch()
        assert await drain == (3, 0, 0)
    assert await asyncio.gather(*tasks) == [1, 2, 3]
    assert {key: events[0].measurements[key] for key in ("finished", "cancelled", "abandoned")} == {
        "finished": 3,
        "cancelled": 0,
        "abandoned": 0,
    }
    assert await pool.drain() == (0, 0, 0)


@pytest.mark.parametrize("grace", [0.0, 0.1])
@pytest.mark.processes("holds the interpreter for good")
async def test_drain_interrupts_what_is_left_when_the_time_is_up(grace: float) -> None:
    async with ops_pool(size=2, cancel_grace=grace) as pool:
        stuck = await running(pool, "stuck_in_c")
        gentle = await running(pool, "sleep", 60)
        waiting = asyncio.ensure_future(pool.run("echo"))
        await eventually(lambda: pool.status().waiting == 1)
        result = await pool.drain(0.1)
        assert (result.finished, result.cancelled) == (0, 3)
        assert result.abandoned >= 1 if grace == 0.0 else result.abandoned == 1
        for task, kind in ((stuck, OperationCancelled), (gentle, OperationCancelled), (waiting, PoolClosed)):
            with pytest.raises(kind):
                await task


async def test_leaving_the_block_lets_calls_end() -> None:
    async with ops_pool() as pool:
        task = await running(pool, "sleep", 0.3)
    assert await task == 0.3


async def test_leaving_while_the_pool_drains_lets_calls_end(pool: Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    call = await running(pool, "until_exists", str(gate), "done")
    drain = asyncio.ensure_future(pool.drain())
    await eventually(lambda: pool.status().state == "draining")
    leave = asyncio.ensure_future(pool.__aexit__(None, None, None))
    for _ in range(10):
        await asyncio.sleep(0)
    gate.touch()
    assert await call == "done"
    assert await drain == (1, 0, 0)
    await leave


async def test_an_exception_in_the_block_interrupts_calls_and_goes_on() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def service() -> None:
        async with ops_pool() as pool:
            tasks.append(await running(pool, "sleep", 60))
            tasks.append(asyncio.ensure_future(pool.run("echo")))
            await eventually(lambda: pool.status().waiting == 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await service()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [OperationCancelled, PoolClosed]


@pytest.mark.processes("ignores signals")
async def test_a_worker_that_ignores_everything_is_gone_all_the_same() -> None:
    async with ops_pool(stop_grace=0.1, kill_grace=0.1) as pool:
        pid = pid_of(pool)
        await pool.run("ignore_sigterm")
        await pool.run("tidy_up_at_exit", "/dev/null", 60)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 100])
@pytest.mark.processes("compares process ids")
async def test_leaving_can_be_cancelled_and_still_ends_every_worker_and_call(turns: int) -> None:
    pool = ops_pool(size=2)
    await pool.__aenter__()
    pids = [worker.pid for worker in pool.workers()]
    task = await running(pool, "sleep", 60)
    leaving = asyncio.ensure_future(pool.__aexit__(None, None, None))
    for _ in range(turns):
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    if turns:
        with pytest.raises(OperationCancelled):
            await asyncio.wait_for(task, 3)  # at once, not after drain_timeout or stop_grace
        await eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids if pid), timeout=3)
    else:  # cancelled before it began to run
        task.cancel()
        await pool.__aexit__(None, None, None)


async def test_closing_twice_at_once_is_as_good_as_once() -> None:
    pool = ops_pool()
    await pool.__aenter__()
    await asyncio.gather(*(pool.__aexit__(None, None, None) for _ in range(2)))
    assert pool.status().state == "closed"


# -- status -------------------------------------------------------------------------------------------------------


async def test_status_and_workers_tell_what_is(pool: Pool) -> None:
    assert (await pool.run("echo"), await pool.run("echo")) == (None, None)
    with pytest.raises(OperationError):
        await pool.run("fail")
    view = pool.status()
    assert (view.name, view.state, view.size, view.idle, view.busy, view.completed) == ("ops", "running", 1, 1, 0, 3)
    assert view.queue_limit == 10_000
    task = await running(pool, "sleep", 60)
    [worker] = pool.workers()
    assert (worker.id, worker.state, worker.operation, worker.restarts) == ("ops-0", "busy", "sleep", 0)
    assert worker.pid is not None
    assert worker.age is not None
    assert 0 <= worker.state_age <= worker.age
    assert worker.call_age is not None
    assert 0 <= worker.call_age <= worker.state_age
    task.cancel()


async def test_the_age_of_a_call_is_its_own_where_calls_follow_at_once(pool: Pool) -> None:
    assert [worker.call_age for worker in pool.workers()] == [None]
    calls = [asyncio.create_task(pool.run("sleep", seconds)) for seconds in (0.1, 0.1, 60)]
    await asyncio.wait(calls[:2])
    await eventually(lambda: pool.workers()[0].calls_held)
    [worker] = pool.workers()
    assert worker.state == "busy"
    assert worker.call_age is not None
    assert worker.call_age < worker.state_age - 0.15, "two other calls were before it"
    calls[2].cancel()


@pytest.mark.processes("kills a worker")
async def test_at_every_transition_the_counts_add_up_to_the_slots() -> None:
    pool = ops_pool(size=2, max_size=8, cancel_grace=0.02)
    seen: list[str] = []

    def check(_name: Any, _measurements: Any, about: Any, _config: Any) -> None:
        seen.append(about["trigger"])
        view, slots = pool.status(), pool._calls().workers
        counted = {"busy": view.busy, "idle": view.idle, "starting": view.starting}
        counted |= {"draining": view.draining, "dead": view.dead}
        assert all(count >= 0 for count in counted.values()), counted
        assert sum(counted.values()) == len(slots), counted

    telemetry.attach("invariant", ("pool", "worker", "transition"), check)
    with telemetry.capture(("telemetry",)) as failures:
        async with pool:
            tasks = [asyncio.ensure_future(pool.run("echo", number)) for number in range(20)]
            tasks += [asyncio.ensure_future(pool.run(name)) for name in ("die", "fail", "send_garbage", "kill_self")]
            tasks += [asyncio.ensure_future(pool.options(timeout=0.2).run("stuck_in_c"))]
            await pool.resize(4)
            await asyncio.wait(tasks)
            await pool.resize(2)
            assert await pool.run("echo", 1) == 1
            for task in tasks:
                task.exception()
    telemetry.detach("invariant")
    assert failures == []
    assert set(seen) == {"start", "loaded", "checkout", "checkin", "stop", "exited"}


# -- handlers that misbehave --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit, pytest.exit.Exception])
@pytest.mark.processes("kills a worker")
async def test_handlers_that_raise_disturb_no_call(error: type[BaseException]) -> None:
    from pool_monitor.events import CATALOGUE

    def broken(*_told: Any) -> None:
        raise error

    names = [name for name in CATALOGUE if name != telemetry.HANDLER_FAILURE]
    for name in names:
        telemetry.attach(".".join(name), name, broken)
    async with ops_pool() as pool:
        assert await pool.session("s").run("remember", "a") == ["a"]
        with pytest.raises(WorkerDied):
            await pool.run("die")
        task = await running(pool, "sleep", 60)
        task.cancel()
        assert await pool.run("echo", 1) == 1
    for name in names:
        telemetry.detach(".".join(name))


async def test_a_handler_that_cancels_the_caller_cancels_it_once_and_nothing_else(pool: Pool) -> None:
    def cancel(_name: Any, _measurements: Any, about: Any, task: asyncio.Task[Any]) -> None:
        task.cancel()

    task = asyncio.ensure_future(pool.run("echo", 1))
    telemetry.attach("cancel", ("pool", "operation", "stop"), cancel, task)
    telemetry.attach("cancel too", ("pool", "worker", "checkout"), cancel, task)
    with telemetry.capture(("pool", "operation")) as events:
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: pool.status().idle == 1)
    telemetry.detach("cancel")
    telemetry.detach("cancel too")
    assert len(events) == 2
    assert await pool.run("echo", 2) == 2


# -- chaos --------------------------------------------------------------------------------------------------------


KINDS = ["echo", "echo", "echo", "stream", "cancel", "timeout", "session", "idempotent", "fail"]


async def some_call(pool: Pool, kind: str, number: int, rng: random.Random) -> bool:
    """Make one call of the given kind. Returns whether its result was right."""
    match kind:
        case "stream":
            return await read(pool.stream("count", number % 200)) == list(range(number % 200))
        case "cancel":
            async with asyncio.timeout(rng.random() * 0.02):
                return bool(await pool.run("sleep", 0.05) == 0.05)
        case "timeout":
            return bool(await pool.options(timeout=0.01 + rng.random() * 0.02).run("sleep", 0.02) == 0.02)
        case "session":
            return bool(await pool.session(f"s{number % 5}").run("bump") > 0)
        case "fail":
            result = await pool.try_run("fail", str(number))
            failed = isinstance(result.error, OperationError) and result.error.message == str(number)
            return failed or isinstance(result.error, WorkerDied)
        case _:
            return bool(await pool.options(idempotent=kind == "idempotent").run("echo", number) == number)


async def killer(pool: Pool, rng: random.Random) -> None:
    for _ in range(20):
        pids = [worker.pid for worker in pool.workers() if worker.pid is not None]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)
        await asyncio.sleep(0.03 + rng.random() * 0.05)


@pytest.mark.processes("kills workers")
async def test_in_chaos_every_call_ends_exactly_once_with_its_own_result_or_a_known_error() -> None:
    rng = random.Random(7)
    results: list[Any] = []
    with telemetry.capture(("pool", "operation")) as events:
        async with ops_pool(size=3, cancel_grace=0.05, timeout=60.0) as pool:
            killing = asyncio.ensure_future(killer(pool, rng))
            for start in range(0, 1000, 50):
                calls = [some_call(pool, rng.choice(KINDS), number, rng) for number in range(start, start + 50)]
                results += await asyncio.gather(*calls, return_exceptions=True)
            await killing
            await eventually(lambda: pool.status().idle == 3)
            assert pool.status().waiting == 0
            assert pool.status().restarts > 5
    outcomes = Counter(result if isinstance(result, bool) else type(result).__name__ for result in results)
    assert outcomes.keys() <= {
        True,
        "WorkerDied",
        "TimeoutError",
        "OperationTimeout",
        "QueueTimeout",
        "PoolSaturated",
    }, outcomes
    assert outcomes[True] > 300
    assert [result for result in results if isinstance(result, WorkerDied) and result.exit_code != -9] == []
    per_call: dict[int, list[str]] = {}
    for event in events:
        per_call.setdefault(event.metadata["call_id"], []).append(event.name[-1])
    assert len(per_call) == 1000
    assert all(names in (["start", "stop"], ["start", "exception"]) for names in per_call.values())
