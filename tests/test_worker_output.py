"""The output of workers in the log of the service: every line once, plain, with its worker, and within the limit."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import Pool, telemetry
from pool_monitor.pool import worker_output
from pool_monitor.pool.worker_output import LINES_PER_SECOND, OutputLog
from tests.helpers.support import OPS, eventually, ops_pool, running

pytestmark = pytest.mark.usefixtures("no_leaks")

LOG = "pool_monitor.output"
TARGET = """
import asyncio, sys

def both(): print("out"); print("err", file=sys.stderr); print(); print("  ")
def control(): print("\\x1b[31mred\\x1b[0m\\x07 \\u202e")
def over(*texts):
    for text in texts: sys.stdout.write(text); sys.stdout.flush()
    print()
def late(path):
    import pathlib, time
    print("begun", flush=True)
    while not pathlib.Path(path).exists(): time.sleep(0.005)
async def later(path):
    late(path)
def log(level, telemetry, **fields): telemetry.log(level, "a line", **fields)
"""


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "writes.py").write_text(TARGET)
    return str(tmp_path / "writes.py")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The log records of workers' output."""
    caplog.set_level(logging.DEBUG, LOG)
    return lambda: [record for record in caplog.records if record.name == LOG]


def shown(records: list[logging.LogRecord]) -> list[tuple[str, str]]:
    return sorted((record.levelname, record.getMessage()) for record in records)


async def test_stdout_is_information_and_stderr_a_warning_and_blank_lines_are_left_out(target: str, lines: Any) -> None:
    async with Pool(target, name="w", size=1) as pool:
        await pool.run("both")
        await eventually(lambda: len(lines()) == 2)
    assert shown(lines()) == [("INFO", "w-0: out"), ("WARNING", "w-0: err")]
    assert {(record.pool, record.worker) for record in lines()} == {("w", "w-0")}
    assert {record.stream for record in lines()} == {"stdout", "stderr"}


async def test_no_control_character_of_a_worker_gets_into_the_log(target: str, lines: Any) -> None:
    async with Pool(target, name="w", size=1) as pool:
        with telemetry.capture(("pool", "worker", "output")) as events:
            await pool.run("control")
            await eventually(lambda: lines() and events)
    assert [record.getMessage() for record in lines()] == ["w-0: red\\x07 \\u202e"]
    assert events[0].metadata["text"] == "\x1b[31mred\x1b[0m\x07 \u202e", "the event has what was written"


