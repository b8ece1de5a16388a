"""Benchmarks of this package beside its peers, in one run, as ratios. See README.md in this folder."""
