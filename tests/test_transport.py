"""One worker process without a pool: what can be said to it while it works, and what is left when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.pool.transport.interface import CallTimes
from tests.helpers.gates import in_gates
from tests.helpers.support import TARGETS, eventually
from tests.helpers.transports import Line, started

pytestmark = pytest.mark.usefixtures("no_leaks")

WIRE = f"{TARGETS / 'wire.py'}:Wire"


async def quick(line: Line, *operations: str) -> None:
    """Have the worker learn that these operations are short."""
    for operation in operations:
        for _ in range(20):
            await line.run(operation)


# -- signs of life, and cancelling --------------------------------------------------------------------------------


async def test_an_idle_worker_answers_a_ping_and_says_how_much_memory_it_has() -> None:
    async with started() as line:
        line.transport.ping(7)
        await eventually(lambda: line.record.of("ponged"))
        [[token, call_id, rss]] = line.record.of("ponged")
        assert (token, call_id) == (7, None)
        assert 1 << 20 < rss < 1 << 30


@pytest.mark.parametrize(("operation", "args"), [("spin", []), ("sleep", [60]), ("later", [1, 60])])
async def test_a_busy_worker_answers_pings_and_names_its_call(operation: str, args: list[Any]) -> None:
    async with started() as line:
        transport, record = line.transport, line.record
        call_id = line.call(operation, *args)
        for token in range(1, 4):
            transport.ping(token)
            await eventually(lambda token=token: len(record.of("ponged")) == token)
        transport.ping(4)
        await eventually(lambda: record.of("ponged")[-1][:2] == [4, call_id])
        assert [token for token, _call, _rss in record.of("ponged")] == [1, 2, 3, 4]
        assert record.of("replied") == [], "it went on working"
        transport.cancel(call_id)
        await eventually(lambda: record.of("failed"))
        assert record.of("failed")[0][1].kind == "cancelled"


async def test_a_worker_answers_pings_between_the_items_of_a_stream() -> None:
    async with started() as line:
        line.call("count", 50_000, stream=True)
        for token in range(20):
            line.transport.ping(token)
        await eventually(lambda: line.record.of("replied") and len(line.record.of("ponged")) == 20)
        assert [value for _call, value, _size in line.record.of("item")] == list(range(50_000))


async def test_a_cancel_for_another_call_interrupts_nothing() -> None:
    async with started() as line:
        line.call("later", "done", 0.05)
        line.transport.cancel(2)
        await eventually(lambda: line.record.of("replied"))
        assert line.record.of("replied")[0][:2] == [1, "done"]


# -- several calls in flight --------------------------------------------------------------------------------------


async def test_any_number_of_calls_is_taken_and_answered_in_order() -> None:
    async with started(target=WIRE) as line:
        calls = [line.call("echo", number) for number in range(3000)]
        await eventually(lambda: len(line.record.answered()) == 3000)
        assert line.record.answered() == calls
        assert list(line.record.results().values()) == list(range(3000))
        assert line.transport.begun == 3000


async def test_calls_of_every_kind_stay_in_order(tmp_path: Path) -> None:
    async with started(target=WIRE) as line:
        await quick(line, "echo")
        line.record.told.clear()
        first = line.last + 1
        for _ in range(20):
            line.call("echo", 1)
            line.call("fail")
            line.call("produce", 3, stream=True)
            line.call("later", 2)
            line.call("nothing_there")
            line.call("fill", 100_000)
            line.call("fill", 400_000)
        await eventually(lambda: len(line.record.answered()) == 140)
        assert line.record.answered() == list(range(first, first + 140))
        assert len(line.record.of("item")) == 60


async def test_a_call_that_waits_for_nobody_leaves_at_once_and_others_together() -> None:
    async with started(target=WIRE) as line:
        sent: list[int] = []
        wire = line.transport._wire
        put = wire._put
        wire._put = lambda *pieces: (sent.append(len(pieces[0])), put(*pieces))[-1]
        line.call("echo", 1)
        assert len(sent) == 1
        for number in range(10):
            line.call("echo", number)
        assert len(sent) == 1
        await eventually(lambda: len(line.record.answered()) == 11)
        assert len(sent) == 2


async def test_how_far_a_worker_has_come_is_known_while_it_works_and_after_its_end(tmp_path: Path) -> None:
    async with started(target=WIRE) as line:
        assert line.transport.begun == 0
        line.call("until_exists", str(tmp_path / "go"))
        for _ in range(3):
            line.call("echo")
        await eventually(lambda: line.transport.begun == 1)
        (tmp_path / "go").touch()
        await eventually(lambda: line.transport.begun == 4)
        line.call("sleep", 60)
        line.call("echo")
        await eventually(lambda: line.transport.begun == 5)
        line.transport.kill()
        await eventually(lambda: line.record.of("gone"))
        assert line.transport.begun == 5


async def test_calls_that_have_not_begun_can_be_had_back_and_no_others(tmp_path: Path) -> None:
    async with started(target=WIRE) as line:
        running = line.call("until_exists", str(tmp_path / "go"))
        calls = [line.call("echo", number) for number in range(5)]
        await eventually(lambda: line.transport.begun == 1)
        line.transport.recall([running, calls[1], calls[3], 999])
        await eventually(lambda: len(line.record.of("recalled")) == 2)
        assert line.record.of("recalled") == [[calls[1]], [calls[3]]]
        (tmp_path / "go").touch()
        await eventually(lambda: len(line.record.answered()) == 4)
        assert line.record.answered() == [running, calls[0], calls[2], calls[4]]
        assert line.transport.begun == 6, "counted by what was handed over"
        line.transport.recall([running, *calls])
        await line.run("echo")
        assert len(line.record.of("recalled")) == 2
        assert line.transport.begun == 7


async def test_a_call_taken_back_after_its_elder_is_not_counted_as_begun(tmp_path: Path) -> None:
    async with started(target=WIRE) as line:
        calls = [line.call("until_exists", str(tmp_path / str(number))) for number in range(3)]
        await eventually(lambda: line.transport.begun == 1)
        line.transport.recall([calls[2]])
        await eventually(lambda: line.record.of("recalled"))
        assert line.transport.begun == 1
        (tmp_path / "0").touch()
        await eventually(lambda: line.transport.begun == 2)
        (tmp_path / "1").touch()


async def test_a_cancel_for_a_call_that_waits_is_answered_without_beginning_it(tmp_path: Path) -> None:
    async with started(target=WIRE) as line:
        line.call("until_exists", str(tmp_path / "go"))
        waiting = line.call("touch", str(tmp_path / "touched"))
        line.call("echo", 3)
        await eventually(lambda: line.transport.begun == 1)
        line.transport.cancel(waiting)
        await eventually(lambda: line.record.of("failed"))
        [[call_id, failure, times]] = line.record.of("failed")
        assert (call_id, failure.kind, times.execution_ns) == (waiting, "cancelled", 0)
        (tmp_path / "go").touch()
        await eventually(lambda: len(line.record.answered()) == 3)
        assert not (tmp_path / "touched").exists()


async def test_a_stop_lets_all_calls_before_it_end() -> None:
    async with started(target=WIRE) as line:
        calls = [line.call("echo", number) for number in range(50)]
        await line.transport.stop(5.0, 1.0)
        assert line.record.answered() == calls
        assert line.record.of("gone")[0][0] == 0


async def test_a_worker_that_is_stuck_is_ended_by_a_task_that_is_cancelled_too() -> None:
    async with started() as line:
        line.call("sleep", 60.0)
        await eventually(lambda: line.transport.begun)

        async def leaving() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await line.transport.stop(0.05, 5.0)

        task = asyncio.ensure_future(leaving())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert line.record.of("gone")


# -- no answer is lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["exit", "kill"])
@pytest.mark.parametrize("rounds", [4, in_gates(12)])
async def test_answers_given_before_the_process_died_in_the_next_operation_all_arrive(how: str, rounds: int) -> None:
    for _ in range(rounds):
        async with started(target=WIRE) as line:
            await quick(line, "perhaps")
            line.record.told.clear()
            before = line.transport.begun
            calls = [line.call("perhaps", number) for number in range(2)]
            calls.append(line.call("perhaps", how))
            calls.append(line.call("perhaps", "never"))
            await eventually(lambda line=line: line.record.of("gone"))
            assert line.record.answered() == calls[:2]
            assert line.transport.begun == before + 3


async def test_answers_are_held_back_only_while_short_operations_follow() -> None:
    async with started(target=WIRE) as line:
        await quick(line, "echo")
        line.call("echo", 1)
        line.call("echo", 2)
        stuck = line.call("sleep", 60)
        await eventually(lambda: len(line.record.answered()) == 22)
        line.transport.cancel(stuck)


async def test_answers_held_back_leave_when_the_worker_is_asked_to_look() -> None:
    async with started(target=WIRE) as line:
        await quick(line, "perhaps")
        line.record.told.clear()
        # The first leaves alone and gives the others time to arrive together.
        calls = [line.call("perhaps", what) for what in (0, 1, 2, "wait")]
        await eventually(lambda: line.transport.begun == 24)
        line.transport.recall([])
        await eventually(lambda: line.record.answered() == calls[:3])
        line.transport.cancel(calls[3])
        await eventually(lambda: line.record.of("failed"))


async def test_a_call_is_asked_back_once_however_often_that_is_wanted() -> None:
    async with started(target=WIRE) as line:
        line.call("sleep", 0.3)
        ahead = line.call("echo", 1)
        sent: list[bytes] = []
        send = line.transport._wire.send
        line.transport._wire.send = lambda body: (sent.append(body), send(body))
        for _ in range(50):
            line.transport.recall([ahead])
        await eventually(lambda: line.record.of("recalled"))
        assert len(sent) == 1
        assert line.record.of("recalled") == [[ahead]]


async def test_an_answer_that_arrived_is_not_told_again_from_the_outbox() -> None:
    async with started(target=WIRE) as line:
        await quick(line, "perhaps")
        line.call("perhaps", "wait")
        await eventually(lambda: line.transport.begun == 21)
        # As if it had died just after sending what it held back.
        memory = line.transport._lending.shared.memory
        body = line.transport._inbox.codec.encode(["reply", 1, "again", None, [1, 1, 0]])
        held = len(body).to_bytes(4, "big") + body
        memory.outbox[: len(held)] = held
        memory.counters[1] = len(held) + 3  # and in the middle of writing
        line.transport.kill()
        await eventually(lambda: line.record.of("gone"))
        assert len(line.record.answered()) == 20


async def test_nonsense_in_the_outbox_of_a_dead_worker_is_no_harm() -> None:
    async with started(target=WIRE) as line:
        memory = line.transport._lending.shared.memory
        memory.outbox[:] = os.urandom(len(memory.outbox))
        memory.counters[1] = 1 << 60
        line.transport.kill()
        await eventually(lambda: line.record.of("gone"))
        assert line.record.of("gone")[0][0] == -signal.SIGKILL
        assert not line.record.of("broke")


# -- what a call took ---------------------------------------------------------------------------------------------


async def test_a_call_tells_by_how_much_it_raised_the_peak_of_memory() -> None:
    async with started(target=WIRE) as line:
        await line.run("surge", 1 << 20)
        for operation, grown in (("surge", True), ("surge", False), ("grow", False), ("grow", True)):
            await line.run(operation, 64 << 20)
            times = line.record.of("replied")[-1][3]
            assert (times.rss_growth > 32 << 20) == grown, operation
            assert times.rss_growth < 96 << 20
            assert times.cpu_ns > 0


async def test_processor_time_of_an_operation_that_takes_microseconds_is_its_wall_time() -> None:
    async with started(target=WIRE) as line:

        async def took(seconds: float = 0) -> CallTimes:
            await line.run("quick", seconds)
            times: CallTimes = line.record.of("replied")[-1][3]
            return times

        first = await took()
        assert first.cpu_ns is not None, "nothing was known of it"
        for _ in range(50):  # others may have held up the first ones
            for _ in range(20):
                line.call("quick")
            times = await took()
            if times.cpu_ns == times.execution_ns:
                break
        else:
            pytest.fail("it was measured all the time")
        assert (await took(0.02)).cpu_ns is None, "nothing was measured, and it was not short"
        assert (await took(0.02)).cpu_ns in range(1, 15_000_000), "now it is measured"


async def test_growth_is_seen_also_beneath_the_peak_of_the_process_that_started_the_worker() -> None:
    ballast = bytearray(b"x") * (200 << 20)  # the system lets a worker inherit this in its own peak
    async with started(target=WIRE, start_method="exec") as line:
        await line.run("surge", 64 << 20)
        assert 32 << 20 < line.record.of("replied")[-1][3].rss_growth < 96 << 20
    del ballast


async def test_what_is_left_of_a_dead_worker_holds_no_buffer() -> None:
    async with started(target=WIRE, frame_limit=8 << 20) as line:
        assert len(await line.run("fill", 3 << 20)) == 3 << 20
        assert line.transport._reader.space()
    assert line.transport._reader._view.nbytes == 0
