"""The beginning and the end: ``initialize launch attach configurationDone restart terminate disconnect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from workbench.dap.link import Link, Meaning
from workbench.dap.motions import Motions
from workbench.dap.points import FILTERS
from workbench.dap.protocol import Arguments, BadRequest

#: What this adapter can do. Spec: Debug Adapter Protocol, Capabilities
CAPABILITIES: Final[dict[str, Any]] = {
    "supportsConfigurationDoneRequest": True,
    "supportsFunctionBreakpoints": True,
    "supportsConditionalBreakpoints": True,
    "supportsHitConditionalBreakpoints": True,
    "supportsLogPoints": True,
    "supportsDataBreakpoints": True,
    "supportsDataBreakpointBytes": True,
    "supportsInstructionBreakpoints": True,
    "supportsExceptionFilterOptions": True,
    "exceptionBreakpointFilters": list(FILTERS),
    "supportsStepBack": True,
    "supportsSteppingGranularity": True,
    "supportsGotoTargetsRequest": True,
    "supportsRestartRequest": True,
    "supportsRestartFrame": True,
    "supportsSetVariable": True,
    "supportsEvaluateForHovers": True,
    "supportsCompletionsRequest": True,
    "supportsDisassembleRequest": True,
    "supportsReadMemoryRequest": True,
    "supportsWriteMemoryRequest": True,
    "supportsBreakpointLocationsRequest": True,
    "supportsTerminateRequest": True,
    "supportsDelayedStackTraceLoading": True,
    "supportsValueFormattingOptions": True,
}

#: What ``launch`` takes, by name; the guide says what each one is. Of what else an editor sends nothing is asked.
LAUNCH: Final = ("trace", "stopAt", "symbols", "sourceMap", "sources", "backend")


class Launching:
    """How a client's session begins and ends.

    Args:
        link: the client. motions: stops are told by them.
    """

    def __init__(self, link: Link, motions: Motions) -> None:
        self._link = link
        self._motions = motions
        self._stop_at = ""

    def requests(self) -> dict[str, Meaning]:
        """Return the meanings by the request's command."""
        return {
            "initialize": self.initialize,
            "launch": self.launch,
            "attach": self.launch,
            "configurationDone": self.configuration_done,
            "restart": self.restart,
            "terminate": self.terminate,
        }

    def initialize(self, arguments: Arguments) -> dict[str, Any]:
        """Tell what this adapter can do; lines may be counted from 0."""
        self._link.first_line = int(arguments.flag("linesStartAt1", True))
        self._link.first_column = int(arguments.flag("columnsStartAt1", True))
        self._link.takes_invalidated = arguments.flag("supportsInvalidatedEvent")
        if arguments.text("pathFormat", "path") != "path":
            raise BadRequest("pathFormat: only 'path' is known here")
        return CAPABILITIES

    def launch(self, arguments: Arguments) -> None:
        """Open a trace. The arguments are those of LAUNCH; ``program`` is another name for ``trace``."""
        from workbench.session import Session

        trace = arguments.text("trace", arguments.text("program", ""))
        if not trace:
            raise BadRequest('launch: a trace is needed, as in {"trace": "boot.trace"}')
        backend = arguments.text("backend", "jit")
        if backend not in ("jit", "interp"):
            raise BadRequest("launch: backend is 'jit' or 'interp'")
        link = self._link
        for old, new in arguments.pairs("sourceMap"):
            link.sources.substitute(old, new)
        link.sources.folders[:0] = [Path(folder).expanduser() for folder in arguments.texts("sources")]
        link.sources.forget()
        session = Session.open(trace, backend=backend)
        try:
            for name in arguments.texts("symbols"):
                session.add_symbol_file(Path(name).expanduser())
        except BaseException:
            session.close()
            raise
        link.open(session)
        self._stop_at = arguments.text("stopAt", "start")
        link.after.append(lambda: link.send("initialized", {}))

    def configuration_done(self, arguments: Arguments) -> None:
        """The client has set its breakpoints: show where the machine is."""
        session = self._link.session
        self._motions.announce(session.goto(session.parse_position(self._stop_at)), "entry")

    def restart(self, arguments: Arguments) -> None:
        """Go to the start of the run."""
        session = self._link.session
        self._motions.later(lambda: session.goto(session.start), "entry")

    def terminate(self, arguments: Arguments) -> None:
        """End the session; the trace stays what it is."""
        self._link.after.append(lambda: self._link.send("terminated", {}))
