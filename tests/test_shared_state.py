"""One state file with several owners: each has its tables, a disk that fails is told of once, older files open."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_monitor import ConfigError
from pool_monitor.storage import state_store
from pool_monitor.storage.shared_state import OWNERS, Outage, Owner, SharedState
from pool_monitor.storage.sqlite_file import pragma
from pool_monitor.storage.state import Changes, MemoryState
from pool_monitor.storage.state_store import STATE, TABLES, SavedTransition, StateStore
from pool_monitor.testing import ManualClock

T0 = 1_700_000_000.0


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: what is synced is tested in test_state_file.py."""

    def run(connection: sqlite3.Connection, text: str) -> int | str | None:
        return pragma(connection, "synchronous = OFF" if text == "synchronous = FULL" else text)

    monkeypatch.setattr(state_store, "pragma", run)


class House:
    """A monitor, reduced to what the state needs of it."""

    def __init__(self, path: Path | None) -> None:
        self.clock, self.said = ManualClock(T0), []
        context = SimpleNamespace(
            clock=self.clock,
            degraded=lambda part, why: self.said.append(f"{part} degraded: {why}"),
            recovered=lambda part, _what: self.said.append(f"{part} recovered"),
            spent=lambda _seconds: None,
        )
        self.state = SharedState(path, context)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def house(path: Path) -> AsyncIterator[House]:
    made = House(path)
    yield made
    for owner in OWNERS:
        keeper = await made.state.open(owner)
        await keeper.close()


def test_every_table_has_one_owner():
    assert sorted(table for tables in OWNERS.values() for table in tables) == sorted(TABLES)


async def test_each_owner_finds_its_own_after_a_restart(house: House, path: Path):
    alerts, tuner = await house.state.open("alerts"), await house.state.open("tuner")
    assert await alerts.commit(Changes({"alerts": {"a": b"1"}}, [SavedTransition(1, T0, b"t")]))
    assert await tuner.commit(Changes({"tuning": {"mode": b'"auto"'}, "trials": {"one": b"{}"}}))
    await alerts.close()
    await tuner.close()
    again = House(path).state
    tuner, alerts, advisor = await again.open("tuner"), await again.open("alerts"), await again.open("advisor")
    assert tuner.load().rows["tuning"] == {"mode": b'"auto"'}
    assert tuner.load().rows["alerts"] == {}
    assert advisor.load().rows["trials"] == {}
    found = alerts.load()
    assert (found.rows["alerts"], found.rows["tuning"], found.seq) == ({"a": b"1"}, {}, 1)
    assert found.transitions == [SavedTransition(1, T0, b"t")]
    for one in (alerts, tuner, advisor):
        await one.close()


async def test_everything_of_one_owner_leaves_the_others_alone(house: House, path: Path):
    alerts, tuner = await house.state.open("alerts"), await house.state.open("tuner")
    await tuner.commit(Changes({"tuning": {"mode": b"1"}}))
    await alerts.commit(Changes({"alerts": {"a": b"1", "b": b"2"}}))
    await alerts.commit(Changes({"alerts": {"a": b"3"}}, whole=True))
    assert tuner.load().rows["tuning"] == {"mode": b"1"}
    await tuner.commit(Changes({"trials": {"one": b"x"}}, whole=True))
    await alerts.close()
    await tuner.close()
    with closing(StateStore(path, "")) as store:
        rows = store.load().rows
    assert {table: found for table, found in rows.items() if found} == {
        "alerts": {"a": b"3"},
        "trials": {"one": b"x"},
    }


async def test_no_owner_can_change_what_is_of_another(house: House):
    tuner = await house.state.open("tuner")
    for changes in (Changes({"alerts": {"a": b"1"}}), Changes(transitions=[SavedTransition(1, T0, b"t")])):
        with pytest.raises(ValueError, match="tuning, trials only"):
            await tuner.commit(changes)
    await tuner.close()


async def test_the_file_is_open_until_the_last_owner_has_closed(house: House, path: Path):
    lock = path.with_name("state.db.lock")
    alerts, tuner = await house.state.open("alerts"), await house.state.open("tuner")
    await alerts.close()
    await alerts.close()  # a second time does nothing
    assert await tuner.commit(Changes({"tuning": {"mode": b"1"}}))
    alerts = await house.state.open("alerts")  # it was left and is entered again
    await tuner.close()
    assert lock.exists()
    await alerts.close()
    assert not lock.exists()
    tuner = await house.state.open("tuner")
    assert tuner.load().rows["tuning"] == {"mode": b"1"}
    await tuner.close()


async def test_an_owner_that_comes_back_finds_what_it_committed(house: House):
    tuner, alerts = await house.state.open("tuner"), await house.state.open("alerts")
    await tuner.commit(Changes({"tuning": {"mode": b"1"}}))
    await tuner.close()
    tuner = await house.state.open("tuner")
    assert tuner.load().rows["tuning"] == {"mode": b"1"}
    await tuner.close()
    await alerts.close()


async def test_owners_that_open_and_commit_at_once_do_not_disturb_each_other(house: House, path: Path):
    async def live(owner: Owner, table: Any) -> None:
        keeper = await house.state.open(owner)
        for number in range(20):
            assert await keeper.commit(Changes({table: {str(number): f"{owner} {number}".encode()}}))
        await keeper.close()

    await asyncio.gather(live("alerts", "memories"), live("tuner", "tuning"), live("advisor", "advice"))
    with closing(StateStore(path, "")) as store:
        assert [len(store.load().rows[table]) for table in ("memories", "tuning", "advice")] == [20, 20, 20]


