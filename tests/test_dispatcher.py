"""The dispatcher under any order of calls, answers, deaths, cancellations and time.

The single tests below are orders of events that once failed.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pool_monitor import telemetry
from pool_monitor.config import PoolConfig
from pool_monitor.errors import CircuitOpen, StartError
from pool_monitor.pool.call import Call, Options
from pool_monitor.pool.policy.deadline_wheel import TICK
from pool_monitor.pool.policy.lifecycle import State
from pool_monitor.pool.stream_buffer import STREAM_HIGH
from pool_monitor.pool.transport.child.codec import LARGE
from pool_monitor.pool.transport.child.shared_memory import area_size
from pool_monitor.pool.worker import Worker
from tests.helpers.fakes import FakePool
from tests.helpers.virtual import VirtualLoop, clock, run

KNOWN = {"ok", "OperationError", "OperationTimeout", "QueueTimeout", "WorkerDied", "PoolSaturated", "PoolClosed"}
KNOWN |= {"SessionLost", "CancelledError", "CircuitOpen", "OperationCancelled"}


def end_of(call: Call) -> str:
    """Return how a call ended, in a word."""
    if call.future.cancelled():
        return "CancelledError"
    error = call.future.exception()
    return "ok" if error is None else type(error).__name__


class Calls(RuleBasedStateMachine):
    """Up to five workers, and calls of all kinds. In any order of events, each call is in one place and ends once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.made: list[Call] = []
        self.capture = telemetry.capture(("pool",))
        self.events = self.capture.__enter__()

    def do(self, step: Callable[[], Any]) -> Any:
        async def stepped() -> Any:
            result = step()
            for _ in range(3):  # run what was put off to the next turns of the loop
                await asyncio.sleep(0)
            return result

        return self.loop.run_until_complete(stepped())

    @initialize(
        size=st.integers(1, 3),
        queue_limit=st.sampled_from([0, 2, 1000]),
        depth=st.integers(1, 4),
        breaker=st.sampled_from([0, 3]),
        max_wait=st.sampled_from([None, 0.5, 60.0]),
    )
    def enter(self, size: int, queue_limit: int, depth: int, breaker: int, max_wait: float | None) -> None:
        config = PoolConfig(
            timeout=5.0,
            queue_limit=queue_limit,
            max_wait=max_wait,
            breaker_failures=breaker,
            breaker_open=1.0,
            retry_errors=("KeyError",),
            cancel_grace=0.2,
        )
        self.pool = self.do(lambda: FakePool(size, config, now_ns=self.loop.time_ns))
        self.calls = self.pool.calls
        self.depth = depth
        self.deepen()

    def deepen(self) -> None:
        """Hand over as many calls ahead as this run asks for, in place of the pool's decision."""
        self.calls.roster.depth = self.depth

    def teardown(self) -> None:
        try:
            if hasattr(self, "pool"):
                self.end()
        finally:
            self.capture.__exit__(None, None, None)
            self.loop.close()

    def end(self) -> None:
        self.do(self.calls.interrupt_all)
        for worker in self.pool.running():
            self.do(lambda worker=worker: self.pool.die(worker))
        self.do(self.calls.close)
        assert self.calls.open_calls == self.calls.waiting == 0
        assert all(call.done and call.future.done() for call in self.made)
        self.check_ends()

    def check_ends(self) -> None:
        starts = Counter(e.metadata["call_id"] for e in self.events if e.name == ("pool", "operation", "start"))
        ends = Counter(
            event.metadata["call_id"]
            for event in self.events
            if event.name in (("pool", "operation", "stop"), ("pool", "operation", "exception"))
        )
        assert starts == ends == Counter(call.id for call in self.made)
        for call in self.made:
            assert end_of(call) in KNOWN
            if end_of(call) == "ok":
                assert call.future.result() == ("did", call.args[0])

    # -- callers --------------------------------------------------------------------------------------------------

    @rule(
        timeout=st.sampled_from([None, 0.1, 1.0, 5.0]),
        session=st.sampled_from([None, None, "a", "b"]),
        affinity=st.sampled_from([None, "strict"]),
        idempotent=st.booleans(),
        priority=st.integers(0, 1),
        key=st.sampled_from(["", "k"]),
        pinned=st.booleans(),
    )
    def call(
        self,
        timeout: float | None,
        session: str | None,
        affinity: str | None,
        idempotent: bool,
        priority: int,
        key: str,
        pinned: bool,
    ) -> None:
        worker = next(iter(self.calls.workers), None) if pinned else None
        options = Options(
            timeout=timeout,
            session=session,
            affinity=affinity,
            idempotent=idempotent,
            priority=priority,
            key=key,
            worker=worker,
        )
        self.made.append(self.do(lambda: self.calls.admit("work", (len(self.made),), {}, options, stream=False)))
        self.deepen()

    @precondition(lambda self: any(not call.done for call in self.made))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([call for call in self.made if not call.done]))
        self.do(lambda: self.calls.cancel(call))

    # -- workers --------------------------------------------------------------------------------------------------

    def draw_worker(self, data: st.DataObject, *, working: bool) -> Worker | None:
        workers = [w for w in self.pool.running() if self.pool.transport(w).working or not working]
        return data.draw(st.sampled_from(workers)) if workers else None

    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        worker = self.draw_worker(data, working=False)
        if worker is not None and self.pool.transport(worker).handed:
            self.pool.transport(worker).begin()

    @rule(data=st.data())
    def reply(self, data: st.DataObject) -> None:
        worker = self.draw_worker(data, working=True)
        if worker is not None:
            _, args = self.pool.transport(worker).handed[0]
            self.do(lambda: self.pool.reply(worker, ("did", args[0])))
            self.deepen()

    @rule(data=st.data())
    def reply_to_several(self, data: st.DataObject) -> None:
        worker = self.draw_worker(data, working=True)
        if worker is not None:
            transport = self.pool.transport(worker)
            count = data.draw(st.integers(1, len(transport.handed)))
            transport.begin(count)
            results = [("did", args[0]) for _, args in transport.handed[:count]]
            self.do(lambda: self.pool.answer(worker, *results))
            self.deepen()

    @rule(data=st.data(), type_name=st.sampled_from(["ValueError", "KeyError"]))
    def fail(self, data: st.DataObject, type_name: str) -> None:
        worker = self.draw_worker(data, working=True)
        if worker is not None:
            self.do(lambda: self.pool.fail(worker, type_name))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        worker = self.draw_worker(data, working=False)
        if worker is not None:
            self.do(lambda: self.pool.give_back(worker))

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        worker = self.draw_worker(data, working=False)
        if worker is not None:
            self.do(lambda: self.pool.die(worker))

    @rule()
    def bury_the_killed(self) -> None:
        while self.pool.killed:
            worker = self.pool.killed.pop()
            if worker.lifecycle.state is State.TERMINATING:
                self.do(lambda worker=worker: self.pool.die(worker))

    @rule()
    def restart(self) -> None:
        for worker in self.calls.workers.values():
            if worker.transport is None and worker.lifecycle.state is State.TERMINATED:
                self.do(lambda worker=worker: self.pool.start(worker))
                return

    @rule(data=st.data())
    def recycle(self, data: st.DataObject) -> None:
        idle = [worker for worker in self.pool.running() if worker.lifecycle.state is State.READY]
        if idle:
            worker = data.draw(st.sampled_from(idle))
            self.do(lambda: self.pool.renew(worker))

    @precondition(lambda self: len(self.calls.workers) < 5)
    @rule()
    def grow(self) -> None:
        self.do(lambda: self.pool.start(self.pool.add()))

    @rule()
    def shrink(self) -> None:
        for worker in list(self.calls.workers.values()):
            if worker.lifecycle.state is State.TERMINATED:
                self.do(lambda worker=worker: self.pool.forget(worker))
                return

    @rule(pause=st.booleans())
    def pause_or_resume(self, pause: bool) -> None:
        if pause:
            self.calls.paused = True
        else:
            self.do(self.calls.resume)

    @rule(
        timeout=st.sampled_from([0.5, 2.0, 5.0, 20.0]),
        max_wait=st.sampled_from([None, 0.5, 60.0]),
        queue_limit=st.sampled_from([0, 2, 1000]),
        retry_budget=st.sampled_from([0.0, 0.1, 1.0]),
    )
    def configure(self, timeout: float, max_wait: float | None, queue_limit: int, retry_budget: float) -> None:
        changes = {"timeout": timeout, "max_wait": max_wait, "queue_limit": queue_limit, "retry_budget": retry_budget}
        self.do(lambda: self.calls.configure(msgspec.structs.replace(self.calls.config, **changes)))

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def every_slot_is_counted_once(self) -> None:
        if hasattr(self, "pool"):
            assert sum(self.calls.roster.counts.values()) == len(self.calls.workers)
            assert min(self.calls.roster.counts.values(), default=0) >= 0

    @invariant()
    def every_call_is_in_one_place_and_all_are_counted(self) -> None:
        if not hasattr(self, "pool"):
            return
        held = Counter(call.id for worker in self.calls.workers.values() for call in worker.calls.values())
        waiting = Counter(call.id for call in self.calls._waiting)
        waiting += Counter(call.id for worker in self.calls.workers.values() for call in worker.pinned)
        assert not held or max(held.values()) == 1
        assert not waiting or max(waiting.values()) == 1
        unended = [call for call in self.made if not call.done]
        assert self.calls.open_calls == len(unended)
        for call in unended:
            assert call.running == (call.id in held)
            assert not (call.id in held and call.id in waiting)
        assert self.calls.waiting == sum(not call.running for call in unended)
        assert all(call.id not in waiting for call in self.made if call.done)

    @invariant()
    def what_a_worker_holds_is_what_we_think_it_holds(self) -> None:
        if hasattr(self, "pool"):
            for worker in self.pool.running():
                assert list(worker.calls) == [call_id for call_id, _ in self.pool.transport(worker).handed]
                assert (worker.lifecycle.state is State.BUSY) == bool(worker.calls) or (
                    worker.lifecycle.state is State.TERMINATING
                )

    @invariant()
    def nobody_waits_while_somebody_is_free(self) -> None:
        if hasattr(self, "pool") and not self.calls.paused and self.calls.roster._idle:
            assert not self.calls._waiting

    @invariant()
    def no_deadline_is_forgotten(self) -> None:
        for call in self.made:
            if not call.done:
                deadlines = self.calls._deadlines
                in_order = deadlines.in_order.get(call.id) is call
                timer = deadlines._order_timer if in_order else deadlines._wheel_timer
                assert timer is not None
                assert timer.when() <= call.deadline + TICK + 1e-9
                assert in_order or deadlines._wake_at == timer.when()
                assert in_order or call in deadlines._wheel._buckets[call.tick]

    @invariant()
    def a_session_has_no_ended_call_in_it(self) -> None:
        if hasattr(self, "pool"):
            for session in self.calls.sessions.table._sessions.values():
                assert session.active is not None or not session.pending
                assert not any(call.done for call in (session.active, *session.pending) if call is not None)

    @invariant()
    def those_on_trial_are_counted(self) -> None:
        if hasattr(self, "pool") and self.calls.admission.breaker is not None:
            assert self.calls.admission.breaker._under_way == sum(call.trial for call in self.made if not call.done)


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


