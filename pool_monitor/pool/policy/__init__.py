"""The pool's decisions as pure code: no I/O, no clock, no random numbers of their own. The folder above acts on them.

Time, durations and random numbers are passed in, so each decision can be repeated in a test. An import contract
(`[tool.importlinter]` in pyproject.toml) forbids this folder to import code that acts.
"""
