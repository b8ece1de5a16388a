"""The output of the command line: foreign text on terminals, encodings, closed and full streams; and its arguments."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_monitor.cli.output import escaped_json, print_bytes, print_json, print_text, printable, remark, screen_in_use
from pool_monitor.dashboard.terminal import stdout_glyphs
from pool_monitor.errors import ConnectError
from pool_monitor.metrics.timespan import seconds_of
from pool_monitor.service.client import resolve
from pool_monitor.view import ASCII
from tests.helpers.programs import DEADLINE_S, ROOT, Done, Terminal, answers, written
from tests.helpers.stores import history_file

Command = Callable[..., Done]
JOBS = f"{ROOT / 'tests' / 'targets' / 'jobs.py'}:Jobs"
FULL = Path("/dev/full")
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2066\x00\r\x08\udce9"
OWNED = b"\x1b]0;owned"


# -- foreign text -----------------------------------------------------------------------------------------------------


def test_text_for_a_terminal_has_its_control_characters_escaped():
    shown = printable(f"plain é 漢 नी\n\t{EVIL}")
    assert shown.startswith("plain é 漢 नी\n    \\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202egnp")
    assert shown.replace("\n", "").isprintable()
    assert shown.isascii() is False
    assert shown.encode()


def test_json_for_a_terminal_is_the_same_json():
    text = json.dumps({EVIL: ["é 漢", "\U000e0041", "\x7f"]}, indent=2, ensure_ascii=False)
    for shown in (escaped_json(text), escaped_json(text, ascii_only=True)):
        assert json.loads(shown) == json.loads(text)
        assert shown.replace("\n", "").isprintable()
    assert "é 漢" in escaped_json(text)
    assert escaped_json(text, ascii_only=True).isascii()


def test_no_foreign_text_controls_the_terminal(terminal: Callable[..., Terminal], tmp_path: Path):
    """The text is in a line, a file name and an argument, and in what a target prints, raises and returns."""
    source = tmp_path / "in\x1b]0;owned\x07"
    key = {"args": [1], "\x1b]0;owned\x07\x1b[2J": 1}
    written(source, key, {"args": ["\x1b]0;owned\x07"]})
    target = tmp_path / "t.py"
    target.write_text(
        "import sys\nclass T:\n    def op(self, x):\n        print(x)\n        raise type(x, (Exception,), {})(x)\n"
    )
    screens = [
        terminal("run", f"{target}:T", "op", "--input", str(source), "--output", str(tmp_path / "out"), "--size", "1",
                 "--no-dashboard"),
        terminal("run", f"{target}:\x1b]0;owned\x07", "op", "--input", str(source)),
        terminal("\x1b]0;owned\x07"),
        terminal("report", "\x1b]0;owned\x07.db"),
    ]  # fmt: skip
    for screen, code in zip(screens, (1, 2, 2, 2), strict=True):
        assert screen.ended() == code
        assert OWNED not in screen.output
        assert b"\\x1b]0;owned" in screen.output
    assert "unknown keys" in screens[0].text


@pytest.mark.parametrize("sink", ["-", "/dev/stdout"])
def test_answers_on_a_terminal_are_the_same_json_without_a_progress_bar(
    sink: str, terminal: Callable[..., Terminal], tmp_path: Path
):
    evil = "\x9b31m\u202e\x7f ü"
    source, target = written(tmp_path / "in", json.dumps(evil)), tmp_path / "t.py"
    target.write_text("def same(x):\n    return x\n")
    screen = terminal("run", str(target), "same", "--input", str(source), "--output", sink, "--size", "1")
    assert screen.ended() == 0
    line, summary, *_ = screen.output.decode().split("\r\n")
    assert json.loads(line)["result"] == evil
    assert line.isprintable()
    assert summary.startswith("1 line: 1 ok")


# -- while a dashboard has the screen ---------------------------------------------------------------------------------


def test_nothing_is_written_while_a_dashboard_has_the_screen_and_a_few_remarks_follow(
    capsys: pytest.CaptureFixture[str],
):
    with warnings.catch_warnings(action="always"), screen_in_use():
        remark("a remark\x1b[2J")
        logging.getLogger("pool_monitor.output").info("what a worker printed")
        logging.getLogger("pool_monitor.pool").warning("what the pool warns of")
        logging.getLogger("asyncio").error("what asyncio complains of")
        warnings.warn("what Python warns of", ResourceWarning, stacklevel=1)
        for number in range(30):
            remark(f"remark {number}")
        assert capsys.readouterr() == ("", "")
    shown = capsys.readouterr().err
    assert shown.startswith(
        "a remark\\x1b[2J\nwhat a worker printed\nwhat the pool warns of\nwhat asyncio complains of\n"
    )
    assert "what Python warns of" in shown
    assert "remark 10" in shown
    assert "remark 29" not in shown
    assert "more remarks" in shown.splitlines()[-1]
    logging.getLogger("pool_monitor.output").info("afterwards all is as before")
    assert capsys.readouterr().err == ""


# -- streams ----------------------------------------------------------------------------------------------------------

REPORTS = [("report", "STORE", "--format", form) for form in ("text", "md", "json", "csv", "hlog")]
PRINTING = [("--help",), ("run", "--help"), *REPORTS, ("demo", "--headless", "--duration", "0.01", "--size", "1")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return history_file(tmp_path_factory.mktemp("store") / "a.db", range(3))


@pytest.fixture
def printed(
    command: Command, store: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[str, ...], io.TextIOBase | None], Done]:
    """Runs a command with the given stdout."""

    def run(words: tuple[str, ...], stdout: io.TextIOBase | None) -> Done:
        monkeypatch.setattr(sys, "stdout", stdout)
        return command(*(str(store) if word == "STORE" else word for word in words))

    return run


@pytest.mark.skipif(not FULL.exists(), reason="needs a disk that is full")
@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_full_disk_behind_stdout_is_one_line_and_exit_code_1(words: tuple[str, ...], printed: Callable[..., Done]):
    with FULL.open("w") as full:
        done = printed(words, full)
    assert (done.code, done.err.splitlines()[-1]) == (1, "Error: stdout: writing failed: No space left on device")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_closed_stdout_is_one_line_and_exit_code_1(words: tuple[str, ...], printed: Callable[..., Done]):
    done = printed(words, None)
    if "--help" in words:
        assert done.code == 0  # click prints nothing then
    else:
        assert (done.code, done.err) == (1, "Error: stdout: is closed: there is nowhere to print to\n")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("words", REPORTS, ids=" ".join)
def test_formats_for_programs_are_utf8_in_any_locale_and_text_has_escapes(
    encoding: str, words: tuple[str, ...], printed: Callable[..., Done], tmp_path: Path
):
    text = printed(words, one := io.TextIOWrapper(io.BytesIO(), "utf-8"))
    other = io.TextIOWrapper(io.BytesIO(), encoding)
    assert (text.code, printed(words, other).code) == (0, 0)
    if words[-1] in ("json", "csv", "hlog"):
        assert other.buffer.getvalue().decode() == one.buffer.getvalue().decode() != ""  # type: ignore[attr-defined]
    else:
        assert "text" in other.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_characters_that_stdout_cannot_encode_are_escaped(monkeypatch: pytest.MonkeyPatch):
    stream = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    print_text("naïve 漢 \ud800\n")
    assert stream.buffer.getvalue() == b"na\xefve \\u6f22 \\ud800\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("encoding", "ascii_only"), [("utf-8", False), ("latin-1", True)])
def test_formats_for_programs_do_not_control_a_terminal(
    encoding: str, ascii_only: bool, monkeypatch: pytest.MonkeyPatch
):
    class Screen(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    def shown(work: Callable[[], None]) -> str:
        stream = Screen(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        work()
        return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]

    raw = f'"{EVIL[:-1]} é"'.encode()
    csv = shown(lambda: print_bytes([raw, b"\r\n", b"1,2\r\n"]))
    assert csv.endswith("\n1,2\n")
    text = json.dumps(EVIL + "é", ensure_ascii=False)[1:-1].replace("\udce9", "\\udce9")
    pretty = shown(lambda: print_json(b"{}", f'{{\n  "{text}": 1\n}}'.encode()))
    assert json.loads(pretty) == {f"{EVIL}é": 1}
    for each in (csv, pretty):
        assert each.replace("\n", "").isprintable()
    assert pretty.isascii() == ascii_only


def redirected(how: str, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ``pool-monitor`` as a process, with the redirections *how* of a shell."""
    arguments = ["sh", "-c", f'exec "$@" {how}', "sh", sys.executable, "-m", "pool_monitor", *words]
    return subprocess.run(arguments, input=stdin, capture_output=True, cwd=ROOT, timeout=DEADLINE_S, check=False)


