"""The virtual loop: hours pass at once, in order, and waiting for nothing is said."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.virtual import Stuck, clock, run


def test_hours_pass_at_once_and_exactly() -> None:
    async def main() -> tuple[float, int]:
        await asyncio.sleep(3600)
        await asyncio.sleep(0.25)
        return clock().time(), clock().time_ns()

    assert run(main()) == (3600.25, 3_600_250_000_000)


def test_timers_fire_in_their_order_each_at_its_time() -> None:
    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []
        loop = clock()
        for name, at in (("late", 7.0), ("early", 0.1), ("next", 7.5), ("cancelled", 3.0)):
            handle = loop.call_at(at, lambda name=name: seen.append((name, loop.time())))
            if name == "cancelled":
                handle.cancel()
        await asyncio.sleep(10)
        return seen

    assert run(main()) == [("early", 0.1), ("late", 7.0), ("next", 7.5)]


def test_time_stands_still_while_there_is_something_to_do() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return clock().time()

    assert run(main()) == 0


def test_a_timeout_comes_when_it_should() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.sleep(31)
        return clock().time()

    assert run(main()) == 30


def test_waiting_for_nothing_is_an_error_and_no_hang() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        run(main())


def test_what_a_callback_raises_is_not_lost() -> None:
    async def main() -> None:
        clock().call_later(1, int, "no number")
        await asyncio.sleep(2)

    with pytest.raises(ValueError, match="no number"):
        run(main())
