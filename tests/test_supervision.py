"""How a pool handles workers that die, hang or are due to be recycled, and calls that would miss their deadlines."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import (
    CircuitOpen,
    OperationError,
    OperationTimeout,
    Pool,
    PoolClosed,
    PoolSaturated,
    StartError,
    WorkerDied,
    telemetry,
)
from pool_monitor.errors import ConfigError, PayloadError, SessionLost
from pool_monitor.pool.policy.recycle import RecycleLimits
from pool_monitor.pool.stream_buffer import STREAM_HIGH
from pool_monitor.pool.worker import Worker
from tests.helpers.gates import in_gates
from tests.helpers.support import eventually, metadata, ops_pool, pid_of, read, running, words


async def killed(pool: Pool, slot: int = 0) -> None:
    """Kill the slot's process and wait until another one is ready."""
    before = pid_of(pool, slot)
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: pool.workers()[slot].pid not in (None, before) and not pool.status().starting)


def slot(pool: Pool, number: int = 0) -> Worker:
    return pool._calls().workers[f"{pool.name}-{number}"]


def licensed(folder: Path) -> tuple[str, Path]:
    """Make a target that loads until the returned path exists."""
    revoked = folder / "revoked"
    (folder / "licensed.py").write_text(
        "import os\n"
        "class Licensed:\n"
        "    def __init__(self):\n"
        f"        if os.path.exists({str(revoked)!r}):\n"
        "            raise RuntimeError('no licence left')\n"
        "    def echo(self, value):\n"
        "        return value\n"
    )
    return f"{folder / 'licensed.py'}:Licensed", revoked


# -- restarts -----------------------------------------------------------------------------------------------------


async def test_a_slot_that_is_restarted_too_often_is_in_a_crash_loop_and_comes_back_all_the_same() -> None:
    with telemetry.capture(("pool", "worker", "crash_loop")) as events:
        async with ops_pool(restart_limit=2, restart_period=60, backoff_min=0.01, backoff_max=0.02) as pool:
            for _ in range(2):
                await killed(pool)
            assert pool.status().crash_loops == 0
            for _ in range(3):
                await killed(pool)
            assert pool.status().crash_loops == 1
            assert pool.workers()[0].crash_loop
            assert await pool.run("echo", 1) == 1
    assert metadata(events, "state") == ["entered"]
    assert events[0].measurements["pause_duration"] >= 10_000_000


async def test_a_crash_loop_is_over_when_a_worker_has_lived_for_the_period() -> None:
    with telemetry.capture(("pool", "worker", "crash_loop")) as events:
        async with ops_pool(
            restart_limit=0, restart_period=0.3, backoff_min=0.01, backoff_max=0.01, health_interval=0.05
        ) as pool:
            await killed(pool)
            assert pool.workers()[0].crash_loop
            await eventually(lambda: not pool.workers()[0].crash_loop)
    assert metadata(events, "state") == ["entered", "left"]


async def test_a_crash_loop_is_not_over_before_a_process_has_lived_for_the_period() -> None:
    async with ops_pool(restart_limit=0, restart_period=60, backoff_min=0.01, backoff_max=0.01) as pool:
        await killed(pool)
        worker, slots = slot(pool), pool._supervisor
        assert slots is not None
        assert worker.process is not None
        assert worker.crash_loop
        times = worker.intensity._times
        for _ in range(len(times)):  # as if the restarts were 1,000 s ago
            times.append(times.popleft() - 1000)
        slots.check_workers(asyncio.get_running_loop().time())
        assert worker.crash_loop
        worker.process.ready_ns -= 61 * 10**9
        slots.check_workers(asyncio.get_running_loop().time())
        assert not worker.crash_loop


async def test_a_worker_that_was_ended_on_purpose_is_no_sign_of_a_crash_loop() -> None:
    async with ops_pool(restart_limit=0, restart_period=60, timeout=0.05, cancel_grace=0.0) as pool:
        for _ in range(2):
            await pool.try_run("stuck_in_c")
            await eventually(lambda: pool.status().idle == 1)
        assert pool.status().restarts == 2
        assert pool.status().crash_loops == 0


# -- circuit breaker ----------------------------------------------------------------------------------------------


async def test_workers_that_keep_dying_open_the_breaker_and_good_trials_close_it() -> None:
    with telemetry.capture(("pool", "breaker")) as events:
        async with ops_pool(breaker_failures=2, breaker_open=0.2, breaker_trials=1, breaker_successes=2) as pool:
            assert pool.status().breaker == "closed"
            for _ in range(2):
                with pytest.raises(WorkerDied):
                    await pool.run("kill_self")
            with pytest.raises(CircuitOpen, match="breaker_failures=0") as caught:
                await pool.run("echo")
            assert 0 < (caught.value.retry_after_s or 0) <= 0.2
            assert (pool.status().breaker, pool.status().refusals) == ("open", {"circuit_open": 1})

            async def let_through() -> bool:
                return (await pool.try_run("echo")).error is None

            while not await let_through():
                await asyncio.sleep(0.01)
            assert pool.status().breaker == "half_open"
            assert await let_through()
            assert pool.status().breaker == "closed"
    assert metadata(events, "trigger") == ["failures", "elapsed", "trials_succeeded"]


