"""What makes two failures the same error: normalised messages, own frames, fingerprints."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.metrics.fingerprint import (
    CACHE_BYTES,
    FRAMES,
    MESSAGE_MAX,
    FingerprintCache,
    fingerprint,
    normalised,
    own_frames,
)

MESSAGES = {
    "record 4711 of customer 8f14e45f at 0x7f001122": "record <n> of customer <id> at <address>",
    "request 6fa459ea-ee8a-3ca4-894e-db77e160355e took 15.3s": "request <id> took <n>",
    "took 1e-05 s, -3 % of 12,345 bytes": "took <n> of <n> bytes",
    "no file /srv/data/x.json or ~/y/z": "no file <path> or <path>",
    r"C:\Users\x\y.txt is locked": "<path> is locked",
    "src/a/b7.py has changed": "<path> has changed",
    "GET https://a.b/c?d=1#e failed": "GET <url> failed",
    "tenant 'acme' has no \"user\", `x`": "tenant <quoted> has no <quoted>",
    "can't connect to db-7:5432, won't retry": "can't connect to db-<n>, won't retry",
    "2024-01-02T03:04:05.678Z: late by 00:01:02": "<time>: late by <time>",
    "batch_17 of worker12 is v2beta3": "batch_<n> of worker<n> is <id>",
    "digest d41d8cd98f00b204e9800998ecf8427e": "digest <id>",
    "deadbeef is no word": "<id> is no word",
    "token aB3xY7Qw9zK1mN5pR8tV2+/= is bad": "token <id> is bad",
    "[1, 2, 3] is not [4]": "[<n>] is not [<n>]",
    "  many\n lines\tof  it ": "many lines of it",
    "killed by signal 9 (SIGKILL)": "killed by signal 9 (SIGKILL)",
    "input/output error": "input/output error",
    "list index out of range": "list index out of range",
    "": "",
    # numbers, quotation marks and words of other languages
    "1,234,567 of 1'234'567 of \u2212\u0661\u0662": "<n> of <n> of <n>",
    "no \u201cAnn\u201d, \u2018Bob\u2019, \u201eEva\u201c, \u00abEve\u00bb": "no <quoted>",
    "\u7528\u6237\u300cAnn\u300d\u4e0d\u5b58\u5728 12\u4ef6": "\u7528\u6237<quoted>\u4e0d\u5b58\u5728 <n>\u4ef6",
    "\u6ce8\u658712\u4ef6\u304c\u5931\u6557": "\u6ce8\u6587<n>\u4ef6\u304c\u5931\u6557",
    # values of programs
    'bad {"id": 17, "tags": ["a", {}], "ok": null} here': "bad <data> here",
    "bad {'id': 3": "bad <data>",
    "b'a\\x00' is no text": "<quoted> is no text",
    "dev 00:1B:44:11:3A:B7 at fe80::1ff:fe23:4567:890a, ::1": "dev <n> at <n>",
    "std::vector a::b ::foo": "std::vector a::b ::foo",
    "GET /a/b?id=ann&x=y#z failed": "GET <path> failed",
    r"\\srv1\a\x.txt is locked": "<path> is locked",
    "late Mon, 30 Nov 2026 10:11:02 GMT, Tue Dec  1 10:11:02 2026": "late <time>",
    "pod web-7d4b9c6f5-x2x7k is gone": "pod web-<id> is gone",
    # what a number stands for may be the error
    "Request failed with status code 404": "Request failed with status code 404",
    "Client error '404 Not Found' for url 'https://a/b'": "Client error '404 Not Found' for url <quoted>",
    "errno 13 of status 17": "errno 13 of status <n>",
}


@pytest.mark.parametrize(("message", "plain"), MESSAGES.items(), ids=range(len(MESSAGES)))
def test_variable_parts_of_a_message_become_placeholders(message: str, plain: str) -> None:
    assert normalised(message) == plain


PARTS = [
    "<n>",
    "'",
    '"',
    "`",
    "0x1f",
    "12",
    " ",
    "/",
    "deadbeef",
    "://",
    "-",
    "_",
    ".",
    "C:\\",
    "signal 9",
    "\n",
    "5 ms",
]
HOSTILE = st.lists(st.sampled_from(PARTS) | st.text(max_size=6), max_size=14).map("".join)


@given(HOSTILE)
def test_normalising_is_bounded_and_changes_nothing_the_second_time(message: str) -> None:
    plain = normalised(message)
    assert len(plain) <= MESSAGE_MAX
    assert normalised(plain) == plain


@pytest.mark.parametrize("piece", ["a", "1", "'", '"', "a/", "/", "<n>", "0x", "http://", "a_", "1-", " ", "\\", "é1"])
def test_a_long_message_costs_no_more_than_the_part_that_is_read(piece: str) -> None:
    def cost(length: int) -> float:
        message = (piece * length)[:length]
        best = 9e9
        for _ in range(5):
            began = time.process_time()
            normalised(message)
            best = min(best, time.process_time() - began)
        return best

    assert cost(1_000_000) < 20 * max(cost(1_000), 1e-4)


def raise_deep(depth: int) -> None:
    if depth:
        raise_deep(depth - 1)
    raise ValueError("deep")


def raise_with_cause() -> None:
    try:
        raise_deep(2)
    except ValueError as error:
        raise KeyError("late") from error


def raise_in_handler() -> None:
    try:
        raise_deep(2)
    except ValueError:
        raise KeyError("late")  # noqa: B904 - the context is what is tested


def raise_group() -> None:
    try:
        raise_with_cause()
    except KeyError as error:
        raise ExceptionGroup("several", [error, ValueError("other")])  # noqa: B904


def raise_in_library() -> None:
    import json

    json.loads("{")


def raise_in_comprehension() -> None:
    [raise_deep(0) for _ in range(1)]


def trace(raises: Callable[[], object]) -> str:
    try:
        raises()
    except Exception:
        return traceback.format_exc()
    raise AssertionError


HERE = "test_fingerprint.py"


@pytest.mark.parametrize(
    ("raises", "frames"),
    [
        (partial(raise_deep, 1), ["raise_deep", "trace"]),
        (partial(raise_deep, 500), ["raise_deep", "trace"]),
        (raise_with_cause, ["raise_with_cause", "trace"]),
        (raise_in_handler, ["raise_in_handler", "trace"]),
        (raise_group, ["raise_group", "trace"]),
        (raise_in_library, ["raise_in_library", "trace"]),
        (raise_in_comprehension, ["raise_deep", "raise_in_comprehension", "trace"]),
        (lambda: compile("1 +", "x.py", "exec"), ["<lambda>", "trace"]),
    ],
)
def test_the_innermost_frames_of_the_targets_own_code_are_found(
    raises: Callable[[], object], frames: list[str]
) -> None:
    assert own_frames(trace(raises)) == tuple(f"{HERE}:{name}" for name in frames)


OLD = """Traceback (most recent call last):
  File "/a/b.py", line 1, in f
    g()
  File "/a/c.py", line 2, in g
    1 / 0
