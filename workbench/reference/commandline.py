"""The command line as a page, as a manual page, and as completion for shells."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from workbench.errors import UsageError
from workbench.reference.markdown import table, text_of

SHELLS = ("bash", "zsh", "fish")
_EXITS = (
    ("0", "done"),
    ("1", "the answer is no: a pattern was not met, a check failed"),
    ("2", "wrong usage"),
    ("3", "an input can't be used"),
    ("4", "replay diverged"),
    ("6", "a tool that is needed is missing"),
    ("70", "a bug"),
    ("124", "--timeout passed"),
    ("130", "interrupted"),
)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its words, those of groups too."""
    from workbench.cli import cli

    root = click.Context(cli, info_name="workbench")
    for name in sorted(cli.list_commands(root)):
        command = cli.get_command(root, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for below, inner in sorted(command.commands.items()):
                yield f"{name} {below}", inner


def _usage(words: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"workbench {words}")
    return " ".join(["workbench", words, *command.collect_usage_pieces(context)])


def _options(command: click.Command) -> list[tuple[str, str]]:
    """Return the options of a command and what they say, without those that all have."""
    context = click.Context(command, info_name="workbench", max_content_width=1000)
    rows = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    common = ("--debug", "-h", "--help")
    return [row for row in rows if row is not None and row[0][0] == "-" and not row[0].startswith(common)]


def _help(command: click.Command) -> str:
    return re.sub(r"\s*\n(?!\s*\n)\s*", " ", (command.help or "").replace("\b", "")).strip()


def cli_page() -> str:
    """Return the page of the command line."""
    out = ["# The command line", "", "`workbench --help` and `workbench COMMAND --help` print the same."]
    for words, command in commands():
        out += ["", f"## workbench {words}", "", f"    {_usage(words, command)}", "", _help(command)]
        rows = _options(command)
        if rows:
            out += ["", *table(("option", "does"), [(f"`{name}`", text) for name, text in rows])]
    out += ["", "## Exit codes", "", *(f"- {code}: {text}" for code, text in _EXITS)]
    return text_of(out)


def _roff(text: str) -> str:
    """Return text as troff takes it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def man_page() -> str:
    """Return the manual page, workbench(1)."""
    out = [
        '.TH WORKBENCH 1 "" "workbench" "User Commands"',
        ".SH NAME",
        "workbench \\- record whole machines, replay them exactly, debug them backwards",
        ".SH SYNOPSIS",
        ".B workbench",
        "[COMMAND] [OPTIONS]",
        ".SH COMMANDS",
    ]
    for words, command in commands():
        out += [".TP", f".B {_roff(_usage(words, command))}", _roff(_help(command))]
        rows = _options(command)
        if rows:
            out += [".RS"]
            for name, text in rows:
                out += [".TP", f".B {_roff(name)}", _roff(text)]
            out += [".RE"]
    out += [".SH EXIT STATUS"]
    for code, text in _EXITS:
        out += [".TP", f".B {code}", _roff(text)]
    return "\n".join(out) + "\n"


def completion(shell: str) -> str:
    """Return the script that makes a shell complete ``workbench``. Raises UsageError: it is not known."""
    from click.shell_completion import get_completion_class

    from workbench.cli import cli

    found = get_completion_class(shell) if shell in SHELLS else None
    if found is None:
        raise UsageError(f"completion: no script for {shell!r}; there are {', '.join(SHELLS)}")
    made = found(cli, {}, "workbench", "_WORKBENCH_COMPLETE")
    return made.source_template % made.source_vars()
