"""The tour through a real terminal leads to the bug, and the screens that the documentation keeps are its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e import tour
from tests.e2e.svg import picture, svg
from tests.e2e.terminal import Terminal

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_tour_leads_to_the_bug_and_its_screens_are_those_of_the_documentation(tmp_path: Path) -> None:
    shots = {shot.name: shot for shot in tour.walk(tmp_path)}
    assert "put_on_free_list at pool.c:" in shots["guilty"].text
    assert "=>    56     *(struct buffer *volatile *)&pool.free = buffer;" in shots["source"].text
    assert "owner = 2" in shots["behind-it"].text
    assert "pool_put+" in shots["interrupted"].text
    assert {path.stem for path in tour.FOLDER.glob("*.txt")} == set(shots)
    stale = [
        name
        for name, shot in shots.items()
        if tour.steady(tour.kept(name).read_text()) != tour.steady(f"$ {shot.typed}\n{shot.text}")
    ]
    assert not stale, f"python -m tests.e2e.tour keeps the screens anew: {stale}"


def test_pages_name_screens_that_there_are() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {found for page in pages for found in re.findall(r"tour/([\w-]+\.(?:svg|txt))", page.read_text())}
    assert named and all((tour.FOLDER / name).is_file() for name in named)
    told = (ROOT / "docs/tour.md").read_text()
    assert all(line.split("RECORD")[0] in told for _, line in tour.STEPS)


def test_terminal_shows_colours_and_answers_where_its_cursor_is(tmp_path: Path) -> None:
    script = "printf '\\033[31mred\\033[0m plain\\033[6n'; read -r -d R answer; printf '%s' \"${answer#*[}\""
    with Terminal(["bash", "-c", script + "; sleep 5"], columns=40, rows=5, cwd=tmp_path) as terminal:
        terminal.wait("1;10")
        shown = picture(terminal.screen)
    assert shown.lines[0][0].colour and not shown.lines[0][5].colour
    drawn = svg([shown, shown], "two")
    assert drawn.count("<g class") == 2 and ">red</text>" in drawn and "@keyframes" in drawn
