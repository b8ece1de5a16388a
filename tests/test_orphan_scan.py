"""Processes that an earlier service has left behind: real services, ended for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import run_token
from pool_monitor.resources import orphans, proc
from pool_monitor.resources.orphans import Orphan, OrphanWatch, command_of, end, exists, scan, still_there
from pool_monitor.resources.proc import Identity
from tests.helpers.support import TARGETS, alive, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")

STRAINS = f"{TARGETS / 'strains.py'}:Strains"


@pytest.fixture(params=["zygote", "exec"])
async def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A service that runs, and the process that an operation of it has started to outlive it."""
    path = tmp_path / "pid"
    call = json.dumps(["leave_behind", str(path)])
    fields = json.dumps({"start_method": request.param, "name": "left"})
    code = (
        "import asyncio, json, sys\nfrom pool_monitor import Pool\n"
        "async def main():\n"
        "    async with Pool(sys.argv[1], size=1, **json.loads(sys.argv[2])) as pool:\n"
        "        await pool.run(*json.loads(sys.argv[3]))\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    service = subprocess.Popen([sys.executable, "-c", code, STRAINS, fields, call])
    pid = 0
    try:
        await eventually(lambda: path.exists() and path.read_text())
        pid = int(path.read_text())
        yield service, pid
    finally:
        service.kill()
        service.wait()
        if pid and alive(pid):
            os.kill(pid, signal.SIGKILL)


def marked_sleep(env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process, and return when its environment can be read: `Popen` returns a moment earlier."""
    process = subprocess.Popen(["sleep", "600"], env=env)
    while not proc.read(f"/proc/{process.pid}/environ", 100):
        pass
    return process


def found(pid: int) -> Orphan | None:
    return next((orphan for orphan in scan(10_000) if orphan.identity.pid == pid), None)


async def test_what_a_killed_service_has_left_behind_is_found_and_ended(
    left: tuple[subprocess.Popen[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, pid = left
    assert found(pid) is None, "its service runs"
    workers = [each for each in proc.table().items() if each[1].parent == service.pid]
    assert workers
    service.kill()
    await eventually(lambda: exists(Identity(service.pid, proc.stat_of(service.pid).start)) is False)
    orphan = found(pid)  # the service itself is not reaped yet
    assert orphan is not None
    service.wait()
    assert found(pid) == orphan
    assert orphan.run.pid == service.pid
    assert "time.sleep(600)" in orphan.command
    assert 0 <= orphan.age_s < 60

    monkeypatch.setattr(orphans, "scan", lambda: [orphan])  # never those of others
    watch = OrphanWatch(ending=False, confirm_s=5.0)
    assert watch.look(0) == {}
    assert watch.look(4 * 10**9) == {}
    assert watch.look(5 * 10**9) == {orphan.identity: orphan}
    assert alive(pid)
    assert watch.ended == 0

    watch = OrphanWatch(ending=True, confirm_s=0.0)
    assert watch.look(0) == {orphan.identity: orphan}
    assert watch.ended == 1
    await eventually(lambda: not alive(pid))
    assert watch.look(1) == {}
    assert not end(orphan, signal.SIGKILL)


async def test_an_orphan_that_ignores_sigterm_is_killed(
    left: tuple[subprocess.Popen[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, pid = left
    service.kill()
    service.wait()
    orphan = found(pid)
    assert orphan is not None
    os.kill(pid, signal.SIGSTOP)  # a stopped process does not act on SIGTERM either
    # A process that has not come to stop yet would take the SIGTERM first, which has the lower number.
    await eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    monkeypatch.setattr(orphans, "scan", lambda: [orphan])
    watch = OrphanWatch(ending=True, confirm_s=0.0, grace_s=5.0)
    for seconds in (0, 3):
        watch.look(seconds * 10**9)
        assert alive(pid)
    watch.look(6 * 10**9)
    await eventually(lambda: not alive(pid))


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[bytes], Orphan]]:
    """A process with the token of a service that has never existed."""
    own = run_token.own_run()
    assert own is not None
    run = own._replace(pid=2**22 - 1, start=1, secret="gone")
    env = {**os.environ, run_token.VARIABLE: run.token}
    process = marked_sleep(env)
    yield process, Orphan(Identity(process.pid, proc.stat_of(process.pid).start), run, "sleep 600")
    process.kill()
    process.wait()


def test_a_signal_is_sent_only_to_the_very_process(sleeper: tuple[subprocess.Popen[bytes], Orphan]) -> None:
    process, orphan = sleeper
    own = run_token.own_run()
    assert own is not None
    assert still_there(orphan)
    for other in (
        orphan._replace(identity=Identity(process.pid, orphan.identity.start + 1)),
        orphan._replace(run=orphan.run._replace(secret="another")),
        orphan._replace(run=own),
        orphan._replace(identity=Identity(os.getpid(), 1)),
        orphan._replace(identity=Identity(os.getppid(), 1)),
    ):
        assert not end(other, signal.SIGKILL)
    assert process.poll() is None
    assert end(orphan, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    assert not still_there(orphan)


def test_processes_of_other_namespaces_and_of_living_services_are_no_orphans() -> None:
    own = run_token.own_run()
    assert own is not None
    tokens = [
        own._replace(pid=2**22 - 1, namespaces="1-1").token,
        own._replace(pid=os.getppid(), start=proc.stat_of(os.getppid()).start, secret="lives").token,
        own.token,
        "nonsense",
        "",
        "1.2.3",
        "x" * 5000,
    ]
    processes = [marked_sleep({**os.environ, run_token.VARIABLE: token}) for token in tokens]
    try:
        pids = {process.pid for process in processes}
        assert pids & {orphan.identity.pid for orphan in scan(10_000)} == set()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_the_service_of_others_is_no_orphan_though_a_lost_worker_has_started_it(
    sleeper: tuple[subprocess.Popen[bytes], Orphan],
) -> None:
    process, orphan = sleeper
    assert found(process.pid) == orphan
    run = orphan.run._replace(pid=process.pid, start=orphan.identity.start, secret="its own")
    child = marked_sleep({**os.environ, run_token.VARIABLE: run.token})
    try:
        assert found(process.pid) is None
        assert found(child.pid) is None
    finally:
        child.kill()
        child.wait()


def test_what_a_service_runs_in_is_no_orphan(sleeper: tuple[subprocess.Popen[bytes], Orphan]) -> None:
    code = (
        "import os; from pool_monitor.resources.orphans import scan; "
        "print(os.getppid(), [each.identity.pid for each in scan(10**4)])"
    )
    env = {**os.environ, run_token.VARIABLE: sleeper[1].run.token}
    shell = subprocess.run(
        ["sh", "-c", '"$0" -c "$1"; true', sys.executable, code], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    pid, _, found_there = shell.stdout.partition(" ")
    assert str(sleeper[0].pid) in found_there
    assert int(pid) not in json.loads(found_there)


def test_a_scan_is_rare_and_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = []
    many = [Orphan(Identity(pid, 1), run_token.ServiceRun(1, 1, "1-1", "x"), "c") for pid in range(500)]
    monkeypatch.setattr(orphans, "scan", lambda: scans.append(1) or many)
    monkeypatch.setattr(orphans, "still_there", lambda _orphan: True)
    watch = OrphanWatch(ending=False)
    for seconds in range(120):
        assert len(watch.look(seconds * 10**9)) <= 100
    assert len(scans) == 2


def test_a_process_that_cannot_be_seen_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_allowed(*_args: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(proc, "stat_of", not_allowed)
    assert exists(Identity(os.getpid(), 1))
    monkeypatch.undo()
    assert exists(Identity(os.getpid(), proc.stat_of(os.getpid()).start))
    assert not exists(Identity(os.getpid(), 1))
    monkeypatch.setattr(os, "kill", not_allowed)
    assert exists(Identity(2**22 - 1, 1))


def test_a_command_line_is_shown_as_one_printable_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", "--password", "abc", "\x1b[31m\n" + "é" * 300]
    )
    try:
        while (
            b"--password" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        ):  # `Popen` returns a moment earlier
            pass
        command = command_of(process.pid)
        assert command.isprintable()
        assert "--password <secret> " in command
        assert len(command) <= 200
    finally:
        process.kill()
        process.wait()
    assert command_of(process.pid) == "?"


@given(st.text("0123456789.-ab", max_size=200))
def test_any_text_is_a_token_or_not(text: str) -> None:
    run = run_token.parse(text)
    if run is not None:
        assert run_token.parse(run.token) == run


def test_a_forked_process_has_a_token_of_its_own() -> None:
    own = run_token.own_run()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, str(run_token.own_run().token).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    token = run_token.parse(os.read(read, 200).decode())
    os.close(read)
    os.close(write)
    assert token is not None
    assert own is not None
    assert (token.pid, token.namespaces) == (pid, own.namespaces)
    assert token.secret != own.secret
