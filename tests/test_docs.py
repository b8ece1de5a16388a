"""The docs say what the code says."""

from __future__ import annotations

import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import PayloadError, Pool, WorkerDied, telemetry
from tests.support import eventually, ops_pool
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


def test_tables_and_frames_in_the_docs_are_drawn_from_the_code():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert [path.name for path in generate.out_of_date()] == [], "run `make docs`"


def test_every_relative_link_in_the_docs_leads_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


# -- what the guide says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("guide", "code"), PROGRAMS)
def test_the_code_in_the_guides_runs(guide: str, code: str, tmp_path: Path):
    write_files(guide, tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


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


def travels() -> list[list[str]]:
    """The rows of the table, as what stands in backticks or is said instead."""
    table = GUIDES["POOL_GUIDE"].partition("## What travels")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines() if row.startswith("| ")]
    assert rows[0] == ["sent", *(f"`{codec}`" for codec in CODECS)]
    return [[cell.split("`")[1] if "`" in cell else cell for cell in row] for row in rows[1:]]


@pytest.fixture(scope="module")
async def pools(anyio_backend: str) -> Any:
    """A pool for each codec, whose workers can make every value too."""
    path = (str(ROOT / "tests"), str(ROOT))
    opened = {codec: Pool("tests.targets:values", size=1, name=codec, codec=codec, sys_path=path) for codec in CODECS}
    async with opened["msgpack"], opened["json"], opened["pickle"]:
        yield opened


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("row", travels(), ids=lambda row: row[0])
async def test_values_travel_as_the_guide_says(row: list[str], codec: str, pools: dict[str, Pool]):
    sent, word = row[0], row[1 + CODECS.index(codec)]
    pool, value = pools[codec], values.value(row[0])
    if word == "refused":
        with pytest.raises(PayloadError, match="the arguments cannot be carried"):
            await pool.run("echo", value)
        with pytest.raises(PayloadError, match="the result cannot be carried"):
            await pool.run("value", sent)
        return
    arrived = values.value(sent if word == "same" else word)
    assert await pool.run("seen", value) == repr(arrived), "there"
    back = await pool.run("value", sent)
    assert (type(back), back) == (type(arrived), arrived), "and back"
