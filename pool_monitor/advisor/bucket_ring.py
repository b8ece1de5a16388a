"""A ring of rows, one for each stretch of time, whose figures are added up while the stretch lasts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class BucketRing:
    """Figures by column for each *seconds* of time: the latest *rows* stretches. A row begins with zeros."""

    def __init__(self, columns: tuple[str, ...], seconds: float, rows: int) -> None:
        self.seconds = seconds
        self._place = {name: number for number, name in enumerate(columns)}
        self._values = np.zeros((rows, len(columns)))
        self._numbers = np.full(rows, -1, np.int64)  # of each row: which stretch since the clock's zero
        self._zeros = [0.0] * len(columns)
        self._adding: int | None = None  # the stretch that `_added` is of
        self._added = self._zeros.copy()  # what its row lacks: a list is added to in a quarter of the time

    @property
    def nbytes(self) -> int:
        used = int(np.count_nonzero(self._numbers >= 0))  # the system gives no memory for rows that were never written
        return used * self._values.strides[0] + int(self._numbers.nbytes)

    def number(self, at: float) -> int:
        """The number of the stretch that *at* lies in."""
        return math.floor(at / self.seconds)

    def row(self, number: int) -> NDArray[np.float64] | None:
        """The row of a stretch, to be changed in place at once; None: it is forgotten already."""
        self._settle()
        return self._row(number)

    def _settle(self) -> None:
        """Put what was added into its row."""
        if self._adding is not None:
            row = self._row(self._adding)
            if row is not None:
                row += self._added
            self._adding = None

    def _row(self, number: int) -> NDArray[np.float64] | None:
        place = number % len(self._numbers)
        if self._numbers[place] != number:
            if self._numbers[place] > number:
                return None
            self._numbers[place] = number
            self._values[place] = 0.0
        row: NDArray[np.float64] = self._values[place]
        return row

    def add(self, at: float, **figures: float) -> None:
        """Add *figures*, by the name of their column, to the row of *at*."""
        number = math.floor(at / self.seconds)
        if number != self._adding:
            self._settle()
            self._adding, self._added = number, self._zeros.copy()
        place, added = self._place, self._added
        for name, value in figures.items():
            added[place[name]] += value

    def before(self, now: float, latest: int | None = None) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
        """The numbers of the stretches that are over at *now*, oldest first, and copies of their columns by name: of
        all that are kept, or of the *latest* stretches.
        """
        self._settle()
        rows, last = len(self._numbers), self.number(now)
        numbers = np.arange(max(last - min(rows, latest or rows), 0), last)
        places = numbers % rows
        there = self._numbers[places] == numbers
        columns = self._values[places[there]].T.copy()
        return numbers[there], {name: columns[place] for name, place in self._place.items()}