ZeroDivisionError: division by zero
"""
NEW = OLD.replace("    g()\n", "    g()\n    ~^^\n").replace("    1 / 0\n", "    1 / 0\n    ~~^~~\n")
LIBRARIES = '  File "/v/site-packages/httpx/_api.py", line 1, in get\n  File "<frozen os>", line 1, in x\n'


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        (OLD, ("c.py:g", "b.py:f")),  # Python 3.8
        (NEW, ("c.py:g", "b.py:f")),  # Python 3.13
        ('  File "/x/pkg/__init__.py", line 1, in f\n', ("pkg/__init__.py:f",)),
        ('  File "C:\\app\\job.py", line 1, in f\n', ("job.py:f",)),
        # only foreign code: its frames are better than none
        ('  File "/usr/lib/python3.12/json/decoder.py", line 1, in decode\n', ("decoder.py:decode",)),
        (LIBRARIES, ("<frozen os>:x", "_api.py:get")),
        ("Error: no\n    at fn (/srv/file.js:10:5)\n", ()),
        ("goroutine 1 [running]:\nmain.main()\n\t/app/main.go:4 +0x18\n", ()),
        ("", ()),
        ('\0\ud800 File "', ()),
    ],
)
def test_tracebacks_of_other_versions_and_languages_are_read(text: str, frames: tuple[str, ...]) -> None:
    assert own_frames(text) == frames


def test_a_traceback_of_thousands_of_frames_costs_as_much_as_its_end() -> None:
    lines = "".join(f'  File "/a/m{at % 7}.py", line {at}, in f{at % 5}\n    call()\n' for at in range(200_000))
    began = time.process_time()
    whole = own_frames(lines)
    cost = time.process_time() - began
    began = time.process_time()
    assert own_frames(lines[-64 * 1024 :]) == whole
    assert len(whole) == FRAMES
    assert cost < 20 * max(time.process_time() - began, 1e-3)


def test_numbers_and_ids_have_one_fingerprint() -> None:
    """Of random hexadecimal ids one in forty has digits alone."""
    messages = ["order 12345678 failed", "order 1234567a failed", "order deadbeef failed", "order 7 failed"]
    assert len({fingerprint("E", message).digest for message in messages}) == 1
    assert normalised(messages[0]) != normalised(messages[1])


def test_type_message_and_frames_make_the_difference_and_lines_do_not() -> None:
    here, there = '  File "a.py", line 1, in f\n', '  File "a.py", line 1, in g\n'
    found = {fingerprint(*case).digest for case in product(["A", "B"], ["x", "y"], [None, here, there])}
    assert len(found) == 12
    assert fingerprint("A", "x", here) == fingerprint("A", "x", here.replace("line 1", "line 99"))


PLACE = '  File "/a/job.py", line {line}, in run\n    {source}\nE: '


@pytest.mark.parametrize(
    ("message", "other"),
    [("'a'", "'b'"), ("'X' object has no attribute 'a'", "'X' object has no attribute 'b'"), ("17", "18"), ("", "")],
)
def test_errors_that_differ_in_quoted_names_or_say_nothing_are_told_apart_by_their_source(
    message: str, other: str
) -> None:
    here = fingerprint("E", message, PLACE.format(line=3, source="x = data['a']"))
    there = fingerprint("E", other, PLACE.format(line=4, source="y = data['b']"))
    assert here.digest != there.digest
    # the same line of code with other data, and moved by an edit above it
    assert here.digest == fingerprint("E", other, PLACE.format(line=9, source="x = data['a']")).digest


def test_errors_that_say_what_they_are_do_not_depend_on_their_source() -> None:
    places = [PLACE.format(line=line, source=f"call({line})") for line in range(3)]
    assert len({fingerprint("E", "the connection is lost", place).digest for place in places}) == 1


def test_a_traceback_without_source_lines_has_no_source() -> None:
    bare = '  File "a.py", line 1, in f\n  File "b.py", line 1, in g\nKeyError: '
    assert fingerprint("E", "'a'", bare).digest == fingerprint("E", "'b'", bare).digest
    assert own_frames(bare) == ("b.py:g", "a.py:f")


def test_secrets_make_no_further_groups() -> None:
    messages = ["no mailbox of ann@example.org, password=hunter2", "no mailbox of b.b@example.com, password=geheim"]
    assert len({fingerprint("E", message) for message in messages}) == 1


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    program = "from pool_monitor.metrics.fingerprint import fingerprint as f; print(f('E', 'a \\ud800 7', None).digest)"
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, stdout=-1, check=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {fingerprint("E", "a \ud800 8").digest + "\n"}
    assert fingerprint("ValueError", "x").digest == "8fd8b352f687f662"


def test_the_cache_answers_as_the_function_does_and_is_bounded() -> None:
    cache = FingerprintCache()
    for number in range(3000):
        message = f"case {number}" if number % 2 else "same"
        text = f'Traceback (most recent call last):\n  File "m{number % 90}.py", line 1, in f\nE: {message}\n'
        assert cache.of("E", message, text) == fingerprint("E", message, text)
    assert (len(cache._places), len(cache._fingerprints)) == (32, 32)
    cache = FingerprintCache()
    for number in range(100):
        cache.of("E" * 200, f"{number}" + "é" * 196, f'  File "m{number}.py", line 1, in {"f" * 100}\n' * 3)
    held = [*cache._fingerprints, *cache._fingerprints.values(), *cache._places.values()]
    texts = {id(text): text for item in held for part in item for text in ([part] if isinstance(part, str) else part)}
    assert sum(map(sys.getsizeof, texts.values())) < CACHE_BYTES
