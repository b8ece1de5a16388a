"""Numbers for names that come in any number: operations, workers, types of errors."""

from __future__ import annotations

OTHER = "(other)"
"""The name of what came after the last free number."""


class Numbering:
    """Gives each name a number, from 0. The last of *limit* numbers is that of all names that come too late."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, name: str) -> int:
        """The number of *name*. Raises TypeError for what is no text."""
        found = self._numbers.get(name)
        if found is not None:
            return found
        if not isinstance(name, str):
            raise TypeError(f"a name is a text, not {type(name).__name__}")
        name = name[:_LENGTH]
        if name in self._numbers:
            return self._numbers[name]
        if len(self._numbers) >= self._limit - 1:
            name = OTHER
        return self._numbers.setdefault(name, len(self._numbers))

    def all(self) -> tuple[str, ...]:
        """The names in the order of their numbers."""
        return tuple(self._numbers)


_LENGTH = 200
"""Characters of a name that are kept."""
