"""Processes that others have reaped: what is known of their end, and who is not signalled for them."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from pool_monitor.pool.transport import spawn
from tests.helpers.support import alive, eventually

pytestmark = pytest.mark.usefixtures("no_leaks")


def reaped_by_others() -> spawn.SpawnedProcess:
    process = spawn.spawn(["sleep", "60"], {}, {})
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    return process


def let_go(process: spawn.SpawnedProcess) -> None:
    process.wait(5.0)
    for fd in (process.stdout, process.stderr):
        os.close(fd)


async def test_a_status_that_was_fetched_by_others_is_unknown() -> None:
    process = reaped_by_others()
    let_go(process)
    assert process.ended
    assert process.returncode is None


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the number is all there is")
async def test_a_group_that_was_given_the_number_of_a_process_is_not_killed_for_it() -> None:
    process = reaped_by_others()
    with subprocess.Popen(["sleep", "60"], process_group=0) as stranger:
        try:
            process.pid = stranger.pid  # as if the system had given it that number
            process.signal(signal.SIGKILL, group=True)
            let_go(process)
            assert alive(stranger.pid)
        finally:
            stranger.kill()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the number is all there is")
async def test_what_a_process_left_in_its_group_is_killed_though_others_have_reaped_it() -> None:
    process = spawn.spawn(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; exec sleep 60"], {}, {})
    left = int(os.read(process.stdout, 100))
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    assert alive(left)
    let_go(process)
    await eventually(lambda: not alive(left))
