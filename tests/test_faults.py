"""What the operations of a target can do to their worker, and callers to their calls: only the call that did it pays.

Real processes throughout. In each test calls are asked for in one go on two workers, one of them goes wrong, and all
others have their right results; then the pool has both workers again, holds no more than before, and serves. They are
eight, or so many quick ones that workers may be handed them ahead of time. Meanwhile a `Witness` checks the pool's
gauges at every event, and that every call ends once.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from pool_monitor import (
    OperationCancelled,
    OperationError,
    OperationTimeout,
    PayloadError,
    Pool,
    PoolError,
    ProtocolError,
    QueueTimeout,
    WorkerDied,
    telemetry,
)
from tests.helpers.chaos import FAULTS, Footprint, Witness, rested, watched
from tests.helpers.gates import IN_GATES, in_gates
from tests.helpers.support import alive, eventually, read

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="the faults are those of Linux"),
]

START_METHODS = ["exec", "zygote"]
CODECS = ("json", "msgpack", "pickle")
FEW, MANY = 7, 150  # good calls beside the bad one


# -- what an operation can do -------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """One thing `act` of targets/faults.py can do, and what its caller, and nobody else, is to see of it."""

    name: str
    more: tuple[Any, ...] = ()
    error: type[PoolError] | None = None
    says: str = ""
    about: Mapping[str, Any] = MappingProxyType({})
    ended: str | None = None
    """How its worker's process ended: crash, or the reason in ``pool.worker.terminate``; ?: maybe; None: it did not."""
    timeout: float | None = None
    codecs: tuple[str, ...] = ("auto",)
    alone: bool = False
    """Only calls that were not handed to its worker together with it are safe from it."""

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.more)])[:40]


def died(code: int, stderr: str = "") -> dict[str, Any]:
    how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.Signals(-code).name})"
    about = {"exit_code": code, "stderr": stderr, "category": "connection", "retryable": True}
    return {"error": WorkerDied, "says": re.escape(how), "about": about, "ended": "crash"}


def raised(type_name: str, message: str | None = None) -> dict[str, Any]:
    about = {"type_name": type_name, "operation": "act", "category": "operation", "retryable": False}
    return {"error": OperationError, "about": about | ({} if message is None else {"message": message})}


def not_carried(says: str, *codecs: str) -> dict[str, Any]:
    about = {"operation": "act", "category": "communication", "retryable": False}
    return {"error": PayloadError, "says": f"the result {says}", "about": about, "codecs": codecs}


LATE: dict[str, Any] = {
    "error": OperationTimeout,
    "says": r"act was not done within its timeout of 0\.5 s, on watched-\d",
    "about": {"category": "timeout", "retryable": False},
    "timeout": 0.5,
}
KILLED: dict[str, Any] = {**LATE, "ended": "timeout"}
NONSENSE: dict[str, Any] = {
    "error": ProtocolError,
    "says": r"worker watched-\d broke the protocol",
    "about": {"category": "communication", "retryable": True},
    "ended": "protocol",
    "codecs": CODECS,
    "alone": True,
}
PART = b"\x00\x00\x00\x64xxxx".hex()  # of a frame

