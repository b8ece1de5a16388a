"""How workers are started: forked off a zygote or each on its own, and whatever happens, nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool_monitor import StartError, WorkerDied
from pool_monitor.pool.transport import spawn as spawn_module
from pool_monitor.pool.transport import zygote as zygote_module
from pool_monitor.pool.transport.launcher import LaunchSpec, ProcessLauncher, import_path
from pool_monitor.pool.transport.process import ProcessTransport
from pool_monitor.pool.transport.zygote import Zygote
from tests.helpers.support import OPS, TARGETS, alive, eventually, interpreter, ops_pool, python_program, running
from tests.helpers.transports import Record

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no zygotes"),
]

ABOUT = f"{TARGETS / 'about.py'}:About"


class Worker(Record):
    """One worker, and what it was heard to say."""

    def __init__(self, launcher: ProcessLauncher) -> None:
        super().__init__()
        self.transport = ProcessTransport(launcher._launch, self, launcher)  # type: ignore[arg-type]
        self.pid = 0

    async def start(self) -> Worker:
        self.pid = (await self.transport.start()).pid
        return self

    async def ask(self, operation: str, *args: Any) -> Any:
        answers = len(self.of("replied"))
        self.transport.call(answers + 1, operation, args, {}, stream=False, session=None)
        await eventually(lambda: len(self.of("replied")) > answers or self.of("failed") or self.of("gone"))
        return self.of("replied")[answers][1]

    def begin(self, operation: str, *args: Any) -> None:
        self.transport.call(1, operation, args, {}, stream=False, session=None)

    async def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        await eventually(lambda: self.of("gone"))
        return self.of("gone")[0][0]  # type: ignore[no-any-return]


class Launchers:
    """Makes launchers and workers; ends them all, workers first, as a pool does."""

    def __init__(self) -> None:
        self.made: list[ProcessLauncher] = []
        self.workers: list[Worker] = []
        self.reasons: list[str] = []

    def __call__(self, target: str = ABOUT, **fields: Any) -> ProcessLauncher:
        python = fields.get("python", sys.executable)
        launch = LaunchSpec(
            target=target,
            path=import_path(python, fields.pop("sys_path", [])),
            init=((), {}),
            codecs=["json"],
            frame_limit=1 << 20,
            session_data_limit=1 << 10,
            **{"python": python, "env": {}, "start_method": "zygote", **fields},
        )
        self.made.append(ProcessLauncher(launch, self.reasons.append))
        return self.made[-1]

    def worker(self, launcher: ProcessLauncher) -> Worker:
        self.workers.append(Worker(launcher))
        return self.workers[-1]

    async def start(self, launcher: ProcessLauncher) -> Worker:
        return await self.worker(launcher).start()

    async def close(self) -> None:
        for worker in self.workers:
            worker.transport.kill()
        for worker in self.workers:
            if worker.pid:
                await worker.ended()
        for launcher in self.made:
            await launcher.close()


@pytest.fixture
async def launchers(no_leaks: None) -> AsyncIterator[Launchers]:
    made = Launchers()
    yield made
    await made.close()


def module(folder: Path, name: str, text: str) -> dict[str, Any]:
    """A module to preload, as fields of a `LaunchSpec`."""
    (folder / f"{name}.py").write_text(text)
    return {"preload": (name,), "sys_path": [str(folder)]}


def pid_of_zygote(launcher: ProcessLauncher) -> int:
    pid = launcher.zygote_pid
    assert pid is not None
    return pid


# -- what a worker finds ------------------------------------------------------------------------------------------


async def test_a_forked_worker_finds_itself_just_as_one_that_was_started_alone(launchers: Launchers) -> None:
    forked, alone = [await launchers.start(launchers(start_method=method)) for method in ("zygote", "exec")]
    assert await forked.ask("parent") == launchers.made[0].zygote_pid
    assert await alone.ask("parent") == os.getpid()
    situation = await forked.ask("situation")
    assert situation == await alone.ask("situation")
    assert situation["leads its group"]
    assert situation["stdin"] == ""
    assert situation["told"] == []
    assert situation["inherited by children"] == [0, 1, 2]


async def test_what_each_worker_prints_is_its_own(launchers: Launchers) -> None:
    launcher = launchers()
    workers = [await launchers.start(launcher) for _ in range(2)]
    for number, worker in enumerate(workers):
        await worker.ask("say", f"I am {number}")
    for number, worker in enumerate(workers):
        await eventually(lambda worker=worker: len(worker.of("wrote")) == 2)
        assert {tuple(line[:2]) for line in worker.of("wrote")} == {
            ("stdout", f"I am {number}"),
            ("stderr", f"I am {number} on stderr"),
        }


async def test_workers_draw_different_random_numbers(launchers: Launchers) -> None:
    launcher = launchers(preload=("random", "numpy", "numpy.random"))
    drawn = [await (await launchers.start(launcher)).ask("chance") for _ in range(3)]
    assert launcher.method == "zygote", "the threads of a library for numbers end before every fork"
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) == 3


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
async def test_a_zygote_runs_in_any_python_from_3_8(version: str, launchers: Launchers) -> None:
    python = interpreter(version)
    launcher = launchers(OPS, python=python)
    first, second = [await launchers.start(launcher) for _ in range(2)]
    assert await first.ask("python") == await second.ask("python") == version
    assert launcher.method == "zygote"
    assert await first.ask("later", 1) == 1
    company = await first.ask("company")
    os.kill(first.pid, signal.SIGKILL)
    assert await first.ended() == -signal.SIGKILL
    await eventually(lambda: not alive(company))
    assert await second.ask("echo", "still here") == "still here"


async def test_an_exit_code_comes_back_through_the_zygote(launchers: Launchers) -> None:
    launcher = launchers()
    for code in (0, 3):
        worker = await launchers.start(launcher)
        worker.begin("leave", code)
        assert await worker.ended() == code


# -- preloading ---------------------------------------------------------------------------------------------------


async def test_a_preloaded_module_is_imported_once_for_all_workers(tmp_path: Path, launchers: Launchers) -> None:
    fields = module(tmp_path, "dear", "import os\nopen(__file__ + '.log', 'a').write('%d\\n' % os.getpid())\n")
    launcher = launchers(**fields)
    workers = await asyncio.gather(*(launchers.start(launcher) for _ in range(3)))
    assert [await worker.ask("loaded", "dear") for worker in workers] == [True] * 3
    assert (tmp_path / "dear.py.log").read_text() == f"{launcher.zygote_pid}\n"


async def test_a_module_that_cannot_be_preloaded_is_a_start_error_with_its_traceback(
    tmp_path: Path, launchers: Launchers
) -> None:
    launcher = launchers(**module(tmp_path, "broken", "def fail():\n    raise ValueError('as asked')\nfail()\n"))
    for _ in range(2):
        with pytest.raises(StartError, match="cannot preload 'broken': ValueError: as asked") as failure:
            await launchers.start(launcher)
    assert 'broken.py", line 2, in fail' in (failure.value.traceback or "")
    (tmp_path / "broken.py").write_text("is_whole_again = True\n")
    assert await (await launchers.start(launcher)).ask("loaded", "broken")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import nowhere_to_be_found", "cannot preload 'odd': ModuleNotFoundError: No module named"),
        ("import sys; sys.exit(4)", "cannot preload 'odd': SystemExit: 4"),
        ("import os; os.write(2, b'last words\\n'); os._exit(3)", r"\(exit code 3\); its last .*\nlast words"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"before it was ready \(signal 9 \(SIGKILL\)\)"),
        ("raise ValueError('\U0001f40c' * 100_000)", "cannot preload 'odd': ValueError: \U0001f40c{1024}$"),
    ],
)
async def test_a_zygote_that_does_not_come_up_says_why(
    text: str, complaint: str, tmp_path: Path, launchers: Launchers
) -> None:
    with pytest.raises(StartError, match=complaint):
        await launchers.start(launchers(**module(tmp_path, "odd", text)))


THREAD = (
    "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), name='ticker', daemon=True).start()\n"
)


async def test_a_preloaded_module_that_starts_a_thread_has_workers_started_alone(
    tmp_path: Path, launchers: Launchers, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = launchers(**module(tmp_path, "lively", THREAD))
    workers = await asyncio.gather(*(launchers.start(launcher) for _ in range(3)))
    workers.append(await launchers.start(launcher))
    assert [await worker.ask("parent") for worker in workers] == [os.getpid()] * 4
    assert launchers.reasons == ["lively starts threads (ticker) when it is imported"]
    assert len([record for record in caplog.records if "without a zygote" in record.getMessage()]) == 1
    assert launcher.method == "exec"
    assert launcher.zygote_pid is None


async def test_a_thread_that_is_started_later_is_noticed_too(tmp_path: Path, launchers: Launchers) -> None:
    """A signal has the module start it, when the first worker has been forked already."""
    text = "import signal\ndef start(*_):\n" + "".join(f"    {line}\n" for line in THREAD.splitlines())
    launcher = launchers(**module(tmp_path, "lively", text + "signal.signal(signal.SIGUSR1, start)\n"))
    forked = await launchers.start(launcher)
    zygote = psutil.Process(pid_of_zygote(launcher))
    zygote.send_signal(signal.SIGUSR1)
    await eventually(lambda: zygote.num_threads() == 2)
    alone = await launchers.start(launcher)
    assert [await worker.ask("parent") for worker in (forked, alone)] == [zygote.pid, os.getpid()]
    assert launchers.reasons == ["a preloaded module has started threads (ticker)"]
    os.kill(forked.pid, signal.SIGKILL)
    assert await forked.ended() == -signal.SIGKILL, "the zygote still reaps"


async def test_what_the_service_does_with_ended_children_does_not_reach_the_zygote(launchers: Launchers) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        launcher = launchers()
        worker = await launchers.start(launcher)
    finally:
        signal.signal(signal.SIGCHLD, before)
    worker.begin("leave", 5)
    assert await worker.ended() == 5


# -- other ways to start ------------------------------------------------------------------------------------------


async def test_a_command_is_run_in_place_of_our_program(tmp_path: Path, launchers: Launchers) -> None:
    from pool_monitor.pool.transport import child

    program = str(Path(child.__file__).with_name("__main__.py"))
    launcher = launchers(start_method="auto", python="/no/such", command=(sys.executable, "-X", "dev", program))
    worker = await launchers.start(launcher)
    assert await worker.ask("parent") == os.getpid()
    assert psutil.Process(worker.pid).cmdline()[1:] == ["-X", "dev", program]
    assert launchers.reasons == []


async def test_who_asked_for_a_zygote_and_cannot_have_one_is_told(
    launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refused)
    for method in ("auto", "zygote"):
        worker = await launchers.start(launchers(start_method=method))
        assert await worker.ask("parent") == os.getpid()
        worker.begin("leave", 2)
        assert await worker.ended() == 2
    (reason,) = launchers.reasons
    assert "Linux 5.3" in reason


@pytest.mark.parametrize("method", ["zygote", "exec"])
async def test_an_interpreter_that_cannot_be_run_is_a_start_error(method: str, launchers: Launchers) -> None:
    with pytest.raises(StartError, match=r"cannot run '/no/such/python'.*No such file"):
        await launchers.start(launchers(start_method=method, python="/no/such/python"))
    with pytest.raises(StartError, match=r"ended before it was ready \(exit code 1\)"):
        await launchers.start(launchers(start_method=method, python="/bin/false"))
    with pytest.raises(StartError, match="cannot run"):
        await launchers.start(launchers(start_method=method, env={"A": "\0"}))


@pytest.mark.parametrize("answer", [b"gossip", b'["gossip"]', b'["forked", 17, 1]', b"3"])
async def test_a_program_that_is_no_zygote_is_a_start_error(
    answer: bytes, tmp_path: Path, launchers: Launchers
) -> None:
    program = python_program(
        tmp_path / "fake",
        "import os, socket, time\n"
        f"socket.socket(fileno=int(os.environ['POOL_MONITOR_ZYGOTE'])).send({answer!r})\ntime.sleep(60)\n",
    )
    with pytest.raises(StartError, match="the zygote answered"):
        await launchers.start(launchers(python=program))


class NoMemory:
    """The zygote's socket, from which nothing can be received while memory is short."""

    def __init__(self, control: socket.socket) -> None:
        self.control, self.short, self.tries = control, True, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.control, name)

    def recv(self, size: int) -> bytes:
        if self.short:
            self.tries += 1
            raise MemoryError
        return self.control.recv(size)


