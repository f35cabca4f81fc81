"""The cursor's motions, forwards and backwards, and the ``stopped`` events that they end with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from workbench.dap.link import Link, Meaning
from workbench.dap.points import Points
from workbench.dap.protocol import Arguments, BadRequest
from workbench.errors import exit_code_of, one_line

_REASONS: Final = {
    "watchpoint": "data breakpoint",
    "catch": "exception",
    "interrupted": "pause",
}
_SENTENCES: Final = {
    "start": "No more reverse-execution history: this is the start of the trace",
    "end": "No more history: this is the end of the trace",
}
_MAX_CONSOLE: Final = 1 << 20


class Motions:
    """Moves the machine for a client.

    Args:
        link: the client. points: name what stopped a motion.
    """

    def __init__(self, link: Link, points: Points) -> None:
        self._link = link
        self._points = points

    def requests(self) -> dict[str, Meaning]:
        """Return the meanings by the request's command."""
        return {
            "continue": self.continue_,
            "reverseContinue": lambda a: self._run(a, back=True),
            "next": lambda a: self._step(a, "next"),
            "stepIn": lambda a: self._step(a, "step"),
            "stepOut": lambda a: self._step(a, "finish"),
            "stepBack": lambda a: self._step(a, "reverse_next"),
            "restartFrame": self.restart_frame,
            "goto": self.goto,
            "gotoTargets": self.goto_targets,
            "pause": lambda a: None,
            "threads": self.threads,
        }

    def threads(self, arguments: Arguments) -> dict[str, Any]:
        """The harts."""
        count = self._link.session.harts if self._link.opened else 0
        return {"threads": [{"id": hart + 1, "name": f"hart {hart}"} for hart in range(count)]}

    def continue_(self, arguments: Arguments) -> dict[str, Any]:
        """Run forwards to a stop or the end of history."""
        self._run(arguments, back=False)
        return {"allThreadsContinued": True}

    def _run(self, arguments: Arguments, back: bool) -> None:
        self._select(arguments)
        session = self._link.session
        self.later(lambda: self._logged(session.reverse_cont if back else session.cont), "pause")

    def _logged(self, move: Callable[[], Any]) -> Any:
        """Run until something stops that is more than a logpoint."""
        while True:
            stop = move()
            text = self._points.log(stop)
            if text is None:
                return stop
            self._link.tell(text, "stdout")

    def _select(self, arguments: Arguments) -> None:
        if "threadId" in arguments:
            self._link.select(arguments.number("threadId", low=1) - 1)

    def _step(self, arguments: Arguments, name: str) -> None:
        """Step by a line, or by an instruction where that is asked for or no lines are known."""
        self._select(arguments)
        session = self._link.session
        granularity = arguments.text("granularity", "statement")
        if granularity not in ("statement", "line", "instruction"):
            raise BadRequest(f"granularity {granularity!r}: statement, line or instruction")
        by = "insn" if granularity == "instruction" or session.lines.at(session.reg("pc")) is None else "line"

        def move() -> Any:
            return session.finish() if name == "finish" else getattr(session, name)(by=by)

        self.later(move, "step")

    def restart_frame(self, arguments: Arguments) -> None:
        """Go back to the call that made a frame."""
        level = self._link.frame(arguments.number("frameId")).level
        session = self._link.session

        def move() -> Any:
            for _ in range(level + 1):
                stop = session.reverse_finish()
                if stop.reason != "step":
                    break
            return stop

        self.later(move, "restart")

    def goto_targets(self, arguments: Arguments) -> dict[str, Any]:
        """The next time that a line runs from here on, and the last time before."""
        link = self._link
        file = link.file_of(arguments.inner("source"))
        line = link.line_in(arguments.number("line"))
        addresses = link.session.lines.addresses(file, line)
        if not addresses:
            raise BadRequest(f"no code comes from line {line} of {file}")
        targets = [("back to the last time it ran", True), ("on to the next time it runs", False)]
        return {
            "targets": [
                {
                    "id": link.handle(("goto", addresses[0], back)),
                    "label": f"line {line}: {text}",
                    "line": link.line_out(line),
                    "instructionPointerReference": f"{addresses[0]:#x}",
                }
                for text, back in targets
            ]
        }

    def goto(self, arguments: Arguments) -> None:
        """Go to one of those targets."""
        target = self._link.of_handle(arguments.number("targetId"))
        if not isinstance(target, tuple) or target[0] != "goto":
            raise BadRequest("targetId: of a target of 'gotoTargets'")
        session, (_, address, back) = self._link.session, target
        self.later(lambda: session.reverse_until(address) if back else session.until(address), "goto")

    # the stops

    def later(self, move: Callable[[], Any], reason: str) -> None:
        """Move when the response has been sent, and tell where that ended."""
        self._link.after.append(lambda: self._move(move, reason))

    def _move(self, move: Callable[[], Any], reason: str) -> None:
        link = self._link
        before = link.session.cursor
        try:
            stop = link.run_motion(move)
        # an expected error, such as a divergence: the machine stands where it stopped; bugs go up to the server
        except Exception as error:
            if exit_code_of(error) is None:
                raise
            link.tell(f"error: {one_line(error)}", "stderr")
            stop = link.session._stop("interrupted")
        self.show_console(before)
        self.announce(stop, reason)

    def show_console(self, before: int) -> None:
        """Print what the guest printed on the way, of a way forwards."""
        from workbench.tracetables import console_text

        session = self._link.session
        if session.cursor <= before:
            return
        shown = console_text(session.trace, until=before)
        text = console_text(session.trace, until=session.cursor)[len(shown) :]
        if text:
            self._link.send("output", {"category": "stdout", "output": text[-_MAX_CONSOLE:]})

    def announce(self, stop: Any, reason: str) -> None:
        """Tell where the machine stands. ``reason``: of a stop that nothing but the motion itself made."""
        link = self._link
        link.forget()
        body: dict[str, Any] = {
            "reason": reason,
            "threadId": (link.session.hart if stop is None else stop.hart) + 1,
            "allThreadsStopped": True,
        }
        why = None if stop is None else str(stop.reason)
        if stop is None or why == "interrupted":
            body["reason"] = "pause"
        elif why in _SENTENCES:
            body |= {"reason": why, "description": _SENTENCES[why]}
        elif stop.stopper is not None:
            body["reason"], ids = (
                self._points.reason(stop) or _REASONS.get(str(why), str(why)),
                [stop.stopper],
            )
            body |= {"hitBreakpointIds": ids}
            if str(stop.detail or "") and why != "breakpoint":
                body |= {"description": str(stop.detail), "text": str(stop.detail)}
        link.send("stopped", body)