TABLE = [
    # the process ends
    Fault("exit", (3,), **died(3, "last words")),
    Fault("exit", (0,), **died(0, "last words")),
    Fault("abort", **died(-signal.SIGABRT)),
    Fault("segfault", **died(-signal.SIGSEGV)),
    Fault("signal", (int(signal.SIGKILL),), **died(-signal.SIGKILL)),
    Fault("signal", (int(signal.SIGTERM),), **died(-signal.SIGTERM)),
    Fault("signal", (int(signal.SIGALRM),), **died(-signal.SIGALRM)),
    # it raises
    Fault("system_exit", **raised("SystemExit", "3")),
    Fault("interrupt", **raised("KeyboardInterrupt", "")),
    Fault("two_arguments", **raised("TwoArguments", "one"), codecs=CODECS),
    Fault("wordless", **raised("Wordless", "(its __str__ failed)")),
    Fault("rudely_wordless", **raised("RudelyWordless", "(its __str__ failed)")),
    Fault("nameless", **raised("Nameless")),
    Fault("recurse", **raised("RecursionError")),
    Fault("no_memory", **raised("MemoryError")),
    Fault("no_descriptors", **raised("OSError")),
    Fault("ask_stdin", **raised("EOFError")),
    Fault("lose_the_way", ("error", "lost"), **raised("ValueError", "lost")),
    # what it returns cannot be carried
    Fault("thing", **not_carried("cannot be carried as (json|msgpack|pickle)", *CODECS)),
    Fault("circle", **not_carried("cannot be carried as (json|msgpack)", "json", "msgpack")),
    Fault("half_a_pair", **not_carried("cannot be carried as msgpack", "msgpack")),
    Fault("too_large", (200_000,), **not_carried("takes 2.* bytes, over the frame limit of 100000", *CODECS)),
    Fault("two_arguments_result", **not_carried("cannot be rebuilt", "pickle")),
    Fault("bomb", ("raise ValueError('boom')",), **not_carried("cannot be rebuilt: boom", "pickle")),
    Fault("bomb", ("raise MemoryError('boom')",), **not_carried("cannot be rebuilt: boom", "pickle")),
    Fault("bomb", ("raise RecursionError('boom')",), **not_carried("cannot be rebuilt: boom", "pickle")),
    Fault("bomb", ("raise SystemExit('boom')",), **not_carried("cannot be rebuilt: boom", "pickle")),
    Fault("bomb", ("raise GeneratorExit('boom')",), **not_carried("cannot be rebuilt: boom", "pickle")),
    Fault("deep", (5000,), **not_carried("cannot be rebuilt: maximum recursion depth", "json", "msgpack")),
    # it does not end
    Fault("sleep", **LATE),
    Fault("spin", **LATE),
    Fault("stuck_in_c", **KILLED),
    Fault("hash_in_c", **KILLED),
    Fault("power", **{**LATE, "ended": "?"}),
    Fault("match", **{**LATE, "ended": "?"}),
    Fault("stubborn", **KILLED),
    Fault("stop", **KILLED),
    Fault("deaf", ("spin",), **KILLED),
    # it writes on the pool's socket: no frame, an empty one, one that is too large, part of one
    Fault("say", (b"\x00\x00\x00\x05\xc1{{{{".hex(),), **NONSENSE),
    Fault("say", (b"\x00\x00\x00\x00".hex(),), **NONSENSE),
    Fault("say", (b"\xff\xff\xff\xffxxxx".hex(),), **NONSENSE),
    Fault("say", (PART, "exit", 0), **{**died(0, "last words"), "codecs": CODECS}),
    Fault("say", (PART, "stop"), **KILLED),
    Fault("close_all", **{**NONSENSE, "says": "closed the channel but did not end", "codecs": ("auto",)}),
    # it only disarranges the furniture
    Fault("noise"),
    Fault("close_standard"),
    Fault("no_stdout"),
    Fault("flush_fails"),
    Fault("deaf"),
    Fault("thread"),
    Fault("lose_the_way"),
    Fault("fork"),
]


def rows() -> list[Any]:
    """Every fault in every codec it applies to; and with each way of starting workers, if a worker ends of it.

    Everyday are those of one codec and of zygotes.
    """
    return [
        pytest.param(
            fault,
            codec,
            method,
            id=f"{fault}-{codec}-{method}",
            marks=[] if (codec, method) == (fault.codecs[0], "zygote") else IN_GATES,
        )
        for fault in TABLE
        for codec in fault.codecs
        for method in START_METHODS
        if method == "zygote" or (fault.ended is not None and codec == fault.codecs[0])
    ]


def faults_pool(**fields: Any) -> AbstractAsyncContextManager[tuple[Pool, Witness]]:
    return watched(FAULTS, **{"frame_limit": 100_000, **fields})


async def warmed_up(pool: Pool) -> Footprint:
    """The pool has seen that `act` is quick, and both workers have worked; what it holds then."""
    calls = [pool.options(worker=f"watched-{number % 2}").run("act", number) for number in range(20)]
    assert await asyncio.gather(*calls) == list(range(20))
    await eventually(lambda: rested(pool))
    return Footprint()


async def well_again(pool: Pool, before: Footprint) -> None:
    """Both workers are there, nothing more is held than before, and both answer, calls of some size too."""
    await eventually(lambda: rested(pool))
    await eventually(lambda: Footprint() == before)
    values = [["x" * 30_000, number] for number in range(10)]
    calls = [pool.options(worker=f"watched-{slot % 2}").run("act", value) for slot, value in enumerate(values)]
    assert await asyncio.gather(*calls) == values


