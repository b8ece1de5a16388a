"""The policy of twenty lines in the guide: it is the one of the examples, it can be loaded, and it sizes a pool."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.sizing import make_policy
from tests.helpers.sized import QUIET

ROOT = Path(__file__).parent.parent


def observation(now: float, **changes: Any) -> Observation:
    return QUIET._replace(now=now, wall=1e9 + now, low=1, high=8, **{"busy": 4, "idle": 0, **changes})


def test_the_guide_shows_the_policy_of_the_examples_and_it_has_twenty_lines() -> None:
    guide = (ROOT / "docs" / "TUNING.md").read_text()
    shown = next(block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "class Steps" in block)
    [there], [here] = (
        [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
        for text in (shown, (ROOT / "examples" / "own_policy.py").read_text())
    )
    assert ast.dump(there) == ast.dump(here)
    assert len([line for line in ast.unparse(here).splitlines() if line.strip()]) <= 20


def test_it_is_loaded_by_its_name_and_sizes_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    policy = make_policy("examples.own_policy:Steps")
    assert policy.decide(observation(0, waiting=3)) == 7
    assert policy.decide(observation(1)) is None
    assert policy.decide(observation(2, busy=1, idle=3)) is None
    assert policy.decide(observation(61, busy=1, idle=3)) is None
    assert policy.decide(observation(62, busy=1, idle=3)) == 3
    assert policy.decide(observation(63, busy=1, idle=3)) is None
