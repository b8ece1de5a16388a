"""Durations from both sides: at least as long as the operation slept, at most as long as its caller measured."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pool_monitor import Monitor, MonitorConfig, OperationError, OperationTimeout, Pool, telemetry
from pool_monitor.adapters import MonitoredCalls, MonitoredExecutor
from pool_monitor.config import ServiceConfig
from pool_monitor.metrics.histogram import RELATIVE_ERROR
from pool_monitor.snapshot import Distribution
from pool_monitor.telemetry import CapturedEvent
from tests.helpers.support import TARGETS, eventually, ops_pool, read

NAPS = f"{TARGETS / 'naps.py'}:Naps"
NAP = 0.05
NAP_NS = 50_000_000
NO_SOCKET = MonitorConfig(service=ServiceConfig(socket=False))
pytestmark = pytest.mark.usefixtures("no_leaks")


class Taken:
    """How long a block took on the caller's side, and how the calls ended meanwhile."""

    def __init__(self) -> None:
        self.ns = 0
        self.ends: list[CapturedEvent] = []

    def times(self) -> dict[str, int | float]:
        (end,) = self.ends
        return end.measurements


@contextmanager
def taken() -> Iterator[Taken]:
    found = Taken()
    with telemetry.capture(("pool", "operation")) as events:
        began = time.monotonic_ns()
        yield found
        found.ns = time.monotonic_ns() - began
    found.ends = [event for event in events if event.name[-1] in ("stop", "exception")]


def within(distribution: Distribution, at_least: float, at_most: float) -> None:
    """Every figure of *distribution* lies between the two, in seconds, within the error of the histogram."""
    for figure in ("mean", "max", "p50", "p90", "p95", "p99", "p999"):
        value = getattr(distribution, figure)
        assert at_least * (1 - RELATIVE_ERROR) <= value <= at_most * (1 + RELATIVE_ERROR), figure


async def run(pool: Pool) -> None:
    await pool.run("nap", NAP)


async def run_async(pool: Pool) -> None:
    await pool.run("nap_later", NAP)


async def fail(pool: Pool) -> None:
    with pytest.raises(OperationError):
        await pool.run("nap_and_fail", NAP)


async def stream(pool: Pool) -> None:
    await read(pool.stream("naps", 2, NAP / 2))


async def one_of_a_map(pool: Pool) -> None:
    await read(pool.map("nap", [NAP]))


async def in_a_session(pool: Pool) -> None:
    async with pool.session("someone") as session:
        await session.run("nap_in_session", NAP)


async def test_a_call_is_reported_between_what_it_slept_and_what_its_caller_measured() -> None:
    async with Pool(NAPS, name="naps", size=1) as pool:
        for use in (run, run_async, fail, stream, one_of_a_map, in_a_session):
            with taken() as found:
                await use(pool)
            times = found.times()
            assert NAP_NS <= times["execution_duration"] <= times["duration"] <= found.ns, use.__name__
            assert times["queue_duration"] + times["execution_duration"] <= times["duration"], use.__name__


async def test_the_wait_for_a_worker_is_between_the_call_before_and_what_its_caller_measured() -> None:
    async with Pool(NAPS, name="naps", size=1, prefetch=1) as pool:
        with taken() as found, telemetry.capture(("pool", "operation", "start")) as starts:
            await asyncio.gather(pool.run("nap", NAP), pool.run("nap", 0.0))
    first, second = (end.measurements for end in found.ends)
    one, other = (start.measurements["monotonic_time"] for start in starts)
    assert NAP_NS <= first["execution_duration"] <= second["queue_duration"] + (other - one)
    assert second["queue_duration"] <= second["duration"] <= found.ns
    assert second["execution_duration"] <= found.ns - NAP_NS


async def test_a_call_that_was_handed_out_ahead_waited_as_long_as_the_one_before_it_ran() -> None:
    async with Pool(NAPS, name="naps", size=1) as pool:
        with taken() as found, telemetry.capture(("pool", "operation", "start")) as starts:
            await asyncio.gather(*(pool.run("nap", NAP / 5) for _ in range(5)))
    first = starts[0].measurements["monotonic_time"]
    for before, (start, end) in enumerate(zip(starts, found.ends, strict=True)):
        later = start.measurements["monotonic_time"] - first  # on a busy machine they do not begin at one moment
        assert start.metadata["call_id"] == end.metadata["call_id"]
        assert before * NAP_NS / 5 <= end.measurements["queue_duration"] + later <= found.ns
    assert all(end.measurements["duration"] <= found.ns for end in found.ends)


