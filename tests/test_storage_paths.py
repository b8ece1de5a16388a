"""Which file a history is: links, homes, names that are none, and files that another user has put there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_monitor.config import load
from pool_monitor.errors import ConfigError
from pool_monitor.storage import History, HistoryConfig, Reader
from pool_monitor.storage.lock import Lock
from tests.helpers import stores
from tests.helpers.stores import SMALL, T0, everything, fat, history_file, marks, writing

SECRET = "something of value"


def symbolic(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hard(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def dangling(path: Path, target: Path) -> None:
    path.symlink_to(target.with_name("not there"))


def fifo(path: Path, _target: Path) -> None:
    os.mkfifo(path)


def of_another_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's own files are trusted, and nobody but root can give one away."""
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    else:
        os.chown(path, 65534, 65534)


# -- what another user can have put there -------------------------------------------------------------------------


@pytest.mark.parametrize("link", [symbolic, hard, dangling, fifo])
@pytest.mark.parametrize("suffix", [".lock", "-wal", "-shm", "-journal"])
def test_nothing_that_lies_beside_the_file_chooses_what_is_written_to(
    tmp_path: Path, suffix: str, link: Callable[[Path, Path], None]
) -> None:
    path, other = history_file(tmp_path / "history.db", range(9)), tmp_path / "other"
    other.write_text(SECRET)
    beside = path.with_name(path.name + suffix)
    link(beside, other)
    with pytest.raises(ConfigError) as refused:
        stores.Store(path, SMALL)
    assert str(beside) in str(refused.value)
    assert other.read_text() == SECRET
    assert not other.with_name("not there").exists()


def test_a_lock_or_a_file_of_another_user_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = history_file(tmp_path / "history.db", range(9))
    path.chmod(0o666)
    lock = path.with_name("history.db.lock")
    lock.write_text(SECRET)
    with monkeypatch.context() as patched:
        of_another_user(lock, patched)
        with pytest.raises(ConfigError, match=r"lock: belongs to the user with the id \d+, but this process runs as"):
            Lock(path)
    assert lock.read_text() == SECRET
    lock.unlink()
    before = path.read_bytes()
    of_another_user(path, monkeypatch)
    # To a process that only seems to be another's, its own new lock seems to be another's too.
    of_whom = r"history\.db(\.lock)?" if os.getuid() else r"history\.db"
    with pytest.raises(ConfigError, match=of_whom + r": belongs to the user .*\(chown\), or use another file"):
        stores.Store(path, SMALL)
    assert path.read_bytes() == before
    with Reader(path) as found:
        assert marks(everything(found, 16)) == sum(range(9))


@pytest.mark.parametrize("name", ["history.db", "history.db-wal"])
def test_what_would_be_waited_for_for_ever_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "history.db"
    if name != path.name:
        history_file(path, range(9))
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match=r"there is no such file|is not a regular file"):
        Reader(path)


# -- one file, several paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["link.db", "there/real.db"])
async def test_a_file_has_one_writer_and_one_log_whichever_link_leads_to_it(
    tmp_path: Path, way: str, no_leaks: None
) -> None:
    real = tmp_path / "data" / "real.db"
    real.parent.mkdir()
    (tmp_path / "link.db").symlink_to(real)
    (tmp_path / "there").symlink_to(real.parent)
    with writing(tmp_path / way) as made:
        made.write([fat(0)], T0 + 1)
        assert made.usage().file_bytes >= sum(
            file.stat().st_size for file in (real, real.with_name("real.db-wal")) if file.exists()
        )
        assert {file.name for file in real.parent.iterdir()} >= {"real.db", "real.db.lock", "real.db-wal"}
        assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "link.db", "there"]
        told: list[str] = []
        second = await History.open(real, SMALL, on_degrade=told.append)
        await second.close()
        assert f"process {os.getpid()} writes to it" in told[0]
        with Reader(tmp_path / way) as found:
            assert len(everything(found, 1).blocks) == 1
    assert [file.name for file in real.parent.iterdir()] == ["real.db"]


def test_a_link_that_leads_somewhere_else_now_is_noticed(tmp_path: Path) -> None:
    link, first = tmp_path / "link.db", history_file(tmp_path / "first.db", range(3))
    second = history_file(tmp_path / "second.db", range(3))
    link.symlink_to(first)
    with writing(link) as made:
        link.unlink()
        link.symlink_to(second)
        with pytest.raises(OSError, match="another file has replaced it"):
            stores.write(made, [3])


def test_a_file_with_two_names_is_refused_because_each_would_have_a_log_of_its_own(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(9))
    (tmp_path / "second.db").hardlink_to(path)
    for name in ("history.db", "second.db"):
        with pytest.raises(ConfigError, match=r"has 2 names \(hard links\).*copy it \(cp\), and put the copy in its"):
            stores.Store(tmp_path / name, SMALL)


def test_a_question_in_the_process_that_writes_leaves_its_log_to_it(tmp_path: Path) -> None:
    # Another program that can write removes the log when it closes the file, unless somebody else has it open.
    path = tmp_path / "history.db"
    other = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM blocks').fetchall()"
    with writing(path) as made:
        stores.write(made, range(9))
        with Reader(path) as found:
            everything(found, 1)
        subprocess.run([sys.executable, "-c", other, path], check=True)
        assert path.with_name("history.db-wal").stat().st_size
        stores.write(made, range(9, 12))
        with Reader(path) as found:
            assert marks(everything(found, 1)) == sum(range(12))


# -- paths that only a shell or SQLite would understand -----------------------------------------------------------


def test_a_home_directory_can_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert HistoryConfig(path="~/var/text.db").path == str(tmp_path / "var" / "text.db")
    history_file(Path("~/var/text.db"), range(9))
    with Reader("~/var/text.db") as found:
        assert marks(everything(found, 16)) == sum(range(9))
    assert [file.name for file in tmp_path.iterdir()] == ["var"]
    (tmp_path / "own.toml").write_text("[pool]\ntimeout = 7\n")
    assert load("~/own.toml").pool.timeout == 7


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (":memory:", r"path=':memory:': needs the path of a file; for none, leave it out"),
        ("file:text.db?mode=ro", r"path='file:text.db\?mode=ro': needs the path of a file, without 'file:'"),
        ("file:///var/text.db", "needs the path of a file, without 'file:'"),
        ("sqlite:///text.db", "needs the path of a file, without 'sqlite:'"),
        ("~nobody-of-this-name/text.db", "no such user on this machine; write the whole path"),
        ("var/\0.db", "needs to be without NUL"),
        ("", "path"),
    ],
)
def test_a_path_that_is_none_is_refused_with_the_remedy(path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        HistoryConfig(path=path)


async def test_links_that_lead_to_each_other_and_impossible_names_degrade_a_history(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name, said in (
        ("a", "symbolic link"),
        ("\0", "not a valid file name"),
        ("x" * 300, "File name too long"),
    ):
        told: list[str] = []
        made = await History.open(tmp_path / name, SMALL, on_degrade=told.append)
        await made.close()
        assert said in told[0]
        with pytest.raises(ConfigError):
            Reader(tmp_path / name)


@pytest.mark.parametrize("path", ["./file:text.db", "./~/text.db", "a:b/text.db", "file.db", "./:memory:"])
def test_a_path_that_only_looks_like_something_else_is_one(path: str) -> None:
    assert HistoryConfig(path=path).path == path
