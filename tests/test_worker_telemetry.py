"""What a target tells of itself: it arrives, it holds up nobody, and what cannot be sent is counted."""

from __future__ import annotations

import asyncio
import threading
from datetime import date
from pathlib import Path
from typing import Any

import numpy
import pytest

from pool_monitor import events
from pool_monitor.pool.transport.child.channel import Channel
from pool_monitor.pool.transport.child.codec import CODECS
from pool_monitor.pool.transport.child.telemetry import OURS, Telemetry
from tests.helpers.gates import thinned
from tests.helpers.support import TARGETS, eventually, interpreter
from tests.helpers.transports import Line, started

pytestmark = pytest.mark.usefixtures("no_leaks")

TELLING = f"{TARGETS / 'wire.py'}:Telling"


@pytest.fixture(scope="module", autouse=True)
def threads_before() -> set[threading.Thread]:
    """The threads that the tests before these have left."""
    return set(threading.enumerate())


def telling(**fields: Any) -> Any:
    return started(**{"target": TELLING, **fields})


async def failure(line: Line, operation: str, *args: Any, **kwargs: Any) -> Any:
    call_id = line.call(operation, *args, **kwargs)
    await eventually(lambda: call_id in line.record.answered())
    [found] = [told for told in line.record.of("failed") if told[0] == call_id]
    return found[1]


async def all_told(line: Line, count: int) -> None:
    """Until *count* events and lines came, or were counted as dropped."""
    record = line.record
    await eventually(lambda: len(record.of("emitted")) + sum(lost for [lost] in record.of("dropped")) >= count)


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle"])
@pytest.mark.parametrize("concurrency", [1, 10])
async def test_events_and_lines_arrive_as_they_were_told(codec: str, concurrency: int) -> None:
    async with telling(codecs=[codec], concurrency=concurrency) as line:
        assert line.record.of("emitted") == [[("made", "here"), {"count": 1}, {"name": "telling"}]]
        assert await line.run("tell", "cache.hit", {"n": 1, "s": 0.5}, {"a": [1, None, {"ä": True}]}) == "told"
        await line.run("tell", ["a", "b", "c"], {})
        await line.run("write", "warning", "half a \\ud83d pair", number=5)
        assert line.record.of("emitted")[1:] == [
            [("cache", "hit"), {"n": 1, "s": 0.5}, {"a": [1, None, {"ä": True}]}],
            [("a", "b", "c"), {}, {}],
        ]
        assert line.record.of("logged") == [["warning", "half a \\ud83d pair", {"number": 5}]]


async def test_the_constructor_may_be_given_another_one() -> None:
    async with telling(init=(("named",), {})) as line:
        assert line.record.of("emitted")[0][2] == {"name": "named"}


async def test_what_is_told_arrives_while_the_operation_runs(tmp_path: Path) -> None:
    async with telling() as line:
        call_id = line.call("tell_and_wait", str(tmp_path / "go"))
        await eventually(lambda: line.record.of("logged"))
        assert line.record.answered() == []
        (tmp_path / "go").touch()
        await eventually(lambda: line.record.answered() == [call_id])


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["pool.mine", {}], "names that begin with 'pool' are reserved for the pool"),
        ([["llm"], {}], "names that begin with 'llm'"),
        (["", {}], "an event's name must be like 'cache.hit'"),
        (["a..b", {}], "an event's name"),
        ([5, {}], "an event's name"),
        ([["a", 1], {}], "an event's name"),
        ([[], {}], "an event's name"),
        (["a", [1]], "measurements must be a dict of numbers"),
        (["a", {"n": "1"}], "measurement 'n' must be a finite number, not '1'"),
        (["a", {"n": True}], "a finite number, not True"),
        (["a", {"n": None}], "a finite number, not None"),
        (["a", {}, [1]], "metadata must be a dict"),
    ],
)
async def test_an_event_that_is_none_fails_in_the_target_with_the_reason(args: list[Any], complaint: str) -> None:
    async with telling() as line:
        error = await failure(line, "tell", *args)
        assert (error.kind, error.type_name) == ("operation", "ValueError")
        assert complaint in error.message
        assert len(line.record.of("emitted")) == 1


