"""Commands for gdb itself; ``workbench gdb`` has gdb run this file. They move the cursor through ``monitor``.

wb COMMAND        any command of the workbench's REPL
goto POSITION     go to a position
when              where the cursor is
"""

from __future__ import annotations

from typing import Any

import gdb  # type: ignore[import-untyped]


class Relay(gdb.Command):  # type: ignore[misc]
    """Hands a line to the workbench, and has gdb look anew at where the machine is."""

    def __init__(self, name: str, command: str, help_text: str) -> None:
        self.__doc__ = help_text
        super().__init__(name, gdb.COMMAND_RUNNING)
        self._command = command

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Run the line; gdb's caches of registers and memory are dropped, as the cursor may have moved."""
        before = _pc()
        gdb.execute(f"monitor {self._command} {argument}".rstrip())
        for cache in ("register-cache", "dcache"):
            gdb.execute(f"maintenance flush {cache}", to_string=True)
        if _pc() != before:
            gdb.execute("frame")


def _pc() -> Any:
    try:
        return int(gdb.selected_frame().pc())
    except gdb.error:
        return None


Relay("wb", "", "Run a command of the workbench: wb last-write jiffies.")
Relay("goto", "goto", "Go to a position: goto 50%, goto end, goto @bookmark, goto +1000.")
Relay("when", "where", "Tell where the cursor is.")
