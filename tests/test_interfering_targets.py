"""Operations that interfere with their own process, or with what is around it: the service notices nothing, and what
they leave behind is ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import OperationError, OperationTimeout, PayloadError, Pool, WorkerDied
from pool_monitor.pool.transport import process
from pool_monitor.pool.transport.child.framing import FrameError
from tests.helpers.gates import in_gates
from tests.helpers.support import ODD, alive, eventually, odd_pool, read, running
from tests.helpers.transports import started

START_METHODS = ["exec", "zygote"]

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="they do what Linux has"),
]


# -- shared memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", START_METHODS)
async def test_a_worker_cannot_cut_the_memory_it_shares(start_method: str) -> None:
    async with odd_pool(start_method=start_method) as pool:
        await asyncio.gather(*(pool.run("echo", number) for number in range(100)))
        await pool.run("cut_memory")
        large = "x" * (1 << 20)
        assert await asyncio.gather(*(pool.run("echo", large) for _ in range(4))) == [large] * 4
        assert await asyncio.gather(*(pool.run("echo", number) for number in range(100))) == list(range(100))
        assert pool.status().restarts == 0


@pytest.mark.parametrize(
    "message",
    [
        ["reply", {}, 1, None, [1, 1, 0]],
        ["reply", [], 1, None, [1, 1, 0]],
        ["error", {"a": 1}, "operation", "E", "", "", [1, 1, 0]],
        [["reply"], 1, 1, None, [1, 1, 0]],
        ["reply", 2, 1, {}, "no times"],
        {"reply": 1},
    ],
)
async def test_whatever_lies_in_the_outbox_of_a_dead_worker_its_end_is_reported(message: Any) -> None:
    async with started(target=ODD) as line:
        line.call("nap", 60)
        await eventually(lambda: line.transport.begun == 1)
        memory = line.transport._lending.shared.memory
        body = line.transport._inbox.codec.encode(message)
        held = len(body).to_bytes(4, "big") + body
        memory.outbox[: len(held)] = held
        memory.counters[1] = len(held)
        line.transport.kill()
        await eventually(lambda: line.record.of("gone"))
        assert line.record.answered() == []


# -- its process group --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["own", in_gates("parent")])
@pytest.mark.parametrize("start_method", START_METHODS)
async def test_an_operation_that_leaves_its_process_group_is_killed_all_the_same(
    start_method: str, where: str, tmp_path: Path
) -> None:
    async with odd_pool(start_method=start_method) as pool:
        pid = await pool.run("pid")
        left = tmp_path / "left"
        with pytest.raises(OperationTimeout):
            await pool.options(timeout=0.5).run("leave_group", where, str(left))
        assert left.exists()
        await eventually(lambda: not alive(pid))
        assert await pool.run("echo", "next") == "next"


@pytest.mark.parametrize("number", range(3))
async def test_what_a_dead_worker_had_started_goes_with_a_service_that_never_saw_its_death(number: int) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from pool_monitor import Pool\n"
        "async def main():\n"
        f"    async with Pool({ODD!r}, size=2) as pool:\n"
        "        company, worker = await pool.options(worker='default-0').run('company'), pool.workers()[0].pid\n"
        "        print(company, worker, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    service = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        company, worker = map(int, (await asyncio.to_thread(service.stdout.readline)).split())
        await eventually(lambda: Path(f"/proc/{service.pid}/stat").read_text().split()[2] == "T")
        os.kill(worker, signal.SIGKILL)
        await eventually(lambda: not alive(worker))
        assert alive(company)
        service.kill()
        await eventually(lambda: not alive(company), timeout=2.0)
    finally:
        service.kill()
        service.communicate()


# -- copies that it forks off -------------------------------------------------------------------------------------

ENDS = {"return": 0, "raise": 1, "exit": 3, "exit with words": 1, "_exit": 4}


@pytest.mark.parametrize(("concurrency", "start_method"), [(1, "zygote"), (1, "exec"), (3, "zygote")])
async def test_a_copy_that_an_operation_forks_off_ends_at_once_as_it_would_alone(
    concurrency: int, start_method: str
) -> None:
    async with odd_pool(concurrency=concurrency, start_method=start_method, health_interval=60.0) as pool:
        pid = await pool.run("pid")
        beside = [await running(pool, "later", 0.2, number) for number in range(concurrency - 1)]
        for how, code in ENDS.items():
            assert await pool.options(timeout=3.0).run("fork", how) == code, how
            assert await pool.options(timeout=3.0).run("fork_in_c", how) == code, how
            assert await pool.options(timeout=3.0).run("fork_later", how) == code, how
            assert await read(pool.options(timeout=3.0).stream("fork_between", how)) == [0], how
        assert await read(pool.options(timeout=3.0).stream("fork_in_c_between")) == [0]
        assert await pool.options(timeout=3.0).run("fork_later", "await") == 1  # it cannot go on in the worker's loop
        assert await asyncio.gather(*beside) == list(range(concurrency - 1))
        assert await pool.run("pid") == pid
        assert pool.status().restarts == 0


# -- signals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", START_METHODS)
async def test_a_signal_that_the_service_blocks_is_heard_by_workers_and_by_what_they_start(start_method: str) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG, signal.SIGTERM})
    try:
        async with odd_pool(start_method=start_method) as pool:
            assert await pool.run("blocked_signals") == []
            assert await pool.run("terminate_child") == -signal.SIGTERM
            with pytest.raises(OperationTimeout):
                await pool.options(timeout=0.2).run("nap", 60)
            assert await pool.run("echo", 1) == 1
            assert pool.status().restarts == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reap(*_: Any) -> None:
    """As masters of worker processes and the first process of a container do."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


