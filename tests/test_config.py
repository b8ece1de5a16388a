"""Settings: validated where they are made, refused with a hint, read from one file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import ConfigError, MonitorConfig, Pool, PoolConfig
from pool_monitor.config import Settings, build, load


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout", 0),
        ("timeout", -1.0),
        ("timeout", math.nan),
        ("timeout", math.inf),
        ("timeout", "5"),
        ("timeout", True),
        ("cancel_grace", -0.1),
        ("cancel_grace", math.inf),
        ("queue_limit", -1),
        ("queue_limit", 1.5),
        ("retries", "two"),
        ("codec", "yaml"),
        ("frame_limit", 10),
        ("frame_limit", 2**32),
        ("env", {"A": 1}),
        ("sys_path", "lib"),
        ("session_limit", 0),
        ("python", 3.11),
    ],
)
def test_a_bad_value_is_refused_naming_its_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        PoolConfig(**{field: value})
    with pytest.raises(ConfigError, match=field):
        build(PoolConfig, PoolConfig(), {field: value})


def test_values_that_contradict_each_other_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"backoff_max=1.*backoff_min=2.*raise the one or lower the other"):
        PoolConfig(backoff_min=2, backoff_max=1)


def test_a_configuration_is_frozen_and_comparable() -> None:
    config = PoolConfig(timeout=5, init_args=(1,))
    with pytest.raises(AttributeError):
        config.timeout = 6  # type: ignore[misc]
    assert config == PoolConfig(timeout=5, init_args=(1,))
    assert config.env is not PoolConfig().env


def test_an_unknown_field_is_refused_naming_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'time_out'; did you mean 'timeout'"):
        build(PoolConfig, None, {"time_out": 5})
    with pytest.raises(ConfigError, match=r"there are timeout, queue_limit"):
        build(PoolConfig, None, {"xyzzy": 5})


def test_fields_change_a_given_configuration_and_leave_it_as_it_was() -> None:
    base = PoolConfig(timeout=5, retries=1)
    assert build(PoolConfig, base, {"retries": 3}) == PoolConfig(timeout=5, retries=3)
    assert base.retries == 1
    assert Pool("m:a", config=base, retries=3).config == PoolConfig(timeout=5, retries=3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": "no_colon"},
        {"target": ":attribute"},
        {"target": "module:"},
        {"target": 5},
        {"name": ""},
        {"name": "two\nlines"},
        {"size": 0},
        {"size": "4"},
        {"size": True},
        {"size": 9, "max_size": 8},
        {"size": 1, "min_size": 2},
        {"min_size": -1},
        {"max_size": 0},
        {"nonsense": 1},
        {"timeout": -1},
    ],
)
def test_a_pool_refuses_bad_arguments_before_anything_is_started(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Pool(arguments.pop("target", "module:attribute"), **arguments)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0),
        ("timeout", math.nan),
        ("timeout", math.inf),
        ("timeout", "5"),
        ("timeout", True),
        ("session", ""),
        ("session", 5),
        ("idempotent", 1),
        ("priority", "high"),
        ("priority", 1.5),
        ("key", 5),
        ("worker", 0),
    ],
)
def test_a_bad_option_is_refused_naming_it(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"options\({option}="):
        Pool("m:a").options(**{option: value})


# -- the file -----------------------------------------------------------------------------------------------------


def test_a_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "pool-monitor.toml"
    file.write_text(
        "[pool]\ntimeout = 5\nsys_path = ['lib']\n[service]\nsocket = false\n[metrics]\nseries_limit = 30\n"
    )
    settings = load(file)
    assert settings.pool == PoolConfig(timeout=5, sys_path=("lib",))
    assert settings.monitor == MonitorConfig(service=settings.service, metrics=settings.metrics)
    assert settings.service.socket is False
    assert settings.metrics.series_limit == 30
    (tmp_path / "empty.toml").touch()
    assert load(str(tmp_path / "empty.toml")) == Settings()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[pool", "not valid TOML"),
        ("[pool]\ntimeout = 'soon'", r"timeout"),
        ("[pool]\ntimeout = -1", r"timeout"),
        ("[pool]\ntime_out = 5", r"time_out"),
        ("[pools]\n", r"pools"),
        ("[service]\nname = 'a/b'", r"name"),
        ("[pool]\nbackoff_min = 50", r"backoff_max"),
    ],
)
def test_a_bad_file_is_refused_naming_the_file_and_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"bad\.toml: .*{complaint}"):
        load(file)


def test_a_file_that_is_not_there_or_no_text_is_refused_naming_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        load(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: not valid TOML"):
        load(tmp_path / "binary.toml")
