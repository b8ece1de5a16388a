"""The examples do what they say, and so does the code in the README."""

from __future__ import annotations

import ast
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.programs import DEADLINE_S, ROOT, Program, Terminal

Start = Callable[..., Program]
README_BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def asked(port: int, *lines: bytes) -> list[object]:
    """What the service on *port* answers to *lines*."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as client:
        answers = client.makefile("rb")
        said = []
        for line in lines:
            client.sendall(line)
            said.append(json.loads(answers.readline()))
        return said


@pytest.fixture
def service(program: Start) -> tuple[Program, int]:
    """The service of the examples, and its port."""
    one = program(str(ROOT / "examples" / "service.py"), "--port", "0", "--load", "50")
    assert one.process.stdout is not None
    listening = re.search(r"127\.0\.0\.1:(\d+)", one.process.stdout.readline().decode())
    assert listening is not None
    return one, int(listening[1])


def test_the_service_answers_is_seen_and_ends_without_leftovers(
    service: tuple[Program, int],
    pool_monitor: Start,
    terminal: Callable[..., Terminal],
    runtime_dir: Path,
):
    running, port = service
    (first,) = asked(port, b"the quick brown fox jumps over the quick dog\n")
    assert first == [["quick", 2], ["brown", 1], ["fox", 1], ["jumps", 1], ["dog", 1]]
    assert len(running.workers()) == 2

    seen = json.loads(pool_monitor("snapshot", "text").ended().out)
    assert seen["pools"]["text"]["operations"]["keywords"]["calls"] == 1
    screen = terminal("dashboard", "text", columns=120, rows=40)
    screen.shows(rf"pid {running.pid}.*LIVE")
    screen.shows(r"summary +\d+")
    screen.press("q")
    assert screen.ended() == 0

    with socket.create_connection(("127.0.0.1", port)):  # somebody who never says a word
        running.send(signal.SIGTERM)
        done = running.ended()
    assert (done.code, done.err) == (0, "")
    assert re.search(r"\d+ calls, p95 0\.\d+ s, 0 failed", done.out)
    assert running.left_over() == []
    assert list(runtime_dir.iterdir()) == []


def test_the_service_survives_its_clients(service: tuple[Program, int]):
    running, port = service
    with socket.create_connection(("127.0.0.1", port)) as rude:
        rude.sendall(b"no end of line")
    with socket.create_connection(("127.0.0.1", port)) as rude:
        rude.sendall(b"gone before the answer\n" * 50)
    with socket.create_connection(("127.0.0.1", port)) as rude:
        rude.settimeout(DEADLINE_S)
        rude.sendall(b"x" * (2 << 20))
        assert b"too long" in rude.recv(100)
    assert asked(port, b"\xff\xfe is no text\n", b"\n") == [[["text", 1]], []]
    running.send(signal.SIGINT)
    done = running.ended()
    assert (done.code, done.err) == (0, "")


def test_the_text_tools_import_nothing_of_ours():
    tree = ast.parse((ROOT / "examples" / "text_tools.py").read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_the_demo_works_with_the_same_text_tools():
    of_examples, of_demo = ROOT / "examples" / "text_tools.py", ROOT / "pool_monitor" / "demo" / "text_tools.py"
    assert of_demo.read_bytes() == of_examples.read_bytes()


def test_the_documents_can_be_run(pool_monitor: Start):
    documents = ROOT / "examples" / "documents.jsonl"
    run = pool_monitor("run", "examples/text_tools.py:TextTools", "keywords", "--input", documents, "--size", "1")
    done = run.ended()
    assert (done.code, re.sub(r" in .*", "", done.err)) == (0, f"{len(done.out.splitlines())} lines: 8 ok, 0 failed\n")
    assert len(done.out.splitlines()) == len(documents.read_text().splitlines())


@pytest.mark.parametrize("code", README_BLOCKS, ids=range(1, len(README_BLOCKS) + 1))
def test_the_code_in_the_readme_runs(code: str, runtime_dir: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_there_is_code_in_the_readme():
    assert README_BLOCKS
