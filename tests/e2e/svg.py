"""Screens of a terminal as pictures: one, or several one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

_CELL_W, _CELL_H, _PAD = 8.4, 18, 12
_BACKGROUND, _FOREGROUND = "#14161b", "#d6d8dd"
#: The eight colours, as pyte names them.
_COLOURS = {
    "black": "#2e3436",
    "red": "#ef6b73",
    "green": "#8cc265",
    "brown": "#d9b263",
    "blue": "#6aa6f0",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": "#d6d8dd",
    "brightblack": "#7f848e",
}


class Cell(NamedTuple):
    """A character with its colours."""

    char: str
    colour: str
    background: str
    bold: bool


class Picture(NamedTuple):
    """What a screen shows, by lines."""

    lines: tuple[tuple[Cell, ...], ...]
    columns: int


def picture(screen: Any) -> Picture:
    """Return what a pyte screen shows now."""
    lines = []
    for y in range(screen.lines):
        row = screen.buffer[y]
        lines.append(tuple(_cell(row[x]) for x in range(screen.columns)))
    kept = [line for at, line in enumerate(lines) if not (_is_empty(line) and _is_empty(lines[at - 1]))]
    while kept and _is_empty(kept[-1]):
        kept.pop()
    return Picture(tuple(kept), screen.columns)


def _is_empty(line: tuple[Cell, ...]) -> bool:
    return all(cell.char == " " and not cell.background for cell in line)


def _cell(of: Any) -> Cell:
    colour, background = _colour(of.fg), _colour(of.bg)
    if of.reverse:
        colour, background = background or _BACKGROUND, colour or _FOREGROUND
    return Cell(of.data or " ", colour, background, bool(of.bold))


def _colour(name: str) -> str:
    if name == "default":
        return ""
    return _COLOURS.get(name, f"#{name}" if len(name) == 6 else _FOREGROUND)


def svg(pictures: Sequence[Picture], title: str, seconds: float = 4.0) -> str:
    """Return pictures as one SVG: a still one, or each for some seconds, over and over."""
    rows = max(len(each.lines) for each in pictures)
    width = max(each.columns for each in pictures) * _CELL_W + 2 * _PAD
    height = rows * _CELL_H + 2 * _PAD
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text{font:14px ui-monospace,Menlo,Consolas,monospace;white-space:pre}"
        + (_steps(len(pictures), seconds) if len(pictures) > 1 else "")
        + "</style>",
        f'<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>',
    ]
    for index, each in enumerate(pictures):
        name = f' class="s" style="animation-delay:{index * seconds:g}s"' if len(pictures) > 1 else ""
        out += [f"<g{name}>", *_lines(each), "</g>"]
    return "\n".join([*out, "</svg>", ""])


def _steps(count: int, seconds: float) -> str:
    share = 100 / count
    return (
        f".s{{opacity:0;animation:show {count * seconds:g}s infinite}}"
        f"@keyframes show{{0%,{share - 0.01:.2f}%{{opacity:1}}{share:.2f}%,100%{{opacity:0}}}}"
    )


def _lines(of: Picture) -> Iterator[str]:
    for y, line in enumerate(of.lines):
        at = 0
        for style, group in groupby(line, key=lambda cell: cell[1:]):
            cells = list(group)
            text = "".join(cell.char for cell in cells)
            colour, background, bold = style
            x, top = _PAD + at * _CELL_W, _PAD + y * _CELL_H
            at += len(cells)
            if background:
                size = f'width="{len(cells) * _CELL_W:g}" height="{_CELL_H}"'
                yield f'<rect x="{x:g}" y="{top:g}" {size} fill="{background}"/>'
            if text.strip():
                weight = ' font-weight="bold"' if bold else ""
                length = f' textLength="{len(text.rstrip()) * _CELL_W:g}"'
                place = f'x="{x:g}" y="{top + 14:g}" fill="{colour or _FOREGROUND}"'
                yield f"<text {place}{weight}{length}>{escape(text.rstrip())}</text>"
