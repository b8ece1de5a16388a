"""Golden files: text that is compared with what was once looked at and found good.

``POOL_MONITOR_UPDATE_GOLDEN=1 pytest`` writes them anew; then read the diff before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "golden"


def check(name: str, text: str) -> None:
    """Assert that *text* equals the golden file *name*, showing the first line that differs."""
    path = FOLDER / name
    if os.environ.get("POOL_MONITOR_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
        return
    wanted = path.read_text(encoding="utf-8").splitlines()
    for number, (expected, got) in enumerate(zip(wanted, text.splitlines(), strict=False), start=1):
        assert expected == got, f"{name}, line {number}"
    assert len(wanted) == len(text.splitlines()), f"{name}: number of lines"
