"""The live dashboard: a Textual app over `pool_monitor.view`."""

from pool_monitor.dashboard.app import run
from pool_monitor.dashboard.feed import Feed, Frame, LocalFeed, Lost
from pool_monitor.dashboard.terminal import can_run

__all__ = ["Feed", "Frame", "LocalFeed", "Lost", "can_run", "run"]
