"""The parts of the overview page that are one or two lines high: header, key figures, attention, keys."""

from __future__ import annotations

from collections.abc import Sequence

from pool_monitor.findings import NO_LEVELS, Level, Levels, rejected_ratio
from pool_monitor.snapshot import CallStats, Distribution, PoolDetail, Snapshot, WorkerView
from pool_monitor.view import chart, panels
from pool_monitor.view import format as fmt
from pool_monitor.view import notices as look
from pool_monitor.view.columns import error_in_words
from pool_monitor.view.mode import Mode
from pool_monitor.view.text import Line, Span, clean, cut, cut_words, fit, fit_line, line_width, spread, width

PRODUCT = "pool-monitor"
_WORTH_CUTTING = 24
"""Cells from which the beginning of a notice tells something."""


def header(snapshot: Snapshot, pool: PoolDetail | None, mode: Mode, cells: int, found: Levels = NO_LEVELS) -> Line:
    """Product, service, pool, process; window, uptime, the state of a pool that does not run, and the mode word. The
    last two are never left out, nor is the symbol of trouble in other pools.
    """
    service = snapshot.service
    names = [each.name for each in snapshot.pools.values()]
    here = f"{names.index(pool.name) + 1}/{len(names)} " if pool is not None and len(names) > 1 else ""
    left = [
        Span(f" {PRODUCT}", "bar-strong"),
        Span(f"  {clean(service.name)}", "bar"),
        Span(f"  pool {here}{clean(pool.name)}" if pool is not None else "", "bar"),
        _other_pools(snapshot, pool, found),
        Span(f"  pid {service.pid}@{clean(service.host)}", "bar"),
    ]
    state = f"{look.SYMBOLS['warn']} POOL {pool.state.upper()}  " if pool and pool.state != "running" else ""
    right = [
        Span(f"last {clean(snapshot.window)}  ", "bar"),
        Span(f"up {fmt.age(snapshot.uptime)}  ", "bar"),
        Span(state, "bar-warn"),
        mode.span(),
        Span(" ", "bar"),
    ]
    # What goes first when it gets narrow: the process, the uptime, the product, the service, the window, the pool.
    for part, index in ((left, 4), (right, 1), (left, 0), (left, 1), (right, 0), (left, 2)):
        if line_width(left) + line_width(right) + 2 <= cells:
            break
        part[index] = Span("", "bar")
    return spread([span for span in left if span.text], [span for span in right if span.text], cells, "bar")


def _other_pools(snapshot: Snapshot, pool: PoolDetail | None, found: Levels) -> Span:
    """The symbol of the worst that deserves a look in the pools that are not shown."""
    others = [other for other in snapshot.pools.values() if other is not pool]
    worst = [notice.level for other in others for notice in look.of_pool(snapshot, other, found)[:1]]
    if not worst:
        return Span("", "bar")
    level: Level = "bad" if "bad" in worst else "warn"
    return Span(f" +{look.SYMBOLS[level]}", "bar-bad" if level == "bad" else "bar-warn")


def kpis(pool: PoolDetail, cells: int, found: Levels = NO_LEVELS) -> list[Line]:
    """Two lines of key figures: the values, and under each a bar, a sparkline or a second value."""
    total, latency = pool.total, pool.total.latency
    number = 6 if cells >= 72 else 4 if cells >= 48 else 3
    cell = (cells - 1) // number
    room = cell - 2
    queue_level, error_level = found.get((pool.name, "waiting")), found.get((pool.name, "failed"))

    busy = (
        _figure("BUSY", fmt.count(pool.busy), f"/{fmt.count(pool.size)}", None, cell),
        [Span(chart.bar(pool.utilisation or 0.0, room), "data")],
    )
    queue = (
        _figure(
            "QUEUE",
            fmt.count(pool.waiting),
            f"/{fmt.count(pool.queue_limit)}" if pool.queue_limit else "",
            queue_level,
            cell,
        ),
        [Span(chart.bar(pool.waiting / pool.queue_limit if pool.queue_limit else 0.0, room), queue_level or "data")],
    )
    out = (
        _figure("OK/s", fmt.rate(ok_rate(total)), "", None, cell),
        panels.ink(chart.spark(chart.means(chart.trend_bins(pool.trend, pool.trend.ok, room))), "data"),
    )
    p95 = (
        _figure("p95", fmt.percentile(latency.p95, latency.count), "", None, cell),
        [Span(_other_percentiles(latency, room))],
    )
    errors = (
        _figure("ERR", fmt.ratio(total.error_ratio), "", error_level, cell),
        _rejected(pool, found.get((pool.name, "rejected")), cell)
        or panels.ink(chart.spark(chart.means(chart.trend_bins(pool.trend, pool.trend.errors, room))), "bad"),
    )
    restarts = (
        _figure("RESTARTS", fmt.count(pool.restarts), "", None, cell),
        [Span(cut(fmt.plural(pool.sessions, "session"), room), "dim")],
    )
    chosen = [busy, queue, out, p95, errors, restarts] if number == 6 else [busy, queue, p95, errors][:number]
    values: Line = [Span(" ")]
    drawings: Line = [Span(" ")]
    for value, drawing in chosen:
        values += fit_line(value, cell)
        drawings += fit_line(drawing, cell)
    return [values, drawings]


