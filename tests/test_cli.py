"""The command line as a whole: help, exit codes, and the commands that look at a running service."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_monitor import __version__
from pool_monitor.cli import COMMANDS
from pool_monitor.snapshot import SCHEMA_VERSION
from tests.helpers.programs import DEADLINE_S, ROOT, Done, Program, Terminal, answers, until, written

Command = Callable[..., Done]
Start = Callable[..., Program]
OPS = f"{ROOT / 'tests' / 'targets' / 'ops.py'}:Ops"
HEAVY = ("numpy", "textual", "httpx", "uvicorn", "starlette", "structlog", "rich", "msgspec", "asyncio")

SERVICE = f"""
import asyncio, sys
from pool_monitor import Monitor, Pool
from pool_monitor.config import HistoryConfig, MonitorConfig

async def main(name, calls, path=None):
    config = MonitorConfig(history=HistoryConfig(path=path, flush_interval=0.05))
    async with Pool({OPS!r}, name=name, size=1) as pool, Monitor(pool, config=config) as monitor:
        for number in range(calls):
            await pool.run("echo", number)
        print(monitor.address, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
"""


@pytest.fixture
def service(program: Start) -> Callable[..., Program]:
    """Starts a small service with a monitor. It has answered some calls."""

    def start(name: str = "small", calls: int = 3, history: Path | None = None) -> Program:
        one = program("-c", SERVICE, name, str(calls), *(() if history is None else (str(history),)))
        assert one.process.stdout is not None
        one.address = one.process.stdout.readline().decode().strip()  # type: ignore[attr-defined]
        return one

    return start


# -- help -------------------------------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_loads_none_of_them(program: Start):
    code = f"""
import sys
from pool_monitor.cli import main
sys.argv = ["pool-monitor", "--help"]
try:
    main()
finally:
    print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""
    done = program("-c", code).ended()
    assert (done.code, done.err) == (0, "\n")
    for name, text in COMMANDS.items():
        assert f"  {name} " in done.out
        assert text in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name: str, command: Command):
    done = command(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: pool-monitor {name}")
    assert all(len(line) <= 80 for line in done.out.splitlines())
    assert command(name, "-h").out == done.out


def test_version(command: Command):
    assert command("--version") == (0, f"pool-monitor {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("run",), "Missing argument 'TARGET'"),
        (("snapshot", "--window", "2h"), "'1m', '5m', '15m', '1h'"),
        (("dashboard", "a", "b"), "unexpected extra argument"),
        (("demo", "--duration", "0"), "--duration"),
        (("stack", "a-0", "--flame", "1s", "--output", "no/such/x.html"), "there is no directory no/such"),
        (("stack", "a-0", "--output", "x.html"), "add --flame 5s"),
        (("demo", "--fault", "fire"), "'crash', 'slow', 'error', 'leak'"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_would_be_right(
    arguments: tuple[str, ...], complaint: str, command: Command
):
    done = command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err


def test_the_script_and_the_module_are_the_same_program(pool_monitor: Start):
    script = Path(sys.executable).with_name("pool-monitor")
    if not script.exists():
        pytest.skip("not installed as a script here")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert done.stdout == pool_monitor("--help").ended().out


# -- looking at a service ---------------------------------------------------------------------------------------------


def test_snapshot_prints_json_of_a_versioned_schema(service: Callable[..., Program], pool_monitor: Start):
    running = service()
    for address in ((), ("small",), (str(running.pid),), (running.address,)):  # type: ignore[attr-defined]
        done = pool_monitor("snapshot", *address, "--window", "1h", "--json").ended()
        taken = json.loads(done.out)
        assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
        assert (taken["version"], taken["window"], taken["service"]["pid"]) == (SCHEMA_VERSION, "1h", running.pid)
        assert taken["pools"]["small"]["operations"]["echo"]["calls"] == 3


def test_dashboard_without_a_terminal_prints_the_state_once(service: Callable[..., Program], pool_monitor: Start):
    running = service()
    done = pool_monitor("dashboard").ended()
    assert (done.code, done.err) == (0, "no terminal for a dashboard: printed once\n")
    assert str(running.pid) in done.out
    assert "echo" in done.out


def test_report_says_what_happened_in_a_running_service(
    service: Callable[..., Program], command: Command, pool_monitor: Start
):
    running = service()
    until(lambda: calls_by_step(command("report", "--format", "csv")) == 3)  # once their second is over
    for address in ((), ("small",), (str(running.pid),), (running.address,)):  # type: ignore[attr-defined]
        done = pool_monitor("report", *address, "--format", "json").ended()
        found = json.loads(done.out)
        assert (done.code, done.err) == (0, "")
        assert re.match(rf"small, pid {running.pid}@", found["source"])
        assert found["summary"]["pools"]["small"]["operations"]["echo"]["calls"] == 3
        course = found["courses"]["small"]
        assert sum(point["calls"] for point in course["points"]) == 3
        assert int(found["summary"]["start"]) == course["start"]
        assert int(found["summary"]["end"]) <= course["end"]
    for form, pattern in (("text", r"^ echo +3 "), ("md", r"^\| echo \| 3 \|")):
        done = command("report", "--window", "1m", "--format", form)
        assert (done.code, done.err) == (0, "")
        assert re.search(pattern, done.out, re.MULTILINE), done.out
        assert "throughput" in done.out


def calls_by_step(done: Done) -> int:
    """Return the sum of the calls in all rows of a CSV."""
    return sum(int(row["calls"]) for row in csv.DictReader(io.StringIO(done.out, newline="")))


def test_a_running_service_reports_on_its_windows_and_names_its_history_for_other_periods(
    service: Callable[..., Program], command: Command, tmp_path: Path
):
    service("a")
    service("b", history=tmp_path / "b.db")
    assert command("report", "a", "--since", "15m").code == 0
    for options in (("--since", "24h"), ("--start", "2026-01-01"), ("--end", "2026-01-01")):
        done = command("report", "a", *options)
        assert (done.code, done.out) == (2, "")
        assert "the last 1m, 5m, 15m, 1h; other periods need a history, and this service keeps none" in done.err
    assert f"for other periods, report on its history, {tmp_path}/b.db" in command("report", "b", "--since", "24h").err


def test_the_history_of_a_killed_service_can_be_reported_on(
    service: Callable[..., Program], command: Command, tmp_path: Path
):
    history = tmp_path / "small.db"
    running = service(history=history)
    until(lambda: calls_by_step(command("report", history, "--format", "csv")) == 3)  # while it runs
    running.process.kill()
    running.process.wait(DEADLINE_S)
    assert calls_by_step(command("report", history, "--format", "csv")) == 3
    assert "3 calls, " in command("report", history).out


@pytest.mark.parametrize("name", ["snapshot", "dashboard", "report"])
def test_without_a_running_service_the_exit_code_is_3_with_a_remedy(name: str, command: Command, runtime_dir: Path):
    done = command(name)
    assert (done.code, done.out) == (3, "")
    assert f"no running service found in {runtime_dir}; start one" in done.err
    done = command(name, "/nowhere.sock")
    assert (done.code, "/nowhere.sock: no socket there" in done.err) == (3, True)


@pytest.mark.parametrize("name", ["snapshot", "dashboard", "report"])
def test_with_several_services_the_error_lists_them(name: str, service: Callable[..., Program], command: Command):
    pids = [service("a").pid, service("b").pid]
    done = command(name)
    assert (done.code, done.out) == (3, "")
    assert done.err == f"Error: several services are running; name one:\n  a-{pids[0]}\n  b-{pids[1]}\n"
    assert command(name, "b").code == 0


def test_a_directory_that_others_may_write_to_is_a_configuration_error(command: Command, runtime_dir: Path):
    runtime_dir.chmod(0o777)
    done = command("snapshot")
    assert (done.code, "mode 0700" in done.err) == (2, True)


def test_a_service_that_was_killed_is_not_found_and_its_socket_is_removed(
    service: Callable[..., Program], command: Command, runtime_dir: Path
):
    running = service()
    running.process.kill()
    running.process.wait(DEADLINE_S)
    assert list(runtime_dir.glob("*.sock"))
    assert command("snapshot").code == 3
    assert list(runtime_dir.glob("*.sock")) == []


def test_viewers_coming_and_going_leave_nothing_in_the_service(
    service: Callable[..., Program], command: Command, pool_monitor: Start
):
    running = service()
    fds = Path(f"/proc/{running.pid}/fd")
    before = len(list(fds.iterdir()))
    for name in ("snapshot", "dashboard", "report"):
        for _ in range(3):
            assert command(name).code == 0
    until(lambda: len(list(fds.iterdir())) == before)
    taken = json.loads(command("snapshot").out)["monitor"]
    assert (taken["viewers"], taken["collecting"], taken["dropped"]) == (0, True, 0)


def test_a_reader_that_closes_the_output_of_snapshot_causes_no_message(
    service: Callable[..., Program], pool_monitor: Start
):
    service()
    looking = pool_monitor("snapshot")
    looking.process.stdout.close()
    assert looking.process.stderr.read() == b""
    assert looking.process.wait(DEADLINE_S) == 141


# -- in a terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.gate
def test_the_dashboard_follows_a_service_loses_it_and_finds_it_again(
    service: Callable[..., Program], terminal: Callable[..., Terminal]
):
    running = service(calls=7)
    screen = terminal("dashboard")
    screen.shows(rf"small .*pid {running.pid}.* LIVE")
    screen.shows(r"echo +7 ")
    running.send(signal.SIGSTOP)
    screen.shows("STALE")
    running.send(signal.SIGCONT)
    screen.shows("LIVE")
    running.process.kill()
    screen.shows("LOST")
    screen.shows("the service is gone|no running service")
    other = service("other")
    again = service(calls=9)
    screen.shows(rf"small .*pid {again.pid}.* LIVE")
    screen.shows(r"echo +9 ")
    assert f"pid {other.pid}" not in screen.text
    screen.press("q")
    assert screen.ended() == 0
    screen.assert_clean()


def test_ctrl_c_leaves_the_dashboard_and_the_terminal_as_it_was(
    service: Callable[..., Program], terminal: Callable[..., Terminal]
):
    service()
    screen = terminal("dashboard", columns=80, rows=24)
    screen.shows("LIVE")
    screen.press("\x03")
    assert screen.ended() == 0
    screen.assert_clean()
    assert b"Traceback" not in screen.output


@pytest.mark.slow
@pytest.mark.gate
def test_with_several_services_the_dashboard_offers_a_choice_and_finds_the_chosen_again(
    service: Callable[..., Program], terminal: Callable[..., Terminal]
):
    service("a")
    second = service("b")
    screen = terminal("dashboard")
    screen.shows(rf"2  b-{second.pid}")
    screen.press("2\r")
    screen.shows(rf"pid {second.pid}.* LIVE")
    second.process.kill()
    screen.shows("LOST")
    again = service("b")
    screen.shows(rf"pid {again.pid}.* LIVE")
    screen.press("q")
    assert screen.ended() == 0


@pytest.mark.slow
@pytest.mark.gate
def test_among_services_of_one_name_the_dashboard_stays_with_the_chosen(
    service: Callable[..., Program], terminal: Callable[..., Terminal]
):
    one, other = service(), service()
    first, second = sorted((one, other), key=lambda service: f"small-{service.pid}")
    screen = terminal("dashboard")
    screen.shows(rf"2  small-{second.pid}")
    screen.press("2\r")
    screen.shows(rf"pid {second.pid}.* LIVE")
    second.process.kill()
    screen.shows("LOST")
    assert f"pid {first.pid}" not in screen.text
    screen.press("q")
    assert screen.ended() == 0


def test_a_wrong_address_is_an_error_and_no_screen(terminal: Callable[..., Terminal]):
    screen = terminal("dashboard", "nobody")
    assert screen.ended() == 3
    assert b"\x1b[?1049h" not in screen.output
    assert re.search("Error: no running service", screen.text)


def test_snapshot_on_a_terminal_is_indented(service: Callable[..., Program], terminal: Callable[..., Terminal]):
    service()
    screen = terminal("snapshot")
    assert screen.ended() == 0
    screen.shows(r'\n    "sampled_age": .*\n(    .*\n)*  },\n  "alerts": \[(.*\n)*}')


# -- run on a terminal ------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Path]:
    """The arguments of a run that lasts until a file exists, and the path of that file."""
    go = tmp_path / "go"
    monkeypatch.setenv("JOBS_LOG", str(tmp_path / "log"))
    source = written(
        tmp_path / "in", {"args": [str(ROOT), 1]}, "nonsense", *({"args": [str(go), n]} for n in range(3, 9))
    )
    jobs = f"{ROOT / 'tests' / 'targets' / 'jobs.py'}:Jobs"
    ends = ["--input", str(source), "--output", str(tmp_path / "out"), "--size", "2"]
    return ["run", jobs, "wait_for", *ends], go


def test_run_shows_the_dashboard_and_after_q_a_progress_bar(
    slow_run: tuple[list[str], Path], terminal: Callable[..., Terminal], tmp_path: Path
):
    arguments, go = slow_run
    screen = terminal(*arguments)
    screen.shows(r"LIVE")
    screen.until(lambda: screen.full_screen)
    assert "nonsense" not in screen.text
    assert "not valid JSON" not in screen.text, "remarks would spoil the screen"
    screen.shows(r"\n 2 of 8 lines \(25%\) · 1 failed")
    screen.press("q")
    screen.shows("in:2: not valid JSON.*\n.*the run continues; Ctrl-C ends it")
    screen.shows(r"wait_for .* 2/8 .* 1 failed")
    go.touch()
    assert screen.ended() == 1
    screen.shows(r"8 lines: 7 ok, 1 failed in")
    screen.assert_clean()
    assert answers(tmp_path / "out")[-1]["result"] == 8


def test_run_ends_with_its_work_while_the_dashboard_is_open(
    slow_run: tuple[list[str], Path], terminal: Callable[..., Terminal]
):
    arguments, go = slow_run
    screen = terminal(*arguments)
    screen.shows("LIVE")
    go.touch()
    assert screen.ended() == 1
    screen.assert_clean()
    screen.shows("in:2: not valid JSON")
    screen.shows("8 lines: 7 ok, 1 failed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_run_and_its_dashboard(
    number: signal.Signals, slow_run: tuple[list[str], Path], terminal: Callable[..., Terminal], tmp_path: Path
):
    arguments, go = slow_run
    screen = terminal(*arguments)
    screen.shows("LIVE")
    screen.until(lambda: (tmp_path / "log").read_text().count("\n") == 3)  # one done, two under way
    screen.process.send_signal(number)
    screen.shows("finishing the lines under way")
    go.touch()
    assert screen.ended() == 128 + number
    screen.shows("4 lines: 3 ok, 1 failed")
    screen.shows("interrupted; the same command continues from here")
    screen.assert_clean()


def test_one_ctrl_c_in_the_dashboard_of_run_finishes_the_lines_under_way(
    slow_run: tuple[list[str], Path], terminal: Callable[..., Terminal], tmp_path: Path
):
    arguments, go = slow_run
    screen = terminal(*arguments)
    screen.shows("2 of 8 lines")
    screen.until(lambda: (tmp_path / "log").read_text().count("\n") == 3)  # one done, two under way
    screen.press("\x03")
    screen.shows("finishing the lines under way")
    screen.until(lambda: not screen.full_screen)
    go.touch()
    assert screen.ended() == 130
    screen.shows("4 lines: 3 ok, 1 failed")
    screen.shows("interrupted; the same command continues from here")
    screen.assert_clean()


def test_ctrl_c_ends_run_without_its_dashboard(slow_run: tuple[list[str], Path], terminal: Callable[..., Terminal]):
    arguments, go = slow_run
    screen = terminal(*arguments, "--no-dashboard")
    screen.shows(r"wait_for .* 2/8 .* 1 failed")
    screen.press("\x03")
    screen.shows("finishing the lines under way")
    go.touch()
    assert screen.ended() == 130
    assert b"\x1b[?1049h" not in screen.output
    assert b"Traceback" not in screen.output
    screen.assert_clean()


def test_lines_may_be_typed(terminal: Callable[..., Terminal], tmp_path: Path):
    screen = terminal("run", OPS, "echo", "--size", "1", "--output", str(tmp_path / "out"))
    screen.shows("reading JSON lines from this terminal; Ctrl-D ends them")
    screen.press("1\n")
    until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text().startswith('{"id":1,"ok":true'))
    screen.press("\x04")
    assert screen.ended() == 0
    screen.shows("1 line: 1 ok")
