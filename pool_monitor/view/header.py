"""The one-line and two-line parts of a page: header, key figures, notices, one worker, keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pool_monitor.findings import NO_LEVELS, Level, Levels, rejected_ratio
from pool_monitor.snapshot import CallStats, Distribution, PoolDetail, Snapshot, Trend, WorkerView
from pool_monitor.view import advice_words, alert_words, chart, panels
from pool_monitor.view import format as fmt
from pool_monitor.view.columns import last_error_text
from pool_monitor.view.freshness import Freshness
from pool_monitor.view.notices import SYMBOLS, headline, notices, pool_notices
from pool_monitor.view.text import (
    Line,
    Meaning,
    Segment,
    clean,
    fit,
    fit_line,
    justify,
    line_width,
    one_line,
    truncate,
    truncate_words,
    width,
)

PRODUCT = "pool-monitor"
_MIN_ERROR_CELLS = 16
"""The fewest cells in which an error and its age say something."""
_MIN_NOTICE_CELLS = 24
"""The fewest cells in which the beginning of a notice is useful."""


def header(
    snapshot: Snapshot, pool: PoolDetail | None, freshness: Freshness, cells: int, levels: Levels = NO_LEVELS
) -> Line:
    """Return the header: product, service, pool and process; window, uptime, the number of firing alerts, the pool's
    state unless it is running, and the freshness. The last three and the symbol for the other pools are never left out.
    """
    service = snapshot.service
    names = [each.name for each in snapshot.pools.values()]
    here = f"{names.index(pool.name) + 1}/{len(names)} " if pool is not None and len(names) > 1 else ""
    left = [
        Segment(f" {PRODUCT}", "bar-strong"),
        Segment(f"  {clean(service.name)}", "bar"),
        Segment(f"  pool {here}{clean(pool.name)}" if pool is not None else "", "bar"),
        _other_pools(snapshot, pool, levels),
        Segment(f"  pid {service.pid}@{clean(service.host)}", "bar"),
    ]
    bad, warn = _loud_alerts(snapshot)
    state = f"{SYMBOLS['warn']} POOL {pool.state.upper()}  " if pool and pool.state != "running" else ""
    right = [
        Segment(f"last {clean(snapshot.window)}  ", "bar"),
        Segment(f"up {fmt.age(snapshot.uptime)}  ", "bar"),
        Segment("alerts " if bad or warn else "", "bar"),
        Segment(f"{SYMBOLS['bad']}{fmt.count(bad)} " if bad else "", "bar-bad"),
        Segment(f"{SYMBOLS['warn']}{fmt.count(warn)} " if warn else "", "bar-warn"),
        Segment(" " if bad or warn else "", "bar"),
        Segment(state, "bar-warn"),
        freshness.segment(),
        Segment(" ", "bar"),
    ]
    # Left out on narrow screens, in this order: process, uptime, product, the word "alerts", service, window, pool.
    for part, index in ((left, 4), (right, 1), (left, 0), (right, 2), (left, 1), (right, 0), (left, 2)):
        if line_width(left) + line_width(right) + 2 <= cells:
            break
        part[index] = Segment("", "bar")
    return justify(
        [segment for segment in left if segment.text], [segment for segment in right if segment.text], cells, "bar"
    )


def _other_pools(snapshot: Snapshot, pool: PoolDetail | None, levels: Levels) -> Segment:
    """Return the symbol of the worst notice in the pools that are not shown."""
    others = [other for other in snapshot.pools.values() if other is not pool]
    worst = [notice.level for other in others for notice in pool_notices(snapshot, other, levels)[:1]]
    if not worst:
        return Segment("", "bar")
    level: Level = "bad" if "bad" in worst else "warn"
    return Segment(f" +{SYMBOLS[level]}", "bar-bad" if level == "bad" else "bar-warn")


def _loud_alerts(snapshot: Snapshot) -> tuple[int, int]:
    """Return how many alerts fire and are not quiet: those marked ✖, and those marked ▲."""
    found = [alert_words.level_of(alert.severity) for alert in alert_words.loud(snapshot.alerts)]
    return found.count("bad"), found.count("warn")


def key_figures(pool: PoolDetail, cells: int, levels: Levels = NO_LEVELS) -> list[Line]:
    """Return two lines of key figures: the values, and below each a bar, a sparkline or a second value."""
    total, latency = pool.total, pool.total.latency
    number = 6 if cells >= 72 else 4 if cells >= 48 else 3
    cell = (cells - 1) // number
    room = cell - 2
    queue_level, error_level = levels.get((pool.name, "waiting")), levels.get((pool.name, "failed"))

    busy = (
        _figure("BUSY", fmt.count(pool.busy), f"/{fmt.count(pool.size)}", None, cell),
        [Segment(chart.bar(pool.utilisation or 0.0, room), "data")],
    )
    queue = (
        _figure(
            "QUEUE",
            fmt.count(pool.waiting),
            f"/{fmt.count(pool.queue_limit)}" if pool.queue_limit else "",
            queue_level,
            cell,
        ),
        [Segment(chart.bar(pool.waiting / pool.queue_limit if pool.queue_limit else 0.0, room), queue_level or "data")],
    )
    out = (
        _figure("OK/s", fmt.rate(ok_rate(total)), "", None, cell),
        _sparkline(pool.trend, pool.trend.ok, room, "data"),
    )
    p95 = (
        _figure("p95", fmt.percentile(latency.p95, latency.count), "", None, cell),
        [Segment(_other_percentiles(latency, room))],
    )
    errors = (
        _figure("ERR", fmt.percent(total.error_ratio), "", error_level, cell),
        _rejected(pool, levels.get((pool.name, "rejected")), cell)
        or _sparkline(pool.trend, pool.trend.errors, room, "bad"),
    )
    restarts = (
        _figure("RESTARTS", fmt.count(pool.restarts), "", None, cell),
        [Segment(truncate(fmt.plural(pool.sessions, "session"), room), "dim")],
    )
    chosen = [busy, queue, out, p95, errors, restarts] if number == 6 else [busy, queue, p95, errors][:number]
    values: Line = [Segment(" ")]
    drawings: Line = [Segment(" ")]
    for value, drawing in chosen:
        values += fit_line(value, cell)
        drawings += fit_line(drawing, cell)
    return [values, drawings]


def _sparkline(trend: Trend, values: chart.Values, cells: int, meaning: Meaning) -> Line:
    return panels.chart_line(chart.sparkline(chart.means(chart.trend_bins(trend, values, cells))), meaning)


def ok_rate(total: CallStats) -> float | None:
    """Return how many calls per second ended well."""
    return total.rate * total.ok / total.calls if total.rate and total.calls else total.rate


def _rejected(pool: PoolDetail, level: Level | None, cells: int) -> Line:
    """Return the share of refused calls. Empty: no call was refused."""
    return _figure("REJ", fmt.percent(rejected_ratio(pool.total)), "", level, cells) if pool.total.rejected else []


def _figure(name: str, text: str, limit: str, level: Level | None, cells: int) -> Line:
    """Return a name, its value, and the symbol of its level: never only a colour. The limit is left out before a digit
    is cut.
    """
    symbol = SYMBOLS[level] if level else ""
    if width(f"{name} {text}{limit}{symbol}") >= cells:
        limit = ""
    return [Segment(f"{name} ", "dim"), Segment(text + limit + symbol, level or "strong")]


def _other_percentiles(latency: Distribution, cells: int) -> str:
    p50, p99 = (fmt.percentile(value, latency.count) for value in (latency.p50, latency.p99))
    both, one = f"p50 {fit(p50, 6)} p99 {p99}", f"p99 {p99}"
    return both if width(both) <= cells else one if width(one) <= cells else ""


def notice_line(
    snapshot: Snapshot, pool: PoolDetail | None, freshness: Freshness, cells: int, levels: Levels | None = None
) -> Line:
    """Return one line of notices: worst first, as many as fit, and the key for the rest. Without notices, say so. It is
    always one line, so that the page never jumps. A notice of the level ``bad`` is cut instead of left out.
    """
    noticed = notices(snapshot, pool, freshness, levels)
    if not noticed:
        quiet = alert_words.quiet_counts(snapshot.alerts)
        hint = advice_words.tuning_hint(snapshot)
        known = "; ".join(filter(None, [f"alerts: {', '.join(quiet)}: a" if quiet else "", hint]))
        words = f"nothing else needs attention; {known}" if known else _nothing_to_notice(pool)
        return [Segment(f" {words}", "dim")]
    line: Line = []
    for index, notice in enumerate(noticed):
        text = Segment(f" {SYMBOLS[notice.level]} {headline(notice)} ", notice.level)
        rest = len(noticed) - index - 1
        more = Segment(f" +{rest + 1} more: n", "dim")
        room = cells - line_width(line) - (width(more.text) if rest else 0)
        if line and width(text.text) > room:
            if notice.level != "bad" or room < _MIN_NOTICE_CELLS:
                return [*line, more]
            more = Segment(f" +{rest} more: n" if rest else "", "dim")
            return [*line, Segment(truncate_words(text.text, room), text.meaning), more]
        line.append(Segment(truncate_words(text.text, max(room, 1)), text.meaning))
    return line


def _nothing_to_notice(pool: PoolDetail | None) -> str:
    if pool is None:
        return "waiting for a pool"
    if pool.completed:
        return "nothing needs attention"
    return f"no call has ended yet, {fmt.count(pool.busy)} under way" if pool.busy else "no calls yet"


def worker_line(snapshot: Snapshot, worker: WorkerView, cells: int) -> Line:
    """Return a line with the details of one worker that its row has no room for, as many as fit. The worst fault of its
    process comes first.
    """
    line = [Segment(f" {clean(worker.id)} ", "strong"), *_fault(snapshot, worker, cells)]
    counts = [
        Segment(f" {fmt.plural(worker.restarts, 'restart')} "),
        Segment(f" rss {fmt.size(worker.rss)} "),
        Segment(f" cpu {fmt.percent(worker.cpu_ratio)} "),
    ]
    room = cells - line_width([*line, *counts[:2]]) - 2
    error = last_error_text(worker, room) if room >= _MIN_ERROR_CELLS else ""
    if error or worker.last_error is None:
        line.append(Segment(f" {error} ") if error else Segment(" no error ", "dim"))
    line += counts
    line.append(Segment(f" pid {fmt.UNKNOWN if worker.pid is None else worker.pid} "))
    line += [Segment(f" {word} ") for word in _words_of(worker)]
    while len(line) > 1 and line_width(line) > cells:
        line.pop()
    return line


def _fault(snapshot: Snapshot, worker: WorkerView, cells: int) -> Line:
    """Return the worst fault of the process of *worker*, in words."""
    mine = [fault for fault in snapshot.resources.faults if fault.worker == worker.id]
    if not mine:
        return []
    worst = min(mine, key=lambda fault: fault.level != "bad")
    words = one_line(worst.reason or worst.kind)
    return [Segment(f" {truncate_words(f'{SYMBOLS[worst.level]} {words}', max(cells * 2 // 3, 1))} ", worst.level)]


def _words_of(worker: WorkerView) -> Iterator[str]:
    """Yield further details of *worker*, the most important first."""
    if worker.state_letter in {"T", "t"}:
        yield "stopped"
    if worker.figures_missing is not None:
        yield f"no figures: {one_line(worker.figures_missing)}"
    yield f"up {fmt.age(worker.age)}"
    health = "not answering" if worker.state == "degraded" else worker.health
    if health:
        yield health
    if worker.leak_rate is not None:
        yield f"grows {fmt.size(round(worker.leak_rate))}/s"
    for name, text in (
        ("limit in", fmt.age(worker.time_to_limit)),
        ("uss", fmt.size(worker.uss)),
        ("fds", fmt.count(worker.fds)),
        ("threads", fmt.count(worker.threads)),
        ("children", fmt.count(worker.children)),
        ("read", fmt.size(worker.read_bytes)),
        ("written", fmt.size(worker.written_bytes)),
    ):
        if text != fmt.UNKNOWN:
            yield f"{name} {text}"


def key_line(shown: Sequence[tuple[str, str]], cells: int) -> Line:
    """Return a line of keys and what they do. Keys that do not fit are left out whole."""
    line: Line = []
    for key, word in shown:
        if line_width(line) + len(key) + len(word) + 3 > cells:
            break
        line += [Segment(f" {key}", "key"), Segment(f" {word} ", "dim")]
    return line
