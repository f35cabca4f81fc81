"""``workbench run``, ``record`` and ``replay``: machines that run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.debug import backend_option
from workbench.cli.group import MachineCommand
from workbench.cli.machineopts import build_machine, machine_options, take_machine
from workbench.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from workbench.terminal import HostConsole, Key


def end_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that end a run."""
    for option in reversed(
        (
            click.option("--until", metavar="REGEX", help="End when the console matches; else exit 1."),
            click.option("--fail", metavar="REGEX", help="End with exit 1 when the console matches."),
            click.option("--steps", metavar="N", type=click.IntRange(0, 1 << 62), help="End after N steps."),
            click.option(
                "--timeout", metavar="S", type=click.FloatRange(0), help="End after S seconds: exit 124."
            ),
            click.option("--no-input", is_flag=True, help="The guest's console takes no input from here."),
        )
    ):
        function = option(function)
    return function


@click.command(cls=MachineCommand)
@machine_options
@end_options
@backend_option
def run(**options: Any) -> int:
    """Run a machine without a trace."""
    return run_machine(None, options)


@click.command(cls=MachineCommand)
@click.option("-o", "--output", "out", required=True, metavar="TRACE", help="Where the trace goes.")
@machine_options
@end_options
@backend_option
def record(out: str, **options: Any) -> int:
    """Run a machine with a trace. Its console is this terminal: Ctrl-A x ends, Ctrl-A c opens the REPL."""
    return run_machine(out, options)


def run_machine(out: str | None, options: dict[str, Any]) -> int:
    """Run a machine, with a trace where ``out`` names one; return the exit code that its end means."""
    from workbench.terminal import HostConsole

    machine = take_machine(options)
    until, fail = pattern("--until", options["until"]), pattern("--fail", options["fail"])
    takes_input = not options["no_input"]
    config, images = build_machine(machine, idle="ask" if takes_input else "jump")
    from workbench.replay.recorder import Recorder

    with HostConsole(takes_input) as console:
        recorder = Recorder(
            config,
            images,
            out,
            source=console if takes_input else None,
            output=console.write,
            backend=options["backend"],
        )
        console.on_key = lambda key: on_key(key, recorder, console)
        ended = recorder.run(until, fail, options["steps"], options["timeout"])
    return report(ended, out, options)


def pattern(option: str, text: str | None) -> str | None:
    """Return a pattern that compiles. Raises UsageError when it does not."""
    if text is None:
        return None
    try:
        re.compile(text)
    except re.error as error:
        raise UsageError(f"{option} {text!r}: not a regular expression: {error}") from None
    return text


def on_key(key: Key, recorder: Any, console: HostConsole) -> None:
    """Do what an escape key asks for."""


def report(ended: Any, out: str | None, options: dict[str, Any]) -> int:
    """Tell how a run ended, and return the exit code that it means."""
    return EXIT_DONE


COMMANDS = (record, run)
