"""The JSON Schema of rule files, drawn from the grammar that the checker reads."""

from __future__ import annotations

from typing import Any

from pool_monitor.alerts.rule_file.fields import Definitions
from pool_monitor.alerts.rule_file.file import file_section


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a rule file, as an editor uses it.

    A valid file fits it. It cannot say everything: units that do not fit a metric, names that do not exist, and levels
    in a wrong order are for the checker.
    """
    definitions: Definitions = {}
    reference = file_section().schema(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rules of alerts for pool-monitor",
        **reference,
        "$defs": definitions,
    }
