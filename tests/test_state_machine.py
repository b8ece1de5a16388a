"""A state machine as a table: it goes where the table says, and names what it refuses."""

from __future__ import annotations

from enum import StrEnum

import pytest

from pool_monitor.pool.policy.breaker import BREAKER
from pool_monitor.pool.policy.lifecycle import LIFECYCLE
from pool_monitor.state_machine import IllegalTransition, StateMachine


class Door(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    WALLED = "walled"


TABLE = {
    Door.OPEN: {"close": Door.CLOSED},
    Door.CLOSED: {"open": Door.OPEN, "wall up": Door.WALLED},
    Door.WALLED: {},
}
DOOR = StateMachine("door", Door.OPEN, TABLE)


def test_a_trigger_leads_where_the_table_says() -> None:
    assert DOOR.first is Door.OPEN
    assert DOOR.step(Door.OPEN, "close") is Door.CLOSED
    assert DOOR.step(Door.CLOSED, "wall up") is Door.WALLED


def test_what_the_table_does_not_hold_is_refused_with_what_it_holds() -> None:
    with pytest.raises(IllegalTransition) as raised:
        DOOR.step(Door.CLOSED, "close")
    assert str(raised.value) == "door: 'close' in state 'closed'; allowed there: 'open', 'wall up'"
    with pytest.raises(IllegalTransition) as raised:
        DOOR.step(Door.WALLED, "open")
    assert str(raised.value) == "door: 'open' in state 'walled'; allowed there: nothing"


def test_what_can_be_reached_is_found_and_what_cannot_is_not() -> None:
    assert DOOR.reachable(Door.OPEN) == set(Door)
    assert DOOR.reachable(Door.WALLED) == {Door.WALLED}


def test_a_table_without_a_row_for_a_state_is_refused() -> None:
    with pytest.raises(ValueError, match="state machine 'door': no row for open, walled"):
        StateMachine("door", Door.OPEN, {Door.CLOSED: {"open": Door.OPEN}})


def test_a_table_is_drawn_arrow_by_arrow() -> None:
    assert DOOR.mermaid().splitlines() == [
        "stateDiagram-v2",
        "    [*] --> open",
        "    open --> closed: close",
        "    closed --> open: open",
        "    closed --> walled: wall up",
    ]


@pytest.mark.parametrize("machine", [LIFECYCLE, BREAKER], ids=lambda machine: machine.name)
def test_every_state_of_every_machine_can_be_reached_and_left(machine: StateMachine[StrEnum]) -> None:
    assert machine.reachable(machine.first) == set(machine.table)
    assert all(machine.first in machine.reachable(state) for state in machine.table)
