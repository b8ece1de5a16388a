"""``pool-monitor rules test``: whether rules fire when they should, and only then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from pool_monitor.alerts.defaults import default_rules
from pool_monitor.alerts.delivery.targets import routing_of
from pool_monitor.alerts.rule_file import check_files, with_named
from pool_monitor.alerts.rule_file.files import contents
from pool_monitor.alerts.rule_tests import Coverage, RuleCoverage, Suite, read_suite, run_suite, unknown_names
from pool_monitor.cli import EXIT_FAILED, EXIT_USAGE
from pool_monitor.cli.junit import JUnitCase, JUnitSuite, junit_xml
from pool_monitor.cli.output import print_json, print_text, remark
from pool_monitor.errors import PoolError
from pool_monitor.view.format import plural


class _Result(NamedTuple):
    """What came of one file."""

    file: str
    cases: tuple[JUnitCase, ...]
    problems: tuple[str, ...] = ()
    """Why it could not be run."""
    unread: bool = False

    @property
    def good(self) -> bool:
        return not self.problems and not any(one.failures for one in self.cases)


@click.command("test")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--coverage", "with_coverage", is_flag=True, help="Say which rules, levels and states no test reached.")
@click.option("--junit", metavar="FILE", help="Also write the results to FILE, in the XML of JUnit.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(files: tuple[str, ...], with_coverage: bool, junit: str | None, as_json: bool) -> None:
    """Run the tests of rules in each FILE. They are written with the keys of promtool: rule_files, evaluation_interval,
    tests with input_series and alert_rule_test. A series is written pool.size{pool="p"}; finding.KIND{pool="p"} is a
    finding, 1 warn or 2 bad. The rules that come with the package are there where a rule names them.

    exp_notifications says what arrives at the receivers of the rule files, and faults what they answer. Nothing is
    sent.

    Exit codes: 0 all tests pass; 1 a test fails, or a file has an error; 2 a file cannot be read.
    """
    coverage = Coverage()
    results = [_run(name, coverage) for name in files]
    if junit is not None:
        _write(junit, junit_xml(_for_junit(results)))
    if as_json:
        encoded = msgspec.json.encode(
            {
                "files": [*map(_as_json, results)],
                "coverage": list(coverage.rules()),
                "routes": coverage.routes(),
                "receivers": coverage.receivers(),
            }
        )
        print_json(encoded, msgspec.json.format(encoded, indent=2))
    else:
        for result in results:
            if result.unread:
                remark("\n".join(f"Error: {problem}" for problem in result.problems))
        lines = [line for result in results if not result.unread for line in _lines(result)]
        if with_coverage:
            lines += ["", *_coverage(list(coverage.rules())), *_untold(coverage)]
        print_text("".join(f"{line}\n" for line in lines))
    if any(result.unread for result in results):
        raise click.exceptions.Exit(EXIT_USAGE)
    if not all(result.good for result in results):
        raise click.exceptions.Exit(EXIT_FAILED)


def _run(name: str, coverage: Coverage) -> _Result:
    try:
        data = contents(name)
    except (OSError, ValueError) as error:
        return _Result(name, (), (f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}",), unread=True)
    suite, problems = read_suite(data, name)
    if suite is None:
        return _Result(name, (), tuple(map(str, problems)))
    checked = check_files(suite.rule_files, default_rules())
    if not checked.good:
        unread = [f"{file}: cannot be read: {why}" for file, why in checked.unread.items()]
        wrong = [str(one) for one in checked.problems if one.level == "error"]
        return _Result(name, (), (*unread, *wrong), unread=bool(unread))
    read = [file for file in checked.files if file is not None]
    own = [rule for file in read for rule in file.rules]
    routing = routing_of(
        next((file.route for file in read if file.route is not None), None),
        [one for file in read for one in file.receivers],
    )
    coverage.begin(own, routing)
    rules = with_named(own, default_rules())
    if unknown := list(unknown_names(suite, rules, routing)):
        return _Result(name, (), tuple(map(str, unknown)))
    cases = []
    began = time.perf_counter()
    inhibitions = [one for file in read for one in file.inhibit]
    for number, result in enumerate(run_suite(suite, rules, inhibitions, coverage, routing), 1):
        now = time.perf_counter()
        cases.append(JUnitCase(result.case.name or _unnamed(suite, number), now - began, result.failures))
        began = now
    return _Result(name, tuple(cases))


def _unnamed(suite: Suite, number: int) -> str:
    return f"test {number} (line {suite.cases[number - 1].line})"


def _for_junit(results: list[_Result]) -> Iterator[JUnitSuite]:
    for result in results:
        broken = (JUnitCase("file", 0.0, result.problems, error=True),) if result.problems else ()
        yield JUnitSuite(result.file, (*broken, *result.cases))


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise PoolError(f"{path}: cannot be written: {error.strerror}") from error


def _as_json(result: _Result) -> dict[str, object]:
    tests = [{"name": one.name, "failures": one.failures, "seconds": one.seconds} for one in result.cases]
    return {"file": result.file, "good": result.good, "problems": result.problems, "tests": tests}


# -- words ------------------------------------------------------------------------------------------------------------


def _lines(result: _Result) -> Iterator[str]:
    if result.problems:
        yield from result.problems
        return
    failed = [one for one in result.cases if one.failures]
    for one in failed:
        yield f"FAILED {one.name}"
        for failure in one.failures:
            yield from (f"  {line}" for line in failure.splitlines())
    count = plural(len(result.cases), "test")
    yield f"{result.file}: {f'{len(failed)} of {count} failed' if failed else f'{count}, all passed'}"


def _coverage(rules: list[RuleCoverage]) -> Iterator[str]:
    fired = sum("firing" not in one.missed_states for one in rules)
    levels, states = sum(one.levels for one in rules), sum(one.states for one in rules)
    yield (
        f"coverage: {fired} of {plural(len(rules), 'rule')} fire, "
        f"{levels - sum(len(one.missed_levels) for one in rules)} of {plural(levels, 'level')}, "
        f"{states - sum(len(one.missed_states) for one in rules)} of {plural(states, 'state')}"
    )
    for one in rules:
        never = "never fires" if "firing" in one.missed_states else _never(one)
        missed = [part for part in (never, "" if one.expected else "no test expects an alert of it") if part]
        if missed:
            yield f"  {one.file}:{one.line}: {one.alertname}: {'; '.join(missed)}"


def _untold(coverage: Coverage) -> Iterator[str]:
    routes, receivers = coverage.routes(), coverage.receivers()
    if not receivers:
        return
    yield (
        f"coverage: {sum(one.told for one in receivers)} of {plural(len(receivers), 'receiver')}, "
        f"{sum(one.told for one in routes)} of {plural(len(routes), 'route')} are told something"
    )
    yield from (f"  {one.receiver}: no test tells it anything" for one in receivers if not one.told)
    yield from (f"  route {one.route} to {one.receiver}: no test takes it" for one in routes if not one.told)


def _never(one: RuleCoverage) -> str:
    missed = [f"at the level {name}" for name in one.missed_levels] + one.missed_states
    return f"never {', never '.join(missed)}" if missed else ""
