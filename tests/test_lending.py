"""Where messages lie in shared memory while they are lent, and how a large value is found in one. No processes."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pool_monitor.pool.transport.child.codec import CODECS, LARGE
from pool_monitor.pool.transport.child.shared_memory import SharedMemory, file_size
from pool_monitor.pool.transport.shared_memory import split_off_value

AREA = 4096
SIZES = (AREA // 4 - 1, AREA // 4, AREA // 4 + 1, AREA // 2, AREA, AREA + 1)


class Lending(RuleBasedStateMachine):
    """One side lends, the other reads and returns: whatever is lent stays as it was put until it is returned."""

    def __init__(self) -> None:
        super().__init__()
        with tempfile.TemporaryFile() as file:
            file.truncate(file_size(AREA))
            self.ours, self.theirs = (SharedMemory(file.fileno(), AREA, parent=parent) for parent in (True, False))
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
        self.ours.mark_returned()
        del self.lent[0]

    @rule()
    def trim(self) -> None:
        self.ours.trim()

    @invariant()
    def what_is_lent_is_as_it_was(self) -> None:
        assert self.ours.lent_count == len(self.lent)
        for offset, length, mark in self.lent:
            with self.theirs.borrow(length, offset) as view:
                assert view == bytes([mark]) * length

    def teardown(self) -> None:
        self.ours.close()
        self.theirs.close()


TestLending = Lending.TestCase
TestLending.settings = settings(max_examples=50, stateful_step_count=40)


def test_messages_go_around_in_the_area_and_never_over_one_that_is_lent() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(file_size(AREA))
        memory = SharedMemory(file.fileno(), AREA, parent=True)
    memory.offsets = True
    quarter = AREA // 4

    def lend(size: int) -> int | None:
        message = memory.lend([bytes(size)], size)
        return None if message is None else message[2]

    assert [lend(quarter) for _ in range(5)] == [0, quarter, 2 * quarter, 3 * quarter, None]
    memory.mark_returned()
    memory.mark_returned()
    assert lend(quarter) == 0
    assert lend(quarter + 1) is None
    assert lend(quarter) == quarter
    assert lend(1) is None
    for _ in range(4):
        memory.mark_returned()
    assert lend(AREA) == 0
    memory.close()


LARGE_VALUE = b"y" * (LARGE + 5)


@pytest.mark.parametrize(
    "message",
    [
        *(["reply", call_id, LARGE_VALUE, None, [1, 2, 3]] for call_id in (1, 127, 128, 60_000, 70_000, 2**40)),
        ["reply", 1, LARGE_VALUE, {"session": b"z" * LARGE}, [1, None, None]],
        ["item", 5, LARGE_VALUE],
    ],
)
def test_a_large_value_of_bytes_is_found_in_its_message_without_decoding_it(message: list[Any]) -> None:
    codec = CODECS["msgpack"]()
    for whole in (b"".join(codec.pieces(message)), codec.encode(message)):
        body, start, end = split_off_value(memoryview(whole))
        assert whole[start:end] == LARGE_VALUE
        assert len(body) < len(whole) - LARGE
        found = codec.decode(body)
        assert found.pop(2) is None
        assert found == message[:2] + message[3:]


def _crafted() -> Iterator[bytes]:
    whole = CODECS["msgpack"]().encode(["reply", 1, LARGE_VALUE, None, [1, 2, 3]])
    at = whole.index(LARGE_VALUE) - 4
    for length in (0, 1, LARGE - 1, len(LARGE_VALUE) + 10_000, 2**32 - 1):
        yield whole[:at] + struct.pack(">I", length) + whole[at + 4 :]
    for count in (1, 3, 20, at + 3, at + 4, at + 10, len(whole) - 100):
        yield whole[:count]
    yield whole.replace(b"reply", b"later")
    yield b"\x83" + whole[1:]
    for value in (["reply", [1], LARGE_VALUE, None, []], ["reply", -1, LARGE_VALUE], [["reply"], 1, LARGE_VALUE]):
        yield CODECS["msgpack"]().encode(value)
    for name in ("json", "pickle"):
        yield CODECS[name]().encode(["reply", 1, "y" * LARGE, None, [1, 2, 3]])


def test_a_message_without_such_a_value_in_its_place_is_left_whole() -> None:
    for whole in _crafted():
        assert split_off_value(memoryview(whole)) == (whole, 0, 0)
