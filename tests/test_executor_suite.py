"""CPython's tests of executors: they have the same outcome with monitored executors as without."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT

SUITE = "test.test_concurrent_futures"
SHARDS = 2
_MODULES = f"""
import {SUITE} as suite, pkgutil
names = [name for _finder, name, _package in pkgutil.iter_modules(getattr(suite, "__path__", ()))]
print(",".join(f"{SUITE}.{{name}}" for name in names if name.startswith("test_")) or "{SUITE}")
"""


def environment() -> dict[str, str]:
    paths = [str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def found_suite() -> tuple[str, str] | None:
    """Return an interpreter of this Python version that has these tests, and the modules that contain them.

    Many distributions, and pyenv, install Python without them. Debian has a package with the tests.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter in (sys.executable, f"/usr/bin/python{version}"):
        if Path(interpreter).exists():
            asked = subprocess.run(
                [interpreter, "-c", _MODULES], env=environment(), capture_output=True, text=True, check=False
            )
            if asked.returncode == 0:
                return interpreter, asked.stdout.strip()
    return None


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(400)
def test_the_executors_of_cpython_pass_its_tests_wrapped_as_they_do_unwrapped(tmp_path: Path) -> None:
    suite = found_suite()
    if suite is None:
        pytest.skip(f"no interpreter of this version here has {SUITE}")
    interpreter, modules = suite
    program = str(ROOT / "tests" / "helpers" / "wrapped_executors.py")
    # All at once: the tests sleep nearly all of the time.
    runs = {}
    for how in ("plain", "wrapped"):
        for shard in range(SHARDS):
            command = [interpreter, program, how, modules, str(shard), str(SHARDS)]
            out, log = (tmp_path / f"{how}-{shard}.{end}" for end in ("json", "log"))
            with out.open("wb") as output, log.open("wb") as errors:
                process = subprocess.Popen(
                    command, env=environment(), cwd=tmp_path, stdout=output, stderr=errors, start_new_session=True
                )
            runs[how, shard] = process, out, log
    outcomes: dict[str, dict[str, str]] = {"plain": {}, "wrapped": {}}
    try:
        for (how, shard), (process, out, log) in runs.items():
            try:
                process.wait(timeout=300)
            except subprocess.TimeoutExpired:
                pytest.fail(f"{how}, shard {shard}: hangs\n{log.read_text()[-2000:]}")
            assert process.returncode == 0, log.read_text()[-5000:]
            outcomes[how] |= json.loads(out.read_text().splitlines()[-1])
    finally:
        for process, _out, _log in runs.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also the worker processes of a test that hangs
            process.wait()
    plain, wrapped = outcomes["plain"], outcomes["wrapped"]
    differing = {
        name: (plain.get(name), wrapped.get(name)) for name in plain | wrapped if plain.get(name) != wrapped.get(name)
    }
    assert differing == {}
    assert Counter(plain.values())["ok"] > 150