async def among_others(pool: Pool, call: Awaitable[Any], others: int = MANY, place: int | None = None) -> Any:
    """How *call* ends among so many good ones asked for in the same moment, which get their results."""
    place = others * 2 // 3 if place is None else place
    calls: list[Awaitable[Any]] = [pool.run("act", number) for number in range(others)]
    calls.insert(place, call)
    results = await asyncio.gather(*calls, return_exceptions=True)
    result = results.pop(place)
    assert results == list(range(others))
    return result


@pytest.mark.parametrize(("fault", "codec", "start_method"), rows())
async def test_one_call_goes_wrong_and_the_others_do_not_notice(fault: Fault, codec: str, start_method: str) -> None:
    ahead = 1 if fault.alone else 16
    async with faults_pool(codec=codec, start_method=start_method, prefetch=ahead) as (pool, witness):
        before = await warmed_up(pool)
        call = pool.options(timeout=fault.timeout).run("act", "mine", fault.name, *fault.more)
        result = await among_others(pool, call, FEW if start_method == "exec" else MANY)
        if fault.error is None:
            assert result == "mine"
        else:
            assert type(result) is fault.error, repr(result)
            assert re.search(fault.says, str(result)), str(result)
            assert {name: getattr(result, name) for name in fault.about} == fault.about
            told = witness.last["pool.operation.exception"]
            assert (told["outcome"], told["category"]) == (result.outcome, result.category)
            assert told["error"] == getattr(result, "type_name", fault.error.__name__)
        await well_again(pool, before)
        assert witness.events["pool.operation.exception"] == (fault.error is not None)
        if fault.ended != "?":
            assert dict(witness.ends) == ({} if fault.ended is None else {fault.ended: 1})
            assert pool.status().restarts == (fault.ended is not None)


@pytest.mark.parametrize("start_method", START_METHODS)
async def test_what_a_worker_writes_is_told_line_by_line_and_is_never_taken_for_an_answer(start_method: str) -> None:
    with telemetry.capture(("pool", "worker", "output")) as lines:
        async with faults_pool(start_method=start_method) as (pool, _):
            await pool.options(worker="watched-1").run("act", 1, "noise")
            garbage = "\x00\x00\x00\x05\ufffd{{{{"
            out = {("watched-1", "stdout", text) for text in ("printed", garbage, "inherited")}
            await eventually(lambda: len(lines) >= 4)
            said = {(line.metadata["worker"], line.metadata["stream"], line.metadata["text"]) for line in lines}
            assert said == {*out, ("watched-1", "stderr", "\ufffd\ufffd")}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (("exit", 3), WorkerDied),
        (("signal", 9), WorkerDied),
        (("say", PART, "exit", 0), WorkerDied),
    ],
)
async def test_answers_that_came_before_the_end_of_their_worker_are_delivered_to_a_service_that_was_busy(
    fault: tuple[Any, ...], error: type[PoolError]
) -> None:
    async with watched(FAULTS, size=1) as (pool, _):
        for _ in range(8):
            assert await asyncio.gather(*(pool.run("act", number) for number in range(50))) == list(range(50))
            asked = [("mine", *fault) if number == 5 else (number,) for number in range(12)]
            calls = [asyncio.ensure_future(pool.run("act", *arguments)) for arguments in asked]
            await asyncio.sleep(0)
            time.sleep(0.02)  # the service is busy with something else: then it reads at once all that has come
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert type(results.pop(5)) is error
            assert results == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


STREAM_FAULTS = [
    Fault("exit", (3,), WorkerDied, "exit code 3", ended="crash"),
    Fault("two_arguments", (), OperationError, "TwoArguments: one"),
    Fault("interrupt", (), OperationError, "KeyboardInterrupt"),
    Fault("thing", (), PayloadError, "an item cannot be carried as"),
    Fault("too_large", (200_000,), PayloadError, "an item takes 2.* bytes, over the frame limit"),
    Fault(
        "bomb",
        ("raise ValueError('boom')",),
        PayloadError,
        "an item cannot be rebuilt: boom",
    ),
    Fault("say", ("00000000",), ProtocolError, "without a body", ended="protocol", alone=True),
    Fault("stuck_in_c", (), OperationTimeout, "not done within", ended="timeout", timeout=0.5),
]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            fault,
            id=str(fault),
        )
        for fault in STREAM_FAULTS
    ],
)
async def test_a_stream_that_goes_wrong_has_given_its_items_and_costs_no_other_call(fault: Fault) -> None:
    operation = "items_later" if fault.name in ("interrupt", "thing") else "items"
    async with faults_pool(codec="pickle", prefetch=1 if fault.alone else 16) as (pool, witness):
        before = await warmed_up(pool)
        got: list[int] = []
        stream = pool.options(timeout=fault.timeout).stream(operation, 5, fault.name, *fault.more)
        result = await among_others(pool, read(stream, into=got))
        assert got == [0, 1, 2, 3, 4]
        assert type(result) is fault.error, repr(result)
        assert re.search(fault.says, str(result)), str(result)
        await well_again(pool, before)
        assert dict(witness.ends) == ({} if fault.ended is None else {fault.ended: 1})


