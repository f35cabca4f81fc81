"""A flame graph of folded stacks, as one SVG file with nothing outside of it: no script, no font, no link."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

from .stacks import OUTSIDE, Stacks

WIDTH: Final = 1200
_ROW: Final = 17
_MARGIN: Final = 10
_TOP: Final = 46
#: Narrower boxes are left out, in pixels; narrower ones than this have no text.
_THIN: Final = 0.2
_LEGIBLE: Final = 22
_CHARACTER: Final = 6.6
_DEEPEST: Final = 512


class _Frame(NamedTuple):
    """A box: calls of one name on top of one stack, by number, and their steps with those of all that they called."""

    name: str
    steps: int
    calls: Sequence[int]


def svg(stacks: Mapping[str, int], title: str = "Steps by stack") -> str:
    """Return a flame graph.

    Args:
        stacks: steps by ``outermost;…;innermost``, as ``profile.folded`` gives them. title: what is written above.
    """
    tree = stacks if isinstance(stacks, Stacks) else Stacks.of(stacks)
    boxes = list(_boxes(tree, _MARGIN, WIDTH - 2 * _MARGIN))
    depth = max((level for level, *_ in boxes), default=0) + 1
    height = _TOP + depth * _ROW + _MARGIN
    whole = sum(tree.steps) or 1
    shown = "".join(_box(whole, height, *box) for box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="monospace" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fffdf7"/>'
        f'<text x="{WIDTH / 2}" y="26" font-size="16" text-anchor="middle">{escape(title)}</text>{shown}</svg>\n'
    )


def _on_top(stacks: Stacks) -> dict[int, list[int]]:
    """Return what was called by each call that called something."""
    found: dict[int, list[int]] = {}
    for at, under in enumerate(stacks.below):
        found.setdefault(under, []).append(at)
    return found


def _boxes(stacks: Stacks, x: float, width: float) -> Iterator[tuple[int, float, float, _Frame]]:
    """Yield level, left edge and width of what is wide enough to be shown; siblings by name, so that runs compare."""
    totals, on_top = stacks.totals(), _on_top(stacks)
    steps = sum(totals[at] for at in on_top.get(OUTSIDE, ()))
    scale = width / (steps or 1)
    pending = [(_Frame("all", steps, (OUTSIDE,)), x, 0)]
    while pending:
        frame, left, level = pending.pop()
        width = frame.steps * scale
        if width < _THIN:
            continue
        yield level, left, width, frame
        if level == _DEEPEST:
            continue
        called: dict[str, list[int]] = {}
        for call in frame.calls:
            for at in on_top.get(call, ()):
                called.setdefault(stacks.names[at], []).append(at)
        for name, calls in sorted(called.items()):
            child = _Frame(name, sum(totals[at] for at in calls), calls)
            pending.append((child, left, level + 1))
            left += child.steps * scale


def _box(whole: int, height: int, level: int, x: float, width: float, frame: _Frame) -> str:
    y = height - _MARGIN - (level + 1) * _ROW
    share = frame.steps / whole
    name = escape(frame.name)
    room = int((width - 4) / _CHARACTER)
    label = ""
    if width >= _LEGIBLE:
        text = frame.name if len(frame.name) <= room else frame.name[: max(1, room - 1)] + "…"
        label = f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(text)}</text>'
    return (
        f"<g><title>{name}: {frame.steps:,} steps, {share:.2%}</title>"
        f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_ROW - 1}" rx="1" fill="{_colour(frame.name)}"/>'
        f"{label}</g>"
    )


def _colour(name: str) -> str:
    """Return a warm colour for kernel code, a cold one for user code; always the same for a name."""
    spread = zlib.crc32(name.encode()) % 50
    return f"hsl({200 + spread // 2},55%,70%)" if name.startswith("[user") else f"hsl({10 + spread},85%,68%)"