BARS = [f"{percent:3}%|{'█' * percent}|" for percent in range(101)]  # some 15 KiB
SPINNER = [*r"|/-\\"] * 5000


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["dos line\r"], "dos line"),
        (["\r 0%", "\r50%", "\r100%"], "100%"),
        ([f"\r{bar}" for bar in BARS], BARS[-1]),
        ([f"{bar}\r" for bar in BARS], BARS[-1]),
        ([*[f"\r{bar}" for bar in BARS], f"\r{' ' * 110}\r", "done"], "done"),
        (["".join(f"\r{turn}" for turn in SPINNER)], "\\"),
        (["x" * 20_000 + "\r"], "x" * 8192),
    ],
)
async def test_of_a_line_that_is_written_over_there_is_what_stands_in_the_end(
    texts: list[str], shown: str, target: str, lines: Any
) -> None:
    async with Pool(target, name="w", size=1) as pool:
        with telemetry.capture(("pool", "worker", "output")) as events:
            await pool.run("over", *texts)
            await eventually(lambda: lines() and events)
    assert [event.metadata["text"] for event in events] == [shown]
    assert events[0].measurements["bytes"] == sum(len(text.encode()) for text in texts)
    assert [record.getMessage() for record in lines()] == [f"w-0: {shown}"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
async def test_what_a_target_logs_has_its_own_level_and_fields(level: str, target: str, lines: Any) -> None:
    async with Pool(target, name="w", size=1) as pool:
        await pool.run("log", level, path="a\x1b", tries=3)
    [record] = lines()
    assert (record.levelname, record.getMessage()) == (level.upper(), "w-0: a line path='a\\x1b' tries=3")
    assert (record.stream, record.operation, record.fields) == ("log", "log", {"path": "a\x1b", "tries": 3})


@pytest.mark.parametrize(("concurrency", "operation"), [(1, "late"), (2, None)])
async def test_a_line_names_the_operation_under_way_where_that_is_known(
    concurrency: int, operation: str | None, target: str, lines: Any, tmp_path: Path
) -> None:
    async with Pool(target, name="w", size=1, concurrency=concurrency) as pool:
        task = await running(pool, "late", str(tmp_path / "go"))
        await eventually(lines)
        (tmp_path / "go").touch()
        await task
    [record] = lines()
    assert getattr(record, "operation", None) == operation


async def test_it_can_be_switched_off_and_the_events_stay(target: str, lines: Any) -> None:
    async with Pool(target, name="w", size=1, log_output=False) as pool:
        with telemetry.capture(("pool", "worker")) as events:
            await pool.run("both")
            await pool.run("log", "error")
            await eventually(lambda: sum(event.name[-1] == "output" for event in events) == 4)
    assert [event.metadata["text"] for event in events if event.name[-1] == "log"] == ["a line"]
    assert lines() == []


async def test_what_a_preloaded_module_writes_is_in_the_log_too(lines: Any, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("import sys; print('loading'); print('odd', file=sys.stderr)")
    fields: dict[str, Any] = {"preload": ["loud"], "sys_path": [str(tmp_path)]}
    async with ops_pool(**fields) as pool:
        if pool._launcher is None or pool._launcher.method != "zygote":
            pytest.skip("no zygote on this system")
        await eventually(lambda: len(lines()) == 2)
    assert shown(lines()) == [("INFO", "preload: loading"), ("WARNING", "preload: odd")]
    async with ops_pool(log_output=False, **fields) as pool:
        await pool.run("echo", 1)
    assert len(lines()) == 2


async def test_of_a_flood_so_many_lines_a_second_are_written_and_the_others_are_counted(lines: Any) -> None:
    count = 20 * LINES_PER_SECOND
    async with Pool(OPS, name="w", size=1) as pool:
        with telemetry.capture(("pool", "worker", "output")) as events:
            await pool.run("flood", count)
            await eventually(lambda: len(events) == count)
    texts = [record.getMessage() for record in lines()]
    left_out = [
        int(found[1]) for text in texts if (found := re.match(r"w-0: lines of stdout left out of the log: (\d+)", text))
    ]
    assert len(texts) - len(left_out) + sum(left_out) == count
    assert sum(left_out) > 0


class FakeLoop:
    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, action: Any) -> None:
        self.timers.append((when, action))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due, self.timers = [t for t in self.timers if t[0] <= self.now], [t for t in self.timers if t[0] > self.now]
        for _, action in due:
            action()


def test_the_bound_is_one_of_each_second_and_each_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    loop = FakeLoop()
    monkeypatch.setattr(worker_output, "output", lambda _level, _origin, text, fields: written.append(text))
    monkeypatch.setattr(worker_output.asyncio, "get_running_loop", lambda: loop)
    log = OutputLog("w-0", {"worker": "w-0"})
    for _ in range(LINES_PER_SECOND + 7):
        log.wrote("stdout", "much")
    log.wrote("stderr", "seldom")
    assert written == ["much"] * LINES_PER_SECOND + ["seldom"]
    loop.advance(1.0)
    assert written[-1] == f"lines of stdout left out of the log: 7, since over {LINES_PER_SECOND} came in a second"
    for _ in range(LINES_PER_SECOND + 1):
        log.wrote("stdout", "again")
    assert written.count("again") == LINES_PER_SECOND
    log.report_left_out()
    assert written[-1].startswith("lines of stdout left out of the log: 1,")
    loop.advance(1.0)
    assert written[-2] == "again", "it is said once"
    assert len(loop.timers) == 0
    loop.advance(10.0)
    log.wrote("stdout", "later")
    assert written[-1] == "later"
