"""What a REPL command is: one decorated function. Its help, completion and ``monitor`` follow from it.

A command takes the context and the rest of its line and returns a result; ``output`` alone prints it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from workbench.errors import CommandError, InputError
from workbench.output import Result
from workbench.repl.library import Library

if TYPE_CHECKING:
    from workbench.repl.context import Context

#: What the argument of a command is, for completion.
Completes = Literal[
    "",
    "address",
    "expression",
    "position",
    "register",
    "breakpoint",
    "command",
    "sql",
    "file",
    "pane",
    "bookmark",
    "catch",
]
Function = Callable[["Context", str], Result]

GROUPS = {
    "motion": "Moving through the run",
    "breakpoints": "Breakpoints",
    "state": "The machine at the cursor",
    "changes": "Changing the run",
    "trace": "What was recorded",
    "shell": "The shell itself",
}


@dataclass(frozen=True)
class Command:
    """One command. ``name`` may be two words (``info registers``); ``repeat``: Enter runs it again."""

    name: str
    aliases: tuple[str, ...]
    group: str
    usage: str
    completes: Completes
    repeat: bool
    needs_trace: bool
    touches_host: bool
    library: Library
    run: Function

    @property
    def help(self) -> str:
        """Return the whole help text, the function's docstring."""
        return inspect.cleandoc(self.run.__doc__ or "")

    @property
    def examples(self) -> list[str]:
        """Return the lines that the help gives as examples."""
        lines = self.help.splitlines()
        return [line.removeprefix("Example: ") for line in lines if line.startswith("Example: ")]

    @property
    def summary(self) -> str:
        """Return the first line of the help."""
        return self.help.partition("\n")[0]


_collected: list[Command] = []


def command(
    name: str,
    *aliases: str,
    group: str,
    usage: str = "",
    completes: Completes = "",
    repeat: bool = False,
    needs_trace: bool = True,
    touches_host: bool = False,
    library: Library = "",
) -> Callable[[Function], Function]:
    """Declare a function to be a command.

    Args:
        name: its full name, one word, or two where the first collects several (``info``).
        aliases: short names that win over every prefix (``c``, ``b``).
        group: one of GROUPS, for ``help``.
        usage: what follows the name, as a synopsis.
        completes: what its argument is.
        repeat: whether Enter on an empty line runs it again.
        needs_trace: whether it is refused while no trace is open.
        touches_host: whether it runs code or opens files here; such a command is not for gdb's ``monitor``,
            as whoever reaches the port could use it.
        library: the library calls that do the same (``workbench.repl.library``); without, it is the command itself.
    """
    assert group in GROUPS, group

    def declare(function: Function) -> Function:
        assert function.__doc__, f"{name}: a command's docstring is its help"
        _collected.append(
            Command(
                name, aliases, group, usage, completes, repeat, needs_trace, touches_host, library, function
            )
        )
        return function

    return declare


class Registry:
    """Commands by name, alias and unique prefix, as gdb resolves them."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self.commands = sorted(commands, key=lambda c: c.name)
        self._exact: dict[str, Command] = {}
        for entry in self.commands:
            for name in (entry.name, *entry.aliases):
                if name in self._exact:
                    raise InputError(
                        f"two commands are called {name!r}: uninstall the plug-in that brings one"
                    )
                self._exact[name] = entry
        self._families = {entry.name.split()[0] for entry in self.commands if " " in entry.name}
        self._family_aliases = {"i": "info"}

    @property
    def exact(self) -> Collection[str]:
        """Every full name and alias."""
        return self._exact

    def resolve(self, line: str) -> tuple[Command, str]:
        """Return the command that a line names, and the rest of the line.

        Raises:
            CommandError: when there is none, or several begin like that.
        """
        word, rest = split_word(line)
        word, rest = _split_slash(word, rest)
        if word in self._family_aliases:
            word = self._family_aliases[word]
        if word in self._exact:
            return self._exact[word], rest
        firsts = {entry.name.split()[0] for entry in self.commands}
        matches = [word] if word in firsts else sorted(first for first in firsts if first.startswith(word))
        if len(matches) > 1:
            raise CommandError(f"ambiguous command {word!r}: {', '.join(matches)}")
        if not matches:
            raise CommandError(f"no command {word!r}; 'help' lists them")
        if matches[0] in self._families:
            return self._resolve_second(matches[0], rest)
        return self._exact[matches[0]], rest

    def _resolve_second(self, family: str, rest: str) -> tuple[Command, str]:
        word, arguments = split_word(rest)
        seconds = [entry for entry in self.commands if entry.name.startswith(family + " ")]
        names = [entry.name.split()[1] for entry in seconds]
        if not word:
            raise CommandError(f"{family}: which one? {', '.join(names)}")
        alias = self._exact.get(f"{family} {word}")
        if alias is not None:
            return alias, arguments
        matches = [entry for entry, name in zip(seconds, names, strict=True) if name.startswith(word)]
        if len(matches) == 1:
            return matches[0], arguments
        if matches:
            found = ", ".join(entry.name.split()[1] for entry in matches)
            raise CommandError(f"ambiguous {family} command {word!r}: {found}")
        raise CommandError(f"no {family} command {word!r}; there are {', '.join(names)}")

    def begin_with(self, prefix: str) -> list[Command]:
        """Return the commands whose full name begins with a prefix."""
        return [entry for entry in self.commands if entry.name.startswith(prefix)]


def split_word(line: str) -> tuple[str, str]:
    """Return the first word of a line and the rest, both stripped."""
    parts = line.strip().split(None, 1)
    return (parts[0], parts[1]) if len(parts) == 2 else ("".join(parts), "")


def _split_slash(word: str, rest: str) -> tuple[str, str]:
    """Split ``x/8i`` and ``p/x``: the format belongs to the arguments."""
    name, slash, fmt = word.partition("/")
    return (name, f"/{fmt} {rest}".strip()) if slash else (word, rest)


@cache
def all_commands() -> Registry:
    """Return every command declared in ``workbench.repl.commands``, found by a walk, and those of plug-ins.

    Raises:
        InputError: a plug-in can't be loaded, or has a command of a name that there is.
    """
    from workbench.plugins import load
    from workbench.repl import commands

    for module in pkgutil.iter_modules(commands.__path__):
        importlib.import_module(f"{commands.__name__}.{module.name}")
    load()
    return Registry(_collected)