@pytest.mark.parametrize(
    ("fault", "error"), [("exit", WorkerDied), ("wordless", OperationError), ("thing", PayloadError)]
)
async def test_a_turn_of_a_session_that_goes_wrong_is_not_counted_and_the_next_goes_on(
    fault: str, error: type[PoolError]
) -> None:
    async with faults_pool() as (pool, _):
        before = await warmed_up(pool)
        session = pool.session("s")
        more = (3,) if fault == "exit" else ()
        turns = [session.run("turn"), session.run("turn", fault, *more), session.run("turn"), session.run("turn")]
        first, bad, *rest = await asyncio.gather(*turns, return_exceptions=True)
        assert (first, type(bad), rest) == (1, error, [2, 3])
        assert session.data == {"number": 3}
        await well_again(pool, before)


# -- what comes from outside --------------------------------------------------------------------------------------


async def number_in(path: Path) -> int:
    """What `leave` of targets/faults.py has left there."""
    await eventually(path.exists)
    return int(path.read_text())


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_busy_worker_that_is_killed_costs_the_call_it_was_on(
    number: signal.Signals, start_method: str, tmp_path: Path
) -> None:
    async with faults_pool(start_method=start_method) as (pool, witness):
        before = await warmed_up(pool)
        begun = tmp_path / "begun"
        call = pool.run("act", "mine", "begun", str(begun), "sleep")
        ending = asyncio.ensure_future(among_others(pool, call))
        pid = await number_in(begun)
        os.kill(pid, number)
        result = await ending
        assert type(result) is WorkerDied
        assert (result.exit_code, result.worker) == (-number, witness.last["pool.worker.crash"]["worker"])
        crash = witness.last["pool.worker.crash"]
        assert (crash["pid"], crash["exit_code"], crash["operation"]) == (pid, -number, "act")
        await well_again(pool, before)
        assert dict(witness.ends) == {"crash": 1}


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_an_idle_worker_that_is_killed_costs_at_most_the_call_it_was_handed_in_that_moment(
    number: signal.Signals, start_method: str
) -> None:
    async with faults_pool(start_method=start_method) as (pool, witness):
        before = await warmed_up(pool)
        pid = pool.workers()[0].pid
        assert pid is not None
        os.kill(pid, number)
        results = await asyncio.gather(*(pool.run("act", value) for value in range(8)), return_exceptions=True)
        lost = [result for result in results if isinstance(result, WorkerDied)]
        assert len(lost) <= 1
        assert all(result == value for value, result in enumerate(results) if result not in lost)
        await well_again(pool, before)
        pid = pool.workers()[1].pid
        assert pid is not None
        os.kill(pid, number)
        await eventually(lambda: witness.ends["crash"] == 2)  # noticed: from now on nobody is handed to it
        assert await asyncio.gather(*(pool.run("act", value) for value in range(8))) == list(range(8))
        await well_again(pool, before)


@pytest.mark.parametrize("start_method", START_METHODS)
async def test_a_worker_that_was_stopped_costs_the_call_that_cannot_wait_for_it(start_method: str) -> None:
    async with faults_pool(start_method=start_method) as (pool, witness):
        before = await warmed_up(pool)
        stopped = pool.workers()[1]
        assert stopped.pid is not None
        os.kill(stopped.pid, signal.SIGSTOP)
        call = pool.options(worker=stopped.id, timeout=0.3).run("act", "mine")
        result = await among_others(pool, call, place=0)
        assert type(result) in (QueueTimeout, OperationTimeout)  # the first, where it is known that it was not begun
        await well_again(pool, before)
        assert dict(witness.ends) == {"timeout": 1}


