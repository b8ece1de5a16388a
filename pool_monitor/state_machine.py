"""State machines as tables: ``state -> trigger -> state``. What a table does not hold is illegal.

A machine holds no position: its user keeps the present state, and asks for the next one. So one table serves any number
of workers, breakers or alerts, and can be drawn and tested by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

StateT = TypeVar("StateT", bound=StrEnum)


class IllegalTransition(RuntimeError):
    """The table has no such transition: a defect of the program, not of its user. Nothing was changed."""


class StateMachine(Generic[StateT]):
    """The table of one kind of machine. *name* says in errors which one; *first* is the state that it begins in.

    Raises ValueError for a table in which a state has no row.
    """

    __slots__ = ("first", "name", "table")

    def __init__(self, name: str, first: StateT, table: Mapping[StateT, Mapping[str, StateT]]) -> None:
        self.name, self.first, self.table = name, first, table
        without_row = [state.value for state in type(first) if state not in table]
        if without_row:
            raise ValueError(f"state machine {name!r}: no row for {', '.join(without_row)}")

    def step(self, state: StateT, trigger: str) -> StateT:
        """The state that *trigger* leads to from *state*. Raises IllegalTransition when there is none."""
        after = self.table[state].get(trigger)
        if after is None:
            raise self.illegal(state, trigger)
        return after

    def illegal(self, state: StateT, trigger: str) -> IllegalTransition:
        """The error for *trigger* in *state*, for a caller that reads the table itself because it is in a hurry."""
        allowed = ", ".join(map(repr, self.table[state])) or "nothing"
        return IllegalTransition(f"{self.name}: {trigger!r} in state {state.value!r}; allowed there: {allowed}")

    def reachable(self, start: StateT) -> set[StateT]:
        """The states that some triggers lead to from *start*, which is one of them."""
        seen, todo = {start}, [start]
        while todo:
            fresh = set(self.table[todo.pop()].values()) - seen
            seen |= fresh
            todo += fresh
        return seen

    def mermaid(self) -> str:
        """The table as the text of a Mermaid state diagram."""
        arrows = [
            f"    {state.value} --> {after.value}: {trigger}"
            for state, row in self.table.items()
            for trigger, after in row.items()
        ]
        return "\n".join(["stateDiagram-v2", f"    [*] --> {self.first.value}", *arrows])
