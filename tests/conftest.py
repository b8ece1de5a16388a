"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import settings

from pool_monitor import telemetry
from tests.helpers import support
from tests.helpers.programs import command, log, pool_monitor, program, runtime_dir, terminal, until  # noqa: F401 - fixtures
from tests.helpers.support import Leftovers, eventually
from tests.helpers.timelimit import (  # noqa: F401 - hooks
    pytest_collection,
    pytest_configure,
    pytest_enter_pdb,
    pytest_runtest_protocol,
    pytest_sessionfinish,
    pytest_timeout_set_timer,
    pytest_unconfigure,
)

# How long an example takes says more about the machine than about the code.
settings.register_profile("pool_monitor", deadline=None)
settings.load_profile("pool_monitor")

# A shell that starts this in the background, or under nohup, has it ignore these, and so would all programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn inside the test is drawn for a UTF-8 locale, whatever the locale of the run."""
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.fixture
def nobody_stays_attached() -> Iterator[None]:
    """Detaches what a test has left attached to telemetry events."""
    before = {handler.id for handler in telemetry.list_handlers()}
    yield
    for handler in telemetry.list_handlers():
        if handler.id not in before:
            telemetry.detach(handler.id)


@pytest.fixture
async def no_leaks(anyio_backend: str) -> AsyncIterator[None]:
    """Fails a test that leaves a child process, a task, a descriptor or a telemetry handler behind."""
    leftovers = Leftovers()
    yield
    try:
        await eventually(lambda: not leftovers.found(), timeout=5.0)
    except AssertionError:
        pytest.fail(f"left behind: {leftovers.found()}")


def pytest_collection_finish() -> None:
    """Spare the garbage collector the ten thousand collected tests: it takes a tenth of the time of the suite."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that uses `both_pools` is run with each kind of pool, unless it is marked as one that needs processes."""
    if "both_pools" in metafunc.fixturenames:
        needed = metafunc.definition.get_closest_marker("processes")
        metafunc.parametrize("both_pools", ["processes"] if needed else list(support.POOLS), indirect=True)


@pytest.fixture
def both_pools(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of what `ops_pool` makes pools in this test: ``processes`` or ``inline``."""
    kind: str = request.param
    monkeypatch.setattr(support, "made_of", kind)
    if kind == "inline":
        for name in ("kill", "killpg", "_exit", "closerange"):
            monkeypatch.setattr(os, name, _needs_processes)
        # The worker of a call that cannot be interrupted is left behind: none may sleep on beside the next tests.
        monkeypatch.setattr(time, "sleep", support.sleep_in_slices)
    yield kind
    until(lambda: not any(thread.name == "inline worker" for thread in threading.enumerate()))


def _needs_processes(*_args: Any) -> NoReturn:
    raise RuntimeError("this would end the tests: mark the test with @pytest.mark.processes(why)")