def test_run_needs_no_stderr(runtime_dir: Path, tmp_path: Path):
    out = tmp_path / "out"
    done = redirected("2>&-", "run", JOBS, "note", "--size", "1", "--output", str(out), stdin=b"1\nnonsense\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert [answer["ok"] for answer in answers(out)] == [True, False]


def test_an_input_is_not_taken_for_a_stdout_that_is_closed(runtime_dir: Path, tmp_path: Path):
    source = written(tmp_path / "in", 1)
    done = redirected(">&-", "run", JOBS, "note", "--size", "1", "--input", str(source))
    assert (done.returncode, done.stderr) == (2, b"Error: stdout: is closed\n")
    assert source.read_text() == "1\n"


@pytest.mark.skipif(not FULL.exists(), reason="needs a disk that is full")
def test_the_interpreter_prints_nothing_at_exit():
    done = redirected(">/dev/full", "--version")
    assert (done.returncode, done.stderr) == (1, b"Error: stdout: writing failed: No space left on device\n")


# -- what is typed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("dashbord", "did you mean 'dashboard'?"), ("snap", "snapshot"), ("xyzzy", "valid names: demo, run,")],
)
def test_an_unknown_command_is_refused_with_the_known_commands(typed: str, hint: str, command: Command):
    done = command(typed)
    assert (done.code, done.out) == (2, "")
    assert f"No such command {typed!r}" in done.err
    assert hint in done.err


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("localhost:8912", "http://localhost:8912"),
        ("127.0.0.1:1/monitor/", "http://127.0.0.1:1/monitor"),
        ("[::1]:80", "http://[::1]:80"),
        ("https://host/x", "https://host/x"),
    ],
)
def test_a_host_and_its_port_are_an_address(address: str, base: str, runtime_dir: Path):
    assert resolve(address) == (address, None, base)


@pytest.mark.parametrize("address", ["localhost:99999", "host:0x50", "host:", "localhost:80:80"])
def test_an_invalid_host_and_port_is_refused(address: str, runtime_dir: Path):
    with pytest.raises(ConnectError):
        resolve(address)


def test_a_report_on_a_file_that_is_no_history_says_what_to_name(command: Command, tmp_path: Path):
    done = command("report", written(tmp_path / "t.toml", "[pool]"))
    assert done.code == 2
    assert done.err.endswith("is not a history file; name the file of a history, or a service\n")


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("10s", 10), ("2w", 1_209_600), ("7d", 604_800)])
def test_durations_are_accepted_in_the_form_that_their_error_names(text: str, seconds: int):
    assert seconds_of(text) == seconds


def test_a_locale_without_utf8_gets_ascii_from_every_command_that_prints(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "C")
    assert stdout_glyphs() is ASCII
