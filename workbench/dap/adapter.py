"""The meaning of a client's requests over a Session: the parts that know one kind each, in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.dap.launching import Launching
from workbench.dap.link import Console, Link, Meaning
from workbench.dap.memory import Memory
from workbench.dap.motions import Motions
from workbench.dap.points import Points
from workbench.dap.protocol import Arguments, BadRequest
from workbench.dap.stack import Stack
from workbench.dap.talking import Talking
from workbench.errors import exit_code_of, one_line

if TYPE_CHECKING:
    from workbench.session import Session


class Disconnected(Exception):
    """The client has left."""


class Adapter:
    """One client's meaning.

    Args:
        send: sends a message; this numbers them.
        console: makes the REPL's commands over a session.
        run_motion: runs a motion so that ``pause`` reaches it.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        console: Callable[[Session], Console],
        run_motion: Callable[[Callable[[], Any]], Any] = lambda motion: motion(),
    ) -> None:
        self._send = send
        self._sequence = 0
        self.link = Link(self._event, console, run_motion)
        points = Points(self.link)
        motions, stack = Motions(self.link, points), Stack(self.link)
        talking = Talking(self.link, motions, stack)
        parts = (Launching(self.link, motions), points, motions, stack, Memory(self.link), talking)
        self.requests: dict[str, Meaning] = {
            name: meaning for part in parts for name, meaning in part.requests().items()
        }
        self.requests["disconnect"] = lambda arguments: None

    def _message(self, kind: str, body: dict[str, Any]) -> None:
        self._sequence += 1
        self._send({"seq": self._sequence, "type": kind, **body})

    def _event(self, name: str, body: dict[str, Any]) -> None:
        self._message("event", {"event": name, "body": body} if body else {"event": name})

    def handle(self, request: dict[str, Any]) -> None:
        """Answer a request, and then do what it asked for.

        Raises:
            Disconnected: the client leaves.
        """
        command, number = request.get("command"), request.get("seq")
        if request.get("type") != "request" or not isinstance(command, str) or not isinstance(number, int):
            return  # a response to what was never asked, or no message of the protocol
        self.link.after.clear()
        response: dict[str, Any] = {"request_seq": number, "command": command, "success": True}
        # an expected error is told the client; bugs go up to the server
        try:
            meaning = self.requests.get(command)
            if meaning is None:
                raise BadRequest(f"{command}: not known here")
            body = meaning(Arguments(request.get("arguments")))
            if body is not None:
                response["body"] = body
        except Exception as error:
            if exit_code_of(error) is None and not isinstance(error, BadRequest):
                raise
            self.link.after.clear()
            text = one_line(error)
            told = {"id": 1, "format": text.replace("{", "(").replace("}", ")"), "showUser": True}
            response |= {"success": False, "message": text, "body": {"error": told}}
        self._message("response", response)
        for action in list(self.link.after):
            action()
        if command == "disconnect":
            raise Disconnected

    def close(self) -> None:
        """Close the session."""
        self.link.close()
