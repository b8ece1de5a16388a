"""What the commands about advice and tuning share: options, names that may be short, and output."""

from __future__ import annotations

from collections.abc import Mapping

import click
import msgspec

from pool_monitor.cli.output import print_json
from pool_monitor.errors import ConfigError
from pool_monitor.service.client import Client
from pool_monitor.snapshot import TRIAL_WAITING, Recommendation, TrialView, TuningReport
from pool_monitor.view import advice_words
from pool_monitor.view.text import clean

ID_ARGUMENT = click.argument("name", metavar="ID")
REASON_OPTION = click.option("--reason", default="", help="Why, in words.")


def trials_of(report: TuningReport) -> dict[str, TrialView]:
    """Every trial of *report*, by id: those that wait first. Changes without a trial are not among them."""
    tuning = report.tuning
    known = () if tuning is None else (*tuning.pending, *tuning.trials)
    return {one.id: one for one in (*known, *report.history) if not advice_words.is_decision(one)}


async def trial_named(service: Client, prefix: str, *, waiting: bool = False) -> TrialView:
    """The only trial whose id begins with *prefix*. *waiting*: of those that wait for approval."""
    known = trials_of(await service.tuning(limit=1000))
    fitting = {name: one for name, one in known.items() if not waiting or one.state in TRIAL_WAITING}
    names = {name: advice_words.trial_name(one) for name, one in fitting.items()}
    try:
        return fitting[only(prefix, names, "change")]
    except ConfigError:
        others = [one for one in known.values() if prefix and one.id.startswith(prefix.lower())]
        if len(others) != 1 or others[0].id in fitting:
            raise
        words = f"{advice_words.trial_name(others[0])}: {advice_words.STATE_WORDS[others[0].state]}"
        raise ConfigError(f"the change {others[0].id} does not wait for approval: {words}") from None


async def recommendation_named(service: Client, prefix: str) -> Recommendation:
    """The only recommendation whose id begins with *prefix*, or whose digits behind the pattern do."""
    known = {one.id: one for one in (await service.recommendations()).recommendations}
    return known[
        only(prefix, {name: advice_words.recommendation_name(one) for name, one in known.items()}, "recommendation")
    ]


def only(prefix: str, names: Mapping[str, str], what: str) -> str:
    """The only id of *names* (id -> words) that begins with *prefix*. Raises ConfigError if there is none, or several.

    The part behind the last hyphen of an id is enough too.
    """
    if prefix in names:
        return prefix
    wanted = prefix.lower()
    found = [one for one in names if wanted and (one.startswith(wanted) or one.rpartition("-")[2].startswith(wanted))]
    if len(found) == 1:
        return found[0]
    if found:
        listed = "".join(f"\n  {clean(one)}  {names[one]}" for one in found)
        raise ConfigError(f"several {what}s have an id that begins with {prefix!r}:{listed}")
    there = "".join(f"\n  {clean(one)}  {words}" for one, words in list(names.items())[:20])
    raise ConfigError(
        f"no {what} has an id that begins with {prefix!r}; {f'there are:{there}' if there else 'there is none'}"
    )


def print_value(value: object) -> None:
    """Print *value* as JSON."""
    encoded = msgspec.json.encode(value)
    print_json(encoded, msgspec.json.format(encoded, indent=2))