# -- one by one ---------------------------------------------------------------------------------------------------


def made(size: int, **fields: Any) -> FakePool:
    """Return a pool of fake workers, on virtual time."""
    config = PoolConfig(**{"timeout": 100.0, "shed": False, **fields})
    return FakePool(size, config, now_ns=clock().time_ns)


def go(pool: FakePool, *, stream: bool = False, **options: Any) -> Call:
    """Make a call and mark its error as retrieved; `end_of` reads how it ended."""
    call = pool.calls.admit("work", (), {}, Options(**options), stream=stream)
    call.future.add_done_callback(lambda future: future.cancelled() or future.exception())
    return call


async def turns() -> None:
    """Let the event loop run everything that was put off to its next turns."""
    for _ in range(3):
        await asyncio.sleep(0)


def done(pool: FakePool, call: Call) -> None:
    """Let the worker of the call begin and answer it. It must be the worker's first call."""
    worker = call.worker
    assert worker is not None
    pool.transport(worker).begin()
    pool.reply(worker)
    assert end_of(call) == "ok"


def gone(pool: FakePool, worker: Worker) -> None:
    """Let the worker die in its call, and drop its slot."""
    pool.transport(worker).begin()
    pool.die(worker)
    pool.forget(worker)


def test_calls_for_a_slot_that_is_gone_are_refused_though_others_are_idle() -> None:
    async def main() -> tuple[list[str], list[Any]]:
        pool = made(2)
        other, slot = pool.running()
        calls = [go(pool, session="s", worker=slot.id) for _ in range(3)]
        gone(pool, slot)
        await turns()
        return [end_of(call) for call in calls], pool.transport(other).handed

    assert run(main()) == (["WorkerDied", "PoolClosed", "PoolClosed"], [])


