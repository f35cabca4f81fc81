"""The debug console: ``evaluate`` is a command of the REPL or an expression, and ``completions`` are its own."""

from __future__ import annotations

from typing import Any

from workbench.dap.link import MAX_ITEMS, Link, Meaning
from workbench.dap.motions import Motions
from workbench.dap.protocol import Arguments
from workbench.dap.stack import Stack


class Talking:
    """What is typed.

    Args:
        link: the client. motions: tell where the machine is when a command moved it. stack: shows values.
    """

    def __init__(self, link: Link, motions: Motions, stack: Stack) -> None:
        self._link = link
        self._motions = motions
        self._stack = stack

    def requests(self) -> dict[str, Meaning]:
        """Return the meanings by the request's command."""
        return {"evaluate": self.evaluate, "completions": self.completions}

    def evaluate(self, arguments: Arguments) -> dict[str, Any]:
        """Run a command of the REPL, where it is typed in the console; else tell an expression's value."""
        text = arguments.text("expression").strip()
        if arguments.text("context", "repl") == "repl":
            return self._command(text)
        link = self._link
        session = link.session
        frame = link.frame(arguments.number("frameId")) if "frameId" in arguments else link.frames()[0]
        if session.program and session.program.knows(session, frame, text):
            shown = self._stack.typed(text, session.program.evaluate(session, frame, text))
            return {
                "result": shown["value"],
                **{k: v for k, v in shown.items() if k not in ("name", "value")},
            }
        value = session.eval(text)
        return {
            "result": link.place(value) if value > 0xFFF else str(value),
            "variablesReference": 0,
            "memoryReference": f"{value:#x}",
        }

    def _command(self, line: str) -> dict[str, Any]:
        link = self._link
        session = link.session
        before, path = session.cursor, session.trace.path
        text = link.run_motion(lambda: link.console.run(line)) or ""
        if (session.cursor, session.trace.path) != (before, path):
            stop = session._stop("goto")
            link.after.append(lambda: self._motions.announce(stop, "goto"))
        return {"result": text.rstrip("\n"), "variablesReference": 0}

    def completions(self, arguments: Arguments) -> dict[str, Any]:
        """What may stand in the place of the word before the cursor."""
        text, column = arguments.text("text"), arguments.number("column") - self._link.first_column
        word, found = self._link.console.complete(text[:column])
        start = max(column - len(word), 0)
        return {
            "targets": [{"label": name, "start": start, "length": len(word)} for name in found[:MAX_ITEMS]]
        }
