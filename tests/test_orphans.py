"""However the service ends, no worker and nothing a worker started is left: real processes, ended for real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.gates import in_gates
from tests.helpers.support import OPS, TARGETS, alive, eventually

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker in C code cannot be reached"),
]


async def parent(how: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A service with workers idle, in Python, asleep, in C code, stubborn, and a process one of them started."""
    process = subprocess.Popen(
        [sys.executable, str(TARGETS / "parent.py"), OPS, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, json.loads(await asyncio.to_thread(process.stdout.readline))


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("wait", signal.SIGKILL),
        in_gates("wait", signal.SIGTERM),
        in_gates("wait", signal.SIGINT),
        ("return", None),
        in_gates("leave", None),
        ("forget the loop", None),
        in_gates("fork", signal.SIGKILL),
        ("multiprocessing", signal.SIGKILL),
        ("program", signal.SIGKILL),
        in_gates("without /proc", signal.SIGKILL),
    ],
)
async def test_nothing_is_left_of_a_service_that_ended_without_closing_its_pool(
    how: str, number: signal.Signals | None
) -> None:
    process, said = await parent(how)
    try:
        pids = [*said["workers"], said["company"]]
        assert len(pids) == 7
        if number is not None:
            assert all(map(alive, pids))
            process.send_signal(number)
        assert process.stdin is not None
        process.stdin.close()  # what "forget the loop" waits for
        await eventually(lambda: process.poll() is not None)
        await eventually(lambda: not any(map(alive, pids)), timeout=1.0)
        assert said["fork"] is None or alive(said["fork"])
    finally:
        process.kill()
        if said["fork"] is not None:
            os.kill(said["fork"], signal.SIGKILL)
        process.stdin = None
        process.communicate()


WORST = [("stuck_in_c",), ("hash_in_c",), ("stop",), ("stubborn",), ("deaf", "spin")]
"""What its operations are at, each beside a process of its own, when a service is killed."""


@pytest.mark.parametrize("start_method", ["exec", "zygote"])
async def test_what_operations_had_started_goes_with_a_service_that_was_killed_whatever_they_were_at(
    start_method: str, tmp_path: Path
) -> None:
    paths = [tmp_path / kind[0] for kind in WORST]
    calls = [["act", 0, "company", str(path), *kind] for path, kind in zip(paths, WORST, strict=True)]
    fields = json.dumps({"start_method": start_method})
    arguments = [f"{TARGETS / 'faults.py'}:Faults", fields, *map(json.dumps, calls)]
    process = subprocess.Popen([sys.executable, str(TARGETS / "service.py"), *arguments], stdout=subprocess.DEVNULL)
    try:
        await eventually(lambda: all(path.exists() for path in paths))
        pids = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        assert len(pids) >= 2 * len(WORST)
        assert {int(path.read_text()) for path in paths} <= pids
        process.kill()
        await eventually(lambda: not any(map(alive, pids)), timeout=2.0)
    finally:
        process.kill()
        process.wait()