def test_a_call_between_two_tries_whose_slot_has_gone_is_refused_though_others_are_idle() -> None:
    async def main() -> tuple[bool, str, list[Any]]:
        pool = made(2)
        other, slot = pool.running()
        call = go(pool, idempotent=True, worker=slot.id)
        gone(pool, slot)
        before = call.done
        await asyncio.sleep(5)
        return before, end_of(call), pool.transport(other).handed

    assert run(main()) == (False, "PoolClosed", [])


def test_a_call_that_has_ended_is_not_handed_over_when_its_slot_comes_back() -> None:
    async def main() -> tuple[list[Any], int]:
        pool = made(2)
        _, slot = pool.running()
        call = go(pool, idempotent=True, worker=slot.id)
        go(pool)  # keeps the other worker busy
        gone(pool, slot)
        await asyncio.sleep(5)
        again = pool.add()
        assert again.id == slot.id
        pool.calls.cancel(call)
        pool.start(again)
        return pool.transport(again).handed, pool.calls.waiting

    assert run(main()) == ([], 0)


def test_a_strict_session_is_told_when_its_worker_was_recycled_while_its_call_waited() -> None:
    async def main() -> tuple[str, list[Any], str]:
        pool = made(1, affinity="strict")
        (worker,) = pool.running()
        done(pool, go(pool, session="s"))
        blocking, waiting = go(pool), go(pool, session="s")
        pool.calls.roster.withdraw(worker)
        done(pool, blocking)
        pool.renew(worker)
        await turns()
        handed = pool.transport(worker).handed
        lost = end_of(waiting)
        anew = go(pool, session="s")
        done(pool, anew)
        return lost, handed, end_of(anew)

    assert run(main()) == ("SessionLost", [], "ok")


