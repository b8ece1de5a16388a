"""``python -m pool_monitor``: the program ``pool-monitor``."""

from pool_monitor.cli import main

main()
