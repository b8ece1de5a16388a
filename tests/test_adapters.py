"""Other pools: callers notice no difference, the Monitor sees all calls, and unknown values are left out."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import inspect
import json
import multiprocessing
import operator
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar, copy_context
from typing import Any
from unittest.mock import AsyncMock

import pytest

from pool_monitor import ConfigError, Monitor, telemetry
from pool_monitor.adapters import MonitoredCalls, MonitoredExecutor, relay, timed_call
from pool_monitor.adapters.tracked_call import TrackedCall
from pool_monitor.adapters.tracker import REASON_MAX
from pool_monitor.adapters.worker_slots import SLOTS_MAX, SLOTS_OF_UNKNOWN, SlotTable
from pool_monitor.config import MonitorConfig, ServiceConfig
from pool_monitor.events import CATALOGUE
from pool_monitor.telemetry import CapturedEvent
from tests.helpers.gates import in_gates
from tests.helpers.programs import ROOT
from tests.helpers.support import eventually

NO_SOCKET = MonitorConfig(service=ServiceConfig(socket=False))
STOP = ("pool", "operation", "stop")
ENDS = {STOP, ("pool", "operation", "exception")}
# Python 3.12 and later warn of any fork in a process that has threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Inline(Executor):
    """A custom executor: runs the call where it is submitted, and has no number of workers."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Abroad(Executor):
    """Stands for an executor on another machine: tasks are pickled, and that machine has another clock."""

    _max_workers = 1

    def __init__(self, took_ns: int) -> None:
        self.took_ns = took_ns

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        answer = pickle.loads(pickle.dumps(fn))(*args, **kwargs)
        timing = (*answer.timing[:2], 10**18, 10**18 + self.took_ns)
        future.set_result(pickle.loads(pickle.dumps(answer._replace(timing=timing))))
        return future


class Manual(Executor):
    """Runs nothing: keeps submitted calls. With *refusing*, it keeps them and raises as well."""

    def __init__(self) -> None:
        self.kept: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.refusing = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.kept.append((Future(), functools.partial(fn, *args, **kwargs)))
        if self.refusing:
            raise RuntimeError("cannot start a thread for it")
        return self.kept[-1][0]


class OwnThreads(ThreadPoolExecutor):
    """A subclass, which might treat calls in another way."""


def processes(method: str, size: int = 2, **options: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(size, mp_context=multiprocessing.get_context(method), **options)


def loky(size: int = 2) -> Executor:
    return pytest.importorskip("loky").ProcessPoolExecutor(size)


KINDS: dict[str, Callable[[], Executor]] = {
    "threads": lambda: ThreadPoolExecutor(2),
    "own threads": lambda: OwnThreads(2),
    "fork": lambda: processes("fork"),
    "spawn": lambda: processes("spawn"),
    "loky": loky,
    "inline": Inline,
}


@pytest.fixture(params=list(KINDS))
def executor(request: pytest.FixtureRequest) -> Iterator[MonitoredExecutor]:
    """One executor of each kind, monitored as ``it``."""
    with MonitoredExecutor(KINDS[request.param](), name="it") as executor:
        yield executor


@pytest.fixture
def told() -> Iterator[list[CapturedEvent]]:
    with telemetry.capture(("pool",)) as events:
        yield events


class Odd(Exception):
    """An exception that loses added attributes when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Odd, self.args


def fail(error: BaseException) -> None:
    raise error


def named(events: list[CapturedEvent], last: str) -> list[CapturedEvent]:
    return [event for event in events if event.name[-1] == last]


def outcomes(events: list[CapturedEvent]) -> Counter[str]:
    return Counter(event.metadata.get("outcome", "ok") for event in events if event.name in ENDS)


def check(events: list[CapturedEvent]) -> None:
    """Check that all events match the catalogue, that every start has one end, and that the times of a call add up."""
    problems = [(event.name, CATALOGUE[event.name].problems(*event[1:])) for event in events]
    assert [problem for problem in problems if problem[1]] == []
    starts = Counter(event.metadata["call_id"] for event in named(events, "start"))
    ends = Counter(event.metadata["call_id"] for event in events if event.name in ENDS)
    assert starts == ends
    assert set(starts.values()) <= {1}
    for event in events:
        if event.name in ENDS:
            times = event.measurements
            parts = (times["queue_duration"], times.get("execution_duration", 0), times.get("transport_duration", 0))
            assert min(parts) >= 0
            assert sum(parts) == times["duration"]


class Gate:
    """A pipe that calls wait at until they are released, one by one; leaving the block releases all. Processes inherit
    it by being forked.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self.wait = functools.partial(os.read, self._reading, 1)

    def open(self, count: int) -> None:
        os.write(self._writing, b"x" * count)

    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None:
        self.open(100)

    def close(self) -> None:
        os.close(self._writing)
        os.close(self._reading)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    with gate:
        yield gate
    gate.close()


# -- executors: what the caller sees --------------------------------------------------------------------------------


def test_an_executor_is_used_as_before(executor: MonitoredExecutor, told: list[CapturedEvent]) -> None:
    future = executor.submit(int, "ff", base=16)
    assert isinstance(future, Future)
    assert (future.result(), future.done(), future.cancel(), future.cancelled()) == (255, True, False, False)
    assert type(future) is Future or type(executor.executor) is not ThreadPoolExecutor
    assert list(executor.map(pow, [2, 3, 4], [3, 2, 1])) == [8, 9, 4]
    assert concurrent.futures.wait([executor.submit(abs, -1)]).not_done == set()
    done = list(concurrent.futures.as_completed([executor.submit(abs, number) for number in (-1, -2)]))
    assert sorted(future.result() for future in done) == [1, 2]
    executor.shutdown()
    check(told)
    assert Counter(event.metadata["operation"] for event in named(told, "stop")) == {"int": 1, "pow": 3, "abs": 3}


async def test_an_event_loop_takes_it_for_an_executor(executor: MonitoredExecutor, told: list[CapturedEvent]) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, abs, -7) == 7
    assert await asyncio.wrap_future(executor.submit(abs, -8)) == 8
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(executor, operator.truediv, 1, 0)
    executor.status()
    check(told)
    assert outcomes(told) == {"ok": 2, "error": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_exceptions_arrive_as_they_are(kind: str, told: list[CapturedEvent]) -> None:
    with KINDS[kind]() as bare:
        expected = bare.submit(int, "no number").exception()
    with MonitoredExecutor(KINDS[kind](), name="it") as executor:
        error = executor.submit(int, "no number").exception()
        assert type(executor.submit(fail, TimeoutError("its own")).exception()) is TimeoutError
        assert type(executor.submit(fail, BrokenExecutor("its own")).exception()) is BrokenExecutor
    assert isinstance(expected, ValueError)
    assert isinstance(error, ValueError)
    assert (error.args, vars(error), type(error.__cause__)) == (expected.args, vars(expected), type(expected.__cause__))
    check(told)
    ends = named(told, "exception")
    assert [end.metadata["outcome"] for end in ends] == ["error"] * 3
    assert [end.metadata["error"] for end in ends] == ["ValueError", "TimeoutError", "BrokenExecutor"]
    assert all("worker" in end.metadata and "execution_duration" in end.measurements for end in ends)
    assert ends[0].metadata["reason"].startswith("ValueError: invalid literal")
    assert executor.status().completed == 3


def test_an_exception_that_drops_what_is_written_on_it_costs_its_times(told: list[CapturedEvent]) -> None:
    with MonitoredExecutor(processes("fork", 1), name="it") as executor:
        assert type(executor.submit(fail, Odd("odd")).exception()) is Odd
    check(told)
    (end,) = named(told, "exception")
    assert (end.metadata["outcome"], end.measurements["attempts"]) == ("error", 1)
    assert "worker" not in end.metadata
    assert "execution_duration" not in end.measurements


def test_what_threads_run_is_at_the_end_of_the_traceback() -> None:
    with MonitoredExecutor(ThreadPoolExecutor(1), name="it") as executor:
        error = executor.submit(fail, KeyError("x")).exception()
    assert error is not None
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-1] == "fail"
    assert len(frames) == 3  # the frames of the thread, of the task and of the function


