"""The program inside a worker process: loads the target, answers calls, ends itself when the parent goes away.

Standard library only, and any Python from 3.8: the parent starts ``__main__.py`` by its path, in the interpreter that
the target needs, where this package is not installed. The program speaks protocol v1 (docs/WORKER_PROTOCOL.md). It
reads the pipe in ``POOL_MONITOR_FD`` and writes to the pipe in ``POOL_MONITOR_OUT``. Where only the first variable is
set, it does both on one socket. stdin, stdout and stderr belong to the target.

Theory of operation
-------------------
One thread, and one call at a time unless the pool asks for more (concurrent.py). An idle worker blocks in reading.

While the target runs, the channel is not read, so a call costs no switch between threads. For an urgent message to a
busy worker (``ping``, ``cancel``, ``recall``) the parent writes the frame and sends SIGURG, which is ignored by
default. The worker's handler then reads what has arrived. It answers pings, gives back calls that have not begun, and
turns a ``cancel`` into `OperationCancelled`, raised in the target's code at the point it has reached. The handler reads
only while the target's code runs, never in the middle of a frame (``interruptible`` in messenger.py). The flag also
protects what the target's telemetry sends. A lock protects it against other threads; no thread waits for that lock
while the channel is full.

Answers to short operations are held back while more calls wait, in memory that the parent can read after the worker's
death (shared_memory.py). So several answers cost one system call, and none is lost.

A process that the target forks off is no worker. Such a copy ends where the target's code ends in it, the way
Python ends a program. It can neither use the channel nor begin a waiting call (``become_copy`` in worker.py, and
forked_copy.py).

The life-line is a pipe or socket (``POOL_MONITOR_LIFELINE``) that never carries a byte. When the parent ends, in
whatever way, the kernel sees its end close and kills this whole process group at once. That needs nothing of this
process, so it also works while C code holds the interpreter. All workers of a pool share the pipe. Each opens it
separately, because the process to kill is set for an open file. If a worker died just before its parent, the zygote
ends the processes which that worker had started: it holds the worker's pid until the worker is reaped.

The files: process.py (start and end of the process), zygote.py (the process that workers are forked off), handshake.py
(what both sides agree on), messenger.py (the messages), worker.py (the calls), concurrent.py (several calls at once),
context.py (context variables), target.py (the user's code), telemetry.py (events of the target), payloads.py (the
user's values), streams.py (what an operation yields), output.py (what the target prints), forked_copy.py (the end of
processes that the target forks off), channel.py (the frames), link.py (the descriptors), exception_text.py (exceptions
as text), memory_usage.py (memory in use). The parent also uses framing.py (frames), codec.py, conversions.py and
array_elements.py (payloads), shared_memory.py and the names in telemetry.py.
"""

PROTOCOL = 1
