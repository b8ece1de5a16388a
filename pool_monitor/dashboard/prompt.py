"""A question about the selected row, and then the answer: a key asks, a second key confirms. No I/O."""

from __future__ import annotations

import getpass
from typing import Generic, Protocol, TypeVar

from pool_monitor.view.text import one_line


class Asked(Protocol):
    """What a person may be asked about."""

    @property
    def about(self) -> str:
        """Names the row that it is about."""

    @property
    def words(self) -> str:
        """What is to be done, in words."""


AskedT = TypeVar("AskedT", bound=Asked)


class Prompt(Generic[AskedT]):
    """The question about one row, and then the answer. Both are gone when another row is selected."""

    def __init__(self) -> None:
        self._asked: AskedT | None = None
        self._about = ""
        self._answer = ""

    def ask(self, request: AskedT) -> None:
        """Ask whether to do *request*."""
        self._asked, self._about, self._answer = request, request.about, ""

    def confirm(self) -> AskedT | None:
        """Return what is to be done now; None: nothing was asked."""
        asked, self._asked = self._asked, None
        self._answer = f"{asked.words} …" if asked is not None else self._answer
        return asked

    def answer(self, request: AskedT, text: str) -> None:
        """Show what became of *request*."""
        self._about, self._answer = request.about, one_line(text)

    def cancel(self) -> bool:
        """Take back the question. Return whether there was one."""
        asked, self._asked = self._asked, None
        return asked is not None

    def text(self, about: str | None) -> str:
        """Return the line to show while the row *about* is selected; empty: there is none."""
        if about != self._about:
            self._asked, self._answer = None, ""
        return f"{self._asked.words}?   y yes   Esc no" if self._asked is not None else self._answer


def user() -> str:
    """Return the name of the user who sits here. Empty: it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
