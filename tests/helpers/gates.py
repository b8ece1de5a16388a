"""Which tests the everyday suite leaves to ``make gates``, so that it stays quick."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

IN_GATES = [pytest.mark.slow, pytest.mark.gate]
"""The marks of a test, or of a row of one, that runs in the gates only."""


def thinned(rows: Iterable[Any], nth: int) -> list[Any]:
    """*rows* for parametrize: each *nth*, from the first on, is everyday, and the others are in the gates."""
    return [row if not index % nth else in_gates(row) for index, row in enumerate(rows)]


def in_gates(row: Any) -> Any:
    """A row for parametrize, as one of the gates. A tuple is the values of several parameters."""
    if isinstance(row, type(pytest.param())):
        return row._replace(marks=(*row.marks, *IN_GATES))
    return pytest.param(*row, marks=IN_GATES) if type(row) is tuple else pytest.param(row, marks=IN_GATES)