def ok_rate(total: CallStats) -> float | None:
    """Calls per second that ended well."""
    return total.rate * total.ok / total.calls if total.rate and total.calls else total.rate


def _rejected(pool: PoolDetail, level: Level | None, cells: int) -> Line:
    """The share of calls that were refused, where any was."""
    return _figure("REJ", fmt.ratio(rejected_ratio(pool.total)), "", level, cells) if pool.total.rejected else []


def _figure(name: str, text: str, limit: str, level: Level | None, cells: int) -> Line:
    """A name, its value, and the symbol of its level: never colour alone. The limit goes before a digit is cut off."""
    symbol = look.SYMBOLS[level] if level else ""
    if width(f"{name} {text}{limit}{symbol}") >= cells:
        limit = ""
    return [Span(f"{name} ", "dim"), Span(text + limit + symbol, level or "strong")]


def _other_percentiles(latency: Distribution, cells: int) -> str:
    p50, p99 = (fmt.percentile(value, latency.count) for value in (latency.p50, latency.p99))
    both, one = f"p50 {fit(p50, 6)} p99 {p99}", f"p99 {p99}"
    return both if width(both) <= cells else one if width(one) <= cells else ""


def attention(snapshot: Snapshot, pool: PoolDetail | None, mode: Mode, cells: int, found: Levels | None = None) -> Line:
    """What deserves a look, worst first, as much as fits and the key for the rest; calm words when nothing does.
    Always one line, so that the page never jumps. What deserves it now is cut rather than left out.
    """
    noticed = look.notices(snapshot, pool, mode, found)
    if not noticed:
        return [Span(f" {_calm(pool)}", "dim")]
    line: Line = []
    for index, notice in enumerate(noticed):
        text = Span(f" {look.SYMBOLS[notice.level]} {look.in_short(notice)} ", notice.level)
        rest = len(noticed) - index - 1
        more = Span(f" +{rest + 1} more: n", "dim")
        room = cells - line_width(line) - (width(more.text) if rest else 0)
        if line and width(text.text) > room:
            if notice.level != "bad" or room < _WORTH_CUTTING:
                return [*line, more]
            more = Span(f" +{rest} more: n" if rest else "", "dim")
            return [*line, Span(cut_words(text.text, room), text.meaning), more]
        line.append(Span(cut_words(text.text, max(room, 1)), text.meaning))
    return line


def _calm(pool: PoolDetail | None) -> str:
    if pool is None:
        return "waiting for a pool"
    if pool.completed:
        return "nothing needs attention"
    return f"no call has ended yet, {fmt.count(pool.busy)} under way" if pool.busy else "no calls yet"


def about_worker(worker: WorkerView, cells: int) -> Line:
    """One worker in words: what its row has no room for, as much as fits."""
    health = "not answering" if worker.state == "degraded" else worker.health
    name = Span(f" {clean(worker.id)} ", "strong")
    counts = [Span(f" {fmt.plural(worker.restarts, 'restart')} "), Span(f" rss {fmt.size(worker.rss)} ")]
    error = error_in_words(worker, cells - line_width([name, *counts]) - 2)
    line = [name, Span(f" {error} ") if error else Span(" no error ", "dim"), *counts]
    line.append(Span(f" pid {fmt.UNKNOWN if worker.pid is None else worker.pid} "))
    line.append(Span(f" up {fmt.age(worker.age)} "))
    if health:
        line.append(Span(f" {health} "))
    while len(line) > 1 and line_width(line) > cells:
        line.pop()
    return line


def keys(shown: Sequence[tuple[str, str]], cells: int) -> Line:
    """Keys and what they do; those that do not fit are left out as a whole."""
    line: Line = []
    for key, word in shown:
        if line_width(line) + len(key) + len(word) + 3 > cells:
            break
        line += [Span(f" {key}", "key"), Span(f" {word} ", "dim")]
    return line
