"""What the parts of the adapter share: the session, the way to the client, and the handles it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workbench.dap.protocol import Arguments, BadRequest
from workbench.dwarf.frames import CallFrame
from workbench.sources import Sources, default_sources

if TYPE_CHECKING:
    from workbench.session import Session

#: A request's meaning: its arguments, to the body of the response.
Meaning = Callable[[Arguments], dict[str, Any] | None]
#: Most frames, variables and instructions that one response has.
MAX_ITEMS = 4096


class Console(Protocol):
    """The REPL's commands, as the debug console has them."""

    def run(self, line: str) -> str:
        """Run a line and return what it prints; errors that carry an exit code are told to the client."""

    def complete(self, line: str) -> tuple[str, list[str]]:
        """Return the word under completion at a line's end, and what may stand in its place."""


class Link:
    """One client's state.

    Args:
        send: sends an event by its name and body.
        console: makes the commands over a session.
        run_motion: runs a motion so that ``pause`` reaches it.
    """

    def __init__(
        self,
        send: Callable[[str, dict[str, Any]], None],
        console: Callable[[Session], Console],
        run_motion: Callable[[Callable[[], Any]], Any] = lambda motion: motion(),
    ) -> None:
        self.send = send
        self.run_motion = run_motion
        self.make_console = console
        self.sources: Sources = default_sources()
        #: what is done when the response has been sent
        self.after: list[Callable[[], None]] = []
        self.first_line = 1
        self.first_column = 1
        #: whether the client can be told that what it shows is no more true
        self.takes_invalidated = False
        self._session: Session | None = None
        self._console: Console | None = None
        self._handles: dict[int, Any] = {}
        self._frames: list[CallFrame] | None = None

    @property
    def session(self) -> Session:
        """The session. Raises BadRequest: nothing was launched."""
        if self._session is None:
            raise BadRequest("no trace is open; 'launch' opens one")
        return self._session

    @property
    def opened(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    @property
    def console(self) -> Console:
        """The commands. Raises BadRequest."""
        if self._console is None:
            self._console = self.make_console(self.session)
        return self._console

    def open(self, session: Session) -> None:
        """Work on a session from now on."""
        self.close()
        self._session = session

    def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            self._session.close()
        self._session = self._console = None
        self.forget()

    # handles live until the machine moves

    def forget(self) -> None:
        """The machine has moved: handles and frames mean nothing any more."""
        self._handles.clear()
        self._frames = None

    def handle(self, of: Any) -> int:
        """Return a new handle of something that the client may ask for."""
        if len(self._handles) >= 1 << 20:
            raise BadRequest("too many variables are open; move the machine")
        number = len(self._handles) + 1
        self._handles[number] = of
        return number

    def of_handle(self, number: int) -> Any:
        """Return what a handle is of. Raises BadRequest: the machine has moved since."""
        if number not in self._handles:
            raise BadRequest("that was given out at another position; ask for the stack again")
        return self._handles[number]

    def frames(self) -> list[CallFrame]:
        """Return the frames of the selected hart."""
        if self._frames is None:
            self._frames = self.session.program.frames(self.session)
        return self._frames

    def frame(self, number: int) -> CallFrame:
        """Return a frame by its identifier, of which the hart is a part; that hart is selected then."""
        hart, level = divmod(number - 1, MAX_ITEMS)
        self.select(hart)
        frames = self.frames()
        if not 0 <= level < len(frames):
            raise BadRequest("that frame was of another position; ask for the stack again")
        return frames[level]

    def frame_id(self, level: int) -> int:
        """Return the identifier of a frame of the selected hart."""
        return self.session.hart * MAX_ITEMS + level + 1

    def select(self, hart: int) -> None:
        """Select a hart. Raises BadRequest: there is none of this number."""
        if not 0 <= hart < self.session.harts:
            raise BadRequest(f"there are harts 0 to {self.session.harts - 1}")
        if hart != self.session.hart:
            self.session.hart = hart
            self._frames = None

    # source lines

    def source(self, file: str) -> dict[str, Any]:
        """Return a source as clients have it: with a path where the file is here."""
        found = self.sources.find(file)
        name = Path(file).name
        if found is None:
            return {"name": name, "origin": f"{file}: not found here", "presentationHint": "deemphasize"}
        return {"name": name, "path": str(found)}

    def file_of(self, source: Arguments) -> str:
        """Return the name that the line tables have for a client's source. Raises BadRequest."""
        path = source.text("path", source.text("name", ""))
        if not path:
            raise BadRequest("source: a path was expected")
        known = self.session.lines.files()
        for file in known:
            if file == path or str(self.sources.find(file)) == path:
                return file
        parts = Path(path).parts
        common = [(_common(parts, Path(file).parts), file) for file in known]
        best = max(common, default=(0, ""))
        if not best[0]:
            raise BadRequest(f"no code comes from {path}")
        return best[1]

    def line_out(self, line: int) -> int:
        """Return a line's number as the client counts."""
        return line - 1 + self.first_line

    def line_in(self, line: int) -> int:
        """Return a line's number as the line tables count."""
        return line + 1 - self.first_line

    def place(self, address: int) -> str:
        """Return an address with its symbol, where there is one."""
        symbol = self.session.symbols.format(address)
        return f"{address:#x} <{symbol}>" if symbol else f"{address:#x}"

    def changed(self) -> None:
        """What the client shows is no more true: tell it, when the response has been sent."""
        if self.takes_invalidated:
            self.after.append(lambda: self.send("invalidated", {"areas": ["all"]}))

    def tell(self, text: str, category: str = "console") -> None:
        """Print a text in the client's debug console."""
        if text:
            self.send(
                "output", {"category": category, "output": text if text.endswith("\n") else text + "\n"}
            )


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return how many of the last parts of two paths are the same."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def address_of(reference: str, offset: int = 0) -> int:
    """Return the address of a memory reference. Raises BadRequest."""
    try:
        value = int(reference, 0) + offset
    except ValueError:
        raise BadRequest(f"memoryReference {reference!r}: a number was expected") from None
    if not 0 <= value < 1 << 64:
        raise BadRequest(f"memoryReference {reference!r}: not an address")
    return value
