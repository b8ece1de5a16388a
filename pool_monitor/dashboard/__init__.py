"""The live dashboard: a Textual app over `pool_monitor.view`.

`run` is in `pool_monitor.dashboard.app`: importing that loads Textual, which takes a moment that whoever has no
terminal (`can_run`) need not spend.
"""

from pool_monitor.dashboard.feed import Feed, Frame, LocalFeed, Lost
from pool_monitor.dashboard.terminal import can_run

__all__ = ["Feed", "Frame", "LocalFeed", "Lost", "can_run"]
