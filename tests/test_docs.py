"""The docs say what the code says."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from pool_monitor import PayloadError, Pool, WorkerDied, telemetry
from pool_monitor.advisor.core import playbook_of
from pool_monitor.snapshot import Pattern
from tests.helpers.support import eventually, ops_pool
from tests.helpers.transports import started
from tests.targets import values

ROOT = Path(__file__).parent.parent
GUIDES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*_GUIDE.md"))}
CODECS = ("msgpack", "json", "pickle")


def blocks(language: str, guide: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDES[guide], re.MULTILINE | re.DOTALL)


PROGRAMS = [
    pytest.param(guide, code, id=f"{guide}-{n}")
    for guide in GUIDES
    for n, code in enumerate(blocks("python", guide), 1)
]


def write_files(guide: str, folder: Path) -> None:
    """What the programs of *guide* find beside them: the code that begins with its file's name, and the settings."""
    for code in blocks("python", guide):
        if name := re.match(r"# (\w+\.py)\n", code):
            (folder / name[1]).write_text(code)
    (folder / "pool-monitor.toml").write_text((blocks("toml", guide) or [""])[0])


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    """docs/generate.py, as a program of that folder imports it."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        yield importlib.import_module("generate")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_tables_and_frames_in_the_docs_are_drawn_from_the_code(generate: ModuleType):
    assert [path.name for path in generate.out_of_date()] == [], "run `make docs`"


DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
        ROOT / "benchmarks/lab/README.md",
        *(ROOT / "docs").glob("*.md"),
    ]
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_in_the_docs_leads_somewhere(document: Path, generate: ModuleType):
    text = generate.FENCED.sub("", document.read_text())
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        there = document.parent / name if name else document
        assert there.exists(), link
        if anchor:
            assert anchor in [heading[2] for heading in generate.headings(there.read_text())], link


@pytest.mark.parametrize("pattern", get_args(Pattern))
def test_every_pattern_of_advice_has_the_section_of_the_playbook_that_it_names(pattern: Pattern, generate: ModuleType):
    name, _, anchor = playbook_of(pattern).partition("#")
    section = next(heading for heading in generate.headings((ROOT / name).read_text()) if heading[2] == anchor)
    assert section[1] == f"Advice: {pattern.replace('_', ' ')}"


def test_anchors_are_those_that_github_makes_of_headings(generate: ModuleType):
    text = """# A guide