@pytest.mark.parametrize("handler", [reap, signal.SIG_IGN])
async def test_an_exit_status_that_was_taken_by_others_is_unknown_and_not_0(handler: Any) -> None:
    before = signal.signal(signal.SIGCHLD, handler)
    try:
        async with odd_pool(start_method="exec") as pool:
            pid = await pool.run("pid")
            call = await running(pool, "nap", 60)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerDied) as caught:
                await call
            assert caught.value.exit_code in (None, -signal.SIGKILL)
            if handler is signal.SIG_IGN:
                assert caught.value.exit_code is None
                assert "no exit code" in str(caught.value)
            assert await pool.run("echo", 1) == 1
    finally:
        signal.signal(signal.SIGCHLD, before)


# -- things to iterate over, and to wait for ----------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_whatever_can_be_iterated_over_and_is_no_container_is_streamed(concurrency: int) -> None:
    async with odd_pool(concurrency=concurrency) as pool:
        for operation in ("chunks", "chunks_now", "countdown", "iterator"):
            assert await read(pool.stream(operation, 4)) == [3, 2, 1, 0], operation
        with pytest.raises(OperationError, match=r"it returned a list, which is not a generator: call it with run\(\)"):
            await read(pool.stream("container", 3))
        stream = pool.stream("chunks", 10**9)
        assert await anext(stream) == 10**9 - 1
        await stream.aclose()
        assert await pool.run("promise", 5) == 5
        with pytest.raises(OperationError) as caught:
            await pool.run("stop_iteration")
        assert (caught.value.type_name, caught.value.message) == ("StopIteration", "enough")


@pytest.mark.parametrize("how", ["run", "running", "another"])
async def test_a_function_that_runs_a_loop_of_its_own_is_told_what_to_do_beside_others(how: str) -> None:
    async with odd_pool(concurrency=3) as pool:
        with pytest.raises(
            OperationError, match=r"loop.*; .* make it a coroutine function \(async def\) that awaits, or"
        ):
            await pool.run("run_a_loop", how)
    if how != "running":  # there is none
        async with odd_pool() as pool:
            assert await pool.run("run_a_loop", how) == 5


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_worker_whose_target_closes_every_descriptor_ends_and_says_so(
    concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_CLOSING", 10.0)  # it has all the time it takes to end by itself
    async with odd_pool(concurrency=concurrency) as pool:
        with pytest.raises(WorkerDied, match=r"exit code 1\n.*\npool_monitor: the target has closed the [^\n]*$"):
            await pool.run("close_all_descriptors")
        assert await pool.run("echo", 1) == 1


# -- calls per process --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "prefetch", "concurrency"), [(1, 16, 1), (5, 16, 1), (3, 1, 1), (4, 1, 3)])
async def test_no_process_is_handed_more_calls_than_its_limit(limit: int, prefetch: int, concurrency: int) -> None:
    async with odd_pool(size=2, recycle_calls=limit, prefetch=prefetch, concurrency=concurrency) as pool:
        pids = await asyncio.gather(*(pool.run("pid") for _ in range(24)))
        assert max(map(pids.count, pids)) <= limit
        assert pool.status().restarts == 0


async def test_a_process_at_its_limit_is_ended_though_its_successor_cannot_be_started(tmp_path: Path) -> None:
    target = tmp_path / "fragile.py"
    target.write_text("import os\n\ndef pid():\n    return os.getpid()\n")
    async with Pool(str(target), size=1, name="fragile", recycle_calls=2, timeout=10.0, backoff_min=0.01) as pool:
        target.write_text("raise RuntimeError('half deployed')\n")
        pids = [await pool.run("pid") for _ in range(2)]
        late = asyncio.ensure_future(pool.run("pid"))
        await eventually(lambda: pool.status().dead or pool.status().starting)
        target.write_text("import os\n\ndef pid():\n    return os.getpid()\n")
        assert await late not in pids


# -- a service that asks again and again --------------------------------------------------------------------------


async def test_a_caller_that_is_refused_again_and_again_leaves_the_loop_to_others() -> None:
    async with odd_pool(queue_limit=0) as pool:
        busy = await running(pool, "later", 0.3, "done")
        refusals = 0
        while not busy.done():
            result = await pool.try_run("echo", 1)
            refusals += result.error is not None
        assert await busy == "done"
        assert refusals > 10


async def test_a_large_result_that_cannot_be_decoded_keeps_nothing_of_the_memory_it_lay_in() -> None:
    async with odd_pool() as pool:
        for _ in range(3):
            pid = await pool.run("pid")
            with pytest.raises(PayloadError, match="the result cannot be rebuilt"):
                await pool.run("by_point", "x" * 300_000)
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda pid=pid: pool.workers()[0].pid not in (pid, None))
        assert await pool.run("echo", 1) == 1


