"""The section ``[pool]``: the configuration of a pool."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from pool_monitor.config.fields import Count, Pause, Seconds, Validated, Variable
from pool_monitor.errors import ConfigError


class PoolConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration of a pool. Times are seconds, sizes bytes.

    The fields are given as keywords of `Pool`, or in the table ``[pool]`` of a TOML file (`load`). A table in
    docs/POOL_GUIDE.md has the meaning and the default of each field.

    Calls: timeout, first_item_timeout, item_timeout, queue_limit, max_wait, shed, retries, retry_errors, retry_budget,
    retry_delay, cancel_grace.
    Workers: python, env, sys_path, init_args, init_kwargs, codec, frame_limit, concurrency, prefetch, context,
    command, start_method, preload, stack_signal, log_output.
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
    """The deadline of a call, which covers queue and execution. A call can set another one."""
    first_item_timeout: Seconds | None = None
    """Longest time from a stream's admission to its first item, within the deadline of the stream. None: until the
    deadline."""
    item_timeout: Seconds | None = None
    """Longest time from an item of a stream to the next item or the end, within the deadline of the stream. Time in
    which the buffer of the caller is full does not count. None: until the deadline."""
    queue_limit: Count = 10_000
    """Most calls that may wait; one more is refused with PoolSaturated."""
    max_wait: Seconds | None = None
    """Longest time a call may wait, within its deadline. None: until its deadline."""
    shed: bool = True
    """Refuse a call at once if its predicted wait and execution would miss its deadline."""
    retries: Count | None = None
    """Most times an idempotent call that failed is sent again, for each category of failure that is retried at all.
    None: by category, as in the table in docs/OPERATIONS_PLAYBOOK.md."""
    retry_errors: tuple[str, ...] = ()
    """Type names of exceptions of the target after which an idempotent call is sent again."""
    retry_budget: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """Most retries per call, as an average over time. 0: no retries; 1: as many retries as calls."""
    retry_delay: Seconds = 0.05
    """Longest pause before a call is sent again. The pause is random, and its bound doubles with each attempt, up to
    5 s or this value. A call whose worker broke the protocol is sent again at once."""
    cancel_grace: Pause = 0.2
    """Time for a cancelled or timed-out operation to end by itself, before its worker is killed."""

    # workers
    python: Annotated[str, Meta(min_length=1)] | None = None
    """Python interpreter of the workers (3.8 or later): a path, or a name on PATH. None: the interpreter of the
    service; a frozen application has none."""
    env: dict[str, str] = {}
    """Environment variables for the workers, in addition to those of the service. Workers from a zygote get the
    environment and resource limits that the service had when the zygote was started: when the pool was opened, or when
    the last zygote had ended. Workers start in the directory that the service had when the pool was opened."""
    sys_path: tuple[str, ...] = ()
    """Directories put in front of the workers' import path. Relative paths here, in *python*, in *command* and in a
    target that is a file start at the directory that the service has when the pool is opened, also for workers that
    are started later."""
    init_args: tuple[Any, ...] = ()
    init_kwargs: dict[str, Any] = {}
    """Positional and keyword arguments with which every worker instantiates a target that is a class."""
    codec: Literal["auto", "json", "msgpack", "pickle"] = "auto"
    """The codec of arguments and results. ``auto``: msgpack if both sides have it, else JSON. ``pickle`` carries any
    object, and lets a worker run code in the service: use it only for targets that you trust like your own code. The
    table What travels in docs/POOL_GUIDE.md shows how each type arrives."""
    frame_limit: Annotated[int, Meta(ge=1024, le=2**32 - 1)] = 64 * 1024 * 1024
    """Largest message. A call with larger arguments or a larger result fails, and so does `try_run` of a generator
    whose items together are larger. A message takes more memory when it is decoded: up to about 70 times its size, if
    it has only empty dicts."""
    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """Calls that one worker runs at once. Only coroutine operations overlap; any other operation blocks its worker."""
    prefetch: Annotated[int, Meta(ge=1, le=64)] = 16
    """Most calls that a worker is handed ahead while operations take less than about a millisecond. 1: none."""
    context: tuple[Variable, ...] = ()
    """Context variables that travel with each call, such as ``my_service.log:request_id``. The operation and the
    handlers of the call's events see the values that the caller has set. Service and workers import the modules of the
    variables."""
    command: tuple[str, ...] = ()
    """A program, with its arguments, that runs as the worker in place of ours. It follows docs/WORKER_PROTOCOL.md."""
    start_method: Literal["auto", "zygote", "exec"] = "auto"
    """``zygote``: workers are forked from a process that has loaded the interpreter and *preload*. ``exec``: each
    worker starts a new interpreter. ``auto``: zygote on Linux, except with *command*; else exec."""
    preload: tuple[str, ...] = ()
    """Modules that the zygote imports once for all workers. ``asyncio`` is worth it for operations that are coroutines.
    On import, the modules must not start threads or use a GPU."""
    stack_signal: Annotated[int, Meta(ge=0, le=64)] | None = 47
    """Real-time signal (34 to 64) by which a Python worker on Linux is asked for its stack. If the target uses it once
    loaded, the worker takes one of the next seven. 0: stacks only by message, which a worker does not answer while it
    runs C code. None: no stacks."""
    log_output: bool = True
    """Write what workers print and what targets log to the logger ``pool_monitor.output`` (to stderr if the service
    has not configured logging). False: only events are emitted for it."""

    # lifecycle
    start_timeout: Seconds = 30.0
    """Longest time for a worker to start and load the target."""
    stop_grace: Pause = 5.0
    """Time for a worker to end after it was asked to, before SIGTERM is sent to its process group."""
    kill_grace: Pause = 2.0
    """Time between SIGTERM and SIGKILL."""
    drain_timeout: Pause = 15.0
    """Time for accepted calls to end when the pool is closed."""
    backoff_min: Seconds = 0.1
    backoff_max: Seconds = 30.0
    """Shortest and longest pause before a worker that ends repeatedly is started again (decorrelated jitter)."""
    restart_limit: Count = 3
    restart_period: Seconds = 5.0
    """A slot that is restarted more than *restart_limit* times within *restart_period* is in a crash loop: it pauses
    before each start."""
    warmup: Literal["parallel", "sequential", "staged"] = "parallel"
    """``parallel``: all workers start at once. ``sequential``: they start one after the other. ``staged``: the pool
    opens when ``min_size`` workers are ready; the others start one after the other."""

    # health and recycling
    health_interval: Seconds = 5.0
    health_timeout: Seconds = 2.0
    """A worker is pinged every *health_interval* seconds. Its answer is late after *health_timeout* seconds."""
    health_misses: Annotated[int, Meta(ge=1)] = 3
    """An idle worker that leaves this many pings in a row unanswered is replaced. A busy worker has until the deadline
    of its call."""
    recycle_calls: Annotated[int, Meta(ge=1)] | None = None
    recycle_age: Seconds | None = None
    recycle_rss: Annotated[int, Meta(ge=1)] | None = None
    """A worker process is replaced after *recycle_calls* calls (it is never handed more), after *recycle_age* seconds,
    or when its resident memory is above *recycle_rss* bytes. None: no limit."""
    recycle_jitter: Annotated[float, Meta(ge=0, le=0.5)] = 0.1
    """The recycling limits of each process differ at random from the configured limits, by up to this share. The limit
    on calls is only lowered. So not all processes are replaced at once."""

    # circuit breaker
    breaker_failures: Count = 5
    """Failures of workers in a row that open the breaker. 0: no breaker."""
    breaker_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.5
    breaker_minimum: Annotated[int, Meta(ge=1)] = 20
    breaker_window: Seconds = 10.0
    """The breaker also opens if *breaker_minimum* or more calls ended within *breaker_window* and at least the share
    *breaker_ratio* of them failed."""
    breaker_open: Seconds = 60.0
    """Time for which an open breaker refuses all calls, before it lets some through on trial."""
    breaker_trials: Annotated[int, Meta(ge=1)] = 3
    breaker_successes: Annotated[int, Meta(ge=1)] = 3
    """At most *breaker_trials* trial calls run at once. The breaker closes after *breaker_successes* of them
    succeeded."""

    # sessions
    session_ttl: Seconds = 3600.0
    """A session unused for this long is dropped."""
    session_limit: Annotated[int, Meta(ge=1)] = 10_000
    """Most sessions kept. One more drops the session unused longest."""
    session_data_limit: Count = 256 * 1024
    """Largest size of ``session.data``, encoded."""
    affinity: Literal["hint", "strict"] = "hint"
    """``hint``: a session's calls run on the worker of its last call, if it is free. ``strict``: they wait for that
    process, and fail with SessionLost when it is gone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backoff_max < self.backoff_min:
            raise ConfigError(
                f"PoolConfig: backoff_max={self.backoff_max} is below backoff_min={self.backoff_min}; "
                "raise backoff_max or lower backoff_min"
            )
        if self.stack_signal is not None and 0 < self.stack_signal < 34:
            raise ConfigError(
                f"PoolConfig: stack_signal={self.stack_signal} is no real-time signal; give one from 34 to 64, or 0"
            )
        for name, value in self.env.items():
            if not name or set(name) & {"=", "\0"} or "\0" in value:
                raise ConfigError(
                    f"PoolConfig: env[{name!r}]: needs a non-empty name without '=', and no NUL in name or value"
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
    retry_delay: float
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
    stack_signal: int | None
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
