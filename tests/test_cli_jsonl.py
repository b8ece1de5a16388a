"""The lines of ``pool-monitor run``: how they are read, and which results can be written. No processes."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pool_monitor.cli.jsonl import Job, output_line, parse, parse_lines
from pool_monitor.errors import ConfigError, OperationError
from pool_monitor.pool.caller import CallResult


def jobs(*lines: bytes, text: bool = False) -> list[Job]:
    async def read() -> AsyncIterator[bytes]:
        for line in lines:
            yield line

    async def collect() -> list[Job]:
        return [job async for job in parse_lines(read(), "in", text=text)]

    return asyncio.run(collect())


def written(result: Any, **options: Any) -> dict[str, Any]:
    line, failure = output_line(parse(7, 3, b'"x"'), CallResult(result, None, "t-0", 0.25), **options)
    answer: dict[str, Any] = json.loads(line, object_pairs_hook=no_key_twice)
    assert failure == answer.get("error", {}).get("type")
    return answer


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


# -- read -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"NaN", "not valid JSON: JSON has no NaN"),
        (b'{"args": [1, -Infinity]}', "not valid JSON: JSON has no -Infinity"),
        (b"1e999", "not valid JSON: Number out of range"),
        (b'["\\uD800"]', "a surrogate without its other half"),
        (b"once upon a time", "with --text, each line is an argument as plain text"),
        (b'"caf\xe9"', "not UTF-8: byte 0xe9 at 4"),
        (b'{"args": ', "not valid JSON: Input data was truncated"),
    ],
)
def test_a_line_that_is_not_json_is_reported_with_its_fault(line: bytes, problem: str):
    assert problem in (parse(1, 1, line).problem or "")


@pytest.mark.parametrize("digits", [1, 19, 20, 40, 400])
def test_integers_of_any_size_go_in_and_come_out(digits: int):
    number = int("9" * digits)
    for value in (number, -number):
        assert parse(1, 1, str(value).encode()).args == [value]
        assert written({"n": [value]})["result"] == {"n": [value]}


def test_a_byte_order_mark_is_skipped():
    assert [job.args for job in jobs(b'\xef\xbb\xbf{"args": [1]}', b"2")] == [[1], [2]]
    assert jobs(b"1", b"\xef\xbb\xbf2")[1].problem


@pytest.mark.parametrize(
    ("first", "what"),
    [
        ("1\n".encode("utf-16"), "UTF-16"),
        ("1\n".encode("utf-16-be"), "UTF-16"),
        ("1\n".encode("utf-16-le"), "UTF-16"),
        ("1\n".encode("utf-32"), "UTF-16"),
        (b"\x1f\x8b\x08", "gzip -dc"),
        (b"\x28\xb5\x2f\xfd", "zstd -dc"),
    ],
)
def test_an_input_that_is_not_utf8_is_refused_once_and_by_name(first: bytes, what: str):
    with pytest.raises(ConfigError, match=f"^in: .*{what}"):
        jobs(first.split(b"\n")[0], b"\x002")


def test_lines_of_text_are_arguments_unchanged():
    found = jobs(b"\xef\xbb\xbfone: {\r", b"", b'  "two"', b"caf\xe9", text=True)
    assert [(job.number, job.place, job.args) for job in found] == [(1, 1, ["one: {"]), (3, 2, ['  "two"']), (4, 3, [])]
    assert found[2].problem == "not UTF-8: byte 0xe9 at 3"


def test_the_digest_of_a_line_covers_everything_before_it():
    assert jobs(b"1", b"2")[1].digest == jobs(b"1", b"2", b"3")[1].digest
    for other in ((b"0", b"2"), (b"1", b"", b"2"), (b"12",), (b"1", b"2 ")):
        assert jobs(*other)[-1].digest != jobs(b"1", b"2")[-1].digest


# -- written ----------------------------------------------------------------------------------------------------------

ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (float("nan"), "it is nan"),
        ([1.5, float("inf")], "it[1] is inf"),
        ({"scores": {"a": [0.0, float("-inf")]}}, "it['scores']['a'][1] is -inf"),
        ({1: "a", "1": "b"}, "it has the key 1"),
        ({float("nan"): 1}, "it has the key nan"),
        ({None: 1}, "it has the key None"),
        ([b"bytes"], "it[0] is of the type bytes"),
        (bytearray(b"x"), "is of the type bytearray"),
        ({b"x"}, "it[0] is of the type bytes"),
        (object(), "is of the type object"),
        ("\ud800", "fails to encode"),
        (ENDLESS, "nested too deeply"),
    ],
)
def test_a_result_that_json_would_change_is_an_error_of_its_line(result: object, what: str):
    answer = written(result)
    assert (answer["id"], answer["ok"], answer["error"]["type"]) == (7, False, "PayloadError")
    assert "cannot be written as JSON" in answer["error"]["message"]
    assert what in answer["error"]["message"]
    assert "result" not in answer


@pytest.mark.parametrize(
    ("result", "form"),
    [
        ((1, (2.5, None)), [1, [2.5, None]]),
        ({"a": True, "ü\x00\u202e": [""]}, {"a": True, "ü\x00\u202e": [""]}),
        (datetime.datetime(2026, 3, 1, 2, 30, tzinfo=datetime.UTC), "2026-03-01T02:30:00Z"),
        ([datetime.date(2026, 3, 1), datetime.time(2, 30)], ["2026-03-01", "02:30:00"]),
        ([datetime.timedelta(days=1), decimal.Decimal("1.50"), {7}], ["P1D", "1.50", [7]]),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ],
)
def test_other_results_are_written_as_json(result: object, form: object):
    assert written(result) == {"id": 7, "ok": True, "result": form, "seconds": 0.25, "worker": "t-0"}


def test_an_answer_out_of_order_has_the_place_it_would_have_in_order():
    assert (written(1, placed=True)["id"], written(1, placed=True)["place"]) == (7, 3)


def test_an_error_whose_text_is_not_unicode_is_still_that_error():
    error = OperationError("op", "ValueError", "caf\udce9", "Traceback \ud800")
    answer = json.loads(output_line(parse(1, 1, b"1"), CallResult(None, error, "t-0", 0.1)).line)
    assert (answer["error"]["type"], answer["error"]["message"]) == ("ValueError", "caf\\udce9")
