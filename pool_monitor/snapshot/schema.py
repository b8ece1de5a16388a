"""The version of the form of a monitor's answers, and the windows that it can answer for."""

SCHEMA_VERSION = 1
WINDOW_NAMES = ("1m", "5m", "15m", "1h")
"""The windows of a Snapshot, shortest first."""
