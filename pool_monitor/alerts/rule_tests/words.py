"""Words for what a test expected and what came instead."""

from __future__ import annotations

from collections.abc import Mapping


def of_mappings(noun: str, expected: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """Return a line for each key whose value is not the expected one."""
    return [
        f"{noun} {name}: expected {_quoted(expected.get(name))}, got {_quoted(got.get(name))}"
        for name in sorted(expected.keys() | got.keys())
        if expected.get(name) != got.get(name)
    ]


def of_labels(expected: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """Return a line for each label that is not the expected one. Where no ``severity`` is expected, any will do."""
    labels = got if "severity" in expected else {name: value for name, value in got.items() if name != "severity"}
    return of_mappings("label", expected, labels)


def of_flag(name: str, expected: bool) -> str:
    """Return the line for a flag that is not as expected."""
    return f"{name}: expected {str(expected).lower()}, got {str(not expected).lower()}"


def named(alertname: str, labels: Mapping[str, str] | None) -> str:
    """Return an alert as Prometheus writes it; None: any labels."""
    if labels is None:
        return alertname
    pairs = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "alertname")
    return f"{alertname}{{{pairs}}}"


def time_text(seconds: float) -> str:
    """Return a time after the beginning, such as ``1h2m3s``."""
    parts, left = [], round(seconds, 3)
    for size, unit in ((3600, "h"), (60, "m")):
        number, left = divmod(left, size)
        parts += [f"{number:.0f}{unit}"] if number else []
    return "".join([*parts, f"{left:g}s"] if left or not parts else parts)


def _quoted(value: str | None) -> str:
    return "none" if value is None else f'"{value}"'