def test_a_strict_session_is_told_when_its_slot_has_gone_and_come_back() -> None:
    async def main() -> tuple[str, str]:
        pool = made(2, affinity="strict")
        first = go(pool, session="s")
        slot = first.worker
        assert slot is not None
        done(pool, first)
        pool.die(slot)
        pool.forget(slot)
        again = pool.add()
        assert again.id == slot.id
        pool.start(again)
        lost, anew = go(pool, session="s"), go(pool, session="s")
        done(pool, anew)
        return end_of(lost), end_of(anew)

    assert run(main()) == ("SessionLost", "ok")


@pytest.mark.parametrize("dies", [False, True], ids=["taken back", "its worker dies"])
def test_a_call_that_was_not_begun_binds_a_strict_session_to_nobody(dies: bool) -> None:
    async def main() -> bool:
        pool = made(2, affinity="strict")
        pool.calls.roster.depth = 4
        for worker in pool.running():
            go(pool)
            pool.transport(worker).begin()
        for worker in pool.running():
            pool.transport(worker).begin()
        call = go(pool, session="s")  # handed ahead
        first = call.worker
        assert first is not None
        (other,) = [worker for worker in pool.running() if worker is not first]
        pool.reply(other)
        if dies:
            pool.die(first)
        else:
            await asyncio.sleep(0.1)
            pool.give_back(first)
        return call.running and call.worker is other

    assert run(main())


def test_without_a_queue_a_call_whose_strict_session_has_a_busy_worker_is_refused_though_another_is_idle() -> None:
    async def main() -> tuple[str, int]:
        pool = made(2, affinity="strict", queue_limit=0)
        for session in ("one", "other"):  # both run on the worker that became idle last
            done(pool, go(pool, session=session))
        go(pool, session="one")
        refused = go(pool, session="other")
        return end_of(refused), pool.calls.waiting

    assert run(main()) == ("PoolSaturated", 0)


def test_calls_of_a_session_made_together_stay_on_its_worker() -> None:
    async def main() -> int:
        pool = made(3, prefetch=1)
        calls, on = [go(pool, session="s") for _ in range(6)], set()
        for call in calls:
            done(pool, call)
            on.add(call.worker)
            await turns()
        return len(on)

    assert run(main()) == 1


