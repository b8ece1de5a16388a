"""``pool-monitor run`` as a batch: retries, slow lines, unordered output, retried lines, and outputs of other jobs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_monitor.cli.batch import ReadAhead
from tests.helpers.programs import JOBS, ROOT, TEXT_TOOLS, Done, Program, answers, lines, results, until, well, written

Command = Callable[..., Done]
Start = Callable[..., Program]


@pytest.mark.parametrize(
    ("settings", "flags", "tries"),
    [
        ('retry_errors = ["ValueError"]', (), 3),
        ('retry_errors = ["ValueError"]\nretries = 2', (), 3),
        ('retry_errors = ["ValueError"]\nretries = 2', ("--retries", 0), 1),
        ('retry_errors = ["ValueError"]\nretries = 1', ("--retries", 2), 3),
        ('retry_errors = ["ValueError"]\nretries = 1\nretry_budget = 0.0', (), 1),
        ("retries = 3", (), 1),
    ],
)
def test_retries_come_from_the_configuration_unless_a_flag_sets_them(
    settings: str, flags: tuple[object, ...], tries: int, command: Command, log: Path, tmp_path: Path
):
    config = tmp_path / "c.toml"
    config.write_text(f"[pool]\n{settings}\n")
    source = written(tmp_path / "in", {"args": [7, 9]})
    done = command("run", JOBS, "at_first", "--input", source, "--config", config, "--size", 1, *flags)
    assert done.code == 1
    assert log.read_text().split() == ["7"] * tries


def test_a_worker_runs_as_many_lines_at_once_as_its_concurrency(command: Command, tmp_path: Path):
    target, config, sink = tmp_path / "t.py", tmp_path / "c.toml", tmp_path / "out"
    target.write_text("""
import asyncio
class Meeting:
    there = 0
    async def enter(self, n):
        self.there += 1
        while self.there < 3:
            await asyncio.sleep(0.001)
        return n
""")
    config.write_text("[pool]\nconcurrency = 3\n")
    source = written(tmp_path / "in", 1, 2, 3)
    done = command("run", f"{target}:Meeting", "enter", "--input", source, "--output", sink, "--config", config,
                   "--size", 1, "--timeout", 10)  # fmt: skip
    assert well(done)
    assert results(sink) == [1, 2, 3]


def test_a_slow_line_does_not_hold_up_those_behind_it(pool_monitor: Start, log: Path, tmp_path: Path):
    go, sink = tmp_path / "go", tmp_path / "out"
    source = written(tmp_path / "in", {"args": [str(go), 0]}, *({"args": [str(ROOT), n]} for n in range(1, 500)))
    run = pool_monitor("run", JOBS, "wait_for", "--input", source, "--output", sink, "--size", 2)
    until(lambda: lines(log) == 500)
    assert lines(sink) == 0
    go.touch()
    assert well(run.ended())
    assert results(sink) == list(range(500))


def test_unordered_answers_are_written_as_they_are_ready_and_continued_exactly(
    pool_monitor: Start, command: Command, log: Path, tmp_path: Path
):
    go, sink = tmp_path / "go", tmp_path / "out"
    source = written(tmp_path / "in", {"args": [str(go), 0]}, *({"args": [str(ROOT), n]} for n in range(1, 100)))
    arguments = ("run", JOBS, "wait_for", "--input", source, "--output", sink, "--size", 2, "--unordered")
    run = pool_monitor(*arguments)
    until(lambda: lines(sink) == 99)
    run.send(signal.SIGKILL)
    run.ended()
    go.touch()
    done = command(*arguments)
    assert (done.code, "1 line: 1 ok, 0 failed, 99 before" in done.err) == (0, True)
    assert [answer["place"] for answer in answers(sink)][-1] == 1
    assert sorted(results(sink)) == list(range(100))
    assert sorted(map(int, log.read_text().split())) == [0, *range(100)]


def test_an_interrupted_unordered_run_begins_no_further_line(pool_monitor: Start, log: Path, tmp_path: Path):
    go, sink = tmp_path / "go", tmp_path / "out"
    source = written(tmp_path / "in", *({"args": [str(go), n]} for n in range(1, 10)))
    run = pool_monitor("run", JOBS, "wait_for", "--input", source, "--output", sink, "--size", 2, "--unordered")
    until(lambda: lines(log) == 2)
    run.send(signal.SIGINT)
    assert b"finishing" in run.process.stderr.readline()
    go.touch()
    assert run.ended().code == 130
    assert sorted(results(sink)) == [1, 2]


def test_failed_lines_are_tried_again_on_demand(command: Command, log: Path, tmp_path: Path):
    calls = [{"args": [number], "kwargs": {"times": number % 2}} for number in range(1, 7)]
    source, sink = written(tmp_path / "in", *calls), tmp_path / "out"
    arguments = ("run", JOBS, "at_first", "--input", source, "--output", sink, "--size", 2)
    done = command(*arguments)
    assert (done.code, "6 lines: 3 ok, 3 failed in" in done.err, "failed: 3 ValueError" in done.err) == (1, True, True)
    done = command(*arguments)
    assert (done.code, "0 lines: 0 ok, 0 failed, 6 before (of those 3 failed: --retry-failed)" in done.err) == (1, True)
    done = command(*arguments, "--retry-failed")
    assert (done.code, "3 lines: 3 ok, 0 failed, 3 before in" in done.err) == (0, True)
    assert results(sink) == [1, 2, 3, 4, 5, 6]
    assert Counter(log.read_text().split()) == {"1": 2, "2": 1, "3": 2, "4": 1, "5": 2, "6": 1}


def test_an_interrupted_retry_leaves_all_answers_in_order(
    pool_monitor: Start, command: Command, log: Path, tmp_path: Path
):
    fixed, go = tmp_path / "fixed", tmp_path / "go"
    target = tmp_path / "t.py"
    target.write_text(f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "targets")!r})
from jobs import Jobs, Path
class T(Jobs):
    def op(self, n):
        if n < 4 and not Path({str(fixed)!r}).exists():
            raise ValueError(n)
        return self.wait_for({str(go)!r} if n < 4 else "/", n)
""")
    source, sink = written(tmp_path / "in", *range(1, 9)), tmp_path / "out"
    arguments = ("run", f"{target}:T", "op", "--input", source, "--output", sink, "--size", 1)
    assert command(*arguments).code == 1
    fixed.touch()
    run = pool_monitor(*arguments, "--retry-failed")
    until(lambda: log.read_text().split()[-1] == "1")
    run.send(signal.SIGINT)
    assert b"finishing" in run.process.stderr.readline()
    go.touch()
    done = run.ended()
    assert (done.code, "1 line: 1 ok, 0 failed, 7 before (of those 2 failed" in done.err) == (130, True), done.err
    assert [(answer["id"], answer.get("result")) for answer in answers(sink)] == [
        (1, 1), (2, None), (3, None), *((number, number) for number in range(4, 9))
    ]  # fmt: skip


