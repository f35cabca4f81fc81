"""A report of a run as one HTML file with nothing outside of it: no script, no font, no link.

All that a guest printed is escaped, and the page's own policy lets a browser load nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from .profile import profile

if TYPE_CHECKING:
    from .api import Trace

_WIDTH: Final = 1100
_LANE: Final = 22
_LEFT: Final = 110
_MOST_CONSOLE: Final = 1 << 20
_MOST_ROWS: Final = 500
_MOST_BARS: Final = 4000
_HOT: Final = 40
_STYLE: Final = (
    "body{font:14px/1.4 system-ui,sans-serif;margin:24px auto;max-width:1140px;color:#222;background:#fff}"
    "h1{font-size:22px}h2{font-size:17px;margin-top:28px;border-bottom:1px solid #ddd}"
    "table{border-collapse:collapse}td,th{padding:2px 10px;text-align:left;border-bottom:1px solid #eee}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}code,pre{font:12px/1.35 ui-monospace,monospace}"
    "pre{background:#f6f6f3;padding:10px;overflow:auto;max-height:480px}svg{width:100%;height:auto}"
)


def html(trace: Trace, low: int = 0, high: int | None = None) -> str:
    """Return a document about a stretch of a run: timeline, console, inputs, traps, system calls, hot symbols.

    Args:
        trace: asked as it asks itself: rows that are missing are replayed for. low, high: positions, end exclusive.

    Raises:
        Diverged, TraceError, QueryRefused.
    """
    end = trace.end if high is None else high
    title = str(trace.trace.meta.get("title") or trace.trace.path.name)
    # system calls first: the replay for them finds traps and switches as well
    trace.syscalls.between(low, end).first()
    parts = [
        ("Run", _facts(trace, low, end)),
        ("Timeline", _timeline(trace, low, end)),
        ("Console", _console(trace, low, end)),
        ("Inputs", _inputs(trace, low, end)),
        ("Traps", _traps(trace, low, end)),
        ("System calls", _syscalls(trace, low, end)),
        ("Hot symbols", _hot(trace, low, end)),
    ]
    body = "".join(f'<section id="{_slug(name)}"><h2>{name}</h2>{text}</section>' for name, text in parts)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    shown = ["".join(_cell(value) for value in row) for row in rows]
    if not shown:
        return "<p>None.</p>"
    more = f"<p>… and {len(shown) - _MOST_ROWS:,} more.</p>" if len(shown) > _MOST_ROWS else ""
    lines = "".join(f"<tr>{line}</tr>" for line in shown[:_MOST_ROWS])
    return f"<table><tr>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr>{lines}</table>{more}"


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"


def _facts(trace: Trace, low: int, high: int) -> str:
    config = trace.playback.config
    rows = [
        ("steps", f"{high - low:,}, from {low:,} to {high:,}"),
        ("virtual time", f"{(trace.asker.vtime(high) - trace.asker.vtime(low)) / 1e9:.6f} s"),
        ("harts, memory", f"{config.harts}, {config.memory_bytes >> 20} MiB"),
        ("command line", config.append),
        ("recorded", trace.trace.meta.get("created", "")),
    ]
    return _table(("what", "value"), rows)


# the timeline: a lane for each hart's tasks, and lanes of marks


def _timeline(trace: Trace, low: int, high: int) -> str:
    def x(icount: int) -> float:
        return _LEFT + (icount - low) * (_WIDTH - _LEFT - 10) / max(1, high - low)

    lanes: list[tuple[str, str]] = []
    for hart, bars in sorted(_turns(trace, low, high).items()):
        lanes.append((f"hart {hart}", "".join(_bar(x(a), x(b), name) for a, b, name in bars[:_MOST_BARS])))
    marks = {
        "interrupts": [(r.icount, "interrupt") for r in trace.traps.between(low, high).where(is_interrupt=1)],
        "exceptions": [(r.icount, "exception") for r in trace.traps.between(low, high).where(is_interrupt=0)],
        "console": [
            (row.icount, row.data.decode("utf-8", "replace")) for row in trace.trace.console(low, high)
        ],
        "inputs": [
            (row.icount, f"{row.source} {row.kind}")
            for row in trace.trace.inputs()
            if low <= row.icount < high
        ],
        "bookmarks": [(b.icount, b.name) for b in trace.trace.bookmarks() if low <= b.icount < high],
    }
    for name, places in marks.items():
        lanes.append((name, "".join(_tick(x(at), text) for at, text in _spread(places, x))))
    height = len(lanes) * _LANE + 24
    shown = "".join(
        f'<g transform="translate(0,{i * _LANE})"><text x="4" y="15">{escape(name)}</text>{content}</g>'
        for i, (name, content) in enumerate(lanes)
    )
    scale = "".join(
        f'<text x="{x(low + (high - low) * i // 4):.0f}" y="{height - 6}"'
        f' text-anchor="{("start", "middle", "middle", "middle", "end")[i]}">{low + (high - low) * i // 4:,}</text>'
        for i in range(5)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" font-family="monospace" font-size="11" role="img"'
        f' aria-label="timeline">{shown}{scale}</svg>'
    )


def _turns(trace: Trace, low: int, high: int) -> dict[int, list[tuple[int, int, str]]]:
    """Return who ran when, by hart; neighbours that are too narrow to see are left out by ``_bar``'s caller."""
    out: dict[int, list[tuple[int, int, str]]] = {hart: [] for hart in range(trace.harts)}
    if trace.symbols.lookup("__switch_to") is None:
        return {hart: [(low, high, "no tasks are known")] for hart in out}
    began: dict[int, int] = {}
    current: dict[int, str] = {}
    for row in trace.switches.between(low, high):
        start = began.get(row.hart, low)
        out[row.hart].append((start, row.icount, f"{row.prev_comm}/{row.prev_pid}"))
        began[row.hart], current[row.hart] = row.icount, f"{row.next_comm}/{row.next_pid}"
    for hart, start in began.items():
        out[hart].append((start, high, current[hart]))
    for bars in out.values():
        bars.sort(key=lambda bar: bar[0] - bar[1])
    return out