def test_calls_of_a_session_that_are_late_together_are_not_begun_only_to_be_interrupted() -> None:
    async def main() -> list[tuple[str, int]]:
        pool = made(3, timeout=1.0)
        calls = [go(pool, session="s") for _ in range(3)]
        await asyncio.sleep(1.1)
        return [(end_of(call), call.attempts) for call in calls]

    assert run(main()) == [("OperationTimeout", 1), ("QueueTimeout", 0), ("QueueTimeout", 0)]


def test_a_pool_that_closes_hands_over_none_of_what_waits() -> None:
    async def main() -> list[tuple[str, int]]:
        pool = made(4)
        calls = [go(pool, session="s") for _ in range(3)]
        assert pool.calls.interrupt_all() == 3
        await turns()
        return [(end_of(call), call.attempts) for call in calls]

    assert run(main()) == [("OperationCancelled", 1), ("PoolClosed", 0), ("PoolClosed", 0)]


def test_what_is_taken_back_keeps_its_order_and_is_not_handed_to_the_same_worker_again() -> None:
    async def main() -> tuple[bool, int, list[Any]]:
        pool = made(1)
        pool.calls.roster.depth = 4
        (worker,) = pool.running()
        calls = [go(pool) for _ in range(6)]
        transport = pool.transport(worker)
        transport.begin()
        await asyncio.sleep(0.1)
        pool.give_back(worker)
        in_order = list(pool.calls._waiting) == calls[1:]
        await asyncio.sleep(0.1)
        return in_order, len(transport.handed), transport.wanted_back

    assert run(main()) == (True, 1, [])


def test_a_call_handed_ahead_that_is_late_is_not_told_that_no_worker_ever_saw_it() -> None:
    async def main() -> str:
        pool = made(1)
        pool.calls.roster.depth = 2
        (worker,) = pool.running()
        go(pool)
        pool.transport(worker).begin()
        ahead = go(pool, timeout=1.0)
        assert ahead.running
        await asyncio.sleep(1.1)
        return end_of(ahead)

    assert run(main()) == "OperationTimeout"


def test_resuming_hands_calls_to_busy_workers_that_have_room() -> None:
    async def main() -> list[bool]:
        pool = made(1, concurrency=3)
        go(pool)
        pool.calls.paused = True
        calls = [go(pool) for _ in range(3)]
        assert not any(call.running for call in calls)
        pool.calls.resume()
        return [call.running for call in calls]

    assert run(main()) == [True, True, False]


def test_with_no_patience_at_all_the_loop_is_not_kept_busy_by_a_cancelled_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        pool = made(1, cancel_grace=0.0)
        pool.calls.roster.depth = 2
        (worker,) = pool.running()
        go(pool)
        pool.transport(worker).begin()
        ahead, looks = go(pool), 0
        look = pool.calls._kill_if_stuck

        def counted(*about: Any) -> None:
            nonlocal looks
            looks += 1
            assert looks < 1000, "time does not get on"
            look(*about)

        monkeypatch.setattr(pool.calls, "_kill_if_stuck", counted)
        pool.calls.cancel(ahead)
        await asyncio.sleep(1)
        assert looks > 1
        assert not pool.killed, "another one's call is under way"

    run(main())


def test_while_calls_are_on_trial_nobody_is_told_when_to_come_again() -> None:
    async def main() -> tuple[str, CircuitOpen]:
        pool = made(1, breaker_failures=1, breaker_open=1.0, breaker_trials=1)
        (worker,) = pool.running()
        await asyncio.sleep(1)
        go(pool)
        pool.transport(worker).begin()
        pool.die(worker)
        pool.start(worker)
        await asyncio.sleep(1.1)
        assert go(pool).trial
        error = go(pool).future.exception()
        assert isinstance(error, CircuitOpen)
        return str(pool.calls.admission.breaker and pool.calls.admission.breaker.state), error

    state, error = run(main())
    assert state == "half_open"
    assert error.retry_after_s is None
    assert "until the calls on trial have ended" in str(error)


