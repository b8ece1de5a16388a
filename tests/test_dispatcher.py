"""The dispatcher under every order of events: calls, answers, deaths, cancellations, time, in any mixture."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pool_monitor import telemetry
from pool_monitor.config import PoolConfig
from pool_monitor.pool.calls import Call, Options
from pool_monitor.pool.worker import State, Worker
from tests.fakes import FakePool
from tests.virtual import VirtualLoop

KNOWN = {"ok", "OperationError", "OperationTimeout", "QueueTimeout", "WorkerDied", "PoolSaturated", "PoolClosed"}
KNOWN |= {"SessionLost", "CancelledError", "CircuitOpen", "OperationCancelled"}


class Calls(RuleBasedStateMachine):
    """Up to five workers, and calls of every kind. Whatever happens, each call is in one place and ends once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.made: list[Call] = []
        self.capture = telemetry.capture(("pool",))
        self.events = self.capture.__enter__()

    def do(self, step: Callable[[], Any]) -> Any:
        async def stepped() -> Any:
            result = step()
            for _ in range(3):  # what was put off to the next turn of the loop
                await asyncio.sleep(0)
            return result

        return self.loop.run_until_complete(stepped())

    @initialize(
        size=st.integers(1, 3),
        queue_limit=st.sampled_from([0, 2, 1000]),
        depth=st.integers(1, 4),
        breaker=st.sampled_from([0, 3]),
        max_wait=st.sampled_from([None, 0.5]),
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
        """As many calls ahead as this run wants, whatever the pool would decide."""
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
            error = None if call.future.cancelled() else call.future.exception()
            kind = "CancelledError" if call.future.cancelled() else "ok" if error is None else type(error).__name__
            assert kind in KNOWN
            if kind == "ok":
                assert call.future.result() == ("did", call.args[0])

    # -- callers --------------------------------------------------------------------------------------------------

    @rule(
        timeout=st.sampled_from([0.1, 1.0, 5.0]),
        session=st.sampled_from([None, None, "a", "b"]),
        affinity=st.sampled_from([None, "strict"]),
        idempotent=st.booleans(),
        priority=st.integers(0, 1),
        key=st.sampled_from(["", "k"]),
        pinned=st.booleans(),
    )
    def call(
        self,
        timeout: float,
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
        if hasattr(self, "pool") and not self.calls.paused and self.calls.roster.idle():
            assert not self.calls._waiting


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