changes = st.dictionaries(st.sampled_from("abcd"), st.none() | st.binary(max_size=4), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(sorted(OWNERS)), changes, st.booleans(), st.booleans()), max_size=10))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_each_owner_has_what_its_own_commits_add_up_to(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Owner, Mapping[str, bytes | None], bool, bool]]
):
    house = House(tmp_path_factory.mktemp("state") / "state.db")
    expected: dict[Owner, dict[str, bytes]] = {owner: {} for owner in OWNERS}
    keepers = {owner: await house.state.open(owner) for owner in OWNERS}
    for owner, rows, whole, leave in steps:
        assert await keepers[owner].commit(Changes({OWNERS[owner][0]: rows}, whole=whole))
        kept = {} if whole else expected[owner]
        expected[owner] = {key: value for key, value in {**kept, **rows}.items() if value is not None}
        if leave:
            await keepers[owner].close()
            keepers[owner] = await house.state.open(owner)
    assert {owner: keepers[owner].load().rows[OWNERS[owner][0]] for owner in OWNERS} == expected
    for keeper in keepers.values():
        await keeper.close()
    again = {owner: await house.state.open(owner) for owner in OWNERS}
    assert {owner: again[owner].load().rows[OWNERS[owner][0]] for owner in OWNERS} == expected
    for keeper in again.values():
        await keeper.close()


def test_a_monitor_that_is_entered_on_another_loop_has_the_same_state(path: Path):
    house = House(path)

    async def life(number: int) -> int:
        tuner, advisor = await asyncio.gather(house.state.open("tuner"), house.state.open("advisor"))
        found = len(tuner.load().rows["tuning"])
        assert await tuner.commit(Changes({"tuning": {str(number): b"1"}}))
        await asyncio.gather(tuner.close(), advisor.close())
        return found

    assert [asyncio.run(life(number)) for number in range(3)] == [0, 1, 2]


async def test_without_a_path_every_owner_has_a_memory_that_says_it_is_stored():
    state = House(None).state
    keeper = await state.open("tuner")
    assert isinstance(keeper, MemoryState)
    assert await keeper.commit(Changes({"tuning": {"mode": b"1"}}))
    assert keeper.load().rows["tuning"] == {}


# -- the disk -----------------------------------------------------------------------------------------------------


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("asked", [True, False])
async def test_a_disk_that_fails_is_told_once_and_costs_every_owner_its_commit(
    house: House, monkeypatch: pytest.MonkeyPatch, asked: bool
):
    told: list[str] = []
    outage = Outage(told.append, lambda _what: told.append("recovered")) if asked else None
    tuner, alerts = await house.state.open("tuner"), await house.state.open("alerts", outage)
    with monkeypatch.context() as patch:
        patch.setattr(StateStore, "write", _full)
        assert not await tuner.commit(Changes({"tuning": {"mode": b"1"}}))
        assert not await alerts.commit(Changes({"alerts": {"a": b"1"}}))
        assert tuner.degraded == alerts.degraded is not None
    house.clock.advance(60)
    assert await alerts.commit()  # also what the tuner could not write
    assert tuner.load().rows["tuning"] == {"mode": b"1"}
    said, quiet = (told, house.said) if asked else (house.said, told)
    assert ([line[-23:] for line in said[:1]], len(said), quiet) == (["No space left on device"], 2, [])
    assert said[1].endswith("recovered")
    await tuner.close()
    await alerts.close()


async def test_a_file_that_cannot_be_used_is_refused_to_every_owner(house: House, path: Path):
    path.write_bytes(b"not a database, and longer than its header")
    for owner in OWNERS:
        with pytest.raises(ConfigError, match="not a saved state"):
            await house.state.open(owner)
    path.unlink()
    keeper = await house.state.open("tuner")
    assert await keeper.commit(Changes({"tuning": {"mode": b"1"}}))
    await keeper.close()


@pytest.mark.parametrize("version", range(1, len(STATE.migrations)))
async def test_a_file_of_an_older_version_opens_with_everything_it_has(house: House, path: Path, version: int):
    with closing(sqlite3.connect(path)) as old:
        for statements in STATE.migrations[:version]:
            for statement in statements:
                old.execute(statement)
        old.execute(f"PRAGMA application_id = {STATE.application}")
        old.execute(f"PRAGMA user_version = {version}")
        old.execute("INSERT INTO alerts VALUES ('a', ?)", (b"1",))
        old.commit()
    path.chmod(0o600)
    alerts, tuner = await house.state.open("alerts"), await house.state.open("tuner")
    assert alerts.load().rows["alerts"] == {"a": b"1"}
    assert await tuner.commit(Changes({"tuning": {"mode": b"1"}}))
    await alerts.close()
    await tuner.close()


async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(house: House, path: Path):
    keeper = await house.state.open("tuner")
    await keeper.close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(STATE.migrations) + 1}")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="newer pool_monitor"):
        await house.state.open("tuner")
    assert path.read_bytes() == before
    path.unlink()