## What happened: `pool-monitor report`
## History
### What is kept, and how true it is
```sh
## no heading
```
### `[history]`
### `pool.worker.crash_loop`
"""
    assert generate.headings(text) == [
        (1, "A guide", "a-guide"),
        (2, "What happened: `pool-monitor report`", "what-happened-pool-monitor-report"),
        (2, "History", "history"),
        (3, "What is kept, and how true it is", "what-is-kept-and-how-true-it-is"),
        (3, "`[history]`", "history-1"),
        (3, "`pool.worker.crash_loop`", "poolworkercrash_loop"),
    ]


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_every_document_of_the_docs_begins_with_its_contents(document: Path, generate: ModuleType):
    text = document.read_text()
    [block] = generate.CONTENTS.findall(text)
    assert "\n## " not in text.partition(block[0])[0]


def rows(document: str, heading: str) -> list[str]:
    """What stands in backticks in the first column of the table under *heading*."""
    chapter = re.split(r"\n#+ ", (ROOT / document).read_text().partition(f" {heading}\n")[2])[0]
    cells = [line.split("|")[1] for line in chapter.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_every_room_is_described():
    rooms = [path for path in (ROOT / "pool_monitor").iterdir() if not path.name.startswith(("_", "py.typed"))]
    assert sorted(rows("docs/ARCHITECTURE.md", "The rooms")) == sorted(
        f"{path.name}/" if path.is_dir() else path.name for path in rooms
    )


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/ARCHITECTURE.md"])
def test_every_file_that_is_named_is_there(document: str):
    """Relative to the repository or the package; a bare name anywhere in the package or the tests."""
    named = re.findall(r"`([\w./]+(?:\.py|/))`", (ROOT / document).read_text())
    folders = [ROOT, ROOT / "pool_monitor"]
    missing = [
        name
        for name in named
        if not any((folder / name).exists() for folder in folders)
        and ("/" in name or not any(next((ROOT / top).rglob(name), None) for top in ("pool_monitor", "tests")))
    ]
    assert named
    assert missing == []


def test_every_file_of_the_test_helpers_is_described():
    assert sorted(rows("CONTRIBUTING.md", "Tests")) == sorted(path.name for path in ROOT.glob("tests/helpers/*.py"))


FLOORS = [{"pool_monitor.cli"}, {"pool_monitor.view", "pool_monitor.pool"}, {"pool_monitor.errors"}]
IMPORTS = {
    "pool_monitor.cli": {"pool_monitor.view", "pool_monitor.pool", "pool_monitor.errors"},
    "pool_monitor.view": {"pool_monitor.errors"},
    "pool_monitor.pool": set(),
    "pool_monitor.errors": set(),
}


def test_the_drawing_of_the_floors_leaves_out_arrows_that_follow_from_others(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    draw = generate.draw_imports
    monkeypatch.setattr(draw, "_layers", lambda: FLOORS)
    monkeypatch.setattr(draw, "_imports", lambda _package: dict(IMPORTS))
    assert [line.strip() for line in draw.floors().splitlines() if "-->" in line] == [
        "room_cli --> room_pool",
        "room_cli --> room_view",
        "room_view --> room_errors",
    ]


def test_a_room_without_a_floor_cannot_be_drawn(generate: ModuleType, monkeypatch: pytest.MonkeyPatch):
    draw = generate.draw_imports
    monkeypatch.setattr(draw, "_layers", lambda: FLOORS)
    monkeypatch.setattr(draw, "_imports", lambda _package: IMPORTS | {"pool_monitor.new": set()})
    with pytest.raises(ValueError, match=r"no floor for pool_monitor\.new: add it to the layers"):
        draw.floors()


def test_a_module_stands_above_all_it_imports_and_a_circle_on_one_line(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    draw = generate.draw_imports
    imports = {"p.top": {"p.a", "p.low"}, "p.a": {"p.b"}, "p.b": {"p.a", "p.low"}, "p.low": set()}
    monkeypatch.setattr(draw, "_imports", lambda _package: imports)
    assert draw.inside("p") == "```text\n  2  top\n  1  a b\n  0  low\n```"


# -- what the guide says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("guide", "code"), PROGRAMS)
def test_the_code_in_the_guides_runs(guide: str, code: str, tmp_path: Path):
    write_files(guide, tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    # Alerts are evaluated every five seconds by the clock: whether a program of a second meets one is chance.
    errors = [line for line in done.stderr.splitlines() if not line.startswith("alert ")]
    assert (done.returncode, errors) == (0, [])


def test_the_web_service_of_the_guide_answers_and_streams_and_says_whether_it_is_ready(tmp_path: Path):
    write_files("POOL_GUIDE", tmp_path)
    asked = """
import asyncio, httpx
from app import app, pool
async def main():
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            print((await client.post("/words", content="a b c")).text)
            print((await client.post("/lines", content="a\\n b")).text.split())
            print((await client.get("/monitor/readyz")).status_code, pool.status().state)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", asked],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "3\n['a', 'b']\n200 running\n")


async def test_the_alarms_of_the_guide_tell_of_crashes_crash_loops_and_the_breaker(caplog: pytest.LogCaptureFixture):
    [code] = [block for block in blocks("python", "MONITORING_GUIDE") if "ALARMS" in block]
    caplog.set_level(logging.DEBUG, "my_service.pool")
    try:
        exec(code, {})
        async with ops_pool(restart_limit=0, breaker_failures=1, backoff_max=0.1) as pool:
            with pytest.raises(WorkerDied):
                await pool.run("die")
            await eventually(lambda: "crash loop" in caplog.text)
    finally:
        telemetry.detach("alarm")
        telemetry.detach("trace")
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "worker ops-0 ended by itself: exit code 3" in said
    assert "worker ops-0 keeps ending: crash loop entered" in said
    assert "circuit breaker of ops: closed to open (failures)" in said
    assert any(record.getMessage().startswith("pool.operation.start {") for record in caplog.records)


PROTOCOL = (ROOT / "docs/WORKER_PROTOCOL.md").read_text()