@pytest.mark.parametrize("kind", ["threads", "own threads", "fork"])
async def test_a_call_that_is_cancelled_before_it_began_never_runs(
    kind: str, told: list[CapturedEvent], gate: Gate
) -> None:
    executor = MonitoredExecutor(KINDS[kind](), name="it")
    busy = [
        executor.submit(gate.wait) for _ in range(6)
    ]  # two run; with processes, three more can no longer be cancelled
    late = executor.submit(abs, 1)
    seen: list[Future[int]] = []
    late.add_done_callback(seen.append)
    assert not late.running()
    assert late.cancel()
    assert late.cancel()
    assert late.cancelled()
    assert seen == [late]
    with pytest.raises(concurrent.futures.CancelledError):
        late.result()
    await eventually(busy[0].running)
    assert not busy[0].cancel()
    awaited = asyncio.get_running_loop().run_in_executor(executor, abs, 2)
    awaited.cancel()
    await eventually(lambda: executor.status().completed == 2)
    gate.open(6)
    executor.shutdown()
    assert concurrent.futures.wait([late, *busy], timeout=30).not_done == set()
    check(told)
    assert outcomes(told) == {"ok": 6, "cancelled": 2}
    for end in named(told, "exception"):
        assert (end.metadata["kind"], end.metadata["category"]) == ("cancelled", "cancelled")
        assert (end.metadata["error"], end.measurements["attempts"]) == ("CancelledError", 0)
        assert "worker" not in end.metadata


@pytest.mark.parametrize("kind", ["threads", "own threads", "fork"])
async def test_a_shutdown_that_cancels_leaves_no_call_without_an_end(
    kind: str, told: list[CapturedEvent], gate: Gate
) -> None:
    executor = MonitoredExecutor(KINDS[kind](), name="it")
    futures = [executor.submit(gate.wait) for _ in range(20)]
    await eventually(lambda: futures[0].running() and futures[1].running())
    executor.shutdown(wait=False, cancel_futures=True)
    assert executor.status().state == "draining"
    gate.open(20)
    await eventually(lambda: all(future.done() for future in futures))
    cancelled = sum(future.cancelled() for future in futures)
    assert cancelled >= 15
    assert (executor.status().state, executor.status().completed) == ("closed", 20)
    check(told)
    assert outcomes(told) == {"ok": 20 - cancelled, "cancelled": cancelled}


def test_a_call_that_is_refused_is_told_and_raises(executor: MonitoredExecutor, told: list[CapturedEvent]) -> None:
    if isinstance(executor.executor, Inline):
        pytest.skip("never refuses")
    executor.executor.shutdown()  # not through the MonitoredExecutor
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(abs, 1)
    check(told)
    assert [event.metadata["reason"] for event in named(told, "reject")] == ["closed"]
    assert outcomes(told) == {"rejected": 1}
    assert (executor.status().refusals, executor.status().state) == ({"closed": 1}, "closed")


def test_a_call_that_runs_though_it_was_refused_has_one_end(told: list[CapturedEvent]) -> None:
    manual = Manual()
    executor = MonitoredExecutor(manual, name="it")
    manual.refusing = True
    with pytest.raises(RuntimeError, match="thread"):
        executor.submit(abs, -1)
    assert manual.kept.pop()[1]() == 1
    assert (executor.status().busy, executor.status().completed) == (0, 1)
    check(told)
    assert outcomes(told) == {"rejected": 1}


def test_an_executor_is_closed_until_a_later_call_ends_well(told: list[CapturedEvent]) -> None:
    manual = Manual()
    executor = MonitoredExecutor(manual, name="it")
    futures = [executor.submit(abs, -1) for _ in range(2)]
    manual.kept[1][0].set_exception(BrokenExecutor("gone"))
    assert executor.status().state == "closed"
    manual.kept[0][0].set_result(1)  # submitted before the executor broke
    assert [type(future.exception()) for future in futures] == [type(None), BrokenExecutor]
    assert executor.status().state == "closed"
    executor.submit(abs, -1)
    manual.kept[2][0].set_result(1)
    assert executor.status().state == "running"
    check(told)
    assert outcomes(told) == {"ok": 2, "worker_lost": 1}
    assert [end.metadata["worker"] for end in named(told, "stop")] == ["it-0"] * 2  # the worker is unknown
    assert [worker.pid for worker in executor.workers()] == [None]


def test_of_a_long_text_enough_is_told(told: list[CapturedEvent]) -> None:
    assert MonitoredExecutor(Inline(), name="it").submit(fail, ValueError("x" * 10**6)).exception() is not None
    (end,) = named(told, "exception")
    assert len(end.metadata["reason"]) == REASON_MAX


