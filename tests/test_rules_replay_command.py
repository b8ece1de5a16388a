"""``pool-monitor rules replay``: what is printed, what --set changes, and what was not recorded."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.rule_file import checked_rule, fields_of
from pool_monitor.alerts.what_if import changed_rules
from pool_monitor.errors import ConfigError
from tests.helpers.programs import Done, command, runtime_dir
from tests.test_alerts_replay import RULES, Service

__all__ = ["command", "runtime_dir"]
Command = Callable[..., Done]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service that has lived for a while, with a restart."""
    made = Service(tmp_path_factory.mktemp("replay"), RULES)

    async def live() -> None:
        await made.live(40)
        await made.live(10)

    asyncio.run(live())
    return made


def replay(command: Command, service: Service, *options: str, rules: str | None = None) -> Done:
    path = service.rules
    if rules is not None:
        path = service.rules.with_name("other.yaml")
        path.write_text(rules)
    return command("rules", "replay", str(path), str(service.store), *options)


def rows(done: Done) -> dict[str, list[str]]:
    lines = done.out.split("\n\n")[1].splitlines()
    return {cells[0]: cells for line in lines if (cells := [cell for cell in line.split("  ") if cell])}


# -- what is printed --------------------------------------------------------------------------------------------------


def test_each_transition_is_a_line_of_json(command: Command, service: Service) -> None:
    done = replay(command, service, "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert found[0].keys() >= {"alert", "labels", "from", "to", "at", "severity", "value", "reason"}
    assert [one["seq"] for one in found] == list(range(1, len(found) + 1))
    middle = found[len(found) // 2]["at"]
    later = replay(command, service, "--json", "--from", str(middle)).out.splitlines()
    earlier = replay(command, service, "--json", "--to", str(middle)).out.splitlines()
    assert [json.loads(line) for line in [*earlier, *later]] == found


def test_a_table_says_how_often_and_how_long_each_rule_fired(command: Command, service: Service) -> None:
    changes = [json.loads(line) for line in replay(command, service, "--json").out.splitlines()]
    done = replay(command, service)
    assert "50 evaluations from 2023-11-14 22:13:35" in done.out
    assert "1 restart of the service" in done.out
    idle = ("inactive", "pending", "resolved")
    for name, cells in list(rows(done).items())[1:]:
        fired = [one for one in changes if (one["alert"], one["to"]) == (name, "firing") and one["from"] in idle]
        assert int(cells[1].split()[0].rstrip(",")) == len(fired), name
    assert rows(done)["Full"][5].strip().isdecimal()


def test_a_changed_setting_has_a_column_of_its_own(command: Command, service: Service) -> None:
    done = replay(command, service, "--set", "Full.above=1000", "--set", "Silent.for=0s")
    found = rows(done)
    assert found["Full"][1].endswith(" | 0")
    assert found["Either"][1].split(" | ")[0] == found["Either"][1].split(" | ")[1]
    lines = replay(command, service, "--set", "Full.above=1000", "--json").out.splitlines()
    assert not [line for line in lines if json.loads(line)["alert"] == "Full"]


def test_what_was_not_recorded_is_reconstructed_or_said(command: Command, service: Service) -> None:
    done = replay(
        command,
        service,
        rules="""
rules:
  - {alert: Size, threshold: {metric: pool.size, above: 0}}
  - {alert: Found, finding: leak}
  - {alert: Waiting, threshold: {metric: pool.waiting, above: 3}}
""",
    )
    assert done.code == 0
    assert "Size: pool.size was not recorded, and is reconstructed" in done.out
    assert "Found: not replayed, because the finding leak was neither recorded, nor is its past kept" in done.out
    assert "Waiting:" not in done.out
    assert rows(done)["Found"][1] == "-"


def test_without_recorded_evaluations_everything_is_reconstructed(
    command: Command, service: Service, tmp_path: Path
) -> None:
    other = tmp_path / "bare.db"
    other.write_bytes(service.store.read_bytes())
    with sqlite3.connect(other) as connection:
        connection.execute("DELETE FROM evaluations")
    connection.close()
    done = command("rules", "replay", str(service.rules), str(other))
    assert "has no recorded evaluations" in done.err
    assert done.code == 2 or "is reconstructed" in done.out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--set", "for"], "needs FIELD=VALUE"),
        (["--set", "Nope.for=1m"], "there is no rule 'Nope'"),
        (["--set", "Fulll.above=3"], "did you mean 'Full'?"),
        (["--set", "Full.abov=3"], "has no 'abov'"),
        (["--set", "Failing.above=3"], "write 3% if a percentage is meant"),
        (["--set", "Waiting.above=3"], "name one, such as Waiting.levels.warning.above"),
        (["--from", "yesterday"], "needs a date and a time"),
        (["--from", "2024-01-01", "--to", "2023-01-01"], "--to must be after --from"),
        (["--from", "2999-01-01"], "nothing recorded from then on"),
    ],
)
def test_what_cannot_be_done_is_said(command: Command, service: Service, options: list[str], why: str) -> None:
    done = replay(command, service, *options)
    assert (done.code, done.out) == (2, "")
    assert why in done.err


