"""Benchmarks: ours and a peer's in the same run, ratios rather than absolute figures. See README.md beside this."""