@pytest.mark.parametrize(
    ("error", "outcome", "refusals"),
    [
        (queue.Full(), "rejected", {"saturated": 1}),
        (TypeError("x"), "error", {}),
        (KeyboardInterrupt(), "cancelled", {}),
    ],
)
def test_whatever_a_submit_raises_ends_the_call(
    error: BaseException, outcome: str, refusals: dict[str, int], told: list[CapturedEvent]
) -> None:
    class Refusing(Inline):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            raise error

    executor = MonitoredExecutor(Refusing(), name="it")
    with pytest.raises(type(error)):
        executor.submit(abs, 1)
    check(told)
    assert outcomes(told) == {outcome: 1}
    status = executor.status()
    assert (status.refusals, status.state, status.busy, status.completed) == (refusals, "running", 0, 1)


@pytest.mark.parametrize("kind", ["fork", "loky"])
async def test_a_killed_process_costs_what_the_executor_says_and_is_told(kind: str) -> None:
    executor = MonitoredExecutor(KINDS[kind](), name="it")
    with telemetry.capture(("pool",)) as told:
        async with Monitor(executor, config=NO_SOCKET) as monitor:
            pid = executor.submit(os.getpid).result()
            futures = [executor.submit(time.sleep, 60) for _ in range(3)]
            os.kill(pid, signal.SIGKILL)
            errors = [future.exception(timeout=30) for future in futures]
            assert all(isinstance(error, BrokenProcessPool) for error in errors)
            with pytest.raises(BrokenProcessPool):
                executor.submit(abs, 1)
            pool = monitor.snapshot("1m").pools["it"]
    check(told)
    assert outcomes(told) == {"ok": 1, "worker_lost": 3, "rejected": 1}
    assert {end.metadata["category"] for end in named(told, "exception")} == {"connection", "resource"}
    assert (pool.total.calls, pool.total.errors, pool.total.workers_lost, pool.total.rejected) == (4, 3, 3, 1)
    assert (pool.state, pool.size, pool.dead, pool.idle, pool.busy, pool.waiting) == ("closed", 2, 2, 0, 0, 0)
    executor.shutdown()


@pytest.mark.parametrize("kind", ["fork", "spawn", "loky"])
def test_what_cannot_be_pickled_costs_that_call_alone(kind: str, told: list[CapturedEvent]) -> None:
    with MonitoredExecutor(KINDS[kind](), name="it") as executor:
        assert "pickle" in str(executor.submit(print, threading.Lock()).exception())
        assert "pickle" in str(executor.submit(threading.Lock).exception())  # a result that cannot be pickled
        assert executor.submit(abs, -3).result() == 3
    check(told)
    assert outcomes(told) == {"ok": 1, "error": 2}


def test_chunks_of_a_map_are_calls_where_the_executor_heeds_them(told: list[CapturedEvent]) -> None:
    with MonitoredExecutor(processes("fork"), name="it") as executor:
        assert list(executor.map(pow, range(10), [2] * 10, chunksize=4)) == [number**2 for number in range(10)]
        with pytest.raises(ValueError, match="chunksize=0"):
            executor.map(abs, [1], chunksize=0)
    assert [event.metadata["operation"] for event in named(told, "stop")] == ["pow"] * 3
    told.clear()
    with MonitoredExecutor(ThreadPoolExecutor(2), name="it") as threads:
        assert list(threads.map(abs, range(10), chunksize=4, timeout=30)) == list(range(10))
    assert len(named(told, "stop")) == 10


async def test_operations_are_called_after_the_function_within(told: list[CapturedEvent]) -> None:
    class Thing:
        __name__ = 7

        def method(self) -> None: ...

        def __call__(self) -> None: ...

    variable: ContextVar[int] = ContextVar("variable")
    variable.set(3)
    in_context = functools.partial(copy_context().run, variable.get)
    with MonitoredExecutor(ThreadPoolExecutor(1), name="it") as executor:
        for function in (Thing().method, Thing(), functools.partial(functools.partial(pow, 2), 3), lambda: None):
            await asyncio.wrap_future(executor.submit(function))
        assert await asyncio.get_running_loop().run_in_executor(executor, in_context) == 3
        assert executor.submit(copy_context().run, variable.get).result() == 3
        assert type(executor.submit(7, 1).exception()) is TypeError  # type: ignore[arg-type]
    names = [event.metadata["operation"] for event in named(told, "start")]
    assert names == ["method", "Thing", "pow", "<lambda>", "get", "get", "int"]


@pytest.mark.parametrize("kind", ["threads", "own threads"])
def test_nothing_of_a_call_is_held_when_it_is_over(kind: str) -> None:
    class Thing: ...

    def pack(thing: Thing) -> list[Thing]:
        submitted.wait()
        return [thing]

    argument, submitted = Thing(), threading.Event()
    gc.disable()
    try:
        with MonitoredExecutor(KINDS[kind](), name="it") as executor:
            future = executor.submit(pack, argument)
            submitted.set()
            thing = weakref.ref(future.result()[0])
        del argument, future
        assert thing() is None
        assert executor._tracker._open == {}
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["threads", "own threads", "fork"])
@pytest.mark.parametrize("held", ["future", "map"])
async def test_an_executor_that_is_dropped_is_collected_though_its_futures_are_held(
    kind: str, held: str, gate: Gate
) -> None:
    inner = KINDS[kind]()
    gone = weakref.ref(inner)
    executor = MonitoredExecutor(inner, name="it")
    del inner
    with gate:
        if held == "map":
            kept: Any = executor.map(abs, range(-5, 5))
        else:
            kept = [executor.submit(gate.wait), executor.submit(abs, -1)]
            kept[1].result()
            gate.open(1)
            kept[0].result()
    del executor
    # The thread of a pool of processes keeps the pool alive until it notices that the pool is unused.
    await eventually(lambda: gc.collect() >= 0 and gone() is None)
    assert list(kept) if held == "map" else all(future.done() for future in kept)


def test_a_call_that_ends_after_its_executor_is_collected_has_one_of_its_slots(told: list[CapturedEvent]) -> None:
    manual = Manual()
    manual._max_workers = 1  # type: ignore[attr-defined]
    kept = manual.kept
    executor = MonitoredExecutor(manual, name="it")
    futures = [executor.submit(abs, -1), executor.submit(abs, -2)]
    gone = weakref.ref(manual)
    del executor, manual
    gc.collect()
    assert gone() is None
    for future, call in kept:
        future.set_result(call())
    assert [future.result() for future in futures] == [1, 2]
    assert {end.metadata["worker"] for end in named(told, "stop")} == {"it-0"}


