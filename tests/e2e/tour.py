"""The tour, walked through a real terminal: from a fresh checkout's demo to the bug of the built-in guest.

``python -m tests.e2e.tour`` walks it and keeps its screens: as text in ``docs/tour``, which a test compares, and as
pictures beside them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.e2e.svg import Picture, picture, svg
from tests.e2e.terminal import Terminal

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tour"
PROMPT = r"\([\d_]+ h0 [USM][^)]*\) $"


class Shot(NamedTuple):
    """One screen: its name, what was typed for it, and what it shows."""

    name: str
    typed: str
    text: str
    picture: Picture


#: What is typed, and a name for the screen that follows; ``RECORD`` is the address that a screen before has shown.
STEPS = (
    ("end", "goto end"),
    ("console", "console 6"),
    ("panic", "b panic"),
    ("back-to-panic", "rc"),
    ("backtrace", "bt"),
    ("up", "up"),
    ("record", "p *tick_queue.first"),
    ("watch", "delete"),
    ("watch-magic", "watch tick_queue.first->magic"),
    ("who-wrote", "rc"),
    ("driver", "list"),
    ("delete", "delete"),
    ("watch-pool", "watch pool.free if *(u64 *)$value == RECORD"),
    ("guilty", "rc"),
    ("source", "list"),
    ("argument", "p *buffer"),
    ("behind-it", "p *buffer->next"),
    ("interrupt", "b trap_entry"),
    ("the-tick", "rc"),
    ("interrupted", "info symbol $sepc"),
    ("sql", "sql select source, kind, n, bytes from input_summary"),
)


def walk(folder: Path) -> Iterator[Shot]:
    """Walk the tour in a folder and yield its screens."""
    command = [sys.executable, "-m", "workbench"]
    environment = {"XDG_CONFIG_HOME": str(folder), "XDG_STATE_HOME": str(folder), "PAGER": "cat"}
    environment["PYTHONPATH"] = str(ROOT)
    with Terminal([*command, "demo", "--batch"], cwd=folder, environment=environment) as terminal:
        terminal.wait("replay --verify")
        yield _shot(terminal, "demo", "workbench demo --batch")
    record = "0"
    with Terminal([*command, "debug", "demo.trace"], cwd=folder, environment=environment) as terminal:
        terminal.wait(PROMPT, lambda: terminal.line)
        for name, line in STEPS:
            typed = line.replace("RECORD", record)
            _say(terminal, typed)
            while name == "guilty" and "pool_get" in terminal.line:
                _say(terminal, "")  # Enter says it again: who takes a buffer only uncovers what lay there
            yield _shot(terminal, name, typed)
            found = re.search(r"tick record \d+ at (0x[0-9a-f]+)", terminal.text)
            record = found[1] if found else record
        terminal.type("quit\r")
        while terminal.read():
            pass


def _say(terminal: Terminal, line: str) -> None:
    """Type a line on a clear screen, and wait for the next prompt."""
    before = terminal.line
    terminal.type("\x0c")
    terminal.read(0.3)
    terminal.type(line)
    terminal.wait(re.escape(line[-40:]) + " ?$", lambda: terminal.line)
    terminal.type("\r")
    if not line:
        terminal.wait(PROMPT, lambda: terminal.line if terminal.line != before else "")
    terminal.wait(PROMPT, lambda: terminal.line)
    terminal.wait("· replay$")  # the toolbar is drawn last


def _shot(terminal: Terminal, name: str, typed: str) -> Shot:
    text = re.sub(r"\n{3,}", "\n\n", terminal.text)  # the toolbar is at the bottom of an empty screen
    return Shot(name, typed, text, picture(terminal.screen))


def kept(name: str) -> Path:
    """Return the file that keeps a screen's text."""
    return FOLDER / f"{name}.txt"


def steady(text: str) -> str:
    """Return a screen without what differs between versions: numbers, and how wide they are."""
    text = re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f_,.]*\b", "#", text)
    return re.sub(r"─+", "─", re.sub(r"[ \t]+", " ", text))


def main() -> None:
    """Walk it and keep the screens."""
    FOLDER.mkdir(exist_ok=True)
    shots = []
    with tempfile.TemporaryDirectory() as folder:
        for shot in walk(Path(folder)):
            shots.append(shot)
            kept(shot.name).write_text(f"$ {shot.typed}\n{shot.text}")
            print(shot.name)
    shown = [
        shot for shot in shots if shot.name in ("demo", "back-to-panic", "who-wrote", "guilty", "behind-it")
    ]
    for shot in shown:
        (FOLDER / f"{shot.name}.svg").write_text(svg([shot.picture], f"workbench: {shot.typed}"))
    session = [shot.picture for shot in shown]
    (FOLDER / "session.svg").write_text(
        svg(session, "A session: from the panic back to the store that caused it")
    )


if __name__ == "__main__":
    main()