async def test_a_breaker_that_failed_starts_have_opened_lets_calls_through_when_a_worker_is_there(
    tmp_path: Path,
) -> None:
    target, revoked = licensed(tmp_path)
    settings = {"breaker_failures": 2, "breaker_open": 1000.0, "backoff_min": 0.01, "backoff_max": 0.02}
    with telemetry.capture(("pool", "breaker")) as events:
        async with Pool(target, size=1, **settings) as pool:
            revoked.touch()
            os.kill(pid_of(pool), signal.SIGKILL)
            await eventually(lambda: pool.status().breaker == "open")
            with pytest.raises(CircuitOpen):
                await pool.run("echo", 1)
            revoked.unlink()
            await eventually(lambda: pool.status().idle == 1)
            assert await pool.run("echo", 1) == 1
    assert metadata(events, "trigger") == ["failures", "worker_started"]


@pytest.mark.parametrize("reason", ["timeout", "cancel"])
async def test_who_is_beside_a_call_that_does_not_let_go_is_told_so_and_the_breaker_is_not(reason: str) -> None:
    async with ops_pool(concurrency=8, breaker_failures=1) as pool:
        beside = [await running(pool, "later", number, 60) for number in range(2)]
        culprit = await running(pool, "stuck_in_c", timeout=0.2 if reason == "timeout" else 20.0)
        if reason == "cancel":
            culprit.cancel()
        [end] = await asyncio.gather(culprit, return_exceptions=True)
        assert isinstance(end, OperationTimeout if reason == "timeout" else asyncio.CancelledError)
        for error in await asyncio.gather(*beside, return_exceptions=True):
            assert isinstance(error, WorkerDied)
            assert error.reason == reason
            assert "later: worker ops-0 ended during the call: it was killed because stuck_in_c" in str(error)
        assert pool.status().breaker == "closed"
        await eventually(lambda: pool.status().idle == 1)


async def test_a_trial_that_fails_opens_the_breaker_again_and_a_cancelled_one_gives_its_place_back() -> None:
    async with ops_pool(breaker_failures=1, breaker_open=0.05, breaker_trials=1) as pool:
        await pool.try_run("kill_self")
        assert pool.status().breaker == "open"
        await asyncio.sleep(0.06)
        trial = await running(pool, "sleep", 60)
        with pytest.raises(CircuitOpen):
            await pool.run("echo")
        trial.cancel()
        await eventually(lambda: pool.status().idle == 1)
        with pytest.raises(WorkerDied):
            await pool.run("kill_self")
        assert pool.status().breaker == "open"


async def test_workers_that_die_together_are_one_failure() -> None:
    async with ops_pool(size=3, breaker_failures=2) as pool:
        calls = [await running(pool, "sleep", 60) for _ in range(3)]
        for slot in range(3):
            os.kill(pid_of(pool, slot), signal.SIGKILL)
        assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [WorkerDied] * 3
        assert pool.status().breaker == "closed"


@pytest.mark.usefixtures("both_pools")
async def test_errors_of_the_target_and_bad_arguments_do_not_open_the_breaker() -> None:
    async with ops_pool(breaker_failures=1, breaker_minimum=1) as pool:
        for _ in range(3):
            with pytest.raises(OperationError):
                await pool.run("fail", "as asked")
            with pytest.raises(PayloadError):
                await pool.run("echo", object())
        assert pool.status().breaker == "closed"


@pytest.mark.slow
@pytest.mark.gate
async def test_without_a_breaker_nothing_is_refused() -> None:
    async with ops_pool(breaker_failures=0) as pool:
        assert pool.status().breaker is None
        for _ in range(6):
            await pool.try_run("kill_self")
        assert await pool.run("echo", 1) == 1


# -- retries ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_pools")
async def test_an_idempotent_call_is_sent_again_after_an_error_that_was_named(tmp_path: Path) -> None:
    async with ops_pool(retry_errors=("KeyError",)) as pool:
        with telemetry.capture(("pool", "retry")) as events:
            assert await pool.options(idempotent=True).run("fail_once", str(tmp_path / "once")) == "done"
        assert metadata(events, "category") == ["operation"]
        with pytest.raises(OperationError):
            await pool.run("fail_once", str(tmp_path / "again"))


@pytest.mark.usefixtures("both_pools")
async def test_an_error_that_was_not_named_is_final(tmp_path: Path) -> None:
    async with ops_pool() as pool:
        with pytest.raises(OperationError):
            await pool.options(idempotent=True).run("fail_once", str(tmp_path / "once"))


async def test_a_worker_that_always_dies_costs_as_many_tries_as_the_table_says() -> None:
    async with ops_pool(breaker_failures=0) as pool:
        with telemetry.capture(("pool",)) as events, pytest.raises(WorkerDied):
            await pool.options(idempotent=True).run("kill_self")
        assert words(events).count("pool.retry") == 2
        ends = [event for event in events if event.name == ("pool", "operation", "exception")]
        assert [event.measurements["attempts"] for event in ends] == [3]