async def test_a_worker_that_was_stopped_for_a_moment_costs_nobody_anything() -> None:
    async with faults_pool() as (pool, witness):
        before = await warmed_up(pool)
        pids = [worker.pid for worker in pool.workers()]
        for pid in pids:
            os.kill(pid or 0, signal.SIGSTOP)
        calls = [asyncio.ensure_future(pool.run("act", value)) for value in range(8)]
        await eventually(lambda: pool.status().busy == 2)
        for pid in pids:
            os.kill(pid or 0, signal.SIGCONT)
        assert await asyncio.gather(*calls) == list(range(8))
        await well_again(pool, before)
        assert not witness.ends


# -- callers that give up -----------------------------------------------------------------------------------------


class Moment(NamedTuple):
    """Where a call is when its caller gives up, or its time does."""

    operation: str
    fault: str
    more: tuple[Any, ...] = ()
    kept: bool = True
    """Whether the operation lets go, so that its worker is kept."""

    def __str__(self) -> str:
        return f"{self.operation}-{self.fault}"


MOMENTS = [
    Moment("act", "spin"),
    Moment("act", "sleep"),
    Moment("act", "stubborn", kept=False),
    Moment("act", "stuck_in_c", kept=False),
    Moment("act", "hash_in_c", kept=False),
    Moment("act", "stop", kept=False),
    Moment("act", "deaf", ("sleep",), kept=False),
    Moment("act_later", "await"),
    Moment("act_later", "await_on", kept=False),
    Moment("act_later", "sleep", kept=False),  # it blocks the worker's event loop
    Moment("items", "sleep"),
    Moment("items", "stuck_in_c", kept=False),
    Moment("items_later", "await"),
]


def call_at(pool: Pool, moment: Moment, begun: Path, timeout: float | None) -> Awaitable[Any]:
    """A call that leaves its worker's number in the file *begun* when it has come to its moment."""
    caller = pool.options(timeout=timeout)
    first = 3 if moment.operation.startswith("items") else "mine"
    more = (moment.fault, str(begun)) if moment.fault.startswith("await") else ("begun", str(begun), moment.fault)
    if moment.operation.startswith("items"):
        return read(caller.stream(moment.operation, first, *more, *moment.more))
    return caller.run(moment.operation, first, *more, *moment.more)


@pytest.mark.parametrize("how", ["cancelled", in_gates("late")])
@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_wherever_it_is_a_call_that_is_given_up_ends_alone(moment: Moment, how: str, tmp_path: Path) -> None:
    async with faults_pool(cancel_grace=5.0 if moment.kept else 0.05) as (pool, witness):
        before = await warmed_up(pool)
        pids = [worker.pid for worker in pool.workers()]
        begun = tmp_path / "begun"
        call = asyncio.ensure_future(call_at(pool, moment, begun, 0.5 if how == "late" else None))
        ending = asyncio.ensure_future(among_others(pool, call))
        await number_in(begun)
        if how == "cancelled":
            call.cancel()
        result = await ending
        assert type(result) is (asyncio.CancelledError if how == "cancelled" else OperationTimeout)
        assert witness.last["pool.operation.exception"]["outcome"] == ("cancelled" if how == "cancelled" else "timeout")
        await well_again(pool, before)
        if moment.kept:
            assert [worker.pid for worker in pool.workers()] == pids
        assert dict(witness.ends) == ({} if moment.kept else {"cancel" if how == "cancelled" else "timeout": 1})


@pytest.mark.parametrize("start_method", START_METHODS)
async def test_calls_that_are_given_up_in_the_queue_leave_no_trace(start_method: str, tmp_path: Path) -> None:
    async with faults_pool(start_method=start_method) as (pool, witness):
        before = await warmed_up(pool)
        gate = tmp_path / "gate"
        holding = [asyncio.ensure_future(pool.run("act", value, "until", str(gate))) for value in range(2)]
        queued = [asyncio.ensure_future(pool.run("act", value)) for value in range(4)]
        late = asyncio.ensure_future(pool.options(timeout=0.1).run("act", "late", "exit", 3))
        cancelled = asyncio.ensure_future(pool.run("act", "cancelled", "exit", 3))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(QueueTimeout):
            await late
        gate.touch()
        assert await asyncio.gather(*holding, *queued) == [0, 1, 0, 1, 2, 3]
        await well_again(pool, before)
        assert not witness.ends


