"""Needs what is not installed."""

import no_such_dependency  # noqa: F401
