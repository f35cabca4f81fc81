"""``workbench completion`` and ``workbench man``."""

from __future__ import annotations

import click

from workbench.reference.commandline import SHELLS


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete workbench's commands, options and files.

    For bash: workbench completion bash > ~/.local/share/bash-completion/completions/workbench
    """
    from workbench import output
    from workbench.reference.commandline import completion as script

    output.emit(output.Text(script(shell)))


@click.command()
def man() -> None:
    """Print the manual page: workbench man | man -l -"""
    from workbench import output
    from workbench.reference.commandline import man_page

    output.emit(output.Text(man_page()))


COMMANDS = (completion, man)
