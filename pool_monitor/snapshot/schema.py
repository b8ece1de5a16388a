"""What every answer of a monitor has in common: the version of its form and the windows it may be asked for."""

SCHEMA_VERSION = 1
WINDOW_NAMES = ("1m", "5m", "15m", "1h")
"""The windows that a Snapshot can be taken of, the shortest first."""
