"""The kill switch of the tuner: an environment variable that wins over every mode."""

from __future__ import annotations

import os

KILL_SWITCH = "POOL_MONITOR_TUNER"
"""The environment variable. With the value ``off`` it stops the tuner. It is looked at before every action."""


def is_killed() -> bool:
    """Whether the environment stops the tuner now."""
    return os.environ.get(KILL_SWITCH, "").strip().lower() == "off"
