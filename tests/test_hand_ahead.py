"""Calls handed ahead: how long each held its worker, and how many calls are handed ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.config import PoolConfig
from pool_monitor.pool.call import Call, Options
from pool_monitor.pool.policy import prefetch
from pool_monitor.pool.transport.interface import CallTimes, Reply
from pool_monitor.pool.worker import Worker
from tests.helpers.fakes import FakePool
from tests.helpers.virtual import clock, run

AMOUNTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=40)


@given(AMOUNTS, st.integers(0, 10**13))
def test_what_calls_took_together_is_shared_out_by_what_each_was_executed(executed: list[int], total: int) -> None:
    turns = prefetch.held_times(executed, total)
    assert len(turns) == len(executed)
    assert total - len(turns) < sum(turns) <= total
    if sum(executed) <= total:
        between = {turn - one for turn, one in zip(turns, executed, strict=True)}
        assert len(between) == 1
    else:  # the executions add up to more time than there was
        assert max(turns) - min(turns) <= 0


def together(pool: FakePool, calls: list[Call], after_s: float, *executed_ns: int) -> None:
    """Let one worker answer these calls together, *after_s* seconds later."""
    worker = calls[0].worker
    assert worker is not None
    clock()._clock.now += after_s
    pool.transport(worker).begin(len(calls))
    del pool.transport(worker).handed[: len(calls)]
    replies = [Reply(call.id, None, None, CallTimes(one, one)) for call, one in zip(calls, executed_ns, strict=True)]
    pool.calls.returned(worker, replies)
    pool.calls.caught_up(worker)


def admitted(pool: FakePool, count: int) -> list[Call]:
    return [pool.calls.admit("work", (), {}, Options(), stream=False) for _ in range(count)]


def on_one_worker(check: Callable[[FakePool], Any], **fields: Any) -> Any:
    async def main() -> Any:
        pool = FakePool(1, PoolConfig(**fields), now_ns=clock().time_ns)
        return check(pool)

    return run(main())


def test_a_call_handed_ahead_waited_until_the_one_before_it_had_ended() -> None:
    def check(pool: FakePool) -> list[tuple[int, int | None]]:
        pool.calls.roster.depth = 3
        calls = admitted(pool, 3)
        together(pool, calls, 0.001, 500_000, 100_000, 100_000)
        return [(call.sent_ns, call.queue_ns) for call in calls]

    assert on_one_worker(check) == [(0, 0), (600_000, 600_000), (800_000, 800_000)]


def test_the_call_that_is_next_has_the_worker_from_the_last_answer_on() -> None:
    def check(pool: FakePool) -> tuple[int, int | None]:
        pool.calls.roster.depth = 3
        calls = admitted(pool, 3)
        together(pool, calls[:2], 0.002, 1, 1)
        return calls[2].sent_ns, calls[2].queue_ns

    assert on_one_worker(check) == (2_000_000, 2_000_000)


def test_calls_on_a_worker_that_runs_several_are_known_each_by_itself() -> None:
    def check(pool: FakePool) -> list[int]:
        calls = admitted(pool, 2)
        together(pool, calls, 0.001, 10, 20)
        return [call.sent_ns for call in calls]

    assert on_one_worker(check, concurrency=4) == [0, 0]


def test_how_far_ahead_to_hand_over_goes_by_the_most_calls_that_were_open() -> None:
    def check(pool: FakePool) -> int:
        for _ in range(20):  # no call is open at the end of each round
            together(pool, admitted(pool, 1), 0.000_01, 5000)
            together_depth(pool)
        return pool.calls.roster.depth

    def together_depth(pool: FakePool) -> None:
        calls = admitted(pool, 6)
        while calls:
            (worker,) = pool.calls.workers.values()
            held = list(worker.calls.values())
            together(pool, held, 0.000_01, *[5000] * len(held))
            calls = [call for call in calls if not call.done]

    assert on_one_worker(check) == 6


def test_a_worker_that_was_asked_for_calls_takes_no_others_until_it_has_none() -> None:
    def held(pool: FakePool) -> list[int]:
        (worker,) = pool.calls.workers.values()
        return list(worker.calls)

    async def main() -> None:
        pool = FakePool(1, PoolConfig(timeout=10.0), now_ns=clock().time_ns)
        (worker,) = pool.calls.workers.values()
        pool.calls.roster.depth = 3
        first, second = admitted(pool, 2)
        pool.transport(worker).begin()
        await asyncio.sleep(0.02)
        assert second.id in pool.transport(worker).wanted_back
        pool.calls.roster.depth = 3  # as decided after short calls of other workers
        (third,) = admitted(pool, 1)
        pool.reply(worker)
        assert held(pool) == [second.id]
        pool.give_back(worker)
        assert held(pool) == [second.id, third.id]
        assert pool.misbehaviour == []
        assert first.done

    run(main())


@pytest.mark.parametrize(
    ("seconds", "limit", "expected"),
    [(None, 16, 1), (0.0, 16, 6), (5e-6, 16, 3), (9e-6, 16, 2), (25e-6, 16, 1), (1.0, 16, 1), (0.0, 2, 2)],
)
def test_the_shorter_calls_are_the_more_are_worth_it_not_to_wake_another_worker(
    seconds: float | None, limit: int, expected: int
) -> None:
    assert prefetch.awake_depth(seconds, limit) == expected


@pytest.mark.parametrize(("execution_ns", "awake"), [(1000, 2), (50_000, 6)])
def test_of_many_workers_short_calls_keep_two_awake_and_others_all_they_need(execution_ns: int, awake: int) -> None:
    async def main() -> int:
        pool = FakePool(16, PoolConfig(timeout=10.0), now_ns=clock().time_ns)

        def answer(worker: Worker) -> None:
            held = list(worker.calls.values())
            clock()._clock.now += 0.000_1
            pool.transport(worker).begin(len(held))
            del pool.transport(worker).handed[: len(held)]
            times = CallTimes(execution_ns, execution_ns)
            pool.calls.returned(worker, [Reply(call.id, None, None, times) for call in held])
            pool.calls.caught_up(worker)

        most = 0
        for number in range(40):
            admitted(pool, 6)
            busy = [worker for worker in pool.calls.workers.values() if worker.calls]
            most = max(most, len(busy)) if number > 20 else 0
            for worker in busy:
                answer(worker)
        return most

    assert run(main()) == awake


@pytest.mark.parametrize("known", [False, True])
def test_no_short_call_stands_behind_one_that_may_take_long_while_a_worker_is_idle(known: bool) -> None:
    async def main() -> tuple[list[int], list[int]]:
        pool = FakePool(16, PoolConfig(timeout=10.0), now_ns=clock().time_ns)
        for _ in range(40):
            admitted(pool, 6)
            for held in [list(worker.calls.values()) for worker in pool.calls.workers.values() if worker.calls]:
                together(pool, held, 0.000_01, *[1000] * len(held))
        assert pool.calls.roster.awake_depth > 1
        pool.calls.operations = {**pool.calls.operations, "slow": "function"}
        for _ in range(40 if known else 0):
            pool.calls.admission.times.add("slow", 0.5)
        slow = [pool.calls.admit("slow", (), {}, Options(), stream=False) for _ in range(3)]
        short = admitted(pool, 10)
        beside = [len(call.worker.calls) for call in slow if call.worker is not None]
        return beside, [len(call.worker.calls) for call in short if call.worker is not None]

    beside, among_short = run(main())
    assert beside == [1, 1, 1]
    assert max(among_short) > 1, "short calls still join each other"


def test_however_many_calls_are_due_at_once_others_have_their_turn_between() -> None:
    async def main() -> tuple[list[int], set[str]]:
        pool = FakePool(1, PoolConfig(timeout=1.0, queue_limit=5000, shed=False), now_ns=clock().time_ns)
        deadlines, told = pool.calls._deadlines, []
        expired = deadlines._expired
        deadlines._expired = lambda calls: (told.append(len(calls)), expired(calls))  # type: ignore[assignment, func-returns-value]
        calls = admitted(pool, 1200)
        calls += [pool.calls.admit("work", (), {}, Options(timeout=1.0), stream=False) for _ in range(1200)]
        await asyncio.sleep(1.1)
        return told, {type(call.future.exception()).__name__ for call in calls}

    told, kinds = run(main())
    assert sum(told) == 2400
    assert max(told) <= 500
    assert kinds == {"OperationTimeout", "QueueTimeout"}
