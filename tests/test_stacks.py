"""Stacks of workers: what a stuck worker is doing is known, the worker is not disturbed, and nobody else either."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import signal
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool_monitor import (
    ConfigError,
    OperationTimeout,
    Pool,
    PoolClosed,
    ProtocolError,
    StartError,
    UnknownName,
    WorkerDied,
    telemetry,
)
from pool_monitor.pool.transport import stack_text
from pool_monitor.pool.transport.child.stacks import describe
from pool_monitor.pool.transport.stacks import StackOffer, WorkerStacks
from pool_monitor.service.stacks import StackReading, sample
from pool_monitor.testing import InlinePool
from tests.helpers.gates import in_gates
from tests.helpers.support import TARGETS, eventually, interpreter, interpreters, metadata, pid_of, running
from tests.targets.stuck import line_of
from tests.test_lying_worker import liars

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="stacks are taken through /proc"),
]

STUCK = f"{TARGETS / 'stuck.py'}:Stuck"
NUMBER = 47  # the signal of the default configuration


def stuck_pool(**fields: Any) -> Pool:
    return Pool(STUCK, **{"size": 1, "name": "stuck", "timeout": 20.0, "cancel_grace": 0.1, **fields})


async def stack(pool: Pool, slot: str = "stuck-0") -> str:
    """Return the stack of the worker, once it is in code of the target."""
    for _ in range(100):
        found = await pool.stack(slot)
        assert found is not None, pool.why_no_stack(slot)
        if "stuck.py" in found:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(found)


async def end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


def line(name: str) -> str:
    return f'{TARGETS / "stuck.py"}", line {line_of(name)}, in '


# -- the guilty line ----------------------------------------------------------------------------------------------


BETWEEN = ("3.9", "3.10", "3.12")
"""Python versions between the oldest and the newest: their tests are slow ones."""
INNERMOST = ("spin", "sleep", "lock", "blocked", "deep", "c_code")
"""Operations that are stuck in their own line, and not in a function that it calls."""
STUCK_IN = (*INNERMOST, "regex", "wait", "gather", "in_thread")


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_the_line_is_named_on_which_a_worker_is_stuck(concurrency: int) -> None:
    async with stuck_pool(size=len(STUCK_IN), concurrency=concurrency, health_timeout=60.0) as pool:
        tasks = {}
        for index, operation in enumerate(STUCK_IN):
            tasks[operation] = await running(pool, operation, worker=f"stuck-{index}")
        found = {operation: await stack(pool, f"stuck-{index}") for index, operation in enumerate(STUCK_IN)}
        for task in tasks.values():
            task.cancel()
        await asyncio.wait(tasks.values())
    for operation, text in found.items():
        assert line(operation) in text
        assert "transport/child" not in text
        if operation in INNERMOST:
            assert line(operation) in text.splitlines()[-1]
    assert line("inner") in found["wait"]
    assert found["gather"].count(line("inner")) == 2
    assert "Thread helper_0:" in found["in_thread"]
    assert line("sleep") in found["in_thread"]


@pytest.mark.parametrize(
    "version",
    [
        in_gates(version) if version in BETWEEN else version
        for version in interpreters()
        if version != "3.11"  # as this process
    ],
)
async def test_workers_of_every_interpreter_tell_their_stacks(version: str) -> None:
    start_method = "exec" if version == "3.9" else "zygote"
    async with stuck_pool(python=interpreter(version), start_method=start_method, size=2) as pool:
        for index, operation in enumerate(("c_code", "wait")):
            task = await running(pool, operation, worker=f"stuck-{index}")
            assert line(operation) in await stack(pool, f"stuck-{index}")
            task.cancel()


async def test_calls_that_overlap_on_a_worker_are_told_by_operation() -> None:
    async with stuck_pool(concurrency=4) as pool:
        tasks = [await running(pool, operation) for operation in ("wait", "gather", "wait")]
        found = await stack(pool)
        assert found.count("Call of wait:") == 2
        assert found.count("Call of gather:") == 1
        tasks.append(await running(pool, "spin"))
        await eventually(lambda: pool.status().busy)
        for _ in range(100):
            found = await stack(pool)
            if line("spin") in found:
                break
        assert "Main thread, call of spin:" in found
        assert found.count("Call of wait:") == 2
        for task in tasks:
            await end(task)


async def test_an_idle_worker_says_that_it_runs_nothing() -> None:
    async with stuck_pool() as pool:
        await pool.run("ok")
        assert await pool.stack("stuck-0") == "Main thread:\n  (not in code of the target)"


# -- the worker is not disturbed ----------------------------------------------------------------------------------


async def _stacks_change_nothing(count: int, rounds: int) -> None:
    async with stuck_pool(size=2) as pool:
        expected = await pool.run("churn", rounds)
        short = asyncio.create_task(_short_calls(pool))
        long = [asyncio.create_task(pool.run("churn", rounds)) for _ in range(2)]
        taken = 0
        while taken < count:
            for slot in ("stuck-0", "stuck-1"):
                taken += await pool.stack(slot) is not None
            if all(task.done() for task in long):
                assert [task.result() for task in long] == [expected, expected]
                long = [asyncio.create_task(pool.run("churn", rounds)) for _ in range(2)]
        assert await asyncio.gather(*long) == [expected, expected]
        assert await short == list(range(300))
        assert pool.status().restarts == 0


async def _short_calls(pool: Pool) -> list[Any]:
    return await asyncio.gather(*(pool.run("ok", number) for number in range(300)))


async def test_stacks_of_busy_workers_change_none_of_their_results() -> None:
    await _stacks_change_nothing(60, 2000)


@pytest.mark.slow
@pytest.mark.gate
async def test_a_thousand_stacks_of_busy_workers_change_none_of_their_results() -> None:
    await _stacks_change_nothing(1000, 20_000)


async def test_a_sleep_is_not_cut_short_by_a_stack() -> None:
    async with stuck_pool() as pool:
        task = await running(pool, "sleep", 0.3)
        for _ in range(20):
            assert await stack(pool)
            if task.done():
                break
        assert await task == "slept"


async def test_requests_at_the_same_time_share_one_answer() -> None:
    async with stuck_pool() as pool:
        task = await running(pool, "spin")
        await stack(pool)
        found = await asyncio.gather(*(pool.stack("stuck-0") for _ in range(500)))
        assert len(set(found)) == 1
        await end(task)


async def test_an_answered_message_interrupts_the_worker_once() -> None:
    async with stuck_pool(stack_signal=0) as pool:
        task = await running(pool, "spin")
        await stack(pool)
        transport = pool._roster.workers["stuck-0"].transport
        again = transport.stacks._reminder  # type: ignore[union-attr]
        assert again.cancelled()
        await end(task)


async def test_a_cancelled_request_leaves_the_others_their_answer() -> None:
    async with stuck_pool() as pool:
        task = await running(pool, "spin")
        await stack(pool)
        first, second = (asyncio.create_task(pool.stack("stuck-0")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert line("spin") in (await second or "")
        await end(task)


async def test_a_stack_leaves_no_descriptor_and_no_memory_behind() -> None:
    async with stuck_pool() as pool:
        task = await running(pool, "spin")
        await stack(pool)
        before = psutil.Process().num_fds()
        pending = asyncio.create_task(pool.stack("stuck-0"))
        await asyncio.sleep(0)
        assert psutil.Process().num_fds() <= before + 1
        await pending
        assert psutil.Process().num_fds() == before
        links = Path(f"/proc/{pid_of(pool)}/fd").iterdir()
        sizes = [link.stat().st_size for link in links if "pool_monitor stack" in str(link.readlink())]
        assert sizes == [0]
        await end(task)


# -- no stack can be had ------------------------------------------------------------------------------------------


async def test_a_slot_that_does_not_exist_is_named_with_those_that_do() -> None:
    async with stuck_pool(size=2) as pool:
        with pytest.raises(UnknownName, match="no worker 'nope'; there are stuck-0, stuck-1"):
            await pool.stack("nope")
    with pytest.raises(PoolClosed):
        await stuck_pool().stack("stuck-0")


async def test_a_worker_in_another_language_has_none() -> None:
    async with liars() as pool:
        assert await pool.stack("liars-0") is None
        assert pool.why_no_stack("liars-0") == "its program does not tell stacks"


async def test_a_worker_that_is_a_thread_has_none() -> None:
    async with InlinePool(STUCK, name="stuck", size=1) as pool:
        assert await pool.stack("stuck-0") is None
        assert await pool.run("ok", 1) == 1


async def test_stacks_can_be_switched_off_and_moved() -> None:
    async with stuck_pool(stack_signal=None) as pool:
        assert await pool.stack("stuck-0") is None
    async with stuck_pool(stack_signal=60) as pool:
        task = await running(pool, "regex")
        assert line("regex") in await stack(pool)
        await end(task)
    with pytest.raises(ConfigError, match="no real-time signal"):
        stuck_pool(stack_signal=10)


async def test_without_a_signal_a_worker_answers_by_message_unless_c_code_holds_it() -> None:
    async with stuck_pool(stack_signal=0) as pool:
        for operation in ("spin", "sleep", "lock", "wait"):
            task = await running(pool, operation)
            assert line(operation) in await stack(pool)
            await end(task)
        task = await running(pool, "c_code")
        await eventually(lambda: psutil.Process(pid_of(pool)).cpu_times().user > 0.05)
        assert await pool.stack("stuck-0") is None
        assert "does not read messages now" in (pool.why_no_stack("stuck-0") or "")
        await end(task)


async def test_a_stopped_worker_is_sent_nothing_and_goes_on_afterwards() -> None:
    async with stuck_pool() as pool:
        task = await running(pool, "sleep", 0.2)
        process = psutil.Process(pid_of(pool))
        process.suspend()
        await eventually(lambda: process.status() == psutil.STATUS_STOPPED)
        for _ in range(5):
            assert await pool.stack("stuck-0") is None
        assert pool.why_no_stack("stuck-0") == "the worker is stopped: by SIGSTOP, or by a debugger"
        process.resume()
        assert await task == "slept"


async def test_a_worker_that_dies_while_it_is_asked_is_no_stack() -> None:
    async with stuck_pool(backoff_min=0.001, backoff_max=0.002, restart_limit=1000, breaker_failures=0) as pool:
        for pause in (0.0, 0.0005, 0.001):
            task = await running(pool, "spin")
            asking = asyncio.create_task(pool.stack("stuck-0"))
            await asyncio.sleep(pause)
            os.kill(pid_of(pool), signal.SIGKILL)
            found = await asking
            assert found is None or line("spin") in found
            with pytest.raises(WorkerDied):
                await task
            assert await pool.run("ok", 1) == 1


# -- the signal belongs to the target -----------------------------------------------------------------------------


async def test_a_signal_that_the_target_has_taken_at_import_is_left_to_it(tmp_path: Path) -> None:
    target = tmp_path / "takes.py"
    target.write_text(
        f"import signal, os\nseen = []\nsignal.signal({NUMBER}, lambda *_: seen.append(1))\n"
        "def count(): return len(seen)\ndef spin():\n    while True: pass\n"
    )
    async with Pool(str(target), name="takes", size=1, cancel_grace=0.5) as pool:
        assert await pool.stack("takes-0") == "Main thread:\n  (not in code of the target)"
        assert await pool.run("count") == 0
        task = await running(pool, "spin")
        await eventually(lambda: pool.status().busy)
        assert "in spin" in (await pool.stack("takes-0") or "")
        await end(task)


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ("take_signal", "its target has closed the file for stacks, or uses the signal itself"),
        ("unregister", f"its target uses signal {NUMBER}"),
        ("block_signal", f"its target uses signal {NUMBER}"),
    ],
)
async def test_a_signal_that_an_operation_takes_is_not_sent(operation: str, why: str) -> None:
    async with stuck_pool() as pool:
        pid = pid_of(pool)
        task = await running(pool, operation, NUMBER)
        found = ""
        for _ in range(200):
            found = await pool.stack("stuck-0") or ""
            if f"in {operation}" in found and line("spin") in found:
                break
        # The message still reaches it, because it runs Python code.
        assert line("spin") in found
        transport = pool._roster.workers["stuck-0"].transport
        assert why in transport.stacks._why  # type: ignore[union-attr]
        assert pid_of(pool) == pid
        assert not task.done()
        await end(task)


async def test_c_code_that_takes_the_signal_is_left_alone_soon() -> None:
    """Python does not know of its handler. It gets a few signals, then no more, and the message tells the stack."""
    async with stuck_pool() as pool:
        task = await running(pool, "take_in_c", NUMBER)
        found = [await stack(pool)]
        while not task.done():
            found.append(await pool.stack("stuck-0") or "")
        assert any(line("take_in_c") in text for text in found)
        assert 1 <= await task <= 3
        transport = pool._roster.workers["stuck-0"].transport
        assert transport.stacks._signal_taken  # type: ignore[union-attr]


async def test_a_target_that_resets_every_signal_can_still_be_asked() -> None:
    async with stuck_pool() as pool:
        task = await running(pool, "reset_signals", NUMBER)
        assert line("spin") in await stack(pool)
        transport = pool._roster.workers["stuck-0"].transport
        assert transport.stacks._why == ""  # type: ignore[union-attr]
        await end(task)


class _Worker:
    """A process that answers each signal with the next of *dumps*, in place of a real one. It is this process."""

    pid = os.getpid()
    ended = False

    def __init__(self, *dumps: bytes) -> None:
        self.dumps = list(dumps)
        self.fd = os.memfd_create("test")
        self.offer = StackOffer(63, self.fd, os.fstat(self.fd).st_ino)

    def signal(self, number: int, *, group: bool) -> None:
        assert (number, group) == (63, False)
        os.pwrite(self.fd, self.dumps.pop(0), 0)


MAIN_DUMP = f'''  File "t.py", line 7 in work
  File "{stack_text._CHILD}__main__.py", line 9 in <module>
'''.encode()
THREAD_DUMP = b"""  File "t.py", line 1 in helper
  File "/usr/lib/python3.11/threading.py", line 995 in _bootstrap
