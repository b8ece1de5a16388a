"""The dispatcher under overload, and with workers that die, over minutes of virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import overload
from tests.helpers.overload import DEADLINE, WORKERS, arrivals, steady
from tests.helpers.rig import Rig
from tests.helpers.virtual import clock, run


def served(
    seconds: float, load: Callable[[float], float], stall: tuple[float, float] = (0.0, 0.0), **fields: Any
) -> Counter[str]:
    """Return how the calls of a simulated pool end. Its workers do nothing between the two times of *stall*."""

    async def main() -> Counter[str]:
        rig = Rig(WORKERS, timeout=DEADLINE, **fields)
        for transport in rig.transports:
            clock().call_at(stall[0], setattr, transport, "stall", stall[1])
        for arrival in arrivals(seconds, load, random.Random(7)):
            clock().call_at(arrival.at, rig.call, arrival.takes)
        await asyncio.sleep(seconds + 10)
        assert (rig.dispatcher.open_calls, rig.dispatcher.waiting) == (0, 0)
        assert rig.ends.total() == rig.dispatcher.completed
        return rig.ends

    return run(main())


@pytest.mark.parametrize(
    ("seconds", "load", "stall", "least"),
    [
        (10.0, steady(0.95), (0.0, 0.0), 0.978),
        (10.0, steady(1.3), (0.0, 0.0), 0.755),
        (10.0, steady(2.0), (0.0, 0.0), 0.487),
        (20.0, overload.bursts, (0.0, 0.0), 0.728),
        (30.0, steady(0.7), (10.0, 11.5), 0.928),  # the stall of a second and a half is 5 % of the time
    ],
    ids=["95 %", "130 %", "200 %", "bursts of 300 %", "stall"],
)
def test_a_pool_under_overload_serves_almost_as_many_calls_in_time_as_it_can(
    seconds: float, load: Callable[[float], float], stall: tuple[float, float], least: float
) -> None:
    ends = served(seconds, load, stall)
    assert ends["ok"] >= least * ends.total(), ends


def test_refusing_early_is_what_keeps_it_going_where_operations_cannot_be_interrupted() -> None:
    shed, unshed = (served(10.0, steady(1.3), stubborn=True, shed=choice) for choice in (True, False))
    assert shed["ok"] > 2 * unshed["ok"]
    assert shed["PoolSaturated"] > 0.9 * (shed.total() - shed["ok"])  # refused at once
    assert unshed["PoolSaturated"] == 0


def test_a_burst_that_will_make_it_is_taken_whole() -> None:
    async def main() -> Counter[str]:
        rig = Rig(4, timeout=60.0)
        for _ in range(100):  # so that the pool learns how long they take
            rig.call(0.01)
        await asyncio.sleep(10)
        for _ in range(5000):
            rig.call(0.01)
        await asyncio.sleep(60)
        return rig.ends

    assert run(main()) == Counter(ok=5100)


def handing_ahead(size: int) -> Rig:
    """A rig whose workers may hold up to four calls each."""
    rig = Rig(size, timeout=0.5, prefetch=4, breaker_failures=0)
    rig.dispatcher.roster.depth = 4
    return rig


def test_short_operations_are_handed_ahead_and_long_ones_are_not() -> None:
    async def main(seconds: float) -> int:
        rig = Rig(2)
        for _ in range(100):
            rig.call(seconds)
        while rig.dispatcher.completed < 80:
            await asyncio.sleep(0.001)
        return max(len(worker.calls) for worker in rig.dispatcher.workers.values())

    assert run(main(0.0001)) > 4
    assert run(main(0.01)) == 1


def test_what_was_handed_to_a_worker_that_is_held_up_is_done_by_another() -> None:
    async def main() -> tuple[float, Counter[str]]:
        rig = handing_ahead(2)
        rig.call(0.3)
        rest = [rig.call(0.0001) for _ in range(7)]
        await asyncio.gather(*(call.future for call in rest))
        return clock().time(), rig.ends

    seconds, ends = run(main())
    assert seconds < 0.1
    assert ends == Counter(ok=7)


def test_after_calls_were_taken_back_it_is_still_known_which_one_is_being_executed() -> None:
    async def main() -> tuple[str, list[int]]:
        rig = handing_ahead(1)
        first, *taken_back = rig.call(0.02), rig.call(0.0001), rig.call(0.0001)
        await asyncio.gather(first.future, *(call.future for call in taken_back))
        last = rig.call(0.4)
        await asyncio.sleep(0.1)
        rig.die(next(iter(rig.dispatcher.workers.values())))
        await asyncio.wait([last.future])
        return type(last.future.exception()).__name__, [len(transport.executed) for transport in rig.transports]

    # The worker had begun the call, so it must not be sent again.
    assert run(main()) == ("WorkerDied", [4])


def test_what_a_dead_worker_had_not_begun_goes_on_in_order_and_before_the_others() -> None:
    async def main() -> tuple[list[str], list[int]]:
        rig = handing_ahead(1)
        calls = [rig.call(0.002) for _ in range(6)]
        await asyncio.sleep(0.001)
        rig.die(next(iter(rig.dispatcher.workers.values())))
        await asyncio.wait([call.future for call in calls])
        ends = ["lost" if call.future.exception() else "ok" for call in calls]
        return ends, [call_id - calls[0].id for call_id in rig.transports[1].executed]

    assert run(main()) == (["lost"] + ["ok"] * 5, [1, 2, 3, 4, 5])


def test_a_thousand_calls_of_one_session_can_come_too_late_at_once() -> None:
    async def main() -> Counter[str]:
        rig = Rig(1, timeout=50.0)
        for _ in range(30):  # so that the pool learns how long they take
            await rig.call(0.1).future
        rig.call(2.0)
        late = [rig.call(0.1, session="s", timeout=1.0) for _ in range(1000)]
        await asyncio.wait([call.future for call in late])
        assert rig.dispatcher.waiting == 0
        return rig.ends

    assert run(main()) == Counter(ok=30, QueueTimeout=1000)


def test_a_call_that_may_wait_longer_than_it_has_time_still_ends_at_its_deadline() -> None:
    async def main() -> float:
        rig = Rig(1, max_wait=60.0, timeout=50.0, shed=False)
        rig.call(40.0)
        late = rig.call(1.0, timeout=1.0)
        await asyncio.wait([late.future])
        return clock().time()

    assert run(main()) == pytest.approx(1.0, abs=0.011)


def test_calls_that_are_refused_do_not_push_sessions_out() -> None:
    async def main() -> tuple[int, object]:
        rig = Rig(1, session_limit=100, timeout=50.0)
        for _ in range(30):  # so that the pool learns how long they take
            await rig.call(0.1).future
        kept = rig.call(0.1, session="kept")
        await kept.future
        rig.call(10.0)
        for number in range(300):
            rig.call(0.1, session=f"refused {number}", timeout=0.01)
        await asyncio.sleep(1)
        assert rig.ends["PoolSaturated"] == 300
        return len(rig.dispatcher.sessions), rig.dispatcher.sessions.table.get("kept")

    sessions, kept = run(main())
    assert sessions == 1
    assert kept is not None


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.05),  # the pause before the step
            st.sampled_from(["call", "call", "call", "long call", "die", "cancel", "gather"]),
            st.integers(0, 100),
        ),
        max_size=60,
    ),
    st.integers(1, 3),
    st.booleans(),
)
def test_whatever_happens_every_call_ends_once_and_none_is_executed_twice(
    steps: list[tuple[float, str, int]], size: int, stubborn: bool
) -> None:
    async def main() -> None:
        rig = Rig(size, stubborn=stubborn, timeout=0.5, breaker_failures=0, prefetch=4, cancel_grace=0.05)
        calls = []
        for pause, step, number in steps:
            await asyncio.sleep(pause)
            rig.dispatcher.roster.depth = 4  # as after many short calls
            if step in ("call", "long call"):
                calls.append(rig.call(0.0001 if step == "call" else 30.0))
            elif step == "gather":
                calls += [rig.call(0.0002) for _ in range(number)]
            elif step == "cancel" and calls:
                calls[number % len(calls)].future.cancel()
                rig.dispatcher.cancel(calls[number % len(calls)])
            elif step == "die":
                worker = list(rig.dispatcher.workers.values())[number % size]
                if worker.transport is not None:
                    rig.die(worker)
        await asyncio.sleep(10)
        assert (rig.dispatcher.open_calls, rig.dispatcher.waiting) == (0, 0)
        assert rig.ends.total() == rig.dispatcher.completed == len(calls)
        begun = Counter(call_id for transport in rig.transports for call_id in transport.executed)
        assert set(begun.values()) <= {1}  # no call was declared idempotent
        assert all(begun[call.id] for call in calls if not call.future.cancelled() and not call.future.exception())
        assert all(not worker.calls and worker.accepting for worker in rig.dispatcher.workers.values())

    run(main())
