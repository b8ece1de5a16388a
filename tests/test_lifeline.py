"""What workers cost the service in descriptors, and that they end with it all the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pool_monitor.pool.transport import lifeline
from tests.helpers.support import OPS, eventually, ops_pool

CHILD = Path(lifeline.__file__).with_name("child") / "__main__.py"
PER_WORKER = 5 if sys.version_info >= (3, 13) else 6  # before, mapped memory holds one

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker has a life-line of its own"),
]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("start_method", ["exec", "zygote"])
async def test_a_worker_takes_few_descriptors_of_the_service_and_leaves_none(start_method: str) -> None:
    async with ops_pool(max_size=4, start_method=start_method) as pool:
        alone = descriptors()
        await pool.resize(4)
        await eventually(lambda: pool.status().idle == 4)
        assert descriptors() - alone == 3 * PER_WORKER
        await pool.resize(1)
        await eventually(lambda: descriptors() == alone)


@pytest.mark.slow
def test_150_workers_fit_into_1024_descriptors() -> None:
    program = (
        "import asyncio, resource\n"
        "from pool_monitor import Pool\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))\n"
        "async def main():\n"
        f"    async with Pool({OPS!r}, size=150) as pool:\n"
        "        while pool.status().idle < 150:\n"
        "            await asyncio.sleep(0.01)\n"
        "        results = await asyncio.gather(*(pool.run('echo', n) for n in range(1000)))\n"
        "        print(results == list(range(1000)), pool.status().restarts)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=55, check=False)
    assert done.stdout.split() == ["True", "0"], done.stderr


@pytest.mark.parametrize("what", ["nothing", "something else"])
async def test_where_a_pipe_cannot_be_opened_again_each_worker_has_a_life_line_of_its_own(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what != "nothing":
        for fd in range(256):
            (tmp_path / str(fd)).touch()
    monkeypatch.setattr(lifeline, "_OWN", str(tmp_path))
    async with ops_pool(max_size=2) as pool:
        alone = descriptors()
        await pool.resize(2)
        await eventually(lambda: pool.status().idle == 2)
        assert descriptors() - alone == PER_WORKER + 1


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_worker_whose_service_ended_before_it_could_watch_ends_at_once(kind: str) -> None:
    if kind == "pipe":
        end, kept = os.pipe()
    else:
        end, kept = (sock.detach() for sock in socket.socketpair())
    os.close(kept)
    reads, writes = os.pipe()  # on which nothing comes
    try:
        fds = {"POOL_MONITOR_FD": reads, "POOL_MONITOR_OUT": writes, "POOL_MONITOR_LIFELINE": end}
        env = {**os.environ, **{name: str(fd) for name, fd in fds.items()}}
        command = [sys.executable, str(CHILD)]
        done = subprocess.run(command, env=env, pass_fds=list(fds.values()), process_group=0, timeout=30, check=False)
    finally:
        for fd in (reads, writes, end):
            os.close(fd)
    assert done.returncode == 1
