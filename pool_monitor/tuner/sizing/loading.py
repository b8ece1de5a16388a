"""Make the policy that a configuration names."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, cast

from pool_monitor.errors import ConfigError
from pool_monitor.tuner.policy import Policy
from pool_monitor.tuner.sizing.presets import PRESETS
from pool_monitor.tuner.sizing.size_policy import SizePolicy


def make_policy(name: str) -> Policy:
    """Return a new policy: a preset, or ``module:Policy`` of the user's own. To be called once for each pool.

    A class, or a function that makes a policy, is called without arguments. Imports the module, so it may take as long
    as that takes. Raises ConfigError, with the remedy, for a name that is none, and for what is not a policy.
    """
    preset = PRESETS.get(name)
    if preset is not None:
        return SizePolicy(preset)
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ConfigError(
            f"[tuner] policy = {name!r} is no policy: use {', '.join(PRESETS)}, or 'module:Policy' for one of your own"
        )
    return _made(name, _found(name, module, attribute))


def _found(name: str, module: str, attribute: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(
            f"[tuner] policy = {name!r}: the module {module} cannot be imported ({type(error).__name__}: {error}): "
            "correct it, or its place in PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"[tuner] policy = {name!r}: {module} has no {attribute}: correct the name")
        found = getattr(found, part)
    return found


def _made(name: str, found: Any) -> Policy:
    policy = found
    if inspect.isclass(found) or not hasattr(found, "decide"):
        if not callable(found):
            raise ConfigError(f"[tuner] policy = {name!r} is a {type(found).__name__}: name a class with decide()")
        try:
            policy = found()
        except Exception as error:
            raise ConfigError(
                f"[tuner] policy = {name!r} cannot be made ({type(error).__name__}: {error}): "
                "it is called without arguments"
            ) from error
    decide = getattr(policy, "decide", None)
    if not callable(decide) or inspect.iscoroutinefunction(decide):
        raise ConfigError(f"[tuner] policy = {name!r} has no method decide(observation): see pool_monitor.tuner.policy")
    return cast("Policy", policy)
