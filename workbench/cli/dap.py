"""``workbench dap``: a debug adapter for editors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from workbench.cli.debug import parse_listen

if TYPE_CHECKING:
    from workbench.session import Session


class ReplConsole:
    """The REPL's commands for an editor's debug console; those that touch the host are refused.

    Args:
        session: what they work on.
    """

    def __init__(self, session: Session) -> None:
        from workbench.repl.shell import Shell

        self._shell = Shell(session)

    def run(self, line: str) -> str:
        """Run a line and return what it prints. Raises what the command raises."""
        return self._shell.run_remote(line)

    def complete(self, line: str) -> tuple[str, list[str]]:
        """Return the word under completion, and what may stand in its place."""
        from workbench.repl.completion import candidates

        return candidates(self._shell.context, line)


@click.command()
@click.option(
    "--listen", metavar="HOST:PORT", help="Wait on a socket of the loopback, not on standard input."
)
@click.option("--once", is_flag=True, help="End when the first client has gone.")
def dap(listen: str | None, once: bool) -> None:
    """Serve the Debug Adapter Protocol, for VS Code and other editors, on standard input and output.

    The editor's 'launch' names the trace: {"trace": "boot.trace", "sourceMap": {"/build": "/home/me/linux"}}.
    """
    from workbench import output
    from workbench.dap.server import Server, serve_streams

    if listen is None:
        serve_streams(sys.stdin.buffer, sys.stdout.buffer, ReplConsole)
        return
    server = Server(*parse_listen(listen), ReplConsole)
    output.note(f"listening on {server.address}")
    server.serve(once, output.note)


COMMANDS = (dap,)
