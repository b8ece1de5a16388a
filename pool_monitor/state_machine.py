"""State machines as tables: ``state -> trigger -> state``. A transition that is not in the table is illegal.

A `StateMachine` does not store a current state: its user does, and asks for the next one. So one table serves any
number of workers, breakers or alerts, and can be drawn and tested without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

StateT = TypeVar("StateT", bound=StrEnum)


class IllegalTransition(RuntimeError):
    """The table has no such transition. This is a defect of the program, not a user's mistake; no state has changed."""


class StateMachine(Generic[StateT]):
    """The table of one kind of machine. Errors contain *name*. *first* is the initial state.

    Raises ValueError when a state has no row in *table*.
    """

    __slots__ = ("first", "name", "table")

    def __init__(self, name: str, first: StateT, table: Mapping[StateT, Mapping[str, StateT]]) -> None:
        self.name, self.first, self.table = name, first, table
        without_row = [state.value for state in type(first) if state not in table]
        if without_row:
            raise ValueError(f"state machine {name!r}: no row for {', '.join(without_row)}")

    def step(self, state: StateT, trigger: str) -> StateT:
        """The state after *trigger* in *state*. Raises IllegalTransition when the table has none."""
        after = self.table[state].get(trigger)
        if after is None:
            raise self.illegal(state, trigger)
        return after

    def illegal(self, state: StateT, trigger: str) -> IllegalTransition:
        """The error for *trigger* in *state*, for a caller that reads the table directly to save time."""
        allowed = ", ".join(map(repr, self.table[state])) or "nothing"
        return IllegalTransition(f"{self.name}: {trigger!r} in state {state.value!r}; allowed there: {allowed}")

    def reachable(self, start: StateT) -> set[StateT]:
        """*start* and all states that can follow it."""
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
