"""Golden files: text that a person has checked once, and tests compare with.

``POOL_MONITOR_UPDATE_GOLDEN=1 pytest`` rewrites the files. Read the diff before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "golden"


def check(name: str, text: str) -> None:
    """Assert that *text* equals the golden file *name*. A failure shows the first line that differs."""
    path = FOLDER / name
    if os.environ.get("POOL_MONITOR_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
        return
    wanted = path.read_text(encoding="utf-8").splitlines()
    for number, (expected, got) in enumerate(zip(wanted, text.splitlines(), strict=False), start=1):
        assert expected == got, f"{name}, line {number}"
    assert len(wanted) == len(text.splitlines()), f"{name}: number of lines"