def _bar(left: float, right: float, name: str) -> str:
    hue = sum(name.encode()) * 37 % 360
    return (
        f'<rect x="{left:.2f}" y="3" width="{max(right - left, 0.3):.2f}" height="16" fill="hsl({hue},50%,72%)">'
        f"<title>{escape(name)}</title></rect>"
    )


def _tick(at: float, text: str) -> str:
    return f'<rect x="{at:.2f}" y="4" width="1.2" height="14" fill="#345"><title>{escape(text[:200])}</title></rect>'


def _spread(places: list[tuple[int, str]], x: Any) -> Iterator[tuple[int, str]]:
    """Yield at most one mark for each place that can be seen."""
    last = -1.0
    for at, text in places:
        if x(at) - last >= 1:
            yield at, text
            last = x(at)


# lists


def _console(trace: Trace, low: int, high: int) -> str:
    text = b"".join(row.data for row in trace.trace.console(low, high))
    cut = "" if len(text) <= _MOST_CONSOLE else f"<p>The last {_MOST_CONSOLE:,} of {len(text):,} bytes.</p>"
    shown = text[-_MOST_CONSOLE:].decode("utf-8", "replace").replace("\r\n", "\n")
    return f"{cut}<pre>{escape(_printable(shown))}</pre>"


def _printable(text: str) -> str:
    return "".join(c if c in "\n\t" or c.isprintable() else "·" for c in text)


def _inputs(trace: Trace, low: int, high: int) -> str:
    rows = [
        (row.id, row.icount, row.source, row.kind, len(row.payload), _printable(repr(row.payload[:48])[2:-1]))
        for row in trace.trace.inputs()
        if low <= row.icount < high
    ]
    return _table(("id", "position", "source", "kind", "bytes", "begins with"), rows)


def _traps(trace: Trace, low: int, high: int) -> str:
    list(trace.traps.between(low, high).first(1))
    rows = trace.sql(
        "SELECT what, count(*) n, max(steps) longest, sum(steps) steps FROM trap_list"
        f" WHERE icount >= {low} AND icount < {high} GROUP BY what ORDER BY n DESC"
    )
    return _table(("what", "count", "longest", "steps in all"), [tuple(row.values()) for row in rows])


def _syscalls(trace: Trace, low: int, high: int) -> str:
    rows = trace.sql(
        "SELECT name, count(*) n, sum(ret < 0) failed, sum(ret_icount - icount) steps FROM syscalls"
        f" WHERE icount >= {low} AND icount < {high} GROUP BY name ORDER BY n DESC"
    )
    return _table(("name", "count", "failed", "steps in all"), [tuple(row.values()) for row in rows])


def _hot(trace: Trace, low: int, high: int) -> str:
    rows = [(cost.symbol, cost.steps, f"{cost.share:.2%}") for cost in profile(trace, low, high)[:_HOT]]
    return _table(("symbol", "steps", "share"), rows)
