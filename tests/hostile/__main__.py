"""A run of hostile sessions against a service, which is a process of its own: it may not survive.

The report goes to stdout, as JSON; the exit code is 1 when anything was found.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.hostile.worker import Field

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    asked = _arguments()
    if asked.serve:
        return _serve(asked)
    with tempfile.TemporaryDirectory(prefix="hostile-") as directory:
        report = run(Path(directory), asked.seed, asked.sessions, asked.session, asked.layout, asked.timeout)
    print(json.dumps(report, indent=2))
    return 1 if report["found"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description="Hostile workers against a service.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=1000, help="of all layouts together")
    parser.add_argument("--session", type=int, help="this one only, --sessions times (20)")
    parser.add_argument("--layout", type=int, action="append", help="these only, by their places")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds, for the service")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.session is not None:
        asked.sessions = asked.sessions if asked.sessions != 1000 else 20
    return asked


def run(
    directory: Path,
    seed: int,
    sessions: int,
    session: int | None = None,
    layouts: list[int] | None = None,
    timeout: float = 3600.0,
) -> dict[str, Any]:
    """Have a service fight the sessions, and give its report; or what is known of its end."""
    field = Field(str(directory))
    field.lay(seed)
    command = [sys.executable, "-m", "tests.hostile", "--serve", str(directory)]
    command += [f"--seed={seed}", f"--sessions={sessions}", f"--timeout={timeout}"]
    command += [] if session is None else [f"--session={session}"]
    command += [f"--layout={place}" for place in layouts or ()]
    with (directory / "stderr").open("wb") as stderr:
        service = subprocess.Popen(command, cwd=ROOT, stderr=stderr, start_new_session=True)
        try:
            code = service.wait(timeout + 30)
        except subprocess.TimeoutExpired:
            code = None
            service.kill()
            service.wait()
    report = directory / "report"
    if code == 0 and report.exists():
        found: dict[str, Any] = json.loads(report.read_text())
        return found
    said = (directory / "stderr").read_text(errors="replace")[-6000:]
    last = [line.split()[1] for line in (directory / "roster").read_text().splitlines()[-24:]]
    how = "did not end" if code is None else f"ended with {signal.Signals(-code).name if code < 0 else code}"
    return {"found": [f"the service {how}; the last sessions were {', '.join(last)}; it wrote:\n{said}"]}


def _serve(asked: argparse.Namespace) -> int:
    from tests.hostile.driver import LAYOUTS, Battle, serve, shares

    faulthandler.enable()
    faulthandler.dump_traceback_later(asked.timeout, exit=True)
    field = Field(asked.serve)
    places = shares(asked.sessions)
    if asked.session is not None:
        places, step = {asked.session % len(LAYOUTS): asked.sessions}, 0
    else:
        step = len(LAYOUTS)
    battles = []
    for place, count in places.items():
        if asked.layout is None or place in asked.layout:
            first = place if asked.session is None else asked.session
            battles.append(Battle(LAYOUTS[place], field, seed=asked.seed, first=first, count=count, step=step))
    (field.path / "report").write_text(json.dumps(serve(battles)))
    sys.stdout.flush()
    os._exit(0)  # whatever is stuck is in the report


if __name__ == "__main__":
    sys.exit(main())
