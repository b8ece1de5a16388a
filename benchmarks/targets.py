"""What the workers of the pool benchmark load."""

from __future__ import annotations

from typing import Any


class Echo:
    def echo(self, value: Any) -> Any:
        return value


def echo(value: Any) -> Any:
    return value