async def test_no_call_is_sent_again_when_the_budget_says_none(tmp_path: Path) -> None:
    async with ops_pool(retry_budget=0) as pool:
        with pytest.raises(WorkerDied):
            await pool.options(idempotent=True).run("die_once", str(tmp_path / "once"))


async def test_a_call_cancelled_between_two_tries_is_over() -> None:
    async with ops_pool(breaker_failures=0) as pool:
        with telemetry.capture(("pool", "worker", "checkout")) as events:
            call = asyncio.ensure_future(pool.options(idempotent=True).run("kill_self"))
            with telemetry.capture(("pool", "retry")) as retries:
                await eventually(lambda: retries)
                call.cancel()
            await eventually(lambda: pool.status().idle == 1)
            assert await pool.run("echo", 1) == 1
    assert len(events) == 2


# -- sessions -----------------------------------------------------------------------------------------------------


async def test_a_strict_session_waits_for_its_process_though_others_are_idle() -> None:
    async with ops_pool(size=2) as pool:
        session = pool.session("s", affinity="strict")
        pid = await session.run("pid")
        slot = next(worker.id for worker in pool.workers() if worker.pid == pid)
        busy = await running(pool, "sleep", 60, worker=slot)
        call = asyncio.ensure_future(session.run("pid"))
        await eventually(lambda: pool.status().waiting == 1)
        busy.cancel()
        assert await call == pid


async def test_a_strict_session_is_told_once_that_its_process_is_gone_and_begins_anew_with_its_data() -> None:
    async with ops_pool(size=2, affinity="strict") as pool:
        session = pool.session("s")
        await session.run("remember", "a")
        slot = pool._calls().sessions.table.get("s")
        assert slot is not None
        assert slot.worker is not None
        await killed(pool, int(slot.worker[-1]))
        with pytest.raises(SessionLost, match="'s'"):
            await session.run("remember", "b")
        assert await session.run("remember", "c") == ["a", "c"]


async def test_calls_of_a_strict_session_that_wait_for_a_process_fail_when_it_dies() -> None:
    async with ops_pool(size=2, breaker_failures=0) as pool:
        session = pool.session("s", affinity="strict")
        pid = await session.run("pid")
        slot = next(worker.id for worker in pool.workers() if worker.pid == pid)
        busy = await running(pool, "sleep", 60, worker=slot)
        waiting = asyncio.ensure_future(session.run("pid"))
        await eventually(lambda: pool.status().waiting == 1)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SessionLost):
            await waiting
        with pytest.raises(WorkerDied):
            await busy


async def test_an_idempotent_call_of_a_strict_session_goes_to_another_process_by_itself() -> None:
    async with ops_pool() as pool:
        session = pool.options(session="s", affinity="strict", idempotent=True)
        pid = await session.run("pid")
        await killed(pool)
        assert await session.run("pid") != pid


@pytest.mark.usefixtures("both_pools")
async def test_a_wrong_affinity_is_refused() -> None:
    async with ops_pool() as pool:
        with pytest.raises(ConfigError, match=r"affinity='loose'.*'hint' or 'strict'"):
            pool.session("s", affinity="loose")


# -- pause, resume, restart, recycling, warm-up -------------------------------------------------------------------


@pytest.mark.usefixtures("both_pools")
async def test_a_paused_pool_accepts_calls_and_runs_them_when_it_is_resumed() -> None:
    with telemetry.capture(("pool",)) as events:
        async with ops_pool() as pool:
            await pool.pause()
            await pool.pause()
            calls = [asyncio.ensure_future(pool.run("echo", number)) for number in range(3)]
            await eventually(lambda: pool.status().waiting == 3)
            assert (pool.status().state, pool.status().idle) == ("paused", 1)
            await pool.resume()
            assert await asyncio.gather(*calls) == [0, 1, 2]
            assert pool.status().state == "running"
            await pool.pause()
            left = asyncio.ensure_future(pool.run("echo", "left"))
            await eventually(lambda: pool.status().waiting == 1)
        assert await left == "left"  # a pool that closes lets accepted calls end
        with pytest.raises(PoolClosed):
            await pool.pause()
    assert [name for name in words(events) if name in ("pool.pause", "pool.resume")] == [
        "pool.pause",
        "pool.resume",
        "pool.pause",
    ]


def watch_capacity(pool: Pool, size: int) -> list[str]:
    """Record every moment at which there are not exactly *size* slots, all of them ready or busy."""
    seen: list[str] = []

    def look(*_event: Any) -> None:
        view = pool.status()
        if view.idle + view.busy != size or view.starting + view.draining + view.dead:
            seen.append(repr(view))

    telemetry.attach(f"watch-{id(seen)}", ("pool", "worker", "transition"), look)
    return seen


async def test_a_rolling_restart_replaces_every_process_and_no_call_notices() -> None:
    async with ops_pool(size=3) as pool:
        before = {worker.pid for worker in pool.workers()}
        seen = watch_capacity(pool, 3)
        going = True

        async def calls() -> int:
            count = 0
            while going:
                assert await pool.run("echo", count) == count
                count += 1
            return count

        callers = [asyncio.ensure_future(calls()) for _ in range(6)]
        with telemetry.capture(("pool", "worker")) as events:
            await pool.restart()
        going = False
        assert min(await asyncio.gather(*callers)) > 0
        telemetry.detach(f"watch-{id(seen)}")
        after = {worker.pid for worker in pool.workers()}
        assert before.isdisjoint(after)
        assert seen == []
        assert metadata(events, "reason", "pool.worker.recycle") == ["restart"] * 3
        assert pool.status().restarts == 0
        await eventually(lambda: not any(map(_exists, before)))
        await killed(pool, 1)
        assert [worker.restarts for worker in pool.workers()] == [0, 1, 0]