def test_the_output_of_another_operation_or_target_is_refused(command: Command, tmp_path: Path):
    source, sink = written(tmp_path / "in", 1), tmp_path / "out"
    arguments = ("--input", source, "--output", sink, "--size", 1)
    assert well(command("run", JOBS, "note", *arguments))
    before = sink.read_bytes()
    for target, operation in ((JOBS, "big"), (TEXT_TOOLS, "note")):
        done = command("run", target, operation, *arguments)
        assert (done.code, f"{sink}: holds answers of 'note' of {JOBS}, not of" in done.err) == (2, True)
        assert sink.read_bytes() == before
    relative = os.path.relpath(JOBS.removesuffix(":Jobs")) + ":Jobs"
    assert "0 lines: 0 ok, 0 failed, 1 before" in command("run", relative, "note", *arguments).err


def test_lines_of_text_need_a_flag_and_a_file_in_utf16_is_refused_once(command: Command, tmp_path: Path):
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"\xef\xbb\xbfplain words\n")
    assert "--text" in command("run", JOBS, "note", "--input", source).err
    assert well(command("run", JOBS, "note", "--input", source, "--output", sink, "--text"))
    assert results(sink) == ["plain words"]
    source.write_text("1\n2\n", encoding="utf-16")
    done = command("run", JOBS, "note", "--input", source)
    assert (done.code, done.err.count("UTF-16"), done.err.count("\n")) == (2, 2, 1)


# -- bounds -----------------------------------------------------------------------------------------------------------


async def test_lines_between_reading_and_writing_are_bounded_in_number_and_bytes():
    window = ReadAhead(lines=3, size=100)
    await window.enter(500)  # a single line may always enter
    waiting = asyncio.create_task(window.enter(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    window.leave(500)
    await waiting
    window.grow(90)  # its answer has arrived
    for size, fits in ((10, False), (9, True), (0, True), (0, False)):
        entering = asyncio.create_task(window.enter(size))
        await asyncio.sleep(0)
        assert entering.done() == fits
        entering.cancel()
    assert (window.lines, window.bytes) == (3, 100)
