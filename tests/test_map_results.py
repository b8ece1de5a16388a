"""The results of `map`: how many calls are under way, in which order results are read, and turns of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pool_monitor.errors import WorkerDied
from pool_monitor.pool import map_results as module
from pool_monitor.pool.call import Call, Options
from pool_monitor.pool.map_results import MapResults
from tests.helpers.support import eventually


class Calls:
    """Calls that end when the test says so."""

    def __init__(self) -> None:
        self.made: list[Call] = []
        self.cancelled: list[int] = []

    def admit(self, item: Any) -> Call:
        future = asyncio.get_running_loop().create_future()
        call = Call(len(self.made), "op", (item,), {}, Options(), future, None, 0.0, 0)
        self.made.append(call)
        return call

    def cancel(self, call: Call) -> None:
        self.cancelled.append(call.id)
        call.future.cancel()

    def results(self, items: Any, limit: int, *, ordered: bool = True, **fields: Any) -> MapResults:
        made = MapResults(self.admit, self.cancel, limit, ordered=ordered, **fields)
        made.read(items)
        return made

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self.made[number].future.set_result(number)


async def taken(results: MapResults) -> int:
    """Return the next result."""
    while (ended := results.next_ended()) is None:
        await results.wait()
    results.free_place()
    return int(ended.result())


@pytest.mark.parametrize(("ordered", "expected"), [(True, [0, 1, 2]), (False, [2, 0, 1])])
async def test_results_are_taken_in_the_order_of_their_items_or_of_their_ends(
    ordered: bool, expected: list[int]
) -> None:
    calls = Calls()
    results = calls.results(range(3), 3, ordered=ordered)
    assert results.next_ended() is None
    for number in (2, 0, 1):
        calls.end(number)
        await asyncio.sleep(0)
    assert [await taken(results) for _ in range(3)] == expected
    assert results.exhausted


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_result_counts_until_it_has_been_read(ordered: bool) -> None:
    calls = Calls()
    results = calls.results(itertools.count(), 2, ordered=ordered)
    assert results.next_ended() is None
    assert len(calls.made) == 2
    calls.end(0, 1)
    for _ in range(2):
        while results.next_ended() is None:  # a machine that is busy may have ended its turn
            await results.wait()
    assert len(calls.made) == 2
    results.free_place()
    assert results.next_ended() is None
    assert len(calls.made) == 3
    await results.close()
    assert calls.cancelled == [2]


async def test_an_asynchronous_source_is_read_while_there_is_room_and_no_further() -> None:
    calls, given = Calls(), []

    async def source() -> AsyncIterator[int]:
        for number in range(5):
            given.append(number)
            yield number

    results = calls.results(source(), 2)
    await eventually(lambda: len(calls.made) == 2)
    assert given == [0, 1]
    calls.end(0)
    assert await taken(results) == 0
    await eventually(lambda: len(calls.made) == 3)
    await results.close()
    assert calls.cancelled == [1, 2]
    assert results.exhausted or results._feeder is not None


async def test_calls_are_made_for_so_long_at_a_stretch_and_then_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, now = Calls(), [0.0]

    def source() -> Iterator[int]:
        for number in range(100):
            now[0] += module._TURN / 10
            yield number

    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    results, made = calls.results(source(), 100), []
    while results.next_ended() is None and len(calls.made) < 100:
        made.append(len(calls.made))
        await results.wait()
    made.append(len(calls.made))
    steps = [after - before for before, after in itertools.pairwise([0, *made])]
    assert max(steps) <= 12
    await results.close()
    assert sorted(calls.cancelled) == list(range(100))


async def test_a_source_that_waits_for_nothing_gives_others_their_turn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, now, turns = Calls(), [0.0], []

    async def source() -> AsyncIterator[int]:
        for number in range(100):
            now[0] += module._TURN / 10
            yield number

    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    results = calls.results(source(), 100)
    while len(calls.made) < 100:
        await asyncio.sleep(0)
        turns.append(len(calls.made))
    assert max(after - before for before, after in itertools.pairwise([0, *turns])) <= 12
    await results.close()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_of_any_source_no_more_calls_are_made_than_can_wait_usefully(asynchronous: bool) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(100):
            yield number

    calls, waiting = Calls(), [10]
    source = numbers() if asynchronous else range(100)
    results = calls.results(source, 100, few=2, enough=lambda: waiting[0] >= 10)
    assert results.next_ended() is None
    reading = asyncio.ensure_future(taken(results))
    await eventually(lambda: len(calls.made) == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(calls.made) == 2
    waiting[0] = 0
    await eventually(lambda: len(calls.made) == 100)
    calls.end(0)
    assert await reading == 0
    await results.close()


async def test_leaving_many_calls_behind_gives_others_their_turn_and_cancels_all_though_it_is_cancelled() -> None:
    calls = Calls()
    results = calls.results(range(2000), 2000)
    while len(calls.made) < 2000:
        results.next_ended()
        await results.wait() if len(calls.made) < 2000 else None
    leaving = asyncio.ensure_future(results.close())
    await asyncio.sleep(0)
    assert 0 < len(calls.cancelled) < 2000
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert len(calls.cancelled) == 2000


async def test_errors_that_nobody_asks_for_are_no_complaint_of_asyncio() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    for ordered in (True, False):
        calls = Calls()
        results = calls.results(range(3), 3, ordered=ordered)
        assert results.next_ended() is None
        for call in calls.made:
            call.future.set_exception(WorkerDied("gone", worker="w", exit_code=1))
        await asyncio.sleep(0)
        await results.close()
        calls.made.clear()
        del results, call
        await asyncio.sleep(0)
    assert complaints == []


@pytest.mark.parametrize("ordered", [True, False])
async def test_of_no_items_there_are_no_results(ordered: bool) -> None:
    async def nothing() -> AsyncIterator[int]:
        return
        yield 1

    for items in ([], nothing()):
        results = Calls().results(items, 2, ordered=ordered)
        async with asyncio.timeout(10):
            while not results.exhausted:
                assert results.next_ended() is None
                await results.wait()
        await results.close()


async def test_calls_beyond_a_few_are_made_only_while_too_few_wait() -> None:
    calls, waiting = Calls(), [0]
    results = calls.results(itertools.count(), 1000, few=3, enough=lambda: waiting[0] + len(calls.made) >= 10)
    assert results.next_ended() is None
    assert len(calls.made) == 10
    waiting[0] = 100
    calls.end(0)
    assert await taken(results) == 0
    assert results.next_ended() is None
    assert len(calls.made) == 10
    for number in range(1, 9):
        calls.end(number)
        assert await taken(results) == number
    assert results.next_ended() is None
    assert len(calls.made) == 12, "the few are made however many wait"
    await results.close()


async def test_what_ends_an_asynchronous_source_before_its_time_is_kept_a_cancellation_too() -> None:
    class Undecodable:
        def __aiter__(self) -> Any:
            raise ZeroDivisionError

    async def waits_for_what_others_cancel() -> AsyncIterator[int]:
        yield 0
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    sources: list[tuple[Any, type[BaseException]]] = [
        (Undecodable(), ZeroDivisionError),
        (waits_for_what_others_cancel(), asyncio.CancelledError),
    ]
    for source, kind in sources:
        calls = Calls()
        results = calls.results(source, 2)
        await eventually(lambda results=results: results.failure is not None)
        assert isinstance(results.failure, kind)
        await results.close()


async def test_a_source_that_keeps_its_cancellation_to_itself_holds_nobody_up() -> None:
    async def stubborn() -> AsyncIterator[int]:
        for number in itertools.count():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60 if number else 0)
            yield number

    calls = Calls()
    results = calls.results(stubborn(), 1)
    await eventually(lambda: len(calls.made) == 1)
    calls.end(0)
    assert await taken(results) == 0
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await results.close()
    assert len(calls.made) == 1


async def test_while_one_call_takes_long_nothing_piles_up_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RECHECK_AFTER", 0.0)
    calls = Calls()
    results = calls.results(range(3), 3, few=1, enough=lambda: True)
    assert results.next_ended() is None
    added: list[object] = []

    class Counted:
        def done(self) -> bool:
            return False

        def add_done_callback(self, callback: object) -> None:
            added.append(callback)

    results._in_order[0].future = Counted()  # type: ignore[assignment]
    for _ in range(20):
        await results.wait()
    assert len(added) == 1
    results._in_order.clear()
    await results.close()
