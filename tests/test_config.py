"""Settings: validated when they are made, refused with a hint, read from one file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import ConfigError, Monitor, MonitorConfig, Pool, PoolConfig
from pool_monitor.config import HistoryConfig, MetricsConfig, OtlpConfig, ServiceConfig, Settings, build, load


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


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("timeout", -1, "timeout=-1: needs a number above 0"),
        ("timeout", "5", "timeout='5': needs a number above 0"),
        ("timeout", math.inf, "timeout=inf: needs a number above 0, at most 1000000000"),
        ("cancel_grace", -1, "cancel_grace=-1: needs a number, at least 0"),
        ("retry_budget", 2, "retry_budget=2: needs a number from 0 to 1"),
        ("recycle_jitter", 1, "recycle_jitter=1: needs a number from 0 to 0.5"),
        ("breaker_ratio", 0, "breaker_ratio=0: needs a number above 0, at most 1"),
        ("queue_limit", 1.5, "queue_limit=1.5: needs a whole number, at least 0"),
        ("frame_limit", 10, "frame_limit=10: needs a whole number from 1024 to 4294967295"),
        ("retries", "two", "retries='two': needs a whole number, at least 0, or None"),
        ("shed", "yes", "shed='yes': needs True or False"),
        ("python", "", "python='': needs a non-empty string, or None"),
        ("start_method", "fork", "start_method='fork': needs one of 'auto', 'zygote', 'exec'"),
        ("codec", None, "codec=None: needs one of 'auto', 'json', 'msgpack', 'pickle'"),
        ("preload", "numpy", "preload='numpy': needs a sequence of strings, such as ('numpy',)"),
        (
            "command",
            "worker --fast",
            "command='worker --fast': needs a sequence of strings, such as ('worker', '--fast')",
        ),
        ("sys_path", 5, "sys_path=5: needs a sequence of strings"),
        ("init_args", "ab", "init_args='ab': needs a sequence, such as ('ab',)"),
        ("retry_errors", ["A", ValueError], "retry_errors[1]=<class 'ValueError'>: needs a string"),
        ("env", ["A"], "env=['A']: needs a dict with strings as keys and values"),
        ("env", {"A": "a", "B": 1}, "env['B']=1: needs a string"),
        ("env", {1: "a"}, "a key of env=1: needs a string"),
        ("init_kwargs", [1], "init_kwargs=[1]: needs a dict with strings as keys"),
    ],
)
def test_a_complaint_names_the_field_the_value_and_what_it_needs(field: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as failure:
        PoolConfig(**{field: value})
    assert str(failure.value) == f"PoolConfig: {words}"


def test_a_long_value_is_cut_in_a_complaint() -> None:
    with pytest.raises(ConfigError) as failure:
        PoolConfig(timeout="x" * 1000)  # type: ignore[arg-type]
    assert len(str(failure.value)) < 150


@pytest.mark.parametrize("env", [{"A=B": "c"}, {"": "c"}, {"A\0": "c"}, {"A": "\0"}])
def test_variables_that_no_environment_can_have_are_refused(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"env\[.*needs a non-empty name without '='.*no NUL"):
        PoolConfig(env=env)


def test_all_kinds_of_settings_complain_alike() -> None:
    with pytest.raises(
        ConfigError, match=r"^ServiceConfig: name='a b': needs 1 to 40 letters, .* underscores, or None$"
    ):
        ServiceConfig(name="a b")
    with pytest.raises(ConfigError, match=r"^OtlpConfig: endpoint='host:4318': needs a URL, http://.*, or None$"):
        OtlpConfig(endpoint="host:4318")
    with pytest.raises(ConfigError, match=r"^PoolConfig: context\[0\]='log\.id': needs 'module:variable', such as '"):
        PoolConfig(context=("log.id",))
    with pytest.raises(ConfigError, match=r"^MetricsConfig: series_limit=1: needs a whole number from 3 to 100000$"):
        MetricsConfig(series_limit=1)
    with pytest.raises(ConfigError, match=r"^MonitorConfig: service=\{'socket': False\}: needs a ServiceConfig$"):
        MonitorConfig(service={"socket": False})  # type: ignore[arg-type]


def test_a_list_is_accepted_for_a_sequence_and_is_not_shared() -> None:
    path = ["lib"]
    config = PoolConfig(sys_path=path)  # type: ignore[arg-type]
    path.append("more")
    assert config == PoolConfig(sys_path=("lib",))


@pytest.mark.parametrize("config", [{}, "pool.toml", MonitorConfig(), 5])
def test_a_config_of_another_type_is_refused_by_a_pool(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"config=.*: needs a PoolConfig, or None; .*pool_monitor\.config\.load"):
        Pool("m:a", config=config)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": "4"}, r"Pool(size='4'): needs a whole number from min_size=1 to max_size=8"),
        ({"size": 2.5, "min_size": 2}, r"Pool(size=2.5): needs a whole number from min_size=2 to max_size=8"),
        ({"size": 0}, r"Pool(size=0): must lie from min_size=1 to max_size=8"),
        ({"min_size": 5}, r"Pool(size=4): must lie from min_size=5 to max_size=8; 4 is the size when none is given"),
        ({"max_size": 3}, r"Pool(size=4): must lie from min_size=1 to max_size=3; 4 is the size when none is given"),
    ],
)
def test_a_size_out_of_bounds_is_refused_with_the_bounds(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as failure:
        Pool("m:a", **{"max_size": 8, **arguments})
    assert str(failure.value) == words


@pytest.mark.parametrize("target", ["module", "package.module", "file.py", "a dir/file.py", "m:a", "a dir/file.py:A.b"])
def test_a_target_is_a_module_a_file_or_something_in_one(target: str) -> None:
    assert Pool(target).target == target


def test_a_pool_or_config_of_another_type_is_refused_by_a_monitor() -> None:
    for pools in ("x", None, 5, [None], [Pool("m:a"), "x"]):
        with pytest.raises(TypeError, match=r"^Monitor\(.*\): needs a Pool, or a sequence of them$"):
            Monitor(pools)  # type: ignore[arg-type]
    for config in ({}, 5, PoolConfig()):
        with pytest.raises(ConfigError, match=r"Monitor\(config=.*\): needs a MonitorConfig, the path of a TOML file"):
            Monitor(Pool("m:a"), config=config)  # type: ignore[arg-type]


def test_the_docstring_names_every_field() -> None:
    text = str(PoolConfig.__doc__)
    assert [name for name in PoolConfig.__struct_fields__ if f" {name}," not in text and f" {name}." not in text] == []


def test_values_that_contradict_each_other_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"backoff_max=1.*backoff_min=2.*raise backoff_max or lower backoff_min"):
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
    with pytest.raises(ConfigError, match=r"valid names: timeout, first_item_timeout"):
        build(PoolConfig, None, {"xyzzy": 5})
    with pytest.raises(ConfigError, match=r"'min_sice'; did you mean 'min_size'"):
        Pool("m:a", min_sice=5)


def test_fields_change_a_given_configuration_and_leave_it_as_it_was() -> None:
    base = PoolConfig(timeout=5, retries=1)
    assert build(PoolConfig, base, {"retries": 3}) == PoolConfig(timeout=5, retries=3)
    assert base.retries == 1
    assert Pool("m:a", config=base, retries=3).config == PoolConfig(timeout=5, retries=3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": ""},
        {"target": "."},
        {"target": "two words"},
        {"target": "module."},
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


def test_the_path_of_a_history_may_be_a_path() -> None:
    assert HistoryConfig(path=Path("var/x.db")).path == "var/x.db"


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
        ("[pool]\ntimeout = 'soon'", r'pool\.timeout="soon": needs a number above 0$'),
        ("[pool]\ntimeout = -1", r"pool\.timeout=-1: needs a number above 0$"),
        ("[pool]\nshed = 'no'", r'pool\.shed="no": needs true or false$'),
        ("[pool]\npreload = 'json'", r'pool\.preload="json": needs an array of strings, such as \["json"\]$'),
        ("[pool]\nenv = 2026-01-02", r'pool\.env="2026-01-02": needs a table with strings as keys and values$'),
        ("[pool.env]\nA = 1", r"pool\.env\['A'\]=1: needs a string$"),
        ("[pool]\nretries = 'two'", r'pool\.retries="two": needs a whole number, at least 0$'),
        ("[pool]\ntime_out = 5", r"\[pool\] has no field 'time_out'; did you mean 'timeout'\?"),
        ("[pool]\nsize = 5", r"\[pool\] has no field 'size'; it is an argument of Pool"),
        (
            "[metrics]\nxyzzy = 5",
            r"\[metrics\] has no field 'xyzzy'; valid names: series_limit, error_groups, memory_limit$",
        ),
        ("[pools]\n", r"there is no table 'pools'; did you mean 'pool'\?"),
        ("timeout = 3", r"there is no key 'timeout'; it belongs in the table \[pool\]$"),
        ("pool = 3", r"there is no key 'pool'; it is a table: \[pool\]$"),
        (
            "[service]\nname = 'a/b'",
            r'service\.name="a/b": needs 1 to 40 letters, digits, dots, hyphens and underscores',
        ),
        ("[tuner]\nknobs = {size = [2]}", r"tuner\.knobs\['size'\]=\[2\]: needs an array of 2 values$"),
        ("[tuner]\nknobs = {size = [1, 2, 3]}", r"tuner\.knobs\['size'\]=\[1, 2, 3\]: needs an array of 2 values$"),
        ("[tuner]\npolicy = 'brave'", r"tuner\.policy=\"brave\": needs 'conservative', .* or 'module:Policy'"),
        ("[tuner]\nschedule = {days = 'mon'}", r"tuner\.schedule=.*: needs an array$"),
        ("[tuner]\nschedule = [3]", r"tuner\.schedule\[0\]=3: needs a table$"),
        (
            "[tuner]\nschedule = [{from = '08:00', min_size = 2}]",
            r"\[tuner\.schedule\[0\]\] lacks 'to', which it needs$",
        ),
        ("[pool]\nbackoff_min = 50", r"\[pool\] backoff_max=30.0 is below backoff_min=50"),
    ],
)
def test_a_bad_file_is_refused_naming_the_file_and_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"bad\.toml: {complaint}"):
        load(file)


def test_a_file_that_is_missing_or_not_text_is_refused_naming_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        load(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: not valid TOML"):
        load(tmp_path / "binary.toml")


def test_relative_rule_files_start_at_the_folder_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "conf").mkdir()
    absolute = tmp_path / "other.yaml"
    (tmp_path / "conf" / "pm.toml").write_text(f'[alerts]\nrules = ["rules.yaml", "{absolute}"]\n')
    monkeypatch.chdir(tmp_path)
    assert load("conf/pm.toml").alerts.rules == (str(tmp_path / "conf" / "rules.yaml"), str(absolute))