@pytest.mark.parametrize("beside", [False, True])
def test_a_call_that_three_workers_did_not_live_to_begin_is_given_up(beside: bool) -> None:
    async def main() -> tuple[list[bool], str, int, bool]:
        pool = made(1, concurrency=4 if beside else 1)
        (worker,) = pool.running()
        ends = []
        if beside:  # another call is under way, and is lost each time
            go(pool)
            pool.transport(worker).begin()
        poison = go(pool, idempotent=True)
        other = go(pool)
        for _ in range(3):
            ends.append(poison.done)
            pool.transport(worker).reading = poison.nth
            pool.die(worker)
            if beside:
                go(pool, priority=5)
            pool.start(worker)
            if beside:
                pool.transport(worker).begin()
        return ends, str(poison.future.exception()), poison.readers, other.done

    ends, text, readers, other = run(main())
    assert ends == [False] * 3
    assert "3 workers ended while they read it and none began it" in text
    assert readers == 3
    assert not other


@pytest.mark.parametrize("size", [1, 30])
def test_a_call_is_not_given_up_for_workers_that_ended_at_one_moment_or_for_another_call(size: int) -> None:
    async def main() -> tuple[bool, int]:
        pool = made(size)
        call = go(pool)
        for _ in range(max(size, 15)):
            (worker,) = [one for one in pool.running() if one.calls]
            pool.transport(worker).reading = call.nth + 1
            pool.die(worker)
            if size == 1:
                pool.start(worker)
        return call.done, call.readers

    assert run(main()) == (False, 0)


def test_a_call_is_not_handed_over_for_ever_where_workers_do_not_tell_what_they_read() -> None:
    async def main() -> str:
        pool = made(2)
        call = go(pool)
        while not call.done:
            (worker,) = [one for one in pool.running() if one.calls]
            pool.die(worker)
            pool.start(worker)
        return str(call.future.exception())

    assert "20 workers held it and none began it" in run(main())


def test_a_call_that_is_given_back_after_it_had_begun_is_not_done_twice() -> None:
    async def main() -> tuple[list[str], bool]:
        pool = made(1)
        (worker,) = pool.running()
        call = go(pool)
        pool.transport(worker).begin()
        pool.calls.recalled(worker, call.id)
        return pool.misbehaviour, call.id in worker.calls

    misbehaviour, held = run(main())
    assert "was given back after it had begun" in misbehaviour[0]
    assert held


def test_a_stream_may_have_some_items_on_the_way_when_it_is_told_to_stand_still_and_not_more() -> None:
    async def main() -> list[str]:
        pool = made(1, concurrency=2)
        (worker,) = pool.running()
        small, large = go(pool, stream=True), go(pool, stream=True)
        for _ in range(STREAM_HIGH + 100_000):
            pool.calls.item(worker, small.id, "s", 10)
        for _ in range(1 + 8):
            pool.calls.item(worker, large.id, "l", 50 << 20)
        assert pool.misbehaviour == []
        pool.calls.item(worker, large.id, "l", 50 << 20)
        return pool.misbehaviour

    assert run(main()) == ["the stream of 'work' does not pause when asked to"]


def test_what_a_worker_has_lent_may_be_on_the_way_beside_what_its_channel_holds() -> None:
    async def main() -> int:
        pool = made(1, concurrency=2)
        (worker,) = pool.running()
        call = go(pool, stream=True)
        assert call.items is not None
        while not call.items.full:
            pool.calls.item(worker, call.id, "l", LARGE)
        more = 0
        while not pool.misbehaviour:
            pool.calls.item(worker, call.id, "l", LARGE)
            more += 1
        return more

    lent, sent = area_size(sys.maxsize), 4 << 20
    assert run(main()) == (lent + sent) // LARGE + 1


def test_of_large_items_fewer_are_held_than_of_small_ones() -> None:
    async def main() -> tuple[list[tuple[int, bool]], list[int]]:
        pool = made(1, concurrency=2)
        (worker,) = pool.running()
        call = go(pool, stream=True)
        assert call.items is not None
        held = []
        for _ in range(5):
            pool.calls.item(worker, call.id, "l", 4 << 20)
            held.append(len(call.items.buffer))
        while call.items.buffer:
            if call.items.take()[1]:
                pool.calls.read_on(call)
        return pool.transport(worker).holds, held

    (stop, go_on), held = run(main())
    assert held == [1, 2, 3, 4, 5]
    assert (stop[1], go_on[1]) == (True, False)


