"""The groups of the command line: ``--debug`` everywhere, and a trace alone means ``debug``."""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

#: Long options of QEMU that may be written with one dash, as QEMU's manual does.
ONE_DASH = (
    "kernel",
    "initrd",
    "append",
    "bios",
    "dtb",
    "smp",
    "cpu",
    "drive",
    "machine",
    "memory",
    "nographic",
    "device",
    "global",
    "serial",
    "display",
    "monitor",
    "no-reboot",
)


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ["WORKBENCH_DEBUG"] = "1"


def debug_option() -> click.Option:
    """Return the option that shows tracebacks."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_debug,
        help="Show a traceback with an error.",
    )


class WorkbenchGroup(click.Group):
    """The root: commands in the order of their declaration; a file's name alone is ``debug FILE``."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(debug_option())
        self._modules: dict[str, str] = {}

    def declare(self, module: str, names: Sequence[str]) -> None:
        """Say which module has the commands of these names; it is imported when one of them is asked for."""
        self._modules.update(dict.fromkeys(names, module))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name, or None."""
        if cmd_name in self._modules and cmd_name not in self.commands:
            self.add_command(getattr(importlib.import_module(self._modules[cmd_name]), cmd_name), cmd_name)
        return super().get_command(ctx, cmd_name)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, and ``--debug`` to it and to those below it."""
        super().add_command(cmd, name)
        below = cmd.commands.values() if isinstance(cmd, click.Group) else ()
        for command in (cmd, *below):
            if not any(
                "--debug" in parameter.opts for parameter in command.params
            ):  # its own meaning of the word
                command.params.append(debug_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are told about."""
        return list(dict.fromkeys([*self._modules, *self.commands]))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command; what is none but a trace is opened by ``debug``."""
        first = args[0]
        if self.get_command(ctx, first) is None and _looks_like_trace(first):
            args = ["debug", *args]
        return super().resolve_command(ctx, args)


def _looks_like_trace(text: str) -> bool:
    return text.endswith(".trace") or os.sep in text or Path(text).is_file()


class MachineCommand(click.Command):
    """A command with machine options, which QEMU's users may write with one dash."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; ``-kernel`` is ``--kernel``, and ``-m`` is ``--memory``.

        click takes ``-m`` for a misspelt long option first and looks for one that is spelt alike, which takes 5 ms.
        """
        valued = {opt for p in self.params if not getattr(p, "is_flag", False) for opt in p.opts}
        pairs = (p.opts for p in self.params if len(p.opts) == 2)
        long_names = {short: long for short, long in pairs if len(short) == 2}
        return super().parse_args(ctx, two_dashes(args, _WITH_VALUE | valued, long_names))


def two_dashes(
    arguments: Sequence[str],
    with_value: Collection[str] | None = None,
    long_names: Mapping[str, str] | None = None,
) -> list[str]:
    """Return arguments with QEMU's one-dash options written with two; the values of options stay.

    Args:
        arguments: of a command.
        with_value: the options that take a value; by default QEMU's.
        long_names: of options of one letter, which are to be replaced.
    """
    with_value, long_names = with_value or _WITH_VALUE, long_names or {}
    out: list[str] = []
    is_value = False
    for at, argument in enumerate(arguments):
        if argument == "--" and not is_value:
            return out + list(arguments[at:])
        name = argument[1:] if argument[:1] == "-" and argument[:2] != "--" else ""
        if not is_value:
            argument = f"--{name}" if name in ONE_DASH else long_names.get(argument, argument)
        is_value = not is_value and argument in with_value
        out.append(argument)
    return out


_WITH_VALUE = frozenset(
    [f"--{name}" for name in ONE_DASH if name not in ("nographic", "no-reboot")] + ["-m", "-M", "-o"]
)
