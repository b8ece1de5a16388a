"""Fixtures for all tests."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from tests.programs import command, pool_monitor, program, runtime_dir, terminal  # noqa: F401 - fixtures
from tests.support import Leftovers, eventually

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
async def no_leaks(anyio_backend: str) -> AsyncIterator[None]:
    """Fails a test that leaves a child process, a task, a descriptor or a telemetry handler behind."""
    leftovers = Leftovers()
    yield
    try:
        await eventually(lambda: not leftovers.found(), timeout=5.0)
    except AssertionError:
        pytest.fail(f"left behind: {leftovers.found()}")
