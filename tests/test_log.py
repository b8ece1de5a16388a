"""What the package writes to the log of the application: only what somebody hears, and at no cost otherwise."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from pool_monitor import telemetry
from pool_monitor.errors import WorkerDied
from pool_monitor.log import heard, logger
from tests.support import OPS, ops_pool

CRASH = f"""
import asyncio, logging, sys
from pool_monitor import Pool, WorkerDied

async def main():
    async with Pool({OPS!r}, name="ops", size=1) as pool:
        before = "structlog" in sys.modules
        try:
            await pool.run("die", 3)
        except WorkerDied:
            print(before, "structlog" in sys.modules)

if len(sys.argv) > 1:
    logging.basicConfig(level=sys.argv[1], stream=sys.stdout)
asyncio.run(main())
"""


def crashed(*arguments: str) -> str:
    root = Path(__file__).parent.parent
    told = subprocess.run(
        [sys.executable, "-c", CRASH, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    assert not told.stderr
    return told.stdout


def test_where_no_logging_is_configured_a_crash_neither_writes_nor_imports_anything() -> None:
    assert crashed() == "False False\n"


def test_where_logging_is_configured_a_crash_is_written_and_what_that_takes_was_imported_before() -> None:
    told = crashed("WARNING")
    assert told.endswith("True True\n")
    assert "WARNING:pool_monitor.pool:event='worker crashed'" in told
    assert "worker='ops-0'" in told
    assert "exit_code=3" in told


@pytest.mark.parametrize("where", ["", "pool_monitor", "pool_monitor.odd", "pool_monitor.odd.deeper"])
def test_a_handler_anywhere_above_is_somebody_who_hears(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # those of the test runner
    assert not heard("odd")
    logger("odd").warning("into the void")
    handler = logging.Handler()
    logging.getLogger(where).addHandler(handler)
    try:
        assert heard("odd") == (not where.endswith("deeper"))
    finally:
        logging.getLogger(where).removeHandler(handler)


def test_what_does_not_propagate_is_not_heard_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [logging.Handler()])
    assert heard("odd")
    monkeypatch.setattr(logging.getLogger("pool_monitor"), "propagate", False)
    assert not heard("odd")


class Closed(BaseException):
    pass


@pytest.mark.parametrize("error", [OSError, asyncio.CancelledError, GeneratorExit, Closed])
@pytest.mark.parametrize("where", ["handler", "filter", "formatter"])
async def test_a_log_that_raises_costs_its_line_and_no_call(where, error, monkeypatch, capsys):
    def broken(*_args: object) -> None:
        raise error("the log server is away")

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            broken() if where == "handler" else self.format(record)

    handler = Broken()
    if where == "filter":
        handler.addFilter(broken)
    handler.setFormatter(formatter := logging.Formatter())
    if where == "formatter":
        monkeypatch.setattr(formatter, "format", broken)
    log = logging.getLogger("pool_monitor")
    log.addHandler(handler)
    try:
        async with ops_pool() as pool:
            telemetry.attach("bad", ("pool", "worker", "checkout"), broken)
            assert await pool.run("echo", 1) == 1
            with pytest.raises(WorkerDied):
                await pool.run("die", 3)
            assert await pool.run("echo", 2) == 2
            assert pool.status().busy == 0
    finally:
        log.removeHandler(handler)
    said = capsys.readouterr().err
    assert said.count("--- Logging error ---") >= 2
    assert "the log server is away" in said
    assert "worker crashed" in said


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_for_the_whole_program_passes_the_log(error, monkeypatch):
    def leave(_record: logging.LogRecord) -> bool:
        raise error

    handler = logging.Handler()
    handler.addFilter(leave)
    monkeypatch.setattr(logging.getLogger("pool_monitor"), "handlers", [handler])
    with pytest.raises(error):
        logger("odd").warning("goodbye")
