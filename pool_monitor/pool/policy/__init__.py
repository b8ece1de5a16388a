"""The pool's decisions, as values: no I/O, no clock, no dice. The folder above acts on them.

Time, durations and random numbers are passed in, so each decision can be repeated in a test. An import contract keeps
this folder free of everything else of the package (`[tool.importlinter]` in pyproject.toml).
"""