class Looking(Manual):
    """Reads the attributes of a function that task queues and dashboards read."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.read = (fn.__name__, fn.__qualname__, inspect.unwrap(fn), inspect.signature(fn))
        self.shown = repr(fn)
        return super().submit(fn, *args, **kwargs)


def test_an_executor_sees_the_name_and_the_signature_of_the_function() -> None:
    looking = Looking()
    MonitoredExecutor(looking, name="it").submit(fail, ValueError())
    assert looking.read == ("fail", "fail", fail, inspect.signature(fail))
    assert repr(fail) in looking.shown


def test_a_function_without_a_name_has_none_in_an_executor_either() -> None:
    partial = functools.partial(abs, -1)
    assert not hasattr(MonitoredExecutor(Looking(), name="it")._task_class(partial, "abs", None), "__name__")  # type: ignore[arg-type]


def test_what_goes_to_another_process_keeps_the_name_there() -> None:
    away = pickle.loads(pickle.dumps(timed_call.TimedCall(fail)))
    assert (away.__name__, away.__wrapped__) == ("fail", fail)
    assert pickle.loads(pickle.dumps(away)).__wrapped__ is fail  # as when a scheduler passes it on


class Mapping(Executor):
    """Composed: passes the results of another executor through a function."""

    def __init__(self, inner: Executor, function: Callable[[Any], Any]) -> None:
        self.inner, self.function = inner, function

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        mapped: Future[Any] = Future()
        self.inner.submit(fn, *args, **kwargs).add_done_callback(
            lambda future: mapped.set_result(self.function(future.result()))
        )
        return mapped

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.inner.shutdown(wait, cancel_futures=cancel_futures)


def incremented(function: Callable[..., int], *args: Any) -> int:
    """Change a result in the process where it was computed, as a subclass may."""
    return function(*args) + 1


class Incrementing(ProcessPoolExecutor):
    """Changes results in the other process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(incremented, fn, *args, **kwargs)


def test_an_executor_that_looks_at_results_sees_what_the_function_returned(told: list[CapturedEvent]) -> None:
    seen: list[Any] = []

    def look(result: Any) -> Any:
        seen.append(result)
        return result

    with MonitoredExecutor(Mapping(processes("fork", 1), look), name="it") as composed:
        assert composed.submit(abs, -7).result() == 7
    with MonitoredExecutor(Incrementing(1, multiprocessing.get_context("fork")), name="it") as own:
        assert own.submit(abs, -7).result() == 8
    assert [(type(result), result) for result in seen] == [(int, 7)]
    check(told)
    assert all("execution_duration" not in end.measurements for end in named(told, "stop"))


class Configured(ProcessPoolExecutor):
    """A subclass that does not override `submit`."""


def test_a_subclass_with_the_same_submit_is_measured_like_its_base(told: list[CapturedEvent]) -> None:
    with MonitoredExecutor(Configured(1, multiprocessing.get_context("fork")), name="it") as executor:
        assert executor.submit(abs, -7).result() == 7
    (end,) = named(told, "stop")
    assert end.measurements["execution_duration"] > 0


class Retrying(Executor):
    """Composed: runs a call until it ends well, at most twice."""

    _max_workers = 2

    def __init__(self) -> None:
        self.inner = ThreadPoolExecutor(2)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer: Future[Any] = Future()

        def again(left: int) -> None:
            self.inner.submit(fn, *args, **kwargs).add_done_callback(lambda future: over(future, left))

        def over(future: Future[Any], left: int) -> None:
            error = future.exception()
            if error is None:
                outer.set_result(future.result())
            elif left:
                again(left - 1)
            else:
                outer.set_exception(error)

        again(2)
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.inner.shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.parametrize(("failures", "outcome"), [(0, "ok"), (2, "ok"), (3, "error")])
async def test_a_call_that_is_run_again_ends_once_as_its_future_does(
    failures: int, outcome: str, told: list[CapturedEvent]
) -> None:
    left = iter(range(failures))

    def flaky() -> int:
        if next(left, None) is not None:
            raise ConnectionError("for now")
        return 7

    executor = MonitoredExecutor(Retrying(), name="it")
    async with Monitor(executor, config=NO_SOCKET) as monitor:
        error = await asyncio.to_thread(executor.submit(flaky).exception)
        assert (error is None) == (outcome == "ok")
        pool = monitor.snapshot("1m").pools["it"]
        assert (pool.total.calls, pool.total.ok, pool.busy, pool.waiting) == (1, int(outcome == "ok"), 0, 0)
        assert {worker.state for worker in pool.workers.values()} == {"ready"}
        await asyncio.to_thread(executor.shutdown)
    check(told)
    (end,) = (event for event in told if event.name in ENDS)
    assert end.measurements["attempts"] == min(failures, 2) + 1
    assert end.metadata["worker"].startswith("it-")
    assert outcomes(told) == {outcome: 1}


# -- executors: what the Monitor sees -------------------------------------------------------------------------------


async def test_a_snapshot_has_them_like_any_pool(executor: MonitoredExecutor) -> None:
    async with Monitor(executor, config=NO_SOCKET) as monitor:
        futures = [executor.submit(abs, -1) for _ in range(20)]
        assert executor.submit(operator.truediv, 1, 0).exception() is not None
        assert [future.result() for future in futures] == [1] * 20
        pool = monitor.snapshot("1m").pools["it"]  # counts every call whose result was returned
        assert (pool.total.calls, pool.total.ok, pool.total.errors, pool.completed) == (21, 20, 1, 21)
        assert pool.operations["abs"].latency.count == pool.operations["abs"].execution.count == 20
        assert (pool.state, pool.busy, pool.waiting, pool.idle, pool.restarts) == ("running", 0, 0, pool.size, 0)
        assert pool.size == (1 if isinstance(executor.executor, Inline) else 2)
        assert 1 <= len(pool.workers) <= pool.size
        assert set(pool.workers) <= {"it-0", "it-1"}
        assert sum(worker.calls for worker in pool.workers.values()) == 21
        assert {worker.state for worker in pool.workers.values()} == {"ready"}
        assert monitor.not_ready() is None
        assert monitor.snapshot().monitor.dropped == 0
        assert "0 busy" in repr(executor)
        pids = {worker.pid for worker in pool.workers.values()}
        if isinstance(executor.executor, ThreadPoolExecutor | Inline):
            assert pids == {None}
        else:
            assert not pids & {None, os.getpid()}