async def test_the_bytes_that_the_protocol_shows_are_those_on_the_wire(tmp_path: Path) -> None:
    [dump] = re.findall(r"^```text\n(Parent, hello:\n.*?)^```$", PROTOCOL, re.MULTILINE | re.DOTALL)
    frames: list[bytes] = []
    for line in dump.splitlines():
        if not line.startswith(" "):
            frames.append(b"")
            continue
        offset, numbers, text = line[2:6], line[8:55], line[58:-1]
        piece = bytes.fromhex(numbers)
        assert int(offset, 16) == len(frames[-1])
        assert text == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        frames[-1] += piece
    parts = [str(len(frame)) if turn % 2 == 0 else frame.hex() for turn, frame in enumerate(frames)]
    record, player = tmp_path / "record", Path(__file__).parent / "workers" / "player.py"
    command = (sys.executable, str(player), str(record), *parts)
    limits = {"frame_limit": 64 << 20, "session_data_limit": 256 << 10}  # the defaults
    async with started(command=command, target="text.rb", path=["/srv"], codecs=["json"], **limits) as line:
        assert await line.run("add", 20, right=22) == 42
    assert record.read_bytes() == b"".join(frames[::2])


@pytest.mark.skipif(
    sys.platform != "linux" or not platform.machine().startswith(("x86", "i686", "arm", "aarch")),
    reason="they are the numbers of Linux on x86 and ARM",
)
def test_the_numbers_of_the_life_line_are_right() -> None:
    numbers = {
        "F_SETOWN": fcntl.F_SETOWN,
        "F_SETSIG": fcntl.F_SETSIG,
        "F_GETFL": fcntl.F_GETFL,
        "F_SETFL": fcntl.F_SETFL,
    }
    for name, number in numbers.items():
        assert re.search(rf"`{name}` {number}\b", PROTOCOL)
    assert f"`O_ASYNC` {os.O_ASYNC:06o} in octal" in PROTOCOL


def travels() -> list[list[str]]:
    """The rows of the table, as what stands in backticks or is said instead."""
    table = GUIDES["POOL_GUIDE"].partition("## What travels")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines() if row.startswith("| ")]
    assert rows[0] == ["sent", *(f"`{codec}`" for codec in CODECS)]
    return [[cell.split("`")[1] if "`" in cell else cell for cell in row] for row in rows[1:]]


REMEDIES = {"json": "codec='json'", "pickle": "codec='pickle'", "msgpack": "codec='auto' with msgpack installed"}


@pytest.fixture(scope="module")
async def pools(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pool for each codec, whose workers can make every value too, and one whose workers have no msgspec."""
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "msgspec.py").write_text("raise ImportError\n")
    settings = {codec: {} for codec in CODECS} | {
        "package": {"env": {"PYTHONPATH": str(hidden)}, "start_method": "exec"}
    }
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                Pool(
                    "tests.targets:values", size=1, name=name, codec="msgpack" if name == "package" else name,
                    sys_path=(str(ROOT / "tests"), str(ROOT)), **more,
                )
            )
            for name, more in settings.items()
        }  # fmt: skip


def cell(row: list[str], codec: str) -> str:
    return row[1 + CODECS.index("msgpack" if codec == "package" else codec)]


def cells(*, refused: bool) -> Any:
    """Every row with every codec that carries its value, or refuses it."""
    found = [(row, codec) for row in travels() for codec in (*CODECS, "package")]
    chosen = [(row, codec) for row, codec in found if (cell(row, codec) == "refused") is refused]
    return pytest.mark.parametrize(
        ("row", "codec"), chosen, ids=lambda value: value if type(value) is str else value[0]
    )


@cells(refused=False)
async def test_values_travel_as_the_guide_says(row: list[str], codec: str, pools: dict[str, Pool]):
    sent, word = row[0], cell(row, codec)
    pool, value = pools[codec], values.value(row[0])
    arrived = values.value(sent if word == "same" else word)
    assert await pool.run("seen", value) == repr(arrived), "there"
    back = await pool.run("value", sent)
    assert (type(back), repr(back)) == (type(arrived), repr(arrived)), "and back"


@cells(refused=True)
async def test_a_refusal_advises_what_carries_the_value_and_nothing_else(
    row: list[str], codec: str, pools: dict[str, Pool]
):
    with pytest.raises(PayloadError, match="the arguments cannot be carried") as there:
        await pools[codec].run("echo", values.value(row[0]))
    with pytest.raises(PayloadError, match="the result cannot be carried") as back:
        await pools[codec].run("value", row[0])
    right = [words for other, words in REMEDIES.items() if cell(row, other) != "refused"]
    for failure in (there, back):
        assert [words for words in REMEDIES.values() if words in str(failure.value)] == right
