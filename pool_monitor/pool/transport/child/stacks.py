"""What this worker is doing, for the pool to read.

There are two ways. The pool sends a real-time signal, and ``faulthandler`` writes the stack of the main thread into a
file in memory that the pool opens through ``/proc``. That needs no Python code, so it also works while C code holds the
interpreter. Or the pool sends the message ``stack``, which is answered with what only the interpreter knows: the other
threads by name, and the chains of awaits of the event loop's tasks.

``faulthandler`` is asked for the main thread alone. To read the frames of other threads while they run can crash the
process (measured: after some dozens of times), and that must not happen to a worker that is well.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import os
import signal
import sys
import types

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

    Frames = List[List[Any]]  # [file, line, function], outermost first

_SIGNALS_TRIED = 8  # the configured real-time signal and the next ones, if it is taken
_THREADS = 32
_TASKS = 64
_FRAMES = 100  # of one thread or task, the innermost
_FRAMES_TOTAL = 3000  # of one answer
_NAME = 256  # characters
_HERE = os.path.dirname(os.path.abspath(__file__))
_WRAPPERS = ("coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "FutureIter")

_set_handler: Callable[[Any, Any], Any] = signal.signal
_file: Optional[StackFile] = None  # set by `register`


class StackFile:
    """The file in memory that ``faulthandler`` writes to when the signal *number* comes."""

    def __init__(self, number: int) -> None:
        """Raises an error if this system or this interpreter cannot do it."""
        import faulthandler

        self.number = number
        self.fd = os.memfd_create("pool_monitor stack")
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_APPEND)  # the pool empties the file before it asks
        self.inode = os.fstat(self.fd).st_ino
        faulthandler.register(number, file=self.fd, all_threads=False, chain=False)

    def give_up(self) -> None:
        """Close the file: the target has a handler now. The pool sees that, and does not send the signal any more."""
        with contextlib.suppress(OSError):
            if os.fstat(self.fd).st_ino == self.inode:  # else the target has closed it, and opened something else
                os.close(self.fd)


def notice_handlers() -> None:
    """Have `StackFile.give_up` called when the target sets a handler for the signal, also if it has imported
    ``signal.signal`` by name. To be called before any code of the target is imported.
    """
    if signal.signal is not _set_handler:
        return  # done before the fork

    @functools.wraps(_set_handler)
    def set_handler(signalnum: Any, handler: Any) -> Any:
        global _file
        if _file is None or signalnum != _file.number:
            return _set_handler(signalnum, handler)
        if handler is signal.SIG_DFL:  # the target resets every signal: Python has said so of this one all along
            return signal.SIG_DFL
        # Replaced, not unregistered first: a signal that the pool has just sent would end this process.
        before = _set_handler(signalnum, handler)
        file, _file = _file, None
        file.give_up()
        return before

    signal.signal = set_handler


def register(wanted: int) -> Dict[str, int]:
    """Register ``faulthandler`` on the signal *wanted*, or on one of the next if the target has taken it. Return the
    signal, the descriptor of its file and the inode of the file; an empty dict if that is not possible.
    """
    global _file
    if _file is None:
        for number in range(wanted, min(wanted + _SIGNALS_TRIED, getattr(signal, "SIGRTMAX", 0) + 1)):
            if _is_free(number):
                try:
                    _file = StackFile(number)
                except (AttributeError, ImportError, OSError, RuntimeError, ValueError):
                    return {}
                break
        else:
            return {}
    return {"signal": _file.number, "file": _file.fd, "inode": _file.inode}


def _is_free(number: int) -> bool:
    """Whether nobody in this process handles, ignores or blocks the signal, neither in Python nor in C."""
    if signal.getsignal(number) is not signal.SIG_DFL:
        return False
    with open("/proc/self/status", "rb") as status:
        for line in status:
            name, _, mask = line.partition(b":")
            if name in (b"SigBlk", b"SigIgn", b"SigCgt") and int(mask, 16) >> (number - 1) & 1:
                return False
    return True


# -- the answer to the message ``stack`` ------------------------------------------------------------------------------


def describe(loop: Any, calls: Iterable[Tuple[str, Any]]) -> List[List[Any]]:
    """Return ``[kind, name, frames]`` of each thread, task and call: first other threads, then the main thread, then
    tasks of the event loop that runs or of *loop*, and last the tasks of *calls*, which are pairs of an operation and
    its task. Never raises.
    """
    found: List[List[Any]] = []
    room = [_FRAMES_TOTAL]
    for step in (_add_threads, functools.partial(_add_tasks, loop, calls)):
        with contextlib.suppress(Exception):  # the target may have replaced anything: the rest is told
            step(found, room)
    return found


def _add_threads(found: List[List[Any]], room: List[int]) -> None:
    threading: Any = sys.modules["threading"]
    active = dict(threading._active)
    main = threading.main_thread().ident
    # No name here may stay at the frame of this function: that cycle would keep what the target's frames hold alive.
    others = [entry for entry in list(sys._current_frames().items())[:_THREADS] if entry[0] != main]
    for ident, innermost in others:
        name = getattr(active.get(ident), "name", "") or "%d" % ident
        _add(found, room, "thread", name, _frames_of(innermost))
    frame: Optional[types.FrameType] = sys._current_frames().get(main)
    while frame is not None and os.path.dirname(frame.f_code.co_filename) == _HERE:
        frame = frame.f_back  # what answers this message
    _add(found, room, "main", "", _frames_of(frame))


def _add_tasks(loop: Any, calls: Iterable[Tuple[str, Any]], found: List[List[Any]], room: List[int]) -> None:
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None:
        return
    calls = list(calls)
    ours = {id(task) for _, task in calls}
    loop = asyncio._get_running_loop() or loop
    tasks = () if loop is None else asyncio.all_tasks(loop)
    for task in list(tasks)[:_TASKS]:
        if id(task) not in ours and not task.done():
            _add(found, room, "task", task.get_name(), _chain(task))
    for operation, task in calls:
        _add(found, room, "call", operation, _chain(task))


def _add(found: List[List[Any]], room: List[int], kind: str, name: str, frames: Frames) -> None:
    frames = frames[-room[0] :] if room[0] else []
    room[0] -= len(frames)
    found.append([kind, _clean(name), frames])


def _frames_of(frame: Optional[types.FrameType]) -> Frames:
    """Return the frames of a thread, from its innermost frame."""
    found: Frames = []
    while frame is not None and len(found) < _FRAMES:
        found.append(_described(frame))
        frame = frame.f_back
    return found[::-1]


def _described(frame: types.FrameType) -> List[Any]:
    code = frame.f_code
    return [_clean(code.co_filename), frame.f_lineno or 0, _clean(code.co_name)]


def _chain(awaited: Any) -> Frames:
    """Return the chain of awaits of a task: where its coroutine waits, where what that waits for waits, and so on."""
    found: Frames = []
    seen = set()
    while awaited is not None and id(awaited) not in seen:
        seen.add(id(awaited))
        frame, awaited = _step(awaited)
        if frame is not None:
            found.append(_described(frame))
    return found[-_FRAMES:]


def _step(awaited: Any) -> Tuple[Optional[types.FrameType], Any]:
    """Return the frame of *awaited*, if it has one, and what it waits for in turn."""
    if isinstance(awaited, types.CoroutineType):
        return awaited.cr_frame, awaited.cr_await
    if isinstance(awaited, types.GeneratorType):
        return awaited.gi_frame, awaited.gi_yieldfrom
    if isinstance(awaited, types.AsyncGeneratorType):
        return awaited.ag_frame, awaited.ag_await
    if hasattr(awaited, "get_coro"):  # a task
        return None, awaited.get_coro()
    if type(awaited).__name__ in _WRAPPERS:
        for inner in gc.get_referents(awaited):
            if isinstance(inner, (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)):
                return None, inner
            if hasattr(inner, "get_coro"):
                return None, inner
    return None, None


def _clean(text: Any) -> str:
    return str(text)[:_NAME].encode("utf-8", "backslashreplace").decode()
