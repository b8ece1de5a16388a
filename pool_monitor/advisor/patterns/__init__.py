"""The table of patterns. A new one needs a file here, a row in the table, and a labelled scenario."""

from __future__ import annotations

from pool_monitor.advisor.detection import PatternCheck
from pool_monitor.snapshot.advice import Pattern

PATTERNS: dict[Pattern, PatternCheck] = {}
"""Every pattern, in the order in which causes come before their consequences."""