async def test_a_service_without_memory_for_an_answer_takes_it_later(
    launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = launchers()
    await launchers.start(launcher)
    zygote = launcher._zygote
    assert zygote is not None
    control = NoMemory(zygote._control)
    monkeypatch.setattr(zygote, "_control", control)
    monkeypatch.setattr(zygote_module, "_AGAIN", 0.2)
    starting = asyncio.ensure_future(launchers.start(launcher))
    await eventually(lambda: control.tries)
    for _ in range(200):
        await asyncio.sleep(0)
    assert control.tries < 5
    control.short = False
    assert await (await starting).ask("parent") == launcher.zygote_pid == zygote.pid
    monkeypatch.undo()


async def test_a_worker_that_there_was_no_memory_to_have_reaped_is_reaped_later(
    launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, say, tries = await launchers.start(launchers()), Zygote._request, 0

    def poor_at_first(zygote: Zygote, *request: Any, **fds: Any) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise MemoryError
        say(zygote, *request, **fds)

    monkeypatch.setattr(Zygote, "_request", poor_at_first)
    monkeypatch.setattr(spawn_module, "_AGAIN", 0.01)
    worker.transport.kill()
    async with asyncio.timeout(zygote_module._ANSWER_TIMEOUT / 2):
        assert await worker.ended() == -signal.SIGKILL
    assert tries == 3


async def test_a_zygote_whose_answer_is_lost_is_replaced(launchers: Launchers, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = launchers()
    first = await launchers.start(launcher)
    pid, answered = pid_of_zygote(launcher), Zygote._answered

    def lost(zygote: Zygote, answer: Any) -> None:
        monkeypatch.setattr(Zygote, "_answered", answered)
        raise MemoryError

    monkeypatch.setattr(Zygote, "_answered", lost)
    async with asyncio.timeout(zygote_module._ANSWER_TIMEOUT / 2):
        worker = await launchers.start(launcher)
    assert await worker.ask("parent") == pid_of_zygote(launcher) != pid
    assert await first.ask("parent") != pid  # it goes on


async def test_a_worker_that_cannot_be_watched_for_want_of_memory_is_started_elsewhere(
    launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = launchers()
    await launchers.start(launcher)
    real = os.pidfd_open

    def without_memory(pid: int) -> int:
        monkeypatch.setattr(os, "pidfd_open", real)
        raise MemoryError

    monkeypatch.setattr(os, "pidfd_open", without_memory)
    async with asyncio.timeout(zygote_module._ANSWER_TIMEOUT / 2):
        worker = await launchers.start(launcher)
    assert await worker.ask("parent") == pid_of_zygote(launcher)


# -- many, and for long -------------------------------------------------------------------------------------------


async def test_twenty_starts_at_once_give_twenty_workers(launchers: Launchers) -> None:
    launcher = launchers()
    workers = await asyncio.gather(*(launchers.start(launcher) for _ in range(20)))
    assert len({worker.pid for worker in workers}) == 20
    assert {await worker.ask("parent") for worker in workers} == {launcher.zygote_pid}


async def test_fifty_rounds_leave_no_zombie_and_no_descriptor(launchers: Launchers) -> None:
    launcher = launchers()
    survivor = await launchers.start(launcher)
    processes = [psutil.Process(), psutil.Process(pid_of_zygote(launcher))]
    before = [process.num_fds() for process in processes]
    for _ in range(50):
        worker = await launchers.start(launcher)
        worker.transport.kill()
        assert await worker.ended() == -signal.SIGKILL
    assert [process.num_fds() for process in processes] == before
    assert [child.pid for child in processes[1].children()] == [survivor.pid]
    assert await survivor.ask("parent") == processes[1].pid


async def test_all_workers_ending_at_once_are_all_reaped(launchers: Launchers) -> None:
    launcher = launchers()
    workers = await asyncio.gather(*(launchers.start(launcher) for _ in range(70)))
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    assert {await worker.ended() for worker in workers} == {-signal.SIGKILL}
    assert psutil.Process(pid_of_zygote(launcher)).children() == []


# -- when the zygote ends -----------------------------------------------------------------------------------------


async def test_workers_outlive_their_zygote_and_the_next_start_makes_another(launchers: Launchers) -> None:
    launcher = launchers()
    worker = await launchers.start(launcher)
    first = pid_of_zygote(launcher)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: launcher.zygote_pid is None)
    assert await worker.ask("loaded", "sys")
    other = await launchers.start(launcher)
    assert pid_of_zygote(launcher) not in (first, worker.pid)
    worker.begin("leave", 3)
    assert await worker.ended() in (None, 3)  # 3 where we are who orphans are handed to
    assert await other.ask("loaded", "sys")


async def test_a_start_that_meets_a_dying_zygote_finds_another(
    launchers: Launchers, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = launchers()
    for _ in range(20):
        await launchers.start(launcher)
        os.kill(pid_of_zygote(launcher), signal.SIGKILL)  # nobody has seen it end when the next one starts
    assert launchers.reasons
    assert all(reason.startswith("the zygote, which forks the workers, ended (") for reason in launchers.reasons)
    assert len([one for one in caplog.records if one.getMessage().startswith("zygote ended")]) == len(launchers.reasons)


async def test_a_zygote_that_does_not_answer_is_replaced(launchers: Launchers, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = launchers()
    worker = await launchers.start(launcher)
    stuck = pid_of_zygote(launcher)
    monkeypatch.setattr(zygote_module, "_ANSWER_TIMEOUT", 0.2)
    os.kill(stuck, signal.SIGSTOP)
    await launchers.start(launcher)
    assert pid_of_zygote(launcher) != stuck
    os.kill(pid_of_zygote(launcher), signal.SIGSTOP)
    launchers.workers[-1].transport.kill()
    assert await launchers.workers[-1].ended() in (None, -signal.SIGKILL), "it is not waited for to be reaped"
    assert await worker.ask("loaded", "sys")


async def test_a_stopped_zygote_is_given_up_though_more_is_asked_of_it_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zygote_module, "_ANSWER_TIMEOUT", 0.3)
    async with ops_pool(max_size=200) as pool:
        pid = await pool.run("pid")
        call = await running(pool, "sleep", 60)
        assert pool._launcher is not None
        stopped = pool._launcher.zygote_pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        size = 1
        async with asyncio.timeout(5.0):
            while not call.done():
                size += 1
                await pool.resize(min(size, 12))  # asks for another fork
                await asyncio.wait([call], timeout=0.1)
        with pytest.raises(WorkerDied):
            call.result()


# -- when the service ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_with_the_service_end_its_zygote_and_all_workers_whatever_they_do(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, str(TARGETS / "parent.py"), OPS, "wait"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        said = json.loads(await asyncio.to_thread(process.stdout.readline))
        (zygote,) = psutil.Process(process.pid).children()
        pids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert {zygote.pid, *said["workers"], said["company"]} <= set(pids)
        process.send_signal(number)
        await eventually(lambda: not any(map(alive, pids)), timeout=1.0)
    finally:
        process.kill()
        process.communicate()


async def test_abandoned_it_is_gone_before_the_call_returns(launchers: Launchers) -> None:
    launcher = launchers()
    worker = await launchers.start(launcher)
    worker.begin("nap", 600)
    pids = [worker.pid, pid_of_zygote(launcher)]
    worker.transport.abandon()
    assert worker.of("gone") == [[-signal.SIGKILL, ""]]
    launcher.abandon()
    assert not any(map(psutil.pid_exists, pids))
    launcher.abandon()


async def test_abandoned_while_it_starts_it_is_gone_too(tmp_path: Path, launchers: Launchers) -> None:
    for fields in ({}, module(tmp_path, "slow", "import time; time.sleep(60)")):
        launcher = launchers(**fields)
        start = asyncio.ensure_future(launchers.start(launcher))
        await eventually(lambda launcher=launcher: launcher.zygote_pid)
        zygote = pid_of_zygote(launcher)
        launchers.workers[-1].transport.abandon()
        launcher.abandon()
        assert not psutil.pid_exists(zygote)
        with pytest.raises(StartError):
            await start


async def test_a_closed_launcher_starts_nothing(launchers: Launchers) -> None:
    launcher = launchers()
    await launcher.close()
    with pytest.raises(StartError, match="closed"):
        await launchers.start(launcher)


# -- cancellation -------------------------------------------------------------------------------------------------

Interrupt = Callable[[Worker, "asyncio.Task[Worker]"], object]


def cancelled(_worker: Worker, start: asyncio.Task[Worker]) -> None:
    start.cancel()


def killed(worker: Worker, _start: asyncio.Task[Worker]) -> None:
    worker.transport.kill()


@pytest.mark.parametrize("interrupt", [cancelled, killed])
async def test_a_start_given_up_after_any_step_leaves_nothing(interrupt: Interrupt, launchers: Launchers) -> None:
    launcher = launchers()
    survivor = await launchers.start(launcher)
    zygote = psutil.Process(pid_of_zygote(launcher))
    before = [process.num_fds() for process in (psutil.Process(), zygote)]
    for steps in range(40):
        if interrupt is cancelled and not steps:
            continue  # then nothing has been started, and nothing will be said to have gone
        worker = launchers.worker(launcher)
        start = asyncio.ensure_future(worker.start())
        for _ in range(steps):
            await asyncio.sleep(0.0002 if steps % 2 else 0)
        interrupt(worker, start)
        with contextlib.suppress(asyncio.CancelledError, StartError):
            await start
        worker.transport.kill()
        await worker.ended()
    await eventually(lambda: [child.pid for child in zygote.children()] == [survivor.pid])
    await eventually(lambda: [process.num_fds() for process in (psutil.Process(), zygote)] == before)


@pytest.mark.parametrize("interrupt", [cancelled, killed])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_start_given_up_as_its_worker_is_forked_leaves_nothing(
    when: str, interrupt: Interrupt, launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = launchers()
    await launchers.start(launcher)
    forked = Zygote._forked
    pids: list[int] = []

    def forked_and_interrupted(self: Zygote, request: int, pid: int) -> None:
        pids.append(pid)
        if when == "before":
            interrupt(worker, start)
        forked(self, request, pid)
        if when == "after":
            interrupt(worker, start)

    monkeypatch.setattr(Zygote, "_forked", forked_and_interrupted)
    worker = launchers.worker(launcher)
    start = asyncio.ensure_future(worker.start())
    with pytest.raises((asyncio.CancelledError, StartError)):
        await start
    worker.transport.kill()
    await eventually(lambda: pids and not psutil.pid_exists(pids[0]))
    assert len(worker.of("gone")) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_nobody_waits_for_any_more_is_ended_even_while_its_life_line_is_held(
    when: str, launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = launchers()
    forked = Zygote._forked
    pids: list[int] = []

    def forked_and_cancelled(self: Zygote, request: int, pid: int) -> None:
        pids.append(pid)
        if when == "before":
            start.cancel()
        forked(self, request, pid)
        if when == "after":
            start.cancel()

    monkeypatch.setattr(Zygote, "_forked", forked_and_cancelled)
    with contextlib.ExitStack() as ours:
        fds = {}
        for name in ("POOL_MONITOR_FD", "POOL_MONITOR_LIFELINE"):
            theirs, _kept = map(ours.enter_context, socket.socketpair())
            fds[name] = theirs.fileno()
        start = asyncio.ensure_future(launcher.start(fds))
        with pytest.raises(asyncio.CancelledError):
            await start
        await eventually(lambda: pids and not psutil.pid_exists(pids[0]))


async def test_who_gives_up_on_a_stuck_zygote_does_not_leave_it_to_the_next(
    tmp_path: Path, launchers: Launchers
) -> None:
    launcher = launchers(**module(tmp_path, "slow", "import time; time.sleep(60)"))
    start = asyncio.ensure_future(launchers.start(launcher))
    await eventually(lambda: launcher.zygote_pid)
    stuck = pid_of_zygote(launcher)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    (tmp_path / "slow.py").write_text("is_quick_now = True\n")
    await launchers.start(launcher)
    assert pid_of_zygote(launcher) != stuck
    await eventually(lambda: not psutil.pid_exists(stuck))
