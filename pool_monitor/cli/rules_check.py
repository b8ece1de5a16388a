"""``pool-monitor rules check``: everything that is wrong with rule files."""

from __future__ import annotations

import sys

import click
import msgspec

from pool_monitor.alerts.defaults import default_rules
from pool_monitor.alerts.rule_file import check_files
from pool_monitor.alerts.rule_file.files import STDIN
from pool_monitor.cli import EXIT_FAILED, EXIT_USAGE
from pool_monitor.cli.output import print_json, print_text, remark


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def command(files: tuple[str, ...], as_json: bool) -> None:
    """Check rule files, and print everything that is wrong with them: FILE:LINE:COLUMN: message.

    All files together are those of one service: a rule may name a rule in another of them, and the rules that come with
    the package. A FILE that is - is read from stdin.

    Exit codes: 0 no error, there may be warnings; 1 an error; 2 a file cannot be read.
    """
    checked = check_files(files, default_rules(), stdin=sys.stdin.buffer.read)
    for name, why in checked.unread.items():
        remark(f"Error: {name}: cannot be read: {why}")
    if as_json:
        encoded = msgspec.json.encode(
            {
                "files": [
                    {
                        "file": STDIN if path == "-" else path,
                        "rules": None if file is None else len(file.rules),
                        "unread": checked.unread.get(path),
                    }
                    for path, file in zip(files, checked.files, strict=True)
                ],
                "problems": checked.problems,
            }
        )
        print_json(encoded, msgspec.json.format(encoded, indent=2))
    else:
        lines = [str(problem) for problem in checked.problems]
        if checked.good:
            count = sum(len(file.rules) for file in checked.files if file is not None)
            lines.append(f"{count} rule{'' if count == 1 else 's'}, no error")
        print_text("".join(f"{line}\n" for line in lines))
    if checked.unread:
        raise click.exceptions.Exit(EXIT_USAGE)
    if not checked.good:
        raise click.exceptions.Exit(EXIT_FAILED)