def _exists(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_busy_worker_is_replaced_when_its_call_has_ended(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with ops_pool() as pool:
        pid = pid_of(pool)
        call = await running(pool, "until_exists", str(gate), "done")
        restart = asyncio.ensure_future(pool.restart())
        waiting = asyncio.ensure_future(pool.run("pid"))
        await eventually(lambda: pool._calls().workers["ops-0"].successor)
        await eventually(lambda: not pool._calls().workers["ops-0"].accepting)
        assert pid_of(pool) == pid
        gate.touch()
        assert await call == "done"
        await restart
        assert await waiting == pid_of(pool) != pid


async def test_a_successor_takes_over_when_the_worker_it_was_to_replace_dies(tmp_path: Path) -> None:
    async with ops_pool() as pool:
        busy = await running(pool, "until_exists", str(tmp_path / "never"), "done")
        restart = asyncio.ensure_future(pool.restart())
        worker = pool._calls().workers["ops-0"]
        await eventually(lambda: worker.successor is not None and not worker.accepting)
        assert worker.successor is not None
        successor = worker.successor.ready
        assert successor is not None
        os.kill(pid_of(pool), signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await busy
        await restart
        assert await pool.run("pid") == successor.pid


@pytest.mark.usefixtures("both_pools")
async def test_a_restart_that_is_cancelled_leaves_the_pool_as_it_was() -> None:
    async with ops_pool() as pool:
        pid = pid_of(pool)
        busy = await running(pool, "sleep", 60)
        restart = asyncio.ensure_future(pool.restart())
        worker = pool._calls().workers["ops-0"]
        await eventually(lambda: worker.successor is not None and not worker.accepting)
        restart.cancel()
        await asyncio.wait([restart])
        busy.cancel()
        assert await pool.run("pid") == pid


async def test_a_successor_that_dies_before_it_is_needed_costs_nobody_a_worker(tmp_path: Path) -> None:
    async with ops_pool() as pool:
        pid, worker = pid_of(pool), slot(pool)
        busy = await running(pool, "until_exists", str(tmp_path / "gate"))
        restart = asyncio.ensure_future(pool.restart())
        await eventually(lambda: worker.successor is not None and worker.successor.ready and not worker.accepting)
        assert worker.successor is not None
        assert worker.successor.ready is not None
        successor = worker.successor
        os.kill(worker.successor.ready.pid, signal.SIGKILL)
        await eventually(lambda: successor.transport is None)
        (tmp_path / "gate").touch()
        await busy
        with pytest.raises(StartError, match="ops-0 ended before it could take over"):
            await restart
        assert await pool.run("pid") == pid


async def test_a_surplus_worker_is_not_used_again_when_its_replacement_is_called_off(tmp_path: Path) -> None:
    async with ops_pool(size=1, min_size=0) as pool:
        worker = slot(pool)
        busy = await running(pool, "until_exists", str(tmp_path / "gate"))
        restart = asyncio.ensure_future(pool.restart())
        await eventually(lambda: worker.successor is not None)  # the successor is being started
        await pool.resize(0)
        await restart
        assert not worker.accepting
        (tmp_path / "gate").touch()
        await busy
        await eventually(lambda: not pool.workers())


async def test_a_restart_passes_over_workers_that_are_retired_meanwhile() -> None:
    async with ops_pool(size=3) as pool:
        with telemetry.capture(("pool", "error")) as errors:
            restart = asyncio.ensure_future(pool.restart())
            worker = slot(pool, 1)
            await eventually(lambda: worker.successor is not None)
            await pool.resize(1)
            await restart
        assert errors == []


async def test_a_restart_that_meets_the_end_of_the_pool_is_no_error() -> None:
    with telemetry.capture(("pool", "error")) as errors:
        async with ops_pool(size=1) as pool:
            restart = asyncio.ensure_future(pool.restart())
            worker = slot(pool)
            await eventually(lambda: worker.successor is not None)
        await restart
    assert errors == []


async def test_after_a_restart_with_new_code_its_operations_are_known(tmp_path: Path) -> None:
    target = tmp_path / "changing.py"
    target.write_text("class Changing:\n    def old(self):\n        return 1\n")
    async with Pool(f"{target}:Changing", size=1) as pool:
        assert await pool.run("old") == 1
        target.write_text("class Changing:\n    def another(self):\n        return 'more than before'\n")
        await pool.restart()
        assert await pool.run("another") == "more than before"


async def test_a_process_that_has_gone_before_its_turn_to_be_recycled_is_not_replaced_again() -> None:
    async with ops_pool(recycle_calls=2, recycle_jitter=0) as pool:
        slots, worker = pool._supervisor, slot(pool)
        assert slots is not None
        with telemetry.capture(("pool", "worker", "recycle")) as events:
            async with worker.replacing:  # as if a replacement were under way
                for _ in range(2):
                    await pool.run("echo")
                assert worker.recycling
                await killed(pool)
                pid = pid_of(pool)
            await eventually(lambda: not worker.recycling)
        assert events == []
        assert await pool.run("pid") == pid


@pytest.mark.parametrize("kills", [7, in_gates(15)])
async def test_a_process_that_dies_while_its_successor_starts_is_followed_by_that_one_alone(kills: int) -> None:
    async with ops_pool(recycle_calls=2, recycle_jitter=0, restart_limit=1000) as pool:
        for number in range(kills):
            pid = await pool.run("pid")
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(number % 5)))
            os.kill(pid, signal.SIGKILL)  # the successor may be starting by now
            while True:
                result = await pool.try_run("pid")
                if result.error is None and result.result != pid:
                    break
            assert pool._supervisor is not None
            await eventually(lambda: len(pool._supervisor._processes._living) == 1 and pool.status().idle == 1)
            await asyncio.sleep(0.002 * number)


async def test_a_process_that_has_its_last_call_while_a_failed_successor_is_waited_for_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, revoked = licensed(tmp_path)
    monkeypatch.setattr(RecycleLimits, "draw", lambda *_: RecycleLimits(2, None, None, 4))
    async with Pool(target, size=1, timeout=10.0, backoff_min=0.3, backoff_max=0.3, health_interval=60.0) as pool:
        revoked.touch()
        with telemetry.capture(("pool", "error")) as errors:
            for number in range(2):
                await pool.run("echo", number)
            await eventually(lambda: errors)
        for number in range(2):
            await pool.run("echo", number)
        revoked.unlink()
        for number in range(10):
            assert await pool.run("echo", number) == number


@pytest.mark.parametrize("where", ["psutil", "looking"])
async def test_a_worker_that_cannot_be_looked_at_ends_no_pool(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor_left(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async with ops_pool(health_interval=0.05, health_timeout=0.05) as pool:
        if where == "psutil":
            monkeypatch.setattr("psutil.Process", no_descriptor_left)
        else:
            monkeypatch.setattr("pool_monitor.pool.checkups._processor_time", no_descriptor_left)
        with pytest.raises(OperationTimeout):
            await pool.options(timeout=0.5).run("stuck_in_c")
        assert pool.status().state == "running"
        assert await pool.run("echo", 1) == 1


async def test_a_recycling_that_fails_is_not_tried_again_at_once(tmp_path: Path) -> None:
    target, revoked = licensed(tmp_path)
    often = {"health_interval": 0.02, "recycle_age": 0.01, "recycle_jitter": 0.0}
    async with Pool(target, size=1, backoff_min=60.0, backoff_max=60.0, **often) as pool:
        revoked.touch()
        with telemetry.capture(("pool",)) as events:

            def since_the_failure(name: str) -> int:
                names = words(events)
                return names[names.index("pool.error") :].count(name) if "pool.error" in names else 0

            await eventually(lambda: since_the_failure("pool.worker.health_check") >= 4)
            assert since_the_failure("pool.worker.init") == 0
        assert await pool.run("echo", 1) == 1


async def test_workers_that_cannot_start_are_the_first_to_be_retired(tmp_path: Path) -> None:
    target, revoked = licensed(tmp_path)
    async with Pool(target, size=2, backoff_min=60.0, backoff_max=60.0) as pool:
        revoked.touch()
        with telemetry.capture(("pool", "error")) as errors:
            os.kill(pid_of(pool, 0), signal.SIGKILL)
            await eventually(lambda: errors)
        await pool.resize(1)
        await eventually(lambda: len(pool.workers()) == 1)
        assert [(worker.id, worker.state) for worker in pool.workers()] == [("default-1", "ready")]


@pytest.mark.parametrize(
    ("limit", "reason"), [({"recycle_calls": 5}, "calls"), ({"recycle_age": 0.2}, "age"), ({"recycle_rss": 1}, "rss")]
)
async def test_a_process_that_has_done_enough_is_replaced(limit: dict[str, Any], reason: str) -> None:
    async with ops_pool(health_interval=0.05, recycle_jitter=0, **limit) as pool:
        with telemetry.capture(("pool", "worker", "recycle")) as events:
            pid = await pool.run("pid")
            for _ in range(4):
                await pool.run("echo")
            await eventually(lambda: pid_of(pool) != pid)
            assert await pool.run("echo", 1) == 1
    assert events[0].metadata["reason"] == reason
    assert events[0].measurements["calls"] >= 0


@pytest.mark.usefixtures("both_pools")
async def test_a_sequential_warm_up_starts_one_worker_after_the_other() -> None:
    with telemetry.capture(("pool",)) as events:
        async with ops_pool(size=3, warmup="sequential") as pool:
            assert pool.status().idle == 3
    names = [name for name in words(events) if name in ("pool.worker.init", "pool.worker.ready", "pool.warmup")]
    assert names == ["pool.worker.init", "pool.worker.ready"] * 3 + ["pool.warmup"]


@pytest.mark.usefixtures("both_pools")
async def test_a_staged_warm_up_opens_the_pool_as_soon_as_the_fewest_are_ready() -> None:
    with telemetry.capture(("pool",)) as events:
        async with ops_pool(size=3, min_size=1, warmup="staged") as pool:
            assert await pool.run("echo", 1) == 1
            await eventually(lambda: pool.status().idle == 3)
    names = [name for name in words(events) if name in ("pool.ready", "pool.worker.ready", "pool.warmup")]
    assert names.index("pool.ready") < names.index("pool.warmup")
    assert names[:2] == ["pool.worker.ready", "pool.ready"]
    assert next(event for event in events if event.name == ("pool", "warmup")).metadata["mode"] == "staged"


# -- overload -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_pools")
async def test_a_call_that_would_miss_its_deadline_is_refused_at_once_and_told_why() -> None:
    async with ops_pool() as pool:
        for _ in range(25):
            await pool.run("sleep", 0.01)
        calls = [asyncio.ensure_future(pool.options(timeout=0.15).try_run("sleep", 0.01)) for _ in range(60)]
        results = await asyncio.gather(*calls)
        refused = [result.error for result in results if isinstance(result.error, PoolSaturated)]
        assert len(refused) > 30
        assert {error.reason for error in refused} == {"deadline"}
        assert all(error.waited_s < 0.05 and error.retry_after_s is not None for error in refused)
        assert "would probably miss its deadline" in str(refused[0])
        assert all(error.retry_after_s > 0 for error in refused if error.retry_after_s is not None)
        assert "pool 'ops'" in str(refused[0])
        assert pool.status().refusals["deadline"] == len(refused)
        assert sum(result.error is None for result in results) >= 3
        assert await pool.run("echo", "patient") == "patient"


@pytest.mark.usefixtures("both_pools")
async def test_a_pool_told_not_to_shed_lets_calls_wait() -> None:
    async with ops_pool(shed=False) as pool:
        for _ in range(25):
            await pool.run("sleep", 0.01)
        calls = [asyncio.ensure_future(pool.options(timeout=0.1).try_run("sleep", 0.01)) for _ in range(40)]
        kinds = Counter(type(result.error).__name__ for result in await asyncio.gather(*calls))
        assert kinds["PoolSaturated"] == 0
        assert kinds["QueueTimeout"] > 20


@pytest.mark.usefixtures("both_pools")
async def test_a_burst_of_five_thousand_calls_with_the_default_deadline_all_succeed() -> None:
    async with ops_pool(size=2, timeout=60.0) as pool:
        assert await asyncio.gather(*(pool.run("echo", number) for number in range(5000))) == list(range(5000))


@pytest.mark.usefixtures("both_pools")
async def test_relative_time_tells_who_waited_for_whom() -> None:
    async with ops_pool() as pool:
        assert pool.status().relative_time is None
        for _ in range(3):
            await asyncio.sleep(0.02)
            await pool.run("echo")
        assert (pool.status().relative_time or 0) < 0
        await asyncio.gather(*(pool.run("sleep", 0.02) for _ in range(10)))
        assert (pool.status().relative_time or 0) > 0


# -- health -------------------------------------------------------------------------------------------------------

IMPATIENT = {"health_interval": 0.1, "health_timeout": 0.1, "health_misses": 2}


async def test_a_worker_says_how_it_is_and_how_much_memory_it_has() -> None:
    async with ops_pool(**IMPATIENT) as pool:
        await eventually(lambda: pool.workers()[0].health == "responsive")
        assert (pool.workers()[0].rss or 0) > 1_000_000


async def test_of_a_worker_that_has_not_answered_yet_nobody_says_how_it_is() -> None:
    async with ops_pool(health_interval=60.0) as pool:
        slots = pool._supervisor
        assert slots is not None
        slots.check_workers(asyncio.get_running_loop().time())
        seen = pool.workers()[0]
        assert (seen.health, seen.rss) == (None, None)
        await eventually(lambda: pool.workers()[0].health == "responsive")


async def test_a_call_that_a_stopped_worker_has_not_begun_is_done_by_another() -> None:
    async with ops_pool(size=2, **IMPATIENT) as pool:
        session = pool.session("s")
        pid = await session.run("pid")
        os.kill(pid, signal.SIGSTOP)
        call = await running(pool, "pid", session="s")
        assert [worker.calls_held for worker in pool.workers() if worker.pid == pid] == [1]
        assert await call != pid
        await eventually(lambda: pool.status().idle == 2)


async def test_an_idle_worker_that_does_not_answer_is_left_alone_then_replaced() -> None:
    async with ops_pool(**IMPATIENT) as pool:
        with telemetry.capture(("pool",)) as events:
            pid = pid_of(pool)
            os.kill(pid, signal.SIGSTOP)
            await eventually(lambda: pool.workers()[0].state == "degraded")
            assert await pool.run("pid") != pid
    assert metadata(events, "reason", "pool.worker.terminate")[:1] == ["health"]
    assert "unresponsive" in metadata(events, "verdict", "pool.worker.health_check")


async def test_a_worker_that_answers_again_is_used_again() -> None:
    async with ops_pool(**{**IMPATIENT, "health_misses": 100}) as pool:
        pid = pid_of(pool)
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: pool.workers()[0].state == "degraded")
        call = asyncio.ensure_future(pool.run("pid"))
        os.kill(pid, signal.SIGCONT)
        assert await call == pid


async def test_a_worker_that_computes_without_answering_is_busy_and_one_that_does_neither_is_stuck() -> None:
    async with ops_pool(**IMPATIENT) as pool:
        pid = pid_of(pool)
        call = await running(pool, "stuck_in_c")
        await eventually(lambda: pool.workers()[0].health == "busy")
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: pool.workers()[0].health == "stuck")
        assert pid_of(pool) == pid
        assert not call.done()
        call.cancel()
        await eventually(lambda: pool.status().idle == 1)


@pytest.mark.usefixtures("both_pools")
async def test_a_worker_that_runs_python_code_for_long_is_responsive() -> None:
    async with ops_pool(**IMPATIENT) as pool:
        with telemetry.capture(("pool", "worker", "health_check")) as events:
            call = await running(pool, "spin")
            await eventually(lambda: len(events) >= 3)
            call.cancel()
    assert set(metadata(events, "verdict")) == {"responsive"}


# -- several calls on one worker ----------------------------------------------------------------------------------


async def quick_calls(pool: Pool) -> None:
    """Let the pool measure that its operations are short."""
    for _ in range(5):
        await asyncio.gather(*(pool.run("echo", number) for number in range(100)))


async def test_a_call_that_kills_its_worker_takes_no_other_along_though_they_were_handed_over_together() -> None:
    async with ops_pool(size=2, breaker_failures=0) as pool:
        await quick_calls(pool)
        for _ in range(5):
            calls = [pool.run("echo", number) for number in range(20)]
            deadly = asyncio.ensure_future(pool.run("kill_self"))
            calls += [pool.run("echo", number) for number in range(20, 40)]
            assert await asyncio.gather(*calls) == list(range(40))
            with pytest.raises(WorkerDied):
                await deadly
            await eventually(lambda: pool.status().idle == 2)


async def test_calls_handed_ahead_do_not_wait_behind_a_long_one() -> None:
    async with ops_pool(size=2) as pool:
        await quick_calls(pool)
        calls = [asyncio.ensure_future(pool.run("sleep", 60))]
        calls += [asyncio.ensure_future(pool.run("echo", number)) for number in range(40)]
        assert await asyncio.gather(*calls[1:]) == list(range(40))
        assert not calls[0].done()
        calls[0].cancel()


async def test_calls_handed_ahead_do_not_wait_behind_one_that_holds_the_interpreter() -> None:
    async with ops_pool(size=2, timeout=1.0) as pool:
        await quick_calls(pool)
        stuck = asyncio.ensure_future(pool.try_run("stuck_in_c"))
        calls = [asyncio.ensure_future(pool.options(timeout=20).run("echo", number)) for number in range(40)]
        assert await asyncio.gather(*calls) == list(range(40))
        await stuck


async def test_calls_handed_ahead_do_not_wait_behind_a_stream_nobody_reads() -> None:
    async with ops_pool(size=2) as pool:
        await quick_calls(pool)
        async with aclosing(pool.stream("count_forever", size=2000)) as items:
            await anext(items)
            [stream] = pool._calls()._open.values()
            buffer = await eventually(lambda: stream.items and stream.items.buffer)
            await eventually(lambda: len(buffer) >= STREAM_HIGH)
            roster = pool._calls().roster
            roster.depth = 4  # it may have been lower when the stream began, if the quick calls were slow
            for worker in roster.workers.values():
                roster.changed(worker)
            calls = [asyncio.ensure_future(pool.options(timeout=5).run("echo", number)) for number in range(6)]
            await asyncio.sleep(0)
            assert stream.worker is not None
            assert len(stream.worker.calls) == 4
            assert await asyncio.gather(*calls) == list(range(6))


async def test_a_call_handed_ahead_can_be_cancelled_and_time_out() -> None:
    async with ops_pool(size=1) as pool:
        await quick_calls(pool)
        calls = [asyncio.ensure_future(pool.run("echo", number)) for number in range(50)]
        late = asyncio.ensure_future(pool.options(timeout=0.02).try_run("sleep", 60))
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[1::2] == list(range(1, 50, 2))
        assert all(isinstance(result, asyncio.CancelledError | int) for result in results)
        assert (await late).error is not None
        assert await pool.run("echo", "on") == "on"


async def test_with_prefetch_of_one_a_worker_has_one_call_at_a_time() -> None:
    async with ops_pool(prefetch=1) as pool:
        most = 0

        def look(*_event: Any) -> None:
            nonlocal most
            most = max(most, pool.workers()[0].calls_held)

        telemetry.attach("look", ("pool", "worker", "checkout"), look)
        await quick_calls(pool)
        telemetry.detach("look")
        assert most == 1


@pytest.mark.usefixtures("both_pools")
async def test_coroutine_operations_share_a_worker_as_far_as_its_concurrency_allows() -> None:
    async with ops_pool(concurrency=5) as pool:
        assert await asyncio.gather(*(pool.run("meet", 5) for _ in range(5))) == [5] * 5
        assert pool.workers()[0].state == "ready"


@pytest.mark.usefixtures("both_pools")
async def test_cancelling_one_of_several_calls_on_a_worker_leaves_the_others_alone() -> None:
    async with ops_pool(concurrency=3) as pool:
        one, other = [await running(pool, "later", number, 60) for number in range(2)]
        one.cancel()
        await asyncio.wait([one])
        await eventually(lambda: pool.workers()[0].calls_held == 1)
        assert await pool.run("echo", 1) == 1
        assert not other.done()
        other.cancel()


@pytest.mark.usefixtures("both_pools")
async def test_a_call_cancelled_while_a_function_holds_its_worker_never_begins() -> None:
    async with ops_pool(concurrency=3, cancel_grace=20.0) as pool:
        first = await running(pool, "sleep", 0.4)
        for _ in range(2):
            with pytest.raises(OperationTimeout):
                await pool.options(timeout=0.1).run("spin")
        assert await first == 0.4
        assert await pool.options(timeout=10).run("echo", 1) == 1
        assert pool.status().restarts == 0


@pytest.mark.usefixtures("both_pools")
async def test_a_stream_nobody_reads_stands_still_and_holds_up_no_other_call_of_its_worker() -> None:
    async with ops_pool(concurrency=2) as pool, aclosing(pool.stream("count_later", 5000)) as items:
        assert await anext(items) == 0
        [call] = pool._calls()._open.values()
        assert call.items is not None
        buffer, other = call.items.buffer, pool.options(timeout=5)
        await eventually(lambda: len(buffer) >= STREAM_HIGH)
        assert await other.run("later", "other") == "other"
        before = len(buffer)
        for number in range(10):
            assert await other.run("later", number) == number
        assert len(buffer) == before <= STREAM_HIGH + 64 * 1024 // 8
        assert await read(items) == list(range(1, 5000))


@pytest.mark.usefixtures("both_pools")
async def test_leaving_a_stream_that_stands_still_closes_it(tmp_path: Path) -> None:
    async with ops_pool(concurrency=2) as pool:
        pid = await pool.run("pid")
        async with aclosing(pool.stream("count_forever_later", str(tmp_path / "closed"))) as items:
            assert await anext(items) == 0
            [call] = pool._calls()._open.values()
            await eventually(lambda: call.items is not None and call.items.held)
        await eventually((tmp_path / "closed").exists)
        await eventually(lambda: pool.status().idle == 1)
        assert await pool.run("pid") == pid


async def test_each_call_of_a_worker_that_dies_gets_an_error_of_its_own() -> None:
    async with ops_pool(concurrency=2) as pool:
        calls = [await running(pool, "later", 1, 60), await running(pool, "meet", 9)]
        os.kill(pid_of(pool), signal.SIGKILL)
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(error).split(":")[0] for error in errors] == ["later", "meet"]
        assert errors[0] is not errors[1]
        assert [error.reason for error in errors if isinstance(error, WorkerDied)] == [None, None]
        await eventually(lambda: pool.status().idle == 1)


