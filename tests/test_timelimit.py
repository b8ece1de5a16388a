"""A test that hangs is ended and named, wherever it hangs, and the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT
from tests.helpers.support import alive

HANGING = """
import asyncio, ctypes, subprocess, sys, threading
import pytest

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def fixture(anyio_backend):
    yield

@pytest.fixture
async def teardown(anyio_backend):
    yield
    await asyncio.Event().wait()

@pytest.fixture(scope="session")
def session():
    threading.Event().wait()

def test_before(): pass

async def test_coroutine(fixture):
    started = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    print("PROCESS", started.pid)
    await hanging()

async def hanging():
    await asyncio.Event().wait()

def test_interpreter_lock(): ctypes.PyDLL(None).sleep(600)

async def test_teardown(teardown): pass

def test_session_fixture(session): pass

def test_after(): pass
"""
SETTINGS = "[pytest]\nanyio_mode = auto\ntimeout = 2\n"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "test_it.py").write_text(HANGING)
    return tmp_path


def run(suite: Path, *arguments: str) -> tuple[int, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.helpers.timelimit",
        "-c",
        str(suite / "pytest.ini"),
        str(suite),
    ]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=50, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_coroutine_that_hangs_with_async_fixtures_is_ended_and_named_without_xdist(suite: Path):
    code, text = run(suite, "-p", "no:xdist", "-s", "-k", "coroutine", "--timeout", "1")
    assert code != 0
    assert "test_it.py::test_coroutine' hangs and is ended" in text
    assert "in hanging" in text, "what it waits for"
    (line,) = (line for line in text.splitlines() if "PROCESS" in line)
    assert not alive(int(line.split()[-1])), "what it has started is left"


@pytest.mark.slow
@pytest.mark.gate
def test_with_xdist_all_that_hang_are_named_and_the_others_go_on(suite: Path):
    code, text = run(suite, "-n", "2", "-v")
    assert code != 0
    for name in ("test_coroutine", "test_interpreter_lock", "test_teardown", "test_session_fixture"):
        assert any(line.startswith(("FAILED", "ERROR")) and name in line for line in text.splitlines()), (name, text)
    for name in ("test_before", "test_after"):
        assert any("PASSED" in line and name in line for line in text.splitlines()), (name, text)