def test_values_of_other_libraries_are_told_as_what_they_stand_for() -> None:
    sent: list[Any] = []
    for codec in ("json", "msgpack", "pickle"):
        record = Telemetry(Channel.__new__(Channel), CODECS[codec](), lambda action: None)
        record._send = sent.append  # type: ignore[method-assign]
        record.execute("scored", {"score": numpy.float32(0.5), "rows": numpy.int64(3)}, {"day": date(2026, 1, 2)})
        record.log("info", "scored", row=numpy.array([1, 2]), words={"one"})
    event = ["event", ["scored"], {"score": 0.5, "rows": 3}, {"day": "2026-01-02"}]
    assert sent == [event, ["log", "info", "scored", {"row": [1, 2], "words": ["one"]}]] * 3


async def test_what_no_json_could_hold_fails_whatever_the_codec() -> None:
    nested: list[Any] = []
    nested.append(nested)
    for codec in ("json", "msgpack", "pickle"):
        record = Telemetry(Channel.__new__(Channel), CODECS[codec](), lambda action: None)
        for value in (object(), {1: 2}, float("nan"), float("inf"), b"bytes", nested):
            with pytest.raises(ValueError, match="JSON cannot hold"):
                record.execute("a", {}, {"value": value})
            with pytest.raises(ValueError, match="JSON cannot hold"):
                record.log("info", "text", value=value)
        for number in (float("nan"), float("inf"), 1j):
            with pytest.raises(ValueError, match="finite number"):
                record.execute("a", {"n": number})
        with pytest.raises(ValueError, match="level must be one of debug"):
            record.log("loud", "text")
        with pytest.raises(ValueError, match="a line's text must be a str"):
            record.log("info", 5)


async def test_one_event_takes_8_kib_at_most_and_a_larger_one_is_counted() -> None:
    async with telling() as line:
        await line.run("tell", "large", {}, {"text": "x" * 10_000})
        await line.run("tell", "fits", {}, {"text": "x" * 8_000})
        await eventually(lambda: line.record.of("dropped"))
        assert [event for event, *_ in line.record.of("emitted")] == [("made", "here"), ("fits",)]
        assert line.record.of("dropped") == [[1]]


async def test_under_a_small_frame_limit_an_event_over_it_is_counted_and_costs_nothing_else(tmp_path: Path) -> None:
    async with telling(frame_limit=1024) as line:
        await line.run("tell_much", 1, 1_200, str(tmp_path / "done"))
        await eventually(lambda: line.record.of("dropped"))
        assert not line.record.of("broke")


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_nobody_is_held_up_by_a_parent_that_does_not_read_and_what_is_lost_is_counted(
    concurrency: int, tmp_path: Path
) -> None:
    async with telling(concurrency=concurrency) as line:
        line.transport.flow(paused=True)
        call_id = line.call("tell_much", 5000, 1000, str(tmp_path / "done"))
        await eventually((tmp_path / "done").exists)
        assert len(line.record.of("emitted")) == 1
        line.transport.flow(paused=False)
        await eventually(lambda: line.record.answered() == [call_id])
        await all_told(line, 5001)
        got = [numbers["number"] for event, numbers, _ in line.record.of("emitted") if event == ("much",)]
        lost = sum(count for [count] in line.record.of("dropped"))
        assert lost > 0
        assert len(got) + lost == 5000
        assert got[:100] == list(range(100)), "the first of them fitted"


async def test_threads_of_the_target_and_the_signal_handler_disturb_no_frame() -> None:
    async with telling() as line:
        call_id = line.call("tell_from_threads", 4, 3000)
        token = 0
        while not line.record.answered():
            token += 1
            line.transport.ping(token)
            await eventually(lambda token=token: len(line.record.of("ponged")) == token)
        await eventually(lambda: line.record.answered() == [call_id])
        record = line.record
        lost = sum(count for [count] in record.of("dropped"))
        assert len(record.of("emitted")) - 1 + len(record.of("logged")) + lost == 15_000
        for thread in range(4):
            numbers = [told[1]["number"] for told in record.of("emitted") if told[1].get("thread") == thread]
            assert numbers == sorted(numbers)
        assert not record.of("broke")