def test_a_file_that_is_no_history_and_rules_with_errors_are_refused(command: Command, service: Service) -> None:
    assert command("rules", "replay", str(service.rules), str(service.rules)).code == 2
    assert command("rules", "replay", str(service.rules), "nope.db").code == 2
    done = replay(command, service, rules="rules: [{alert: A, threshold: {metric: nope, above: 3}}]")
    assert done.code == 2
    assert "other.yaml:1:" in done.err


# -- settings ---------------------------------------------------------------------------------------------------------


def made(**fields: object) -> CheckedRule:
    return checked_rule({"alert": "A", **fields})


ONE = made(threshold={"metric": "pool.waiting", "above": 3})
TWO = made(threshold={"metric": "pool.waiting", "levels": {"warning": 3, "critical": 9}, "clear_below": 2})
FALL = made(rate_of_change={"metric": "pool.rate", "window": "5m", "against": "1h", "falls_by": "50%"})
BOTH = made(all=[{"metric": "pool.waiting", "above": 3}, {"not": {"metric": "pool.busy", "above": 2}}])


@pytest.mark.parametrize(
    ("rule", "setting", "expected"),
    [
        (ONE, "for=10m", {**fields_of(ONE), "for": 600.0}),
        (ONE, "A.above=7", {**fields_of(ONE), "threshold": {"metric": "pool.waiting", "above": 7}}),
        (ONE, "A.clear_below=1", {"alert": "A", "threshold": {"metric": "pool.waiting", "above": 3, "clear_below": 1}}),
        (FALL, "falls_by=20%",
         {"alert": "A", "rate_of_change": {**fields_of(FALL)["rate_of_change"], "falls_by": 0.2}}),
        (FALL, "A.rate_of_change.window=1m",
         {"alert": "A", "rate_of_change": {**fields_of(FALL)["rate_of_change"], "window": "1m"}}),
        (BOTH, "A.all.0.above=5",
         {"alert": "A", "all": [{"metric": "pool.waiting", "above": 5}, {"not": {"metric": "pool.busy", "above": 2}}]}),
        (BOTH, "A.all.1.not.above=5",
         {"alert": "A", "all": [{"metric": "pool.waiting", "above": 3}, {"not": {"metric": "pool.busy", "above": 5}}]}),
    ],
)  # fmt: skip
def test_a_setting_changes_the_field_that_it_names(
    rule: CheckedRule, setting: str, expected: dict[str, object]
) -> None:
    assert changed_rules([rule], [setting]) == (checked_rule(expected),)


def test_a_level_is_changed_by_its_name() -> None:
    for setting in ("A.critical=20", "A.levels.critical.above=20", "critical=20"):
        [found] = changed_rules([TWO], [setting])
        levels = fields_of(found)["threshold"]["levels"]
        assert (levels["warning"]["above"], levels["critical"]["above"]) == (3, 20)


def test_a_setting_without_a_name_changes_all_rules_that_have_the_field() -> None:
    other = checked_rule({"alert": "B", "threshold": {"metric": "pool.waiting", "above": 3}})
    found = changed_rules([FALL, other], ["above=5", "for=1m"])
    assert found[0] == changed_rules([FALL], ["for=1m"])[0]
    assert [one.for_ for one in found] == [60.0, 60.0]
    with pytest.raises(ConfigError, match="no rule has 'objective'"):
        changed_rules([FALL, other], ["objective=99%"])


def test_a_rule_takes_the_place_of_the_default_rule_of_its_name(command: Command, service: Service) -> None:
    own = "rules: [{alert: QueueFull, threshold: {metric: pool.waiting, above: 0}}]"
    done = replay(command, service, "--default-rules", rules=own)
    assert done.code == 0, done.err
    assert sum(line.startswith("QueueFull ") for line in done.out.splitlines()) == 1
    assert replay(command, service, "--default-rules", "--set", "QueueFull.above=1", rules=own).code == 0
