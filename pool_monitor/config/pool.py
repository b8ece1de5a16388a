"""The section ``[pool]``: how a pool treats its calls and its workers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from pool_monitor.config.fields import Count, Pause, Seconds, Validated, Variable
from pool_monitor.errors import ConfigError


class PoolConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a pool treats its calls and its workers. Times are seconds, sizes bytes.

    Fields are given as keywords of `Pool`, or in the table ``[pool]`` of a TOML file (`load`). Each is described where
    it stands in pool_monitor/config/pool.py, and with its default in a table in docs/POOL_GUIDE.md.

    Calls: timeout, first_item_timeout, item_timeout, queue_limit, max_wait, shed, retries, retry_errors, retry_budget,
    cancel_grace.
    Workers: python, env, sys_path, init_args, init_kwargs, codec, frame_limit, concurrency, prefetch, context,
    command, start_method, preload, log_output.
    Lifecycle: start_timeout, stop_grace, kill_grace, drain_timeout, backoff_min, backoff_max, restart_limit,
    restart_period, warmup.
    Health and recycling: health_interval, health_timeout, health_misses, recycle_calls, recycle_age, recycle_rss,
    recycle_jitter.
    Circuit breaker: breaker_failures, breaker_ratio, breaker_minimum, breaker_window, breaker_open, breaker_trials,
    breaker_successes.
    Sessions: session_ttl, session_limit, session_data_limit, affinity.
    """

    # calls
    timeout: Seconds = 60.0
    """One deadline per call, over queue and execution, unless the call brings its own."""
    first_item_timeout: Seconds | None = None
    """Longest time from a stream's admission to its first item, within its deadline; None: as long as that."""
    item_timeout: Seconds | None = None
    """Longest pause after an item of a stream, to the next one or to its end, within its deadline. Time in which the
    caller has all the items it has room for does not count. None: as long as the deadline."""
    queue_limit: Count = 10_000
    """Most calls that may wait; one more is refused with PoolSaturated."""
    max_wait: Seconds | None = None
    """Longest time a call may wait, where its deadline allows more; None: as long as its deadline."""
    shed: bool = True
    """Refuse a call at once when its predicted wait and execution would miss its deadline."""
    retries: Count | None = None
    """How often an idempotent call that failed is sent again, whatever failed; None: by what failed, as the table in
    docs/OPERATIONS_PLAYBOOK.md says."""
    retry_errors: tuple[str, ...] = ()
    """Type names of the target's own exceptions after which an idempotent call is sent again."""
    retry_budget: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """Retries allowed per call made, over time; 0: none, 1: as many as calls."""
    cancel_grace: Pause = 0.2
    """What a cancelled or timed-out operation gets to end by itself before its worker is killed."""

    # workers
    python: Annotated[str, Meta(min_length=1)] | None = None
    """Interpreter of the workers (3.8 or later), by its path or by its name on PATH; None: the one the service runs in,
    which a frozen application has not."""
    env: dict[str, str] = {}
    """Environment variables added to the service's own. From a zygote, workers get the environment and limits that the
    service had when the zygote was started: when the pool was opened, or after the last one ended. Workers start in the
    directory that the service had when the pool was opened."""
    sys_path: tuple[str, ...] = ()
    """Directories put in front of the workers' import path. These, *python*, *command* and a target that is a file are
    taken from the directory that the service has when the pool is opened, also for workers started later."""
    init_args: tuple[Any, ...] = ()
    init_kwargs: dict[str, Any] = {}
    """What the target, if it is a class, is instantiated with in every worker."""
    codec: Literal["auto", "json", "msgpack", "pickle"] = "auto"
    """What arguments and results are carried in. ``auto``: msgpack where both sides have it, else JSON. ``pickle``
    carries any object, and lets a worker run code in the service: only for targets you trust as you do yourself. What
    arrives as what: the table What travels in docs/POOL_GUIDE.md."""
    frame_limit: Annotated[int, Meta(ge=1024, le=2**32 - 1)] = 64 * 1024 * 1024
    """Largest message; a call whose arguments or result are larger fails, and so does `try_run` of a generator whose
    items are larger together. Decoded, a message of nothing but empty dicts takes some 70 times as much memory."""
    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """Calls one worker runs at once. Only coroutine operations overlap; any other holds up its worker."""
    prefetch: Annotated[int, Meta(ge=1, le=64)] = 16
    """Most calls handed to a worker ahead of time, while operations take less than about a millisecond; 1: none."""
    context: tuple[Variable, ...] = ()
    """Context variables, such as ``my_service.log:request_id``, that travel with each call: the values that its caller
    has set are set around the operation too, and for the handlers of the call's events. Service and workers import the
    modules of the variables."""
    command: tuple[str, ...] = ()
    """Program to run as a worker instead of ours, with its arguments; it speaks docs/WORKER_PROTOCOL.md."""
    start_method: Literal["auto", "zygote", "exec"] = "auto"
    """``zygote``: workers are forked by a process that has loaded the interpreter and *preload*; ``exec``: each is
    started on its own. ``auto``: zygote on Linux, unless *command* is given."""
    preload: tuple[str, ...] = ()
    """Modules the zygote imports once for all workers (``asyncio`` is worth it where operations are coroutines). They
    must start no thread and touch no GPU on import."""
    log_output: bool = True
    """Write what workers print, and what targets log, to the logger ``pool_monitor.output`` (to stderr where the
    service has configured no logging); False: only the events tell of it."""

    # lifecycle
    start_timeout: Seconds = 30.0
    """How long a worker may take to load the target."""
    stop_grace: Pause = 5.0
    """How long a worker may take to leave when asked, before SIGTERM to its process group."""
    kill_grace: Pause = 2.0
    """How long after SIGTERM before SIGKILL."""
    drain_timeout: Pause = 15.0
    """How long closing the pool lets accepted calls go on."""
    backoff_min: Seconds = 0.1
    backoff_max: Seconds = 30.0
    """Bounds of the pause before a worker that keeps ending is started again (decorrelated jitter)."""
    restart_limit: Count = 3
    restart_period: Seconds = 5.0
    """A slot restarted more than *restart_limit* times within *restart_period* is in a crash loop, and pauses."""
    warmup: Literal["parallel", "sequential", "staged"] = "parallel"
    """``parallel``: all workers start at once; ``sequential``: one after the other; ``staged``: the pool opens once
    ``min_size`` workers are ready, the others follow one after the other."""

    # health and recycling
    health_interval: Seconds = 5.0
    health_timeout: Seconds = 2.0
    """How often a worker is asked for a sign of life, and how long it may take to answer."""
    health_misses: Annotated[int, Meta(ge=1)] = 3
    """An idle worker that leaves so many unanswered in a row is replaced; a busy one has until its call's deadline."""
    recycle_calls: Annotated[int, Meta(ge=1)] | None = None
    recycle_age: Seconds | None = None
    recycle_rss: Annotated[int, Meta(ge=1)] | None = None
    """Replace a worker process after so many calls (no process is handed more), seconds, or above so many bytes of
    resident memory."""
    recycle_jitter: Annotated[float, Meta(ge=0, le=0.5)] = 0.1
    """Each process's own limits lie within this share of those above, for calls below it, so that not all are due at
    once."""

    # circuit breaker
    breaker_failures: Count = 5
    """Failures of workers in a row that open the breaker; 0: there is no breaker."""
    breaker_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.5
    breaker_minimum: Annotated[int, Meta(ge=1)] = 20
    breaker_window: Seconds = 10.0
    """So large a share of at least *breaker_minimum* calls failing within *breaker_window* opens it too."""
    breaker_open: Seconds = 60.0
    """How long calls are refused then, before some are let through on trial."""
    breaker_trials: Annotated[int, Meta(ge=1)] = 3
    breaker_successes: Annotated[int, Meta(ge=1)] = 3
    """Trial calls under way at once, and how many have to end well to close it."""

    # sessions
    session_ttl: Seconds = 3600.0
    """A session unused for this long is dropped."""
    session_limit: Annotated[int, Meta(ge=1)] = 10_000
    """Most sessions kept; one more drops the one unused longest."""
    session_data_limit: Count = 256 * 1024
    """Largest ``session.data``, encoded."""
    affinity: Literal["hint", "strict"] = "hint"
    """``hint``: a session's calls prefer the worker of its last one; ``strict``: they insist on that process, wait
    for it, and fail with SessionLost once it is gone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backoff_max < self.backoff_min:
            raise ConfigError(
                f"PoolConfig: backoff_max={self.backoff_max} is below backoff_min={self.backoff_min}; "
                "raise the one or lower the other"
            )
        for name, value in self.env.items():
            if not name or set(name) & {"=", "\0"} or "\0" in value:
                raise ConfigError(
                    f"PoolConfig: env[{name!r}]: needs a name that is not empty and has no '=' in it, and no NUL in "
                    "name or value"
                )


class PoolFields(TypedDict, total=False):
    """The fields of `PoolConfig` as keywords, for type checkers: what ``Pool(target, **fields)`` takes."""

    timeout: float
    first_item_timeout: float | None
    item_timeout: float | None
    queue_limit: int
    max_wait: float | None
    shed: bool
    retries: int | None
    retry_errors: list[str] | tuple[str, ...]
    retry_budget: float
    cancel_grace: float
    python: str | None
    env: dict[str, str]
    sys_path: list[str] | tuple[str, ...]
    init_args: list[Any] | tuple[Any, ...]
    init_kwargs: dict[str, Any]
    codec: Literal["auto", "json", "msgpack", "pickle"]
    frame_limit: int
    concurrency: int
    prefetch: int
    context: list[str] | tuple[str, ...]
    command: list[str] | tuple[str, ...]
    start_method: Literal["auto", "zygote", "exec"]
    preload: list[str] | tuple[str, ...]
    log_output: bool
    start_timeout: float
    stop_grace: float
    kill_grace: float
    drain_timeout: float
    backoff_min: float
    backoff_max: float
    restart_limit: int
    restart_period: float
    warmup: Literal["parallel", "sequential", "staged"]
    health_interval: float
    health_timeout: float
    health_misses: int
    recycle_calls: int | None
    recycle_age: float | None
    recycle_rss: int | None
    recycle_jitter: float
    breaker_failures: int
    breaker_ratio: float
    breaker_minimum: int
    breaker_window: float
    breaker_open: float
    breaker_trials: int
    breaker_successes: int
    session_ttl: float
    session_limit: int
    session_data_limit: int
    affinity: Literal["hint", "strict"]