async def test_pings_come_through_wherever_in_telling_they_meet_the_target() -> None:
    async with telling() as line:
        line.call("tell_for_ever")
        for token in range(400):
            line.transport.ping(token)
            await asyncio.sleep(0)
        await eventually(lambda: len(line.record.of("ponged")) == 400)
        line.transport.cancel(line.last)
        await eventually(lambda: line.record.of("failed"))


async def test_an_operation_that_only_tells_can_be_cancelled() -> None:
    async with telling() as line:
        for _ in range(10):
            call_id = line.call("tell_for_ever")
            await eventually(lambda: len(line.record.of("emitted")) > 50)
            line.transport.cancel(call_id)
            await eventually(lambda call_id=call_id: call_id in line.record.answered())
            line.record.told[:] = [told for told in line.record.told if told[0] != "emitted"]
        assert {told[1].kind for told in line.record.of("failed")} == {"cancelled"}
        assert await line.run("echo", 5) == 5


async def test_coroutines_tell_while_others_run() -> None:
    async with telling(concurrency=10) as line:
        for _ in range(5):
            line.call("tell_later", 0.05)
        await eventually(lambda: len(line.record.of("emitted")) == 6)
        assert line.record.answered() == []
        await eventually(lambda: len(line.record.of("emitted")) == 11)


@pytest.mark.parametrize(
    "message",
    thinned(
        [
            ["event", [], {}, {}],
            ["event", ["pool", "crash"], {}, {}],
            ["event", ["a", 5], {}, {}],
            ["event", ["a", ""], {}, {}],
            ["event", "a.b", {}, {}],
            ["event", ["a"], {"n": "1"}, {}],
            ["event", ["a"], {"n": True}, {}],
            ["event", ["a"], [], {}],
            ["event", ["a"], {}],
            ["log", "loud", "text", {}],
            ["log", "info", 5, {}],
            ["log", "info", "text"],
            ["dropped", "many"],
            ["dropped", True],
            ["dropped", -1],
            ["recalled", "1"],
            ["lent", 0],
            ["lent", 1 << 40],
            ["lent", True],
            ["lent", 8, "0"],
            ["lent", 8, -8],
            ["lent", 8, True],
            ["lent", 8, 8 << 20],
            ["lent", 8, 0, 0],
            ["pong", 1],
            ["reply", 1, None, None, [1]],
            ["reply", 1, None, None, [1, "2", None]],
            ["reply", 1, None, None, [1, 2, "3"]],
            ["reply", 1, None, None, [-1, 2, 3]],
            ["reply", 1, None, None, [1, 2**63, 3]],
            ["reply", 1, None, [1], [1, 2, 3]],  # session data is a dict
            ["event", ["a"], {"n": float("inf")}, {}],
            ["event", ["a"], {}, {"n": float("nan")}],
            ["event", ["a"], {}, {"n": [1, {"deep": b"bytes"}]}],
            ["log", "info", "text", {"n": float("-inf")}],
            ["log", "info", "text", {"n": {1: 2}}],
        ],
        3,
    ),
)
async def test_malformed_messages_cost_the_worker(message: list[Any]) -> None:
    async with telling() as line:
        line.call("send_raw", message)
        await eventually(lambda: line.record.of("gone"))
        assert line.record.of("broke")
        assert len(line.record.of("emitted")) == 1


def test_the_names_of_the_pools_own_events_are_all_refused() -> None:
    assert {name[0] for name in events.CATALOGUE} <= OURS


@pytest.mark.parametrize("version", ["3.8", "3.13"])
async def test_it_runs_in_any_python_from_3_8(version: str) -> None:
    python = interpreter(version)
    async with telling(python=python, path=[]) as line:
        await line.run("tell_from_threads", 2, 100)
        await all_told(line, 201)


def test_no_thread_is_left(threads_before: set[threading.Thread]) -> None:
    others = set(threading.enumerate()) - threads_before
    for thread in others:  # one of an earlier test may have a moment to go
        thread.join(35)
    assert not any(thread.is_alive() for thread in others), others
