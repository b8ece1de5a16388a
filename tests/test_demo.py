"""The demo: real workers under a real load, headless and on a terminal, with and without faults."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pool_monitor.cli.demo import FAULTS
from pool_monitor.demo.load import documents, rate_at
from pool_monitor.demo.worker import DemoTools
from tests.helpers.programs import DEADLINE_S, Program, Terminal, until

Start = Callable[..., Program]


def test_the_load_is_a_wave_with_bursts():
    rates = [rate_at(second) for second in range(600)]
    assert 10 < min(rates) < 15
    assert 80 < max(rates) < 100
    assert rate_at(35) > 1.8 * rate_at(33)


def test_the_documents_are_real_text_of_many_sizes_worth_working_on():
    texts = documents()
    assert len(texts) >= 60
    assert all(len(text) <= 80_000 for text in texts)
    assert sum(len(text) > 20_000 for text in texts) > 50
    assert "python" in texts[0].lower()


@pytest.mark.parametrize("fault", ["slow", "error", "leak"])
def test_every_fault_happens(fault: str, monkeypatch: pytest.MonkeyPatch):
    naps: list[float] = []
    monkeypatch.setattr("pool_monitor.demo.worker.time.sleep", naps.append)
    tools = DemoTools([fault])
    monkeypatch.setattr(tools._random, "random", lambda: 0.0)
    if fault == "error":
        texts = {kind: set() for kind in (RuntimeError, LookupError, ValueError)}
        for _ in range(60):
            with pytest.raises(tuple(texts)) as raised:
                tools.keywords("text")
            texts[raised.type].add(str(raised.value))
        assert all(len(messages) > 3 for messages in texts.values()), "few kinds of errors, and many texts"
        return
    for _ in range(600):
        tools.keywords("text")
    assert len(naps) == (600 if fault == "slow" else 0)
    assert len(tools._kept) == (512 if fault == "leak" else 0), "it must not eat the machine"


def test_a_hot_worker_computes_in_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch):
    done = threading.Event()
    monkeypatch.setattr("pool_monitor.demo.worker._compute", lambda seconds: done.wait(60.0))
    tools = DemoTools(["hot"])
    monkeypatch.setattr(tools._random, "random", lambda: 0.0)
    tools.keywords("text")
    first = tools._computing
    tools.keywords("text")
    assert tools._computing is first
    done.set()
    assert first is not None
    first.join(60.0)
    tools.keywords("text")
    assert tools._computing is not first


def test_a_headless_demo_reports_figures_of_real_calls(pool_monitor: Start, runtime_dir: Path):
    demo = pool_monitor("demo", "--headless", "--duration", "5", "--size", "2")
    until(lambda: list(runtime_dir.glob("demo-*.sock")))
    demo.children()
    snapshot = json.loads(until(lambda: called(pool_monitor)))
    total = snapshot["pools"]["demo"]["total"]
    assert total["latency"]["p99"] > 0
    assert snapshot["service"]["pid"] == demo.pid
    report = pool_monitor("dashboard").ended()
    assert (report.code, f"pid {demo.pid}" in report.out) == (0, True)
    done = demo.ended()
    assert (done.code, done.err) == (0, "")
    calls = re.search(r"^ *(?:keywords) +(\d+)", done.out, re.MULTILINE)
    assert calls is not None, done.out
    assert int(calls[1]) > 10
    assert demo.left_over() == []
    assert list(runtime_dir.iterdir()) == []


def called(pool_monitor: Start) -> str | None:
    """Return a snapshot of the demo once it has answered calls."""
    done = pool_monitor("snapshot", "demo").ended()
    assert done.code == 0, done.err
    return done.out if json.loads(done.out)["pools"]["demo"]["total"]["ok"] else None


@pytest.mark.slow
@pytest.mark.gate
def test_with_every_fault_at_once_it_still_ends_well(pool_monitor: Start):
    faults = [word for fault in FAULTS for word in ("--fault", fault)]
    demo = pool_monitor("demo", "--duration", "1", *faults)
    done = demo.ended()
    assert done.code == 0
    assert "no terminal for a dashboard: continuing as with --headless\n" in done.err
    assert "Traceback" not in done.err
    assert "keywords" in done.out


@pytest.mark.slow
@pytest.mark.gate
def test_every_fault_can_be_requested_alone(pool_monitor: Start):
    started = [pool_monitor("demo", "--headless", "--duration", "0.5", "--size", "1", "--fault", one) for one in FAULTS]
    for demo in started:
        done = demo.ended()
        assert done.code == 0
        assert "Traceback" not in done.err


def test_a_killed_demo_leaves_no_worker(pool_monitor: Start, runtime_dir: Path):
    demo = pool_monitor("demo", "--headless", "--duration", "60", "--size", "2")
    until(lambda: list(runtime_dir.glob("demo-*.sock")))
    assert len(demo.workers()) == 2
    demo.send(signal.SIGKILL)
    demo.process.wait(DEADLINE_S)
    until(lambda: not demo.left_over())


def test_ctrl_c_ends_a_headless_demo_with_a_report(pool_monitor: Start, runtime_dir: Path):
    demo = pool_monitor("demo", "--headless", "--duration", "60", "--size", "1")
    until(lambda: list(runtime_dir.glob("demo-*.sock")))
    until(lambda: called(pool_monitor))
    demo.children()
    demo.send(signal.SIGINT)
    done = demo.ended()
    assert (done.code, done.err.strip()) == (130, "interrupted")
    assert f"pid {demo.pid}" in done.out
    assert re.search(r"^ *(?:keywords|summary|chat|generate) +\d+", done.out, re.MULTILINE), done.out
    assert demo.left_over() == []


def test_a_demo_on_a_terminal_shows_real_numbers_and_restores_the_terminal(terminal: Callable[..., Terminal]):
    screen = terminal("demo", "--duration", "60", "--size", "2", columns=120, rows=40)
    screen.shows(r"demo .*LIVE")
    screen.shows(r"keywords +\d+ +\d")
    screen.shows(r"p99 +\S*\d+(\.\d+)?(ms|s)")
    pid = screen.process.pid
    started = psutil.Process(pid).children(recursive=True)
    assert len([child for child in started if not child.children()]) == 2
    screen.press("q")
    assert screen.ended() == 0
    screen.assert_clean()
    screen.shows("keywords")  # the report
    assert not [child for child in started if child.is_running()]


@pytest.mark.slow
@pytest.mark.gate
def test_its_duration_ends_a_demo_on_a_terminal(terminal: Callable[..., Terminal]):
    screen = terminal("demo", "--duration", "1", "--size", "1", columns=80, rows=24)
    screen.shows("LIVE")
    assert screen.ended() == 0
    screen.assert_clean()
