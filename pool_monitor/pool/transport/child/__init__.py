"""The program inside a worker process: loads the target, answers calls, ends itself when the parent goes away.

Standard library only, and any Python from 3.8: the parent starts ``__main__.py`` by its path, in whatever
interpreter the target needs, where nothing of ours is installed. It speaks protocol v1 (docs/WORKER_PROTOCOL.md): it
reads from the pipe whose descriptor is in ``POOL_MONITOR_FD`` and writes to the one in ``POOL_MONITOR_OUT``, or does
both on one socket where only the first is given. stdin, stdout and stderr belong to the target.

Theory of operation
-------------------
One thread, and one call at a time unless the worker is told otherwise (concurrent.py). Idle, it blocks in reading.
While the target runs nobody reads the channel, so that a call costs no hand-over between threads; when the parent has
something urgent to say to a busy worker (``ping``, ``cancel``, ``recall``), it writes the frame and sends SIGURG,
whose default action is to be ignored. Our handler then reads what has arrived, answers pings, gives back calls that
have not begun, and turns a ``cancel`` into `OperationCancelled`, raised inside the target at that very place. The
handler reads only while the target's code runs: never in the middle of a frame that is being sent or received.
(``interruptible``, in messenger.py. What the target's telemetry sends is kept from the handler in the same way, and a
lock keeps it from other threads. No thread waits for that lock while the channel is full.)

Answers to short operations are held back while more calls wait, in memory that the parent can read after our death
(shared_memory.py): with that, several cost one system call, and none is lost.

What the target forks off is no worker: such a copy ends where the target's code ends in it, as it would have alone, and
can neither use the channel nor begin a call that waits (``become_copy`` in worker.py, and forked_copy.py).

Life-line: a pipe or socket (``POOL_MONITOR_LIFELINE``) that never carries a byte. When the parent goes, however it
goes, the kernel sees the other end close and kills this whole process group at once. That needs nothing from this
process, so it also works while C code holds the interpreter. The pipe is one for all workers of a pool; each has an
open file of its own for it, since whom the kernel is to kill is set for that. What a worker had started that died just
before is ended by the zygote, which holds the worker's number until it is reaped.

The files: process.py (start and end of the process), zygote.py (the process that workers are forked off), handshake.py
(what both sides agree on), messenger.py (the messages), worker.py (the calls), concurrent.py (several calls at once),
context.py (context variables), target.py (the user's code), telemetry.py (events of the target), payloads.py (the
user's values), output.py (what the target prints), forked_copy.py (the end of what the target forks off), channel.py
(the frames), link.py (the descriptors), exception_text.py (exceptions as text), memory_usage.py (how much is taken).
The parent uses framing.py (frames), codec.py, conversions.py and array_elements.py (payloads), shared_memory.py and
the names in telemetry.py too.
"""

PROTOCOL = 1
