"""A flame graph of folded stacks, as one SVG file with nothing outside of it: no script, no font, no link."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final

WIDTH: Final = 1200
_ROW: Final = 17
_MARGIN: Final = 10
_TOP: Final = 46
#: Narrower boxes are left out, in pixels; narrower ones than this have no text.
_THIN: Final = 0.2
_LEGIBLE: Final = 22
_CHARACTER: Final = 6.6
_DEEPEST: Final = 512


@dataclass(slots=True)
class _Frame:
    """A call: its steps with those of all that it called, and what it called by name; None is too thin to be shown."""

    name: str
    steps: int = 0
    called: list[tuple[int, _Frame | None]] = field(default_factory=list)


def svg(stacks: Mapping[str, int], title: str = "Steps by stack") -> str:
    """Return a flame graph.

    Args:
        stacks: steps by ``outermost;…;innermost``, as ``profile.folded`` gives them. title: what is written above.
    """
    root = _tree(stacks)
    boxes = list(_boxes(root, _MARGIN, (WIDTH - 2 * _MARGIN) / (root.steps or 1), 0))
    depth = max((level for level, *_ in boxes), default=0) + 1
    height = _TOP + depth * _ROW + _MARGIN
    shown = "".join(_box(root, height, *box) for box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="monospace" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fffdf7"/>'
        f'<text x="{WIDTH / 2}" y="26" font-size="16" text-anchor="middle">{escape(title)}</text>{shown}</svg>\n'
    )


def _tree(stacks: Mapping[str, int]) -> _Frame:
    least = sum(stacks.values()) * _THIN / (WIDTH - 2 * _MARGIN)
    path, names = [_Frame("all")], list[str]()

    def close(depth: int) -> None:
        while len(path) > depth:
            done = path.pop()
            path[-1].steps += done.steps
            path[-1].called.append((done.steps, done if done.steps >= least else None))

    # by a separator below all letters, what is on top of a frame comes right behind it
    for stack, steps in sorted((stack.replace(";", "\0"), steps) for stack, steps in stacks.items()):
        here = stack.split("\0", _DEEPEST)[:_DEEPEST]
        same = 0
        for one, other in zip(here, names, strict=False):
            if one != other:
                break
            same += 1
        close(1 + same)
        path += map(_Frame, here[same:])
        path[-1].steps += steps
        names = here
    close(1)
    return path[0]


def _boxes(frame: _Frame, x: float, scale: float, level: int) -> Iterator[tuple[int, float, float, _Frame]]:
    """Yield level, left edge and width of a frame and all above it; siblings by name, so that runs compare."""
    pending = [(frame, x, level)]
    while pending:
        each, left, at = pending.pop()
        width = each.steps * scale
        if width < _THIN:
            continue
        yield at, left, width, each
        for steps, child in each.called:
            if child is not None:
                pending.append((child, left, at + 1))
            left += steps * scale


def _box(root: _Frame, height: int, level: int, x: float, width: float, frame: _Frame) -> str:
    y = height - _MARGIN - (level + 1) * _ROW
    share = frame.steps / (root.steps or 1)
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
