"""The queue of waiting calls: by priority, keys in turn, then by arrival. It never loses or repeats a call."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pool_monitor.pool.policy.queue import WaitQueue


class Waiter(NamedTuple):
    id: int
    priority: int = 0
    key: str = ""
    expects: tuple[float, float] = (0.0, 0.0)


def queue(*waiters: Waiter) -> WaitQueue[Waiter]:
    made: WaitQueue[Waiter] = WaitQueue()
    for waiter in waiters:
        made.push(waiter)
    return made


def drained(waiting: WaitQueue[Waiter]) -> list[int]:
    return [waiting.pop().id for _ in range(len(waiting))]


def test_without_priority_and_key_it_is_first_come_first_served() -> None:
    assert drained(queue(*map(Waiter, range(5)))) == [0, 1, 2, 3, 4]


def test_a_higher_priority_goes_first() -> None:
    assert drained(queue(Waiter(0), Waiter(1, 5), Waiter(2, -1), Waiter(3, 5))) == [1, 3, 0, 2]


def test_one_keys_burst_delays_that_key_only() -> None:
    burst = [Waiter(number, key="loud") for number in range(4)]
    assert drained(queue(*burst, Waiter(10, key="quiet"), Waiter(11, key="calm"))) == [0, 10, 11, 1, 2, 3]


def test_a_call_that_comes_back_is_the_next_one_of_its_priority() -> None:
    waiting = queue(Waiter(0), Waiter(1, key="a"), Waiter(2, key="a"), Waiter(3, 5))
    waiting.push_front(Waiter(4, key="a"))
    waiting.push_front(Waiter(5, key="new"))
    assert drained(waiting) == [3, 5, 4, 0, 1, 2]


def test_calls_that_come_back_last_first_stand_as_before() -> None:
    waiting = queue(*map(Waiter, range(5)))
    taken = [waiting.pop() for _ in range(3)]
    for waiter in reversed(taken):
        waiting.push_front(waiter)
    assert drained(waiting) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("waiter", "ahead"),
    [
        (Waiter(9), 2 + 6),  # all calls of higher priority, and those of its key
        (Waiter(9, 5), 2),
        (Waiter(9, 9), 0),
        (Waiter(9, -1), 8 + 1),
        (Waiter(9, -2), 9),
        (Waiter(9, 3), 2),
    ],
)
def test_who_is_ahead_without_keys_is_known_exactly(waiter: Waiter, ahead: int) -> None:
    waiting = queue(*map(Waiter, range(6)), Waiter(6, 5), Waiter(7, 5), Waiter(8, -1))
    assert waiting.ahead(waiter).calls == ahead


def test_what_those_ahead_expect_is_added_up() -> None:
    slow, quick = (1.0, 0.5), (0.25, 0.0)
    waiting = queue(
        Waiter(0, 5, expects=quick), Waiter(1, expects=slow), Waiter(2, expects=quick), Waiter(3, -1, "", slow)
    )
    assert waiting.ahead(Waiter(9, 5)) == (1, 0.25, 0.0)
    assert waiting.ahead(Waiter(9)) == (3, 1.5, 0.5)
    assert waiting.ahead(Waiter(9, key="other")) == (2, 0.25 + 1.25 / 2, 0.5 / 2), (
        "as many turns as its own: half of them"
    )
    waiting.pop()
    waiting.discard(Waiter(1, expects=slow))
    assert waiting.ahead(Waiter(9)) == (1, 0.25, 0.0)
    waiting.push_front(Waiter(4, expects=slow))
    assert waiting.ahead(Waiter(9, -1)) == (3, 2.25, 1.0)


def test_a_quiet_key_is_not_behind_the_whole_burst_of_a_loud_one() -> None:
    waiting = queue(*(Waiter(number, key="loud") for number in range(100)), Waiter(100, key="calm"))
    assert waiting.ahead(Waiter(200, key="quiet")).calls == 2
    assert waiting.ahead(Waiter(200, key="calm")).calls == 3
    assert waiting.ahead(Waiter(200, key="loud")).calls == 101


def test_nobody_waits_is_said_with_a_key_error() -> None:
    with pytest.raises(KeyError):
        queue().pop()


def test_empty_lines_are_not_kept() -> None:
    waiting = queue(*(Waiter(number, number, f"key-{number}") for number in range(100)))
    for number in range(0, 100, 2):
        assert waiting.discard(Waiter(number, number, f"key-{number}"))
    drained(waiting)
    assert waiting._levels == {}


class AgainstAModel(RuleBasedStateMachine):
    """Compares the queue with a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: WaitQueue[Waiter] = WaitQueue()
        self.model: list[Waiter] = []  # in order of arrival
        self.turns: dict[int, list[str]] = {}  # per priority: keys in the order of their turns
        self.number = 0

    @rule(priority=st.integers(-1, 1), key=st.sampled_from(["", "a", "b"]))
    def push(self, priority: int, key: str) -> None:
        waiter = Waiter(self.number, priority, key)
        self.number += 1
        self.queue.push(waiter)
        self.model.append(waiter)
        turns = self.turns.setdefault(priority, [])
        if key not in turns:
            turns.append(key)

    @rule(priority=st.integers(-1, 1), key=st.sampled_from(["", "a", "b", "c"]))
    def push_front(self, priority: int, key: str) -> None:
        waiter = Waiter(self.number, priority, key)
        self.number += 1
        self.queue.push_front(waiter)
        self.model.insert(0, waiter)
        turns = self.turns.setdefault(priority, [])
        if key in turns:
            turns.remove(key)
        turns.insert(0, key)

    @rule(priority=st.integers(-2, 2), key=st.sampled_from(["", "a", "b", "c", "d"]))
    def ahead(self, priority: int, key: str) -> None:
        waiter = Waiter(10**6, priority, key)
        told = self.queue.ahead(waiter).calls
        copy = queue()
        for level, turns in self.turns.items():
            for name in turns:  # in the order of their turns
                for waiting in self.model:
                    if (waiting.priority, waiting.key) == (level, name):
                        copy.push(waiting)
        copy.push(waiter)
        served = drained(copy).index(waiter.id)
        assert served <= told <= len(self.model)
        if all(waiting.key == key for waiting in self.model if waiting.priority == priority):
            assert told == served

    @precondition(lambda self: self.model)
    @rule()
    def pop(self) -> None:
        priority = max(waiter.priority for waiter in self.model)
        key = self.turns[priority].pop(0)
        expected = next(waiter for waiter in self.model if (waiter.priority, waiter.key) == (priority, key))
        assert self.queue.pop() == expected
        self.model.remove(expected)
        if any((waiter.priority, waiter.key) == (priority, key) for waiter in self.model):
            self.turns[priority].append(key)

    @precondition(lambda self: self.number)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.number - 1))
        waiter = next((waiter for waiter in self.model if waiter.id == number), None)
        if waiter is None:
            assert not self.queue.discard(Waiter(number))
            return
        assert self.queue.discard(waiter)
        assert not self.queue.discard(waiter)
        self.model.remove(waiter)
        if not any(other[1:] == waiter[1:] for other in self.model):
            self.turns[waiter.priority].remove(waiter.key)

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.queue) == len(self.model)
        assert sorted(self.queue) == sorted(self.model)


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=100)