@pytest.mark.parametrize("start_method", START_METHODS)
async def test_calls_cancelled_as_they_are_handed_over_take_no_other_along(start_method: str) -> None:
    async with faults_pool(start_method=start_method, cancel_grace=5.0) as (pool, witness):
        before = await warmed_up(pool)
        pids = [worker.pid for worker in pool.workers()]
        for turns in range(10):
            calls = [asyncio.ensure_future(pool.run("act", "mine", "sleep")) for _ in range(2)]
            others = [asyncio.ensure_future(pool.run("act", value)) for value in range(6)]
            for _ in range(1 + turns // 3):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            assert await asyncio.gather(*others) == list(range(6))
            assert all(call.cancelled() for call in calls)
        await well_again(pool, before)
        assert [worker.pid for worker in pool.workers()] == pids
        assert witness.outcomes["cancelled"] == 20


async def test_a_deadline_as_short_as_the_hand_over_ends_each_call_once_and_right() -> None:
    async with faults_pool(cancel_grace=5.0) as (pool, witness):
        before = await warmed_up(pool)
        short = [pool.options(timeout=0.0005 * (1 + value % 8)).run("act", value) for value in range(200)]
        results = await asyncio.gather(*short, *(pool.run("act", value) for value in range(50)), return_exceptions=True)
        assert results[200:] == list(range(50))
        kinds = (QueueTimeout, OperationTimeout)
        assert all(result == value or type(result) in kinds for value, result in enumerate(results[:200])), results
        await well_again(pool, before)
        assert sum(witness.outcomes.values()) == 20 + 250 + 10
        assert not witness.ends


# -- what a worker leaves behind ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "more", "start_method"),
    [
        ("exit", [3], "exec"),
        ("exit", [3], "zygote"),
        ("segfault", [], "zygote"),
        ("stuck_in_c", [], "exec"),
        ("stuck_in_c", [], "zygote"),
        ("stop", [], "zygote"),
        ("spin", [], "zygote"),
    ],
)
async def test_what_an_operation_started_ends_with_its_worker(
    then: str, more: list[Any], start_method: str, tmp_path: Path
) -> None:
    async with faults_pool(start_method=start_method) as (pool, _):
        before = await warmed_up(pool)
        started = tmp_path / "started"
        call = pool.options(timeout=0.4).run("act", "mine", "company", str(started), then, *more)
        assert isinstance(await among_others(pool, call), PoolError)
        company = await number_in(started)
        if then == "spin":  # its worker is kept, and so is what it started
            assert alive(company)
        else:
            await well_again(pool, before)
            await eventually(lambda: not alive(company))
    await eventually(lambda: not alive(company))


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("how", ["retired", "recycled", "closed", "broken off"])
async def test_what_an_operation_started_ends_with_a_worker_that_was_asked_to_go(
    how: str, start_method: str, tmp_path: Path
) -> None:
    async def service() -> None:
        recycling = {"recycle_calls": 5, "recycle_jitter": 0.0} if how == "recycled" else {}
        async with watched(FAULTS, start_method=start_method, resized=True, **recycling) as (pool, _):
            started = tmp_path / "started"
            await pool.options(worker="watched-1").run("act", 1, "company", str(started))
            pids.append(await number_in(started))
            assert alive(pids[0])
            if how == "retired":
                await pool.resize(1)
                await eventually(lambda: not alive(pids[0]))
            elif how == "recycled":
                for number in range(5):
                    assert await pool.options(worker="watched-1").run("act", number) == number
                await eventually(lambda: not alive(pids[0]))
            elif how == "broken off":
                raise ZeroDivisionError

    pids: list[int] = []
    if how == "broken off":
        with pytest.raises(ZeroDivisionError):
            await service()
    else:
        await service()
    await eventually(lambda: not alive(pids[0]), timeout=1.0)


@pytest.mark.parametrize("start_method", START_METHODS)
async def test_a_pool_that_is_closed_while_its_workers_are_at_their_worst_closes(
    start_method: str, tmp_path: Path
) -> None:
    kinds = [("stuck_in_c",), ("hash_in_c",), ("stubborn",), ("stop",), ("deaf", "spin"), ("thread",)]
    calls: list[asyncio.Task[Any]] = []

    async def service() -> None:
        async with faults_pool(start_method=start_method, size=len(kinds), max_size=8) as (pool, _):
            for kind in kinds:
                begun = tmp_path / kind[0]
                calls.append(asyncio.ensure_future(pool.run("act", "mine", "begun", str(begun), *kind)))
                await number_in(begun)
            assert await calls.pop() == "mine"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await service()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [OperationCancelled] * 5