"""


@pytest.fixture
def handled() -> Iterator[None]:
    before = signal.signal(63, lambda *_: None)
    yield
    signal.signal(63, before)


@pytest.mark.parametrize(
    ("dumps", "text"),
    [
        ([THREAD_DUMP, THREAD_DUMP, MAIN_DUMP], 'Main thread:\n  File "t.py", line 7, in work'),
        ([b"", MAIN_DUMP], 'Main thread:\n  File "t.py", line 7, in work'),
        ([THREAD_DUMP] * 3, None),
        ([b""] * 3, None),
    ],
)
@pytest.mark.usefixtures("handled")
async def test_a_signal_that_another_thread_took_is_sent_again(dumps: list[bytes], text: str | None) -> None:
    worker = _Worker(*dumps)
    asked: list[int] = []

    def ask(token: int) -> asyncio.TimerHandle:
        asked.append(token)
        return asyncio.get_running_loop().call_later(60, print)

    stacks = WorkerStacks(worker, worker.offer, False, ask)  # type: ignore[arg-type]
    told = await stacks.take(5.0)
    os.close(worker.fd)
    assert not worker.dumps
    assert told.text == text
    assert asked or text  # the message is the way that is left


async def test_without_a_readable_proc_the_worker_is_asked_by_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_monitor.pool.transport.stacks._status", lambda _pid: {})
    async with stuck_pool() as pool:
        task = await running(pool, "spin")
        assert line("spin") in await stack(pool)
        await end(task)


async def test_a_file_that_has_taken_the_number_of_ours_is_not_touched(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    async with stuck_pool() as pool:
        task = await running(pool, "replace_file", str(precious))
        for _ in range(20):
            await pool.stack("stuck-0")
        assert precious.read_text() == "data"
        assert not task.done()
        await end(task)


# -- before an end ------------------------------------------------------------------------------------------------


async def test_a_timeout_says_where_the_worker_was() -> None:
    with telemetry.capture(("pool", "operation", "exception")) as events:
        async with stuck_pool() as pool:
            with pytest.raises(OperationTimeout) as caught:
                await pool.options(timeout=0.15).run("regex")
    error = caught.value
    assert line("regex") in (error.stack or "")
    assert any("The worker was here:" in note for note in error.__notes__)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert twin.stack == error.stack
    assert metadata(events, "stack") == [error.stack]


async def test_a_worker_that_ignores_a_cancellation_is_killed_with_its_stack_told() -> None:
    with telemetry.capture(("pool", "worker", "terminate")) as events:
        async with stuck_pool(concurrency=2) as pool:
            neighbour = await running(pool, "wait")
            task = await running(pool, "stubborn")
            await asyncio.sleep(0.05)
            await end(task)
            with pytest.raises(WorkerDied) as caught:
                await neighbour
    assert line("stubborn") in (caught.value.stack or "")
    assert caught.value.reason == "cancel"
    killed = [event for event in events if event.metadata["reason"] == "cancel"]
    assert [event.metadata["stack"] for event in killed] == [caught.value.stack]


async def test_a_worker_that_cannot_answer_delays_its_end_by_little() -> None:
    """A stopped worker answers nothing. Its call ends and it is killed all the same, with no stack."""
    async with stuck_pool() as pool:
        task = await running(pool, "sleep", timeout=0.1)
        psutil.Process(pid_of(pool)).suspend()
        with pytest.raises(OperationTimeout) as caught:
            await task
        assert caught.value.stack is None
        assert await pool.run("ok", 1) == 1


async def test_a_timeout_of_a_call_that_waits_takes_no_stack() -> None:
    async with stuck_pool(prefetch=4) as pool:
        task = await running(pool, "spin")
        with pytest.raises(Exception, match="stuck") as caught:
            await pool.options(timeout=0.1).run("ok")
        assert getattr(caught.value, "stack", None) is None
        await end(task)


# -- workers that lie ---------------------------------------------------------------------------------------------

OPERATIONS = {"say": "function", "hum": "generator", "more": "generator"}


def offering(stack: Any, **fields: Any) -> Pool:
    return liars(env={"LIAR_READY": json.dumps(["ready", OPERATIONS, {"stack": stack}])}, **fields)


async def test_an_invalid_offer_is_no_start() -> None:
    with pytest.raises(StartError, match="broke the protocol: invalid stacks in ready"):
        async with offering({"signal": 9, "file": 3, "inode": 1}):
            pass


@pytest.mark.parametrize("offer", [{"signal": 47, "file": 0, "inode": 1}, {"signal": 63, "file": 9999, "inode": 1}])
async def test_a_false_offer_costs_nothing(offer: Any) -> None:
    async with offering(offer) as pool:
        assert await pool.stack("liars-0") is None
        assert pool.status().restarts == 0


@pytest.mark.parametrize(
    "message",
    [
        ["stack", 1, []],
        ["stack", 1, [["main", "", [["f", 1, "f"]] * 50_000]]],
    ],
)
async def test_stacks_that_were_not_asked_for_cost_the_worker(message: Any) -> None:
    async with offering({}) as pool:
        with pytest.raises(ProtocolError):
            await pool.run("say", message)
    async with liars() as pool:
        with pytest.raises(ProtocolError, match="has not offered"):
            await pool.run("say", ["stack", 1, []])


# -- samples ------------------------------------------------------------------------------------------------------


async def _share_of_the_known_line(seconds: float) -> float:
    async with stuck_pool() as pool:
        task = await running(pool, "spin")
        await stack(pool)

        async def take() -> StackReading:
            return StackReading(stack=await pool.stack("stuck-0"))

        found = await sample(take, seconds)
        await end(task)
    assert found.samples > 5 * seconds
    known = sum(count for folded, count in found.folded.items() if f"spin (stuck.py:{line_of('spin')})" in folded)
    return known / sum(found.folded.values())


async def test_samples_of_a_known_load_are_on_the_known_line() -> None:
    assert await _share_of_the_known_line(0.5) >= 0.8


@pytest.mark.slow
@pytest.mark.gate
async def test_five_seconds_of_a_known_load_are_on_the_known_line() -> None:
    assert await _share_of_the_known_line(5.0) >= 0.8


def test_describing_stacks_keeps_nothing_of_the_target_alive() -> None:
    class Held:
        pass

    def target() -> weakref.ref[Held]:
        held = Held()
        assert describe(None, ())
        return weakref.ref(held)

    was_enabled = gc.isenabled()
    gc.disable()  # as in targets that cannot afford its pauses
    try:
        assert target()() is None
    finally:
        if was_enabled:
            gc.enable()
