"""Plug-ins: installed packages that add commands, queries and devices.

A plug-in is a module that an entry point of the group ``workbench`` names. What it declares by ``@command``, ``@query``
and ``@device`` is there when the module has been imported; what it marks by ``@hookimpl`` is called by pluggy.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pluggy

from machine.hw.extra import device
from traces.queries.base import query
from workbench.errors import InputError, one_line

if TYPE_CHECKING:
    from workbench.session import Session

__all__ = ["GROUP", "Plugin", "device", "hookimpl", "load", "query"]

GROUP: Final = "workbench"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """What plug-ins are told of."""

    @hookspec
    def workbench_session_opened(self, session: Session) -> None:
        """A REPL, gdb's monitor or an editor begins to work on a session."""


class Plugin(NamedTuple):
    """A plug-in that is installed: its name, the module, and the package that brought it."""

    name: str
    module: str
    package: str


def installed() -> list[Plugin]:
    """Return the plug-ins that are installed, by name; none of them is imported."""
    found = metadata.entry_points(group=GROUP)
    return sorted(Plugin(e.name, e.value, e.dist.name if e.dist else "") for e in found)


@cache
def load() -> pluggy.PluginManager:
    """Import the plug-ins that are installed, once, and return pluggy's manager of them.

    Raises:
        InputError: one can't be imported, or implements a hook that there is not.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.name):
        # whatever a plug-in's code stumbles over is told with its name
        try:
            manager.register(entry.load(), entry.name)
        except Exception as error:
            raise InputError(
                f"plug-in {entry.name} ({entry.value}) can't be loaded: {type(error).__name__}: {one_line(error)}; "
                "mend it, or uninstall the package"
            ) from error
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise InputError(f"plug-in: {one_line(error)}") from None
    return manager


def tell_opened(session: Any) -> None:
    """Tell the plug-ins of a session."""
    load().hook.workbench_session_opened(session=session)