@pytest.mark.parametrize(
    "answer",
    [
        ["item", "$id", 1],
        ["reply", "$id", 1, None, [1, 1, 0]],
        ["error", "$id", "operation", "E", "", "", [1, 1, 0]],
    ],
)
async def test_an_answer_to_a_call_that_the_worker_does_not_say_it_has_begun_is_not_taken(answer: list[Any]) -> None:
    async with started(target=ODD) as line:
        call_id = line.call("nap", 60, stream=answer[0] == "item")
        memory = line.transport._lending.shared.memory
        await eventually(lambda: memory.begun == 1)
        memory.counters[0] = 0
        inbox = line.transport._inbox
        with pytest.raises(FrameError, match=f"an answer to call {call_id}, which has not begun"):
            inbox.take([call_id if part == "$id" else part for part in answer])
        assert inbox.take(["error", call_id, "cancelled", "C", "", "", [0, 0, None]])
        line.transport.kill()


async def test_what_a_worker_has_begun_it_cannot_take_back() -> None:
    async with started(target=ODD) as line:
        await line.run("echo", 1)
        line.call("nap", 60)
        await eventually(lambda: line.transport.begun == 2)
        line.transport._lending.shared.memory.counters[0] = 0
        assert line.transport.begun == 1
        line.transport.kill()


@pytest.mark.parametrize("depth", [50, 900])
async def test_session_data_can_be_looked_at_however_deep_it_is(depth: int) -> None:
    async with odd_pool() as pool, pool.session("s") as session:
        await session.run("keep", depth)
        data: Any = session.data["kept"]
        data.append("mine alone")
        found: Any = session.data["kept"]
        levels = 1
        while found:
            [found] = found
            levels += 1
        assert levels == depth


# -- copies that come into being outside the operation itself -----------------------------------------------------


async def test_a_copy_that_an_exceptions_text_forks_off_does_nothing_of_what_the_worker_has_to_do(
    tmp_path: Path,
) -> None:
    ran = tmp_path / "ran"
    async with odd_pool() as pool:
        await asyncio.gather(*(pool.run("echo", number) for number in range(200)))
        calls = [pool.try_run("note", str(ran), number) for number in range(40)]
        calls.insert(5, pool.try_run("raise_and_fork"))
        results = await asyncio.gather(*calls)
        assert [type(result.error) for result in results].count(OperationError) == 1
        assert sorted(map(int, ran.read_text().split())) == list(range(40))
        assert pool.status().restarts == 0


async def test_an_operation_that_cancels_every_task_leaves_no_call_without_an_answer() -> None:
    async with odd_pool(concurrency=8) as pool:
        beside = [asyncio.ensure_future(pool.try_run("later", 30)) for _ in range(4)]
        results = await asyncio.gather(pool.try_run("cancel_all_tasks"), *beside)
        assert {type(result.error) for result in results[1:]} == {OperationError}
        assert await pool.run("echo", 1) == 1
        assert pool.status().restarts == 0


@pytest.mark.parametrize("start_method", START_METHODS)
async def test_a_worker_learns_how_its_children_ended_though_the_service_does_not_want_to(start_method: str) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with odd_pool(start_method=start_method) as pool:
            assert await pool.run("terminate_child") == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGCHLD, before)
