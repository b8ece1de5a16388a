"""Programs for tests: the command line as a process, in a terminal, or inside the test; and what they leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import psutil
import pyte
import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT_TOOLS = f"{ROOT / 'examples' / 'text_tools.py'}:TextTools"
JOBS = f"{ROOT / 'tests' / 'targets' / 'jobs.py'}:Jobs"
DEADLINE_S = 20.0


def short_dir() -> Path:
    """Return a new directory with a path short enough for a socket in it, however long the path in TMPDIR is."""
    return Path(tempfile.mkdtemp(prefix="pm-", dir=min("/tmp", tempfile.gettempdir(), key=len)))


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for the sockets of one test. Not tmp_path: the path of a socket must be short."""
    path = short_dir()
    monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which the operations of targets/jobs.py write their calls."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("JOBS_LOG", str(path))
    return path


def until(condition: Callable[[], Any], meanwhile: Callable[[], object] = lambda: None) -> Any:
    """Wait until *condition* returns a true value, and return that value."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not true within {DEADLINE_S} s: {condition}"
        meanwhile()
        time.sleep(0.005)
    return found


class Done(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


class Program:
    """A Python program with pipes. The fixture `program` makes them and cleans up."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environ = {**os.environ, **options.pop("environ", {})}
        self.process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environ, **{**pipes, **options})
        self.family: set[psutil.Process] = set()

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        """Return all processes that it has started, and remember them for `left_over`."""
        found = psutil.Process(self.pid).children(recursive=True)
        self.family.update(found)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the workers among its children, without the zygote they were forked from."""
        return [child for child in self.children() if not child.children()]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, stdin: bytes | None = None) -> Done:
        out, err = self.process.communicate(stdin, timeout=DEADLINE_S)
        return Done(self.process.returncode, (out or b"").decode(), (err or b"").decode())

    def left_over(self) -> list[psutil.Process]:
        """Return the remembered children that still run."""
        return [child for child in self.family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(ValueError):
            self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def program(runtime_dir: Path) -> Iterator[Callable[..., Program]]:
    """Starts Python programs with a directory for their sockets. All are ended after the test."""
    started: list[Program] = []

    def start(*arguments: str, **options: Any) -> Program:
        started.append(Program(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.clean_up()


@pytest.fixture
def pool_monitor(program: Callable[..., Program]) -> Callable[..., Program]:
    """Starts ``pool-monitor`` as a process."""
    return lambda *arguments, **options: program("-m", "pool_monitor", *map(str, arguments), **options)


@pytest.fixture
def command(runtime_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``pool-monitor`` inside the test, which saves the start of a process. The workers are real."""
    from pool_monitor.cli import main

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["pool-monitor", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        code = leaving.value.code
        captured = capsys.readouterr()
        return Done(code if isinstance(code, int) else 1, captured.out, captured.err)

    return run


def written(path: Path, *values: Any) -> Path:
    """Write one JSON line per value to *path*, and return *path*. Strings are written as they are."""
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in values))
    return path


def answers(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def results(path: Path) -> list[Any]:
    return [answer.get("result") for answer in answers(path)]


def remarks(done: Done) -> list[str]:
    """Return the remarks before the summary, which must be the last line."""
    *before, summary = done.err.splitlines()
    assert re.search(r"\d+ lines?: \d+ ok, \d+ failed.* in \d", summary), done.err
    return before


def well(done: Done) -> bool:
    return (done.code, done.out, remarks(done)) == (0, "", [])


class Terminal:
    """A Python program in a pseudo-terminal, and its screen. *environ* is added to its environment."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 160,
        rows: int = 30,
        environ: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.output = b""
        self.master, slave = os.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        # COLUMNS and LINES would override the size of the terminal; pytest-xdist sets them.
        replaced = ("LC_", "LANG", "NO_COLOR", "COLUMNS", "LINES")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(replaced)}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", **environ},
            start_new_session=True,
            # This makes it the controlling terminal of the program, so that resizing it sends SIGWINCH.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (no threads here)
            **{"stdin": slave, "stdout": slave, "stderr": slave, **options},
        )
        self.slave = slave

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def full_screen(self) -> bool:
        """Whether the program has the whole screen now."""
        return self.output.rfind(b"\x1b[?1049h") > self.output.rfind(b"\x1b[?1049l")

    def press(self, keys: str | bytes) -> None:
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def until(self, condition: Callable[[], Any]) -> Any:
        try:
            return until(condition, self._read)
        except AssertionError as error:
            raise AssertionError(f"{error}\nthe screen:\n{self.text}") from None

    def shows(self, pattern: str) -> re.Match[str]:
        found: re.Match[str] = self.until(lambda: re.search(pattern, self.text))
        return found

    def ended(self) -> int:
        """Wait until the program ends, read the rest of its output, and return its exit code."""
        self.until(lambda: self.process.poll() is not None)
        while self._read():
            pass
        return self.process.returncode

    def assert_clean(self) -> None:
        """Assert that the terminal is in its original state."""
        assert not self.full_screen
        assert self.output.rfind(b"\x1b[?25l") <= self.output.rfind(b"\x1b[?25h"), "the cursor is hidden"
        assert termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        os.close(self.master)
        os.close(self.slave)

    def _read(self) -> bool:
        if not select.select([self.master], [], [], 0.02)[0]:
            return False
        data = os.read(self.master, 65536)
        self.output += data
        # pyte would print the private sequences of the kitty keyboard protocol.
        shown = re.sub(rb"\x1b\[[<>]\d*u", b"", data)
        # pyte has no alternate screen either: leaving it must clear the screen.
        self.stream.feed(shown.replace(b"\x1b[?1049l", b"\x1b[2J\x1b[H"))
        return True


@pytest.fixture
def terminal(runtime_dir: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts ``pool-monitor`` in terminals. All are closed after the test."""
    started: list[Terminal] = []

    def start(*arguments: object, **options: Any) -> Terminal:
        started.append(Terminal("-m", "pool_monitor", *map(str, arguments), **options))
        return started[-1]

    yield start
    for one in started:
        one.close()
