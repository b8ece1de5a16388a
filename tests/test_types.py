"""What type checkers make of the public face. `make types` checks this file: a `type: ignore` that refuses nothing is
an error there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from inspect import signature
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from pool_monitor import Caller, ConfigError, Pool, PoolConfig, Session
from pool_monitor.config import PoolFields
from pool_monitor.testing import InlinePool

TARGET = "pool_monitor.demo.text_tools:TextTools"


class Fake:
    """A caller that somebody has written for tests."""

    async def run(self, operation: str, /, *args: Any, **kwargs: Any) -> Any:
        return operation

    async def stream(self, operation: str, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        yield operation

    async def map(
        self, operation: str, items: Iterable[Any] | AsyncIterable[Any], /, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        assert isinstance(items, Iterable)
        for item in items:
            yield item

    def options(self, **changes: Any) -> Fake:
        return self


class Mute:
    """No caller: it cannot stream."""

    async def run(self, operation: str, /, *args: Any, **kwargs: Any) -> Any: ...


async def use(caller: Caller) -> list[Any]:
    found = [await caller.options(timeout=1.0).run("work")]
    found += [item async for item in caller.stream("work")]
    return found + [item async for item in caller.map("work", [1, 2], ordered=False)]


async def test_whoever_needs_a_caller_takes_a_pool_a_session_options_and_a_fake() -> None:
    pool = Pool(TARGET)
    session: Session = pool.session("s")
    inline: Pool = InlinePool(Fake, timeout=3)
    callers: list[Caller] = [pool, inline, session, pool.options(timeout=1), session.options(timeout=1), Fake()]
    assert all(isinstance(caller, Caller) for caller in callers)
    assert await use(callers[-1]) == ["work", "work", 1, 2]


def test_what_lacks_a_method_is_no_caller() -> None:
    mute: Caller = Mute()  # type: ignore[assignment]
    assert not isinstance(mute, Caller)


def test_the_options_that_type_checkers_know_are_those_of_a_pool() -> None:
    assert list(signature(Caller.options).parameters) == list(signature(Pool.options).parameters)


def test_fields_of_a_pool_are_checked_by_name_and_type() -> None:
    Pool(TARGET, name="p", timeout=5, sys_path=["lib"], codec="json", recycle_age=None)
    Pool(TARGET, config=PoolConfig(timeout=5), retries=2)
    with pytest.raises(ConfigError):
        Pool(TARGET, nonsense=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError):
        InlinePool(Fake, nonsense=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError):
        Pool(TARGET, timeout="5")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Pool(TARGET, codec="yaml")  # type: ignore[arg-type]
    some: dict[str, Any] = {"timeout": 5}
    Pool(TARGET, **some)


def plainly(hint: Any) -> set[Any]:
    """What a value may be by *hint*, without bounds; where that is a tuple, a list will do."""
    if get_origin(hint) in (UnionType, Union):
        return set().union(*map(plainly, get_args(hint)))
    return {hint, list[get_args(hint)[0]]} if get_origin(hint) is tuple else {hint}  # type: ignore[misc]


def test_the_fields_that_type_checkers_know_are_those_of_the_configuration() -> None:
    known, real = get_type_hints(PoolFields), get_type_hints(PoolConfig)
    assert list(known) == list(PoolConfig.__struct_fields__)
    assert {name: plainly(hint) for name, hint in known.items()} == {
        name: plainly(real[name]) for name in PoolConfig.__struct_fields__
    }
