"""Measures the machine, the process, its event loop, the workers' processes and GPUs, and emits what it finds.

Theory of operation: `ResourcesPart` samples at an interval. The samplers read in a thread, because /proc may block, and
return events; the part emits them on the event loop. `faults` decides, from the same events, what is wrong, and emits
``resource.limit`` when that begins and ends. A watchdog thread measures the lag of the event loop, also while it is
blocked.
"""
