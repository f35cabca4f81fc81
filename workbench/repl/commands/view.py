"""Commands that show the surroundings: the context panes and source lines."""

from __future__ import annotations

from workbench.errors import CommandError
from workbench.output import Result
from workbench.repl.context import DEFAULT_PANES, Context
from workbench.repl.panes import PANES, show_panes
from workbench.repl.registry import command


@command("context", "ctx", group="state", usage="[on|off|only PANE…|to TERMINAL|PANE…]", completes="pane")
def context_(context: Context, arguments: str) -> Result:
    """Show the panes of a stop: registers, code, source, stack, backtrace, inputs, devices; or those that are named.

    On a terminal they are shown after each motion: ``context off`` ends that, ``context on`` begins it again,
    ``context only code stack`` says which, ``context to /dev/pts/3`` shows them on another terminal ('tty' tells its
    name), ``context to`` on this one again. A star marks a register that the motion changed.

    Example: context code backtrace
    """
    words = arguments.replace(",", " ").split()
    if words[:1] == ["to"]:
        context.panes_to = " ".join(words[1:])
        return None
    if words[:1] == ["off"]:
        context.panes = ()
    elif words[:1] == ["on"]:
        context.panes = DEFAULT_PANES
    elif words[:1] == ["only"]:
        unknown = [word for word in words[1:] if word not in PANES]
        if unknown or not words[1:]:
            raise CommandError(
                f"context: no pane {' '.join(unknown) or 'named'}; there are {', '.join(PANES)}"
            )
        context.panes = tuple(words[1:])
    else:
        return show_panes(context, words or context.panes or DEFAULT_PANES)
    return None
