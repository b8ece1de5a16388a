"""Rules as a person writes them: the reading and checking of rule files, and of rules that are given in code.

The grammar is data (`fields`, `kinds`, `rules`, `routes`): the checker, the JSON Schema (`schema`) and the reference
in the docs are drawn from it. A file becomes nodes with their places (`yaml_text`), a value of Python too
(`python_values`), and one checker reads both. All problems of a file are found in one run.
"""

from __future__ import annotations

from pool_monitor.alerts.rule_file.across import not_replaced, with_named
from pool_monitor.alerts.rule_file.code import Rule, check_together, checked_rule
from pool_monitor.alerts.rule_file.file import RuleFile
from pool_monitor.alerts.rule_file.files import CheckedFiles, RuleSet, check, check_files, load
from pool_monitor.alerts.rule_file.nodes import Problem
from pool_monitor.alerts.rule_file.shape import unit_of
from pool_monitor.alerts.rule_file.writing import fields_of

__all__ = [
    "CheckedFiles",
    "Problem",
    "Rule",
    "RuleFile",
    "RuleSet",
    "check",
    "check_files",
    "check_together",
    "checked_rule",
    "fields_of",
    "load",
    "not_replaced",
    "unit_of",
    "with_named",
]