async def test_several_calls_on_a_worker_that_dies_are_all_told() -> None:
    async with ops_pool(concurrency=3) as pool:
        calls = [await running(pool, "later", number, 60) for number in range(3)]
        os.kill(pid_of(pool), signal.SIGKILL)
        assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [WorkerDied] * 3
        assert await pool.run("echo", 1) == 1


# -- telemetry of targets -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_pools")
async def test_what_a_target_tells_arrives_with_the_name_of_its_pool_and_worker() -> None:
    async with ops_pool() as pool:
        with telemetry.capture() as events:
            await pool.run("tell", 7)
    told = next(event for event in events if event.name == ("ops", "told"))
    assert told.measurements == {"number": 7}
    assert told.metadata == {"what": "a number", "pool": "ops", "pool_instance": pool.instance, "worker": "ops-0"}
    line = next(event for event in events if event.name == ("pool", "worker", "log"))
    assert (line.metadata["level"], line.metadata["text"]) == ("warning", "told a number")
    assert line.metadata["fields"] == {"number": 7}


@pytest.mark.usefixtures("both_pools")
async def test_what_cannot_be_sent_without_waiting_is_dropped_and_counted() -> None:
    async with ops_pool() as pool:
        with telemetry.capture(("pool", "worker")) as events:
            call = asyncio.ensure_future(pool.run("tell_much", 5000))
            await call
            await pool.run("echo")
    dropped = sum(event.measurements["count"] for event in events if event.name[-1] == "drop")
    arrived = words(events).count("pool.worker.log")
    assert arrived + dropped == 5000


async def test_a_call_says_by_how_much_it_raised_the_peak_of_its_workers_memory() -> None:
    async with ops_pool() as pool:
        with telemetry.capture(("pool", "operation", "stop")) as events:
            await pool.run("hold", 50_000_000)
            await pool.run("echo")
    grown = [event.measurements["rss_growth"] for event in events]
    assert grown[0] > 40_000_000
    assert grown[1] < 5_000_000
    for event in events:
        times = event.measurements
        parts = times["queue_duration"] + times["transport_duration"] + times["execution_duration"]
        assert parts == times["duration"]