async def test_gauges_of_threads_are_what_happens_now(gate: Gate) -> None:
    executor = MonitoredExecutor(ThreadPoolExecutor(3), name="it")
    before = executor.status()
    assert (before.size, before.busy, before.idle, before.waiting) == (3, 0, 3, 0)
    assert executor.workers() == []
    executor.submit(abs, 1).result()
    began_ns = time.monotonic_ns()
    futures = [executor.submit(gate.wait) for _ in range(5)]
    await eventually(lambda: executor.status().busy == 3)
    now = executor.status()
    assert (now.busy, now.idle, now.waiting, now.utilisation) == (3, 0, 2, 1.0)
    workers = executor.workers()
    assert [worker.id for worker in workers] == ["it-0", "it-1", "it-2"]
    assert {(worker.state, worker.operation, worker.calls_held) for worker in workers} == {("busy", "read", 1)}
    assert all(0 <= worker.state_age <= (time.monotonic_ns() - began_ns) / 1e9 for worker in workers)
    executor.shutdown(wait=False)
    assert executor.status().state == "draining"
    gate.open(5)
    concurrent.futures.wait(futures)
    executor.shutdown()
    after = executor.status()
    assert (after.state, after.busy, after.idle, after.dead, after.waiting, after.completed) == (
        "closed",
        0,
        0,
        3,
        0,
        6,
    )
    assert {worker.state for worker in executor.workers()} == {"terminated"}


async def test_of_processes_the_silent_are_said_to_run_what_was_asked_first(
    gate: Gate, told: list[CapturedEvent]
) -> None:
    began_ns = time.monotonic_ns()
    with MonitoredExecutor(processes("fork"), name="it") as executor, gate:
        first = executor.submit(gate.wait)
        (worker,) = executor.workers()
        assert (worker.state, worker.operation, worker.pid, worker.calls_held) == ("busy", "read", None, 1)
        (pid,) = {executor.submit(os.getpid).result() for _ in range(3)}
        status, workers = executor.status(), executor.workers()
        assert (status.busy, status.idle, status.waiting) == (1, 1, 0)
        assert {(worker.state, worker.operation, worker.pid) for worker in workers} == {
            ("ready", None, pid),
            ("busy", "read", None),
        }
        assert max(worker.state_age for worker in workers if worker.state == "busy") > min(
            worker.state_age for worker in workers if worker.state == "ready"
        )
        more = [*(executor.submit(gate.wait) for _ in range(4)), executor.submit(abs, 1)]
        status, workers = executor.status(), executor.workers()
        assert (status.busy, status.idle, status.waiting) == (2, 0, 4)
        assert [worker.operation for worker in workers] == ["read"] * 2
        assert all(0 <= worker.state_age <= (time.monotonic_ns() - began_ns) / 1e9 for worker in workers)
        assert [start.measurements["waiting"] for start in named(told, "start")] == [0, 0, 0, 0, 0, 0, 1, 2, 3]
        gate.open(5)
        concurrent.futures.wait([first, *more])
        assert {worker.state for worker in executor.workers()} == {"ready"}


async def test_replaced_processes_take_the_slots_of_those_that_are_gone() -> None:
    async with Monitor(
        executor := MonitoredExecutor(processes("spawn", max_tasks_per_child=1), name="it"), config=NO_SOCKET
    ) as monitor:
        pids = [await asyncio.wrap_future(executor.submit(os.getpid)) for _ in range(5)]
        assert len(set(pids)) == 5
        pool = monitor.snapshot("1m").pools["it"]
        assert set(pool.workers) <= {"it-0", "it-1"}
        assert sum(worker.calls for worker in pool.workers.values()) == 5
        assert pids[-1] in {worker.pid for worker in pool.workers.values()}
        await asyncio.to_thread(executor.shutdown)


