"""Which tests the everyday suite leaves to ``make gates``, so that it stays quick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

IN_GATES = [pytest.mark.slow, pytest.mark.gate]
"""The marks of a test, or of a row of one, that runs in the gates only."""


def in_gates(*values: Any) -> Any:
    """A row for parametrize, of one or several values, that runs in the gates only."""
    return pytest.param(*values, marks=IN_GATES)


def thinned(rows: Sequence[Any], nth: int) -> list[Any]:
    """*rows* for parametrize: each *nth*, from the first on, is everyday, and the others are in the gates. A row of
    several values is a tuple.
    """
    marked = [in_gates(*row) if isinstance(row, tuple) else in_gates(row) for row in rows]
    return [marked[index] if index % nth else row for index, row in enumerate(rows)]