@pytest.mark.parametrize("kind", [OperationTimeout, TimeoutError])
async def test_a_call_that_is_given_up_is_reported_with_the_time_until_then(kind: type[Exception]) -> None:
    """By the pool at its deadline, and by its caller, who cancels it."""
    limit = NAP if kind is OperationTimeout else 10.0
    async with Pool(NAPS, name="naps", size=1, timeout=limit, cancel_grace=0.05) as pool:
        with taken() as found, suppress(OperationTimeout, TimeoutError):
            async with asyncio.timeout(None if kind is OperationTimeout else NAP):
                await pool.run("nap", 20.0)
    assert NAP_NS <= found.times()["duration"] <= found.ns


async def test_percentiles_lie_between_what_was_slept_and_what_the_caller_measured() -> None:
    async with Pool(NAPS, name="naps", size=1) as pool, Monitor(pool, config=NO_SOCKET) as monitor:
        longest = 0
        for _ in range(3):
            with taken() as found:
                await pool.run("nap", NAP)
            longest = max(longest, found.ns)
        seen = monitor.snapshot("1m").pools["naps"].operations["nap"]
    assert seen.calls == seen.latency.count == seen.execution.count == 3
    within(seen.latency, NAP, longest / 1e9)
    within(seen.execution, NAP, longest / 1e9)
    within(seen.queue, 0.0, longest / 1e9 - NAP)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: ThreadPoolExecutor(1),
        lambda: ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")),
    ],
    ids=["threads", "processes"],
)
def test_an_executor_s_call_is_reported_between_what_it_slept_and_what_its_caller_measured(
    make: Callable[[], Executor],
) -> None:
    with MonitoredExecutor(make(), name="naps") as executor:
        executor.submit(time.sleep, 0.0).result()
        with taken() as found:
            executor.submit(time.sleep, NAP)
            executor.submit(time.sleep, 0.0).result()
    first, second = (end.measurements for end in sorted(found.ends, key=lambda end: end.measurements["queue_duration"]))
    assert NAP_NS <= first["execution_duration"] <= first["duration"] <= found.ns
    assert second["queue_duration"] <= second["duration"] <= found.ns
    assert second["queue_duration"] + second["execution_duration"] <= second["duration"]


async def test_a_function_s_call_is_reported_between_what_it_slept_and_what_its_caller_measured() -> None:
    nap = MonitoredCalls(name="naps").wrap(asyncio.sleep)
    with taken() as found:
        await nap(NAP)
    assert NAP_NS <= found.times()["duration"] <= found.ns


def test_a_span_is_reported_between_what_it_slept_and_what_its_caller_measured() -> None:
    with telemetry.capture(("nap",)) as events:
        began = time.monotonic_ns()
        with telemetry.span(("nap",)):
            time.sleep(NAP)
        took = time.monotonic_ns() - began
    assert NAP_NS <= events[-1].measurements["duration"] <= took


async def test_a_call_that_waits_to_be_tried_again_takes_up_no_worker_meanwhile(tmp_path: Path) -> None:
    async with ops_pool(retries=1, retry_errors=["KeyError"]) as pool, Monitor(pool, config=NO_SOCKET) as monitor:
        with telemetry.capture(("pool", "retry")) as retries, taken() as found:
            again = asyncio.create_task(pool.options(idempotent=True).run("fail_once", str(tmp_path / "once")))
            holding = asyncio.create_task(pool.run("sleep", 60))  # has the worker when the other call comes back
            await eventually(lambda: retries and pool.workers()[0].operation == "sleep")
            await asyncio.sleep(NAP)
            again.cancel()
            await asyncio.wait([again])
        times = found.times()
        assert times["queue_duration"] == times["duration"] >= NAP_NS
        totals = monitor.metrics.totals()
        assert totals.busy is not None
        assert totals.busy.sum() == 0
        holding.cancel()
