"""Where messages lie in shared memory while they are lent. No processes."""

from __future__ import annotations

import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pool_monitor.pool.transport.child.shared import Shared, file_size

AREA = 4096
SIZES = (AREA // 4 - 1, AREA // 4, AREA // 4 + 1, AREA // 2, AREA, AREA + 1)


class Lending(RuleBasedStateMachine):
    """One side lends, the other reads and returns: whatever is lent stays as it was put until it is returned."""

    def __init__(self) -> None:
        super().__init__()
        with tempfile.TemporaryFile() as file:
            file.truncate(file_size(AREA))
            self.ours, self.theirs = (Shared(file.fileno(), AREA, parent=parent) for parent in (True, False))
        self.ours.offsets = True
        self.lent: list[tuple[int, int, int]] = []  # offset, length, what it is filled with
        self.count = 0

    @rule(size=st.sampled_from(SIZES) | st.integers(1, AREA))
    def lend(self, size: int) -> None:
        self.count = self.count % 255 + 1
        message = self.ours.lend([bytes([self.count]) * size], size)
        if message is None:
            assert self.lent or size > AREA, "an empty area takes whatever fits into it"
            return
        _, length, offset = message
        assert length == size
        assert all(offset + length <= start or start + size <= offset for start, size, _ in self.lent)
        self.lent.append((offset, length, self.count))

    @precondition(lambda self: self.lent)
    @rule()
    def give_back(self) -> None:
        self.ours.returned()
        del self.lent[0]

    @rule()
    def tidy(self) -> None:
        self.ours.give_back()

    @invariant()
    def what_is_lent_is_as_it_was(self) -> None:
        assert self.ours.lent == len(self.lent)
        for offset, length, mark in self.lent:
            with self.theirs.borrowed(length, offset) as view:
                assert view == bytes([mark]) * length

    def teardown(self) -> None:
        self.ours.close()
        self.theirs.close()


TestLending = Lending.TestCase
TestLending.settings = settings(max_examples=50, stateful_step_count=40)


def test_messages_go_around_in_the_area_and_never_over_one_that_is_lent() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(file_size(AREA))
        memory = Shared(file.fileno(), AREA, parent=True)
    memory.offsets = True
    quarter = AREA // 4

    def lend(size: int) -> int | None:
        message = memory.lend([bytes(size)], size)
        return None if message is None else message[2]

    assert [lend(quarter) for _ in range(5)] == [0, quarter, 2 * quarter, 3 * quarter, None]
    memory.returned()
    memory.returned()
    assert lend(quarter) == 0
    assert lend(quarter + 1) is None
    assert lend(quarter) == quarter
    assert lend(1) is None
    for _ in range(4):
        memory.returned()
    assert lend(AREA) == 0
    memory.close()
