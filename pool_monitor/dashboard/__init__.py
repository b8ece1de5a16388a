"""The live dashboard: a Textual app over `pool_monitor.view`.

`run` is in `pool_monitor.dashboard.app`. Importing that module loads Textual, which takes a moment; a program without a
terminal (`can_run`) can skip it.
"""

from pool_monitor.dashboard.feed import Feed, Frame, LocalFeed, Lost, StackFeed
from pool_monitor.dashboard.terminal import can_run

__all__ = ["Feed", "Frame", "LocalFeed", "Lost", "StackFeed", "can_run"]