def test_no_more_calls_are_handed_to_a_process_than_it_may_have() -> None:
    async def main() -> tuple[list[int], int]:
        pool = made(1, recycle_calls=3, recycle_jitter=0.0)
        (worker,) = pool.running()
        calls = [go(pool) for _ in range(10)]
        handed = []
        for _ in range(4):
            while worker.calls:
                pool.transport(worker).begin()
                pool.reply(worker)
            handed.append(sum(call.done for call in calls))
            pool.calls.ready(worker)  # even if a checkup finds it responsive, it is handed nothing
            pool.renew(worker)
        return handed, sum(call.done for call in calls)

    handed, _done = run(main())
    assert handed == [3, 6, 9, 10]


def test_a_call_made_while_a_worker_is_checked_out_goes_to_another() -> None:
    async def main() -> list[int]:
        pool, once = made(2, prefetch=1), [1]

        def handler(_name: object, _measurements: object, about: Any, _config: object) -> None:
            if about["trigger"] == "checkout" and once:
                once.clear()
                go(pool)

        telemetry.attach("eager", ("pool", "worker", "transition"), handler)
        try:
            go(pool)
        finally:
            telemetry.detach("eager")
        return [len(worker.calls) for worker in pool.running()]

    assert run(main()) == [1, 1]


def test_where_calls_run_beside_each_other_a_stream_nobody_reads_is_held_up_alone() -> None:
    async def main() -> tuple[int, list[tuple[int, bool]], list[bool]]:
        pool = made(1, concurrency=2)
        (worker,) = pool.running()
        call = go(pool, stream=True)
        for number in range(2 * STREAM_HIGH):
            pool.calls.item(worker, call.id, number, 8)
        pool.calls.read_on(call)
        pool.calls.read_on(call)
        pool.reply(worker)
        transport = pool.transport(worker)
        return call.id, transport.holds, transport.flows

    call_id, holds, flows = run(main())
    assert holds == [(call_id, True), (call_id, False)]
    assert flows == []


def test_a_stream_nobody_reads_is_let_go_on_when_it_is_cancelled() -> None:
    async def main() -> tuple[int, list[tuple[int, bool]], set[int]]:
        pool = made(1, concurrency=2)
        (worker,) = pool.running()
        call = go(pool, stream=True)
        for number in range(STREAM_HIGH):
            pool.calls.item(worker, call.id, number, 8)
        pool.calls.cancel(call)
        transport = pool.transport(worker)
        return call.id, transport.holds, transport.cancelled

    call_id, holds, cancelled = run(main())
    assert holds == [(call_id, True), (call_id, False)]
    assert cancelled == {call_id}


def test_a_refusal_of_a_pool_that_is_not_open_does_not_count_itself_among_the_waiting() -> None:
    async def main() -> str:
        pool = made(1)
        pool.calls.accepting = False
        return str(go(pool).future.exception())

    assert "0 calls waiting" in run(main())


def test_a_call_that_waited_in_vain_is_told_why() -> None:
    async def main() -> list[str]:
        pool, told = made(1, timeout=1.0), []

        async def late() -> str:
            call = go(pool)
            await asyncio.wait([call.future])
            assert end_of(call) == "QueueTimeout"
            return str(call.future.exception())

        pool.calls.paused = True
        told.append(await late())
        pool.calls.resume()
        go(pool, timeout=50.0)
        told.append(await late())
        pool.die(pool.running()[0])
        told.append(await late())
        pool.calls.admission.start_failed(StartError("no licence left"))
        told.append(await late())
        return told

    paused, busy, nobody, failed = run(main())
    assert "the pool is paused: call resume()" in paused
    assert "no worker became free in time" in busy
    assert "there is no worker (" in nobody
    assert "there is no worker; the last start failed: no licence left" in failed


def test_a_stream_that_is_begun_anew_is_held_up_anew() -> None:
    async def main() -> tuple[int, list[tuple[int, bool]]]:
        pool = made(1, concurrency=2)
        (worker,) = pool.running()
        call = go(pool, stream=True, idempotent=True)
        pool.transport(worker).begin()
        for number in range(STREAM_HIGH):
            pool.calls.item(worker, call.id, number, 8)
        pool.die(worker)
        pool.start(worker)
        await asyncio.sleep(5)
        assert call.running
        for number in range(STREAM_HIGH):
            pool.calls.item(worker, call.id, number, 8)
        return call.id, pool.transport(worker).holds

    call_id, holds = run(main())
    assert holds == [(call_id, True)]
