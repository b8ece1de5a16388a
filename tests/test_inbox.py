"""Answers that come together: plain replies take a short way, and nothing odd about one gets lost on it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pool_monitor.pool.transport.child.codec import CODECS
from pool_monitor.pool.transport.child.framing import FrameError
from pool_monitor.pool.transport.inbox import Inbox
from tests.helpers.transports import Record

encode = msgspec.msgpack.encode
TIMES = [5, 4, None]


def inbox(*calls: int, streams: tuple[int, ...] = (), begun: int | None = None, codec: str = "msgpack") -> Inbox:
    made = Inbox(Record(), CODECS[codec](), 1000)  # type: ignore[arg-type]
    for call_id in calls:
        made.note_call(call_id, call_id in streams)
    if begun is not None:
        made.counters = memoryview(bytearray(begun.to_bytes(8, "little") + bytes(16))).cast("Q")
    return made


def bodies(*messages: Any) -> list[memoryview]:
    return [memoryview(encode(message)) for message in messages]


def test_plain_replies_that_follow_each_other_are_taken_together_with_all_they_say() -> None:
    made = inbox(7, 8, 9, begun=3)
    found = made.replies(bodies(["reply", 7, {"a": [1]}, None, [5, None, None]], ["reply", 8, b"x", None, TIMES]), 0)
    assert [(one.call_id, one.result) for one in found] == [(7, {"a": [1]}), (8, b"x")]
    times = found[0].times
    assert (times.execution_ns, times.cpu_ns, times.rss_growth) == (5, None, None)
    assert list(made.open) == [9]
    assert made.begun == 2


def test_they_are_taken_up_to_the_first_message_that_is_none_and_on_from_any_place() -> None:
    made = inbox(1, 2, 3)
    arrived = bodies(["reply", 1, 0, None, TIMES], ["pong", 1, None, None], ["reply", 2, 0, None, TIMES])
    assert [one.call_id for one in made.replies(arrived, 0)] == [1]
    assert made.replies(arrived, 1) == []
    assert [one.call_id for one in made.replies(arrived, 2)] == [2]


ODD: dict[str, tuple[Any, str | None]] = {
    "another message of five": (["log", "info", "text", {}, 1], "unknown message"),
    "the end of a stream": (["end", 1, None, None, TIMES], "is not a stream"),
    "with data of a session": (["reply", 1, 0, {"k": 1}, TIMES], None),
    "to a stream": (["reply", 2, 0, None, TIMES], "is a stream"),
    "to a call that is not open": (["reply", 4, 0, None, TIMES], "which is not open"),
    "to a call that is no number": (["reply", "1", 0, None, TIMES], "which is not open"),
    "to a call that is true": (["reply", True, 0, None, TIMES], "which is not open"),
    "to a call that has not begun": (["reply", 3, 0, None, TIMES], "which has not begun"),
    "one field more": (["reply", 1, 0, None, TIMES, 6], "unknown message"),
    "one field less": (["reply", 1, 0, None], "unknown message"),
    "no times": (["reply", 1, 0, None, None], "invalid times"),
    "one time": (["reply", 1, 0, None, [5]], "invalid times"),
    "a negative time": (["reply", 1, 0, None, [-5, 1, None]], "invalid times"),
    "a time that is a fraction": (["reply", 1, 0, None, [5.0, 1, None]], "invalid times"),
    "a time that is true": (["reply", 1, 0, None, [True, 1, None]], "invalid times"),
    "a time without end": (["reply", 1, 0, None, [2**63, 1, None]], "invalid times"),
    "growth without end": (["reply", 1, 0, None, [5, 1, 2**50]], "invalid times"),
}


@pytest.mark.parametrize(("message", "error"), ODD.values(), ids=ODD)
def test_a_reply_that_is_odd_is_left_to_the_way_that_has_the_words_for_it(message: Any, error: str | None) -> None:
    made = inbox(1, 2, 3, streams=(2,), begun=2)
    (body,) = bodies(message)
    assert made.replies([body], 0) == []
    assert len(made.open) == 3
    if error is None:
        assert made.receive(body) is None
        assert list(made.open) == [2, 3]
    else:
        with pytest.raises(FrameError, match=error):
            made.receive(body)


def test_a_result_too_deep_to_be_decoded_fails_its_call_alone() -> None:
    made = inbox(1, 2)
    deep = b"\x91" * 100_000 + b"\xc0"
    body = memoryview(b"\x95" + encode("reply") + encode(1) + deep + encode(None) + encode(TIMES))
    assert made.replies([body], 0) == []
    assert made.receive(body) is None
    assert list(made.open) == [2]


def test_the_second_answer_to_a_call_is_no_plain_reply() -> None:
    made = inbox(1)
    twice = bodies(["reply", 1, 0, None, TIMES], ["reply", 1, 0, None, TIMES])
    assert len(made.replies(twice, 0)) == 1
    assert made.replies(twice, 1) == []
    with pytest.raises(FrameError, match="which is not open"):
        made.receive(twice[1])


def test_a_call_that_was_asked_back_and_answered_can_be_asked_back_no_more() -> None:
    made = inbox(1, 2)
    assert made.recall([1, 2]) == [1, 2]
    made.replies(bodies(["reply", 1, 0, None, TIMES]), 0)
    assert made._recalled == {2}


@pytest.mark.parametrize("codec", ["json", "pickle"])
def test_other_codecs_know_no_short_way(codec: str) -> None:
    made = inbox(1, codec=codec)
    body = memoryview(CODECS[codec]().encode(["reply", 1, CODECS[codec]().pack(0), None, TIMES]))
    assert made.replies([body], 0) == []
    assert made.receive(body) is None
    assert made.open == {}