@pytest.mark.parametrize("took_ns", [5, 10**15])
async def test_of_another_machines_clock_only_the_execution_is_believed(
    took_ns: int, told: list[CapturedEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_monitor.adapters.monitored_executor.TRANSPARENT", {f"{__name__}.Abroad"})
    executor = MonitoredExecutor(Abroad(took_ns), name="it")
    assert executor.submit(abs, -2).result() == 2
    check(told)
    (end,) = named(told, "stop")
    assert end.measurements["execution_duration"] == min(took_ns, end.measurements["duration"])
    assert end.measurements["transport_duration"] == 0
    assert end.measurements["attempts"] == 1


@pytest.mark.parametrize("kind", ["threads", "fork"])
async def test_queue_and_execution_are_measured_where_the_call_runs(
    kind: str, told: list[CapturedEvent], gate: Gate
) -> None:
    bare = ThreadPoolExecutor(1) if kind == "threads" else processes("fork", 1)
    with MonitoredExecutor(bare, name="it") as executor, gate:
        first, second = executor.submit(gate.wait), executor.submit(abs, 1)
        begun_ns = time.monotonic_ns()
        await eventually(first.running)
        waited_ns = time.monotonic_ns() - begun_ns
        gate.open(1)
        concurrent.futures.wait([first, second])
    check(told)
    held, waited = named(told, "stop")
    assert waited.measurements["queue_duration"] >= waited_ns
    assert waited.measurements["duration"] >= waited_ns
    assert waited.measurements["execution_duration"] <= waited.measurements["duration"] - waited_ns
    assert held.measurements["attempts"] == 1


@pytest.mark.parametrize("error", [RuntimeError, GeneratorExit])
def test_what_cannot_be_asked_of_an_executor_or_a_function_costs_no_call(
    error: type[BaseException], told: list[CapturedEvent]
) -> None:
    class Proxy:
        """Like the proxies of web frameworks, which raise if there is no request."""

        def __getattr__(self, name: str) -> Any:
            raise error(name)

        def __call__(self, number: int) -> int:
            return number + 1

    class Odd(Inline):
        @property
        def _max_workers(self) -> int:
            raise error

    executor = MonitoredExecutor(Odd(), name="odd")
    assert executor.submit(Proxy(), 1).result() == 2
    assert executor.submit(functools.partial(Proxy(), 2)).result() == 3
    assert [event.metadata["operation"] for event in told if event.name == STOP] == ["Proxy", "Proxy"]
    assert executor.status().size == 1


@pytest.mark.parametrize("number", [0, -3, True, "4", 2.5])
def test_an_executors_own_number_of_workers_has_to_be_one(number: Any) -> None:
    class Odd(Inline):
        _max_workers = number

    executor = MonitoredExecutor(Odd(), name="odd")
    assert executor.submit(abs, -1).result() == 1
    assert executor.status().size == 1
    assert [worker.id for worker in executor.workers()] == ["odd-0"]


def test_a_size_is_the_given_one_the_executors_own_or_what_was_seen() -> None:
    assert MonitoredExecutor(ThreadPoolExecutor(7), name="it").status().size == 7
    assert MonitoredExecutor(ThreadPoolExecutor(7), name="it", size=3).status().size == 3
    assert MonitoredExecutor(Inline(), name="it").status().size == 1


# -- threads --------------------------------------------------------------------------------------------------------

THREADS, EACH = 8, 1250


def submit_from_threads(executor: Executor) -> list[threading.Thread]:
    """Submit 10,000 calls from several threads, of which every tenth fails, and wait until all have ended."""

    def one() -> None:
        futures = [executor.submit(operator.truediv, 1, number % 10) for number in range(EACH)]
        concurrent.futures.wait(futures)

    threads = [threading.Thread(target=one) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("blocked", [True, False], ids=["loop stands still", "loop goes on"])
@pytest.mark.parametrize("kind", ["threads", in_gates("own threads")])
async def test_ten_thousand_calls_of_eight_threads_are_counted_once_each(kind: str, blocked: bool) -> None:
    heard_in: set[int] = set()
    telemetry.attach("heard", STOP, lambda *_told: heard_in.add(threading.get_ident()))
    try:
        with MonitoredExecutor(KINDS[kind](), name="it") as executor:
            async with Monitor(executor, config=NO_SOCKET) as monitor:
                threads = submit_from_threads(executor)
                while not blocked and any(thread.is_alive() for thread in threads):
                    monitor.snapshot("1m")
                    await asyncio.sleep(0)
                for thread in threads:
                    thread.join()
                pool = monitor.snapshot("1m").pools["it"]
                assert (pool.total.calls, pool.total.errors) == (THREADS * EACH, THREADS * EACH // 10)
                assert (pool.completed, pool.busy, pool.waiting) == (THREADS * EACH, 0, 0)
                assert sum(worker.calls for worker in pool.workers.values()) == THREADS * EACH
                assert monitor.snapshot().monitor.dropped == 0
    finally:
        telemetry.detach("heard")
    assert heard_in == {threading.get_ident()}


def test_without_a_loop_events_are_told_one_at_a_time() -> None:
    telling = threading.Lock()
    heard: Counter[str] = Counter()
    overlapped = []

    def handler(event: Any, _measurements: Any, metadata: Any, _config: Any) -> None:
        if not telling.acquire(blocking=False):
            overlapped.append(event)
            return
        heard[metadata["call_id"]] += 1
        telling.release()

    telemetry.attach_many("heard", list(ENDS), handler)
    try:
        with MonitoredExecutor(ThreadPoolExecutor(4), name="it") as executor:
            for thread in submit_from_threads(executor):
                thread.join()
    finally:
        telemetry.detach("heard")
    assert overlapped == []
    assert (len(heard), set(heard.values())) == (THREADS * EACH, {1})


def test_a_handler_may_wait_for_another_call() -> None:
    results = []

    def handler(*_told: Any) -> None:
        if not results:
            results.append(executor.submit(abs, -5).result(timeout=30))

    with MonitoredExecutor(ThreadPoolExecutor(2), name="it") as executor:
        telemetry.attach("waits", ("pool", "operation", "start"), handler)
        try:
            assert executor.submit(abs, -1).result(timeout=30) == 1
        finally:
            telemetry.detach("waits")
    assert results == [5]


async def test_an_adapter_made_before_any_loop_tells_in_the_one_it_is_used_in() -> None:
    def elsewhere() -> MonitoredExecutor:
        return MonitoredExecutor(ThreadPoolExecutor(1), name="it")

    executor = await asyncio.to_thread(elsewhere)
    heard_in = []
    telemetry.attach("heard", STOP, lambda *_told: heard_in.append(threading.get_ident()))
    try:
        for number in range(1, 4):  # the loop is woken every time
            await asyncio.get_running_loop().run_in_executor(executor, abs, 1)
            await eventually(lambda number=number: len(heard_in) == number)
    finally:
        telemetry.detach("heard")
    executor.shutdown()
    assert set(heard_in) == {threading.get_ident()}


def test_an_adapter_outlives_its_loop_and_takes_to_the_next() -> None:
    async def used() -> None:
        before = len(heard_in)
        await asyncio.get_running_loop().run_in_executor(executor, abs, 1)
        await eventually(lambda: len(heard_in) == before + 1)

    executor = MonitoredExecutor(ThreadPoolExecutor(1), name="it")
    heard_in: list[int] = []
    telemetry.attach("heard", STOP, lambda *_told: heard_in.append(threading.get_ident()))
    try:
        first = threading.Thread(target=asyncio.run, args=(used(),))
        first.start()
        first.join()
        for number in (2, 3):
            executor.submit(abs, 1).result()  # between loops: the event is emitted before the result is there
            assert len(heard_in) == number
        asyncio.run(used())
        assert heard_in[-1] == threading.get_ident()
    finally:
        telemetry.detach("heard")
        executor.shutdown()


def test_a_loop_that_ended_before_it_could_tell_leaves_it_to_the_next() -> None:
    async def used() -> None:
        await asyncio.get_running_loop().run_in_executor(executor, abs, 1)
        await eventually(lambda: len(named(told, "stop")) in {1, 3})

    executor = MonitoredExecutor(ThreadPoolExecutor(1), name="it")
    with telemetry.capture(("pool",)) as told:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(used())
        executor.submit(abs, 1).result()
        assert len(named(told, "stop")) == 1  # the loop was woken, and does not run
        loop.close()
        asyncio.run(used())
        executor.shutdown()
    check(told)


async def test_a_loop_that_stands_still_too_long_costs_events_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "WAITING_MAX", 10)
    with telemetry.capture(("pool",)) as told, MonitoredExecutor(ThreadPoolExecutor(2), name="it") as executor:
        thread = threading.Thread(target=lambda: [executor.submit(abs, 1).result() for _ in range(50)])
        thread.start()
        thread.join()
        assert told == []
        assert len(executor._tracker._relay._waiting) <= 12
        status = executor.status()
        assert (status.completed, status.busy) == (50, 0)
        executor.submit(abs, 1).result()
        executor.status()
    (trouble,) = named(told, "error")
    assert trouble.metadata["reason"].startswith(f"{51 - outcomes(told)['ok']} calls emitted no events")
    check(told)


# -- slots ----------------------------------------------------------------------------------------------------------


def test_slots_are_kept_by_who_is_seen_and_given_to_who_comes_after_the_gone() -> None:
    size = [2]
    slots = SlotTable("it", lambda: size[0])
    here, gone, other = threading.get_ident(), -1, os.getppid()
    first, second = slots.held_by(here), slots.held_by(gone)
    assert (first.id, second.id) == ("it-0", "it-1")
    assert slots.held_by(here) is first
    assert slots.held_by((other, 1)) is second  # that thread is gone
    assert (first.pid, second.pid) == (None, other)
    first.since_ns, second.since_ns = 10, 20
    assert slots.held_by((other, 2)) is first  # all holders exist: the slot that was idle longest
    size[0] = 1
    assert list(slots.oldest_calls([])) == [first]
    assert slots.held_by((other, 1)) is first  # its former slot is over the limit now
    size[0] = 3
    assert list(slots.oldest_calls([])) == [first, second]
    assert slots.held_by((other, 3)) is second
    assert slots.held_by((other, 4)).id == "it-2"


def test_a_call_nobody_saw_begin_is_never_where_a_later_one_has_ended() -> None:
    slots = SlotTable("it", lambda: 3)
    old, new, newer = TrackedCall("old"), TrackedCall("new"), TrackedCall("newer")
    here = slots.held_by(1)
    here.since_ns, here.last_ended = 5, new.id
    assert [(slot.id, call and call.operation) for slot, call in slots.oldest_calls([old]).items()] == [
        ("it-0", None),
        ("it-1", "old"),
    ]
    assert [call and call.operation for call in slots.oldest_calls([old, newer]).values()] == ["newer", "old"]
    assert list(slots.oldest_calls([])) == [here]


def test_there_are_never_more_slots_than_allowed() -> None:
    for size, most in ((None, SLOTS_OF_UNKNOWN), (10**6, SLOTS_MAX), (3, 3)):
        slots = SlotTable("it", lambda size=size: size)
        for number in range(1000):
            slots.held_by((1, number)).since_ns = 1
        slots.oldest_calls(TrackedCall("more") for _ in range(1000))
        assert len(slots) == len(slots._held) == len(slots.oldest_calls([])) == most
    few = SlotTable("it", lambda: 3)
    taken = []
    for number in range(9):
        slot = few.least_busy()
        slot.calls[number] = TrackedCall("more")
        taken.append(slot.number)
    assert taken == [0, 1, 2] * 3


# -- async callables ------------------------------------------------------------------------------------------------


async def echo(value: Any = None, *, error: BaseException | None = None, gate: asyncio.Event | None = None) -> Any:
    """Return or raise the given argument, once the gate is open."""
    if gate is not None:
        await gate.wait()
    if error is not None:
        raise error
    return value


async def flagged() -> None: ...


flagged.flag = "up"  # type: ignore[attr-defined]


class Client:
    async def ask(self, text: str) -> str:
        return text.upper()

    async def __call__(self, text: str) -> str:
        return text


class Handing:
    """A plain function that returns an awaitable."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def __call__(self) -> Any:
        return self.given


async def test_async_calls_are_counted_like_those_of_a_pool(told: list[CapturedEvent]) -> None:
    calls = MonitoredCalls(name="client", limit=4)
    ask, say = calls.wrap(Client().ask), calls.wrap(echo, operation="say")
    async with Monitor(calls, config=NO_SOCKET) as monitor:
        assert await ask("hello") == "HELLO"
        assert await asyncio.gather(*(say(number) for number in range(3))) == [0, 1, 2]
        with pytest.raises(TimeoutError):
            await say(error=TimeoutError("its own"))
        task = asyncio.ensure_future(say(gate=asyncio.Event()))
        await eventually(lambda: calls.status().busy)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pool = monitor.snapshot("1m").pools["client"]
    check(told)
    assert outcomes(told) == {"ok": 4, "error": 1, "cancelled": 1}
    assert {name: stats.calls for name, stats in pool.operations.items()} == {"ask": 1, "say": 5}
    assert (pool.total.errors, pool.total.timeouts, pool.total.cancelled, pool.completed) == (1, 0, 1, 6)
    assert (pool.state, pool.size, pool.busy, pool.idle, pool.waiting) == ("running", 4, 0, 4, 0)
    assert set(pool.workers) == {"client-0"}  # no call but the last gave the loop a turn
    assert monitor.not_ready() is None


async def test_a_call_that_is_left_on_a_slot_is_as_old_as_it_is_itself() -> None:
    calls, gates = MonitoredCalls(name="client", limit=1), [asyncio.Event() for _ in range(2)]
    say = calls.wrap(echo)
    first = asyncio.create_task(say(1, gate=gates[0]))
    await eventually(lambda: calls.status().busy == 1)
    began_ns = time.monotonic_ns()
    second = asyncio.create_task(say(2, gate=gates[1]))
    await eventually(lambda: calls.status().busy == 2)
    gates[0].set()
    await first
    [worker] = calls.workers()
    assert worker.call_age is not None
    assert worker.call_age <= (time.monotonic_ns() - began_ns) / 1e9 < worker.state_age
    gates[1].set()
    await second
    assert [worker.call_age for worker in calls.workers()] == [None]


async def test_overlapping_calls_have_a_slot_each_and_nothing_is_held_back() -> None:
    calls, gate = MonitoredCalls(name="client", limit=3), asyncio.Event()
    say = calls.wrap(echo)
    tasks = [asyncio.ensure_future(say(number, gate=gate)) for number in range(5)]
    await eventually(lambda: calls.status().busy == 5)
    status, workers = calls.status(), calls.workers()
    assert (status.size, status.idle, status.waiting, status.utilisation) == (3, 0, 0, pytest.approx(5 / 3))
    assert [(worker.id, worker.calls_held) for worker in workers] == [("client-0", 2), ("client-1", 2), ("client-2", 1)]
    assert {(worker.state, worker.operation, worker.pid) for worker in workers} == {("busy", "echo", None)}
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert [worker.calls_held for worker in calls.workers()] == [1, 2, 1]
    gate.set()
    assert await asyncio.gather(*tasks[1:]) == [1, 2, 3, 4]
    assert {worker.state for worker in calls.workers()} == {"ready"}


async def test_without_a_limit_size_is_the_most_there_were_at_once() -> None:
    calls, gate = MonitoredCalls(name="client"), asyncio.Event()
    assert (calls.status().size, calls.status().idle) == (1, 1)
    say = calls.wrap(echo)
    tasks = [asyncio.ensure_future(say(gate=gate)) for _ in range(100)]
    await eventually(lambda: calls.status().busy == 100)
    assert (calls.status().size, len(calls.workers())) == (100, 16)
    gate.set()
    await asyncio.gather(*tasks)
    assert (calls.status().size, calls.status().busy, calls.status().idle) == (100, 0, 100)


async def test_a_coroutine_that_is_closed_or_never_awaited_has_at_most_one_end(told: list[CapturedEvent]) -> None:
    say = MonitoredCalls(name="client").wrap(echo)
    never = say(1)
    never.close()
    assert told == []
    half = say(gate=asyncio.Event())
    half.send(None)
    half.close()
    check(told)
    assert outcomes(told) == {"cancelled": 1}


async def test_every_way_to_wrap_and_every_async_callable(told: list[CapturedEvent]) -> None:
    calls = MonitoredCalls(name="client")

    @calls
    async def plain(value: int) -> int:
        """Says it."""
        return value

    @calls.wrap(operation="renamed")
    async def other() -> None: ...

    class Holder:
        @calls
        async def method(self) -> object:
            return self

    holder = Holder()
    assert await plain(3) == 3
    assert (plain.__name__, plain.__doc__) == ("plain", "Says it.")
    await other()
    assert await holder.method() is holder
    assert await calls.wrap(Client())("x") == "x"
    assert await calls.wrap(functools.partial(echo, 5))() == 5
    assert await calls.wrap(AsyncMock(return_value=6))() == 6
    handing = calls.wrap(Handing(asyncio.sleep(0, 7)))
    assert await handing() == 7
    assert not hasattr(handing, "given")
    assert calls.wrap(flagged).flag == "up"  # type: ignore[attr-defined]
    names = [event.metadata["operation"] for event in named(told, "stop")]
    assert names == ["plain", "renamed", "method", "Client", "echo", "AsyncMock", "Handing"]


async def test_async_calls_of_other_threads_are_told_in_the_adapters_loop() -> None:
    calls = MonitoredCalls(name="client", limit=8)
    say = calls.wrap(echo)

    async def many() -> None:
        for number in range(500):
            assert await say(number) == number

    async with Monitor(calls, config=NO_SOCKET) as monitor:
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, many()) for _ in range(4)), many())
        assert monitor.snapshot("1m").pools["client"].total.calls == 2500


# -- bad input ------------------------------------------------------------------------------------------------------


async def items() -> AsyncIterator[int]:
    yield 1


class Items:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (len, TypeError, "not async, so only the creation of its result could be timed"),
        (lambda value: echo(value + 1), TypeError, "<lambda>.*not async.*'async def'.*MonitoredExecutor"),
        (functools.partial(abs, 1), TypeError, "not async"),
        (items, TypeError, "items.*async generator, whose duration depends on its reader"),
        (functools.partial(items), TypeError, "async generator"),
        (Items(), TypeError, "async generator"),
        (7, TypeError, "wrap\\(7\\): needs an async callable"),
    ],
)
def test_what_cannot_be_timed_is_refused(function: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        MonitoredCalls(name="client").wrap(function)


async def test_what_turns_out_not_to_be_async_is_told(told: list[CapturedEvent]) -> None:
    with pytest.raises(TypeError, match=r"client.*returned 5, which cannot be awaited"):
        await MonitoredCalls(name="client").wrap(Handing(5))()
    check(told)
    assert outcomes(told) == {"error": 1}


def test_nothing_is_wrapped_twice() -> None:
    calls = MonitoredCalls(name="client")
    with pytest.raises(ConfigError, match="wrapped already, by 'client'"):
        MonitoredCalls(name="other").wrap(calls.wrap(echo))
    executor = MonitoredExecutor(ThreadPoolExecutor(1), name="it")
    with pytest.raises(ConfigError, match=r"'it'.*monitored already"):
        MonitoredExecutor(executor, name="again")


@pytest.mark.parametrize("name", ["", 5, None, "two\nlines"])
def test_a_name_is_needed(name: Any) -> None:
    for make in (lambda: MonitoredExecutor(Inline(), name=name), lambda: MonitoredCalls(name=name)):
        with pytest.raises(ConfigError, match="needs a non-empty printable string"):
            make()


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "4"])
def test_a_number_of_workers_is_a_number(number: Any) -> None:
    with pytest.raises(ConfigError, match=r"size=.*at least 1, or None"):
        MonitoredExecutor(Inline(), name="it", size=number)
    with pytest.raises(ConfigError, match=r"limit=.*at least 1, or None"):
        MonitoredCalls(name="it", limit=number)
    with pytest.raises(ConfigError, match="operation=''"):
        MonitoredCalls(name="it").wrap(echo, operation="")


@pytest.mark.parametrize("thing", [None, ThreadPoolExecutor, 4, echo])
def test_what_is_no_executor_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"needs a concurrent\.futures\.Executor.*MonitoredCalls"):
        MonitoredExecutor(thing, name="it")


# -- the house ------------------------------------------------------------------------------------------------------


def loaded(statement: str) -> set[str]:
    program = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_a_worker_process_loads_next_to_nothing_of_ours() -> None:
    more = loaded("import pool_monitor.adapters.timed_call") - loaded(
        "import threading, typing, collections.abc, importlib"
    )
    ours = {name.partition(".")[2] for name in more if name.startswith("pool_monitor.")}
    assert ours - {"version"} == {"adapters", "adapters.timed_call"}
    assert not more & {"asyncio", "msgspec"}


def test_adapters_never_load_the_read_side_or_our_own_pool() -> None:
    modules = loaded("from pool_monitor.adapters import *")
    floors = {name.split(".")[1] for name in modules if name.startswith("pool_monitor.")}
    assert not floors & {"pool", "metrics", "monitor", "service", "view", "dashboard", "cli"}
    assert not modules & {"numpy", "textual", "httpx", "structlog"}


@pytest.mark.usefixtures("runtime_dir")
def test_the_example_runs() -> None:
    program = ROOT / "examples" / "foreign_pools.py"
    done = subprocess.run([sys.executable, program], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "processes: 2 wide, 50 calls, 0 failed" in done.stdout
    assert "client: 4 wide, 3 calls, 1 failed" in done.stdout
