"""The files around alerts: seeing that rules have changed, appending changes, SIGHUP."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.alerts.file_watch import FileWatch
from pool_monitor.alerts.hangup import Hangup
from pool_monitor.alerts.transition_file import TransitionFile
from pool_monitor.snapshot import AlertTransition
from tests.helpers.support import eventually


def transition(seq: int, **more: Any) -> AlertTransition:
    about: dict[str, Any] = {
        "at": 1.0, "alert": "A", "labels": {"pool": "text"}, "fingerprint": "0" * 16, "from_state": "pending",
        "to_state": "firing", "severity": "warning",
    }  # fmt: skip
    return AlertTransition(seq=seq, **about | more)


def seqs(path: Path) -> list[int]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line)["seq"] for line in text.splitlines() if line.startswith("{")]


# -- the file of changes ----------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path):
    made = TransitionFile(tmp_path / "alerts.jsonl")
    yield made
    made.close()


def test_each_change_is_one_object_on_a_line_and_the_file_is_private(file: TransitionFile):
    assert file.last_seq() is None
    file.append([transition(7, reason="a\nb\x1b[31m"), transition(8)])
    first, _second = (json.loads(line) for line in file.path.read_text().splitlines())
    assert (first["seq"], first["from"], first["to"], first["reason"]) == (7, "pending", "firing", "a\nb\x1b[31m")
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.last_seq() == 8


@pytest.mark.parametrize("rotate", [Path.unlink, lambda path: path.rename(path.with_suffix(".1"))])
def test_a_file_that_was_rotated_away_is_begun_again(file: TransitionFile, rotate):
    file.append([transition(1)])
    rotate(file.path)
    file.append([transition(2)])
    assert seqs(file.path) == [2]


def test_a_file_that_was_truncated_goes_on(file: TransitionFile):
    file.append([transition(1)])
    os.truncate(file.path, 0)
    file.append([transition(2)])
    assert seqs(file.path) == [2]


@pytest.mark.parametrize("torn", ['{"seq":2,"at":1.', '{"se', "{"])
def test_what_was_written_of_a_line_before_a_kill_is_removed(file: TransitionFile, torn: str):
    file.append([transition(1)])
    file.close()
    with file.path.open("a") as other:
        other.write(torn)
    assert file.last_seq() == 1
    file.append([transition(2)])
    assert seqs(file.path) == [1, 2]


def test_a_last_line_of_somebody_else_is_kept(file: TransitionFile):
    file.path.write_text("what is this")
    assert file.last_seq() is None
    file.append([transition(1)])
    assert file.path.read_text().splitlines()[0] == "what is this"
    assert seqs(file.path) == [1]


def test_when_the_disk_is_full_no_half_line_stays(file: TransitionFile, monkeypatch: pytest.MonkeyPatch):
    file.append([transition(1)])
    real, room = os.write, [10]

    def write(descriptor: int, body: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, body[: room.pop()])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        file.append([transition(2)])
    monkeypatch.setattr(os, "write", real)
    file.append([transition(2)])
    assert seqs(file.path) == [1, 2]


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "no folder"])
def test_what_is_no_file_of_ours_is_refused_in_words(tmp_path: Path, kind: str):
    path = tmp_path / "alerts.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / "absent" / "alerts.jsonl"
    with pytest.raises(OSError, match=r"alerts\.jsonl"):
        TransitionFile(path).append([transition(1)])


# -- the watch of rule files ------------------------------------------------------------------------------------------


def looked(watch: FileWatch) -> bool:
    return watch.changed(watch.look())


def test_a_change_is_told_once_it_lasts_from_one_look_to_the_next(tmp_path: Path):
    path = tmp_path / "rules.yaml"
    path.write_text("a")
    watch = FileWatch([path])
    watch.read(watch.look())
    assert not looked(watch)
    path.write_text("ab")
    assert not looked(watch), "it may still be written"
    path.write_text("abc")
    assert not looked(watch), "it was"
    assert looked(watch)
    assert looked(watch), "until it is read"
    watch.read(watch.look())
    assert not looked(watch)


def replaced(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text("b")
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.replace(path)


@pytest.mark.parametrize("change", [replaced, Path.unlink, lambda path: path.write_text("bb")])
def test_a_file_that_is_replaced_removed_or_written_has_changed(tmp_path: Path, change):
    path = tmp_path / "rules.yaml"
    path.write_text("a")
    watch = FileWatch([tmp_path / "other.yaml", path])
    watch.read(watch.look())
    change(path)
    assert [looked(watch), looked(watch)] == [False, True]


def test_a_volume_that_kubernetes_swaps_has_changed(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rules.yaml").write_text("same")
    data, path = tmp_path / "..data", tmp_path / "rules.yaml"
    data.symlink_to("one")
    path.symlink_to("..data/rules.yaml")
    watch = FileWatch([path])
    watch.read(watch.look())
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").replace(data)
    assert [looked(watch), looked(watch)] == [False, True]


def test_a_path_that_cannot_be_a_file_counts_as_one_that_is_absent():
    watch = FileWatch(["a\0b", "/proc/1/root/x", "x" * 5000])
    watch.read(watch.look())
    assert not looked(watch)


# -- SIGHUP -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def handler():
    before = signal.getsignal(signal.SIGHUP)
    taken: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: taken.append(number))
    yield taken
    signal.signal(signal.SIGHUP, before)


def hup() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


async def test_sighup_calls_the_reload_and_the_handler_of_the_service(handler: list[int]):
    theirs, reloads = signal.getsignal(signal.SIGHUP), []
    hangup = Hangup(lambda: reloads.append(1))
    assert hangup.install()
    hup()
    await eventually(lambda: reloads == [1] and len(handler) == 1)
    hangup.remove()
    assert signal.getsignal(signal.SIGHUP) is theirs
    hup()
    await eventually(lambda: len(handler) == 2)
    assert reloads == [1]


async def test_a_handler_that_the_service_installs_later_stays(handler: list[int]):
    hangup = Hangup(lambda: None)
    hangup.install()
    later = lambda _number, _frame: None  # noqa: E731
    signal.signal(signal.SIGHUP, later)
    hangup.remove()
    assert signal.getsignal(signal.SIGHUP) is later


async def test_two_monitors_may_be_left_in_any_order(handler: list[int]):
    theirs, reloads = signal.getsignal(signal.SIGHUP), []
    first, second = Hangup(lambda: reloads.append(1)), Hangup(lambda: reloads.append(2))
    first.install()
    second.install()
    hup()
    await eventually(lambda: sorted(reloads) == [1, 2] and len(handler) == 1)
    first.remove()
    hup()
    await eventually(lambda: sorted(reloads) == [1, 2, 2] and len(handler) == 2)
    second.remove()
    hup()
    await eventually(lambda: len(handler) == 3)
    first.remove()
    assert len(reloads) == 3
    signal.signal(signal.SIGHUP, theirs)


async def test_a_handler_of_the_event_loop_is_still_called():
    loop, calls, reloads = asyncio.get_running_loop(), [], []
    loop.add_signal_handler(signal.SIGHUP, lambda: calls.append(1))
    try:
        hangup = Hangup(lambda: reloads.append(1))
        hangup.install()
        hup()
        await eventually(lambda: (calls, reloads) == ([1], [1]))
        hangup.remove()
        hup()
        await eventually(lambda: (calls, reloads) == ([1, 1], [1]))
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def test_outside_the_main_thread_nothing_is_installed():
    before = signal.getsignal(signal.SIGHUP)
    assert not await asyncio.to_thread(asyncio.run, _install())
    assert signal.getsignal(signal.SIGHUP) is before


async def _install() -> bool:
    return Hangup(lambda: None).install()


FORKED = """
import asyncio, os, signal, time
from pool_monitor.alerts.hangup import Hangup

async def main():
    reloaded = asyncio.Event()
    hangup = Hangup(reloaded.set)
    hangup.install()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b"x")  # Python drops signals that come before it has prepared the child
        time.sleep(20)
        os._exit(0)
    os.read(read, 1)
    os.kill(child, signal.SIGHUP)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os.kill(os.getpid(), signal.SIGHUP)
    await reloaded.wait()
    print("reload", flush=True)
    hangup.remove()
    os.kill(os.getpid(), signal.SIGHUP)

asyncio.run(main())
"""


def test_a_forked_process_and_one_after_the_monitor_end_as_without_it():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=30, start_new_session=True, check=False
    )
    assert done.stdout.split() == [str(-signal.SIGHUP), "reload"], done.stderr
    assert done.returncode == -signal.SIGHUP
