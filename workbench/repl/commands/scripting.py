"""Commands for scripts and for those who look for a command: expect, source, hooks, echo, apropos."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import AnswerNo, CommandError, InputError
from workbench.output import Result, Table, Text
from workbench.repl.context import Context
from workbench.repl.library import value_code
from workbench.repl.registry import command, split_word
from workbench.repl.settings import HAPPENINGS

MAX_DEPTH = 16


@command(
    "expect",
    group="shell",
    usage="EXPRESSION",
    completes="expression",
    library=lambda context, text: f"assert {value_code(context, text)}",
)
def expect(context: Context, arguments: str) -> Result:
    """Check that an expression holds: ``expect $a0 == 3``.

    The first that does not ends a script, with exit code 1.

    Example: expect $priv == 1
    """
    if not arguments:
        raise CommandError("expect: an expression is needed, as in 'expect $scause == 13'")
    value = context.number(arguments)
    if not value:
        raise AnswerNo(f"expect: {arguments} is {value} at position {context.session.cursor:_}")
    return None


@command("source", group="shell", usage="FILE", completes="file", needs_trace=False, touches_host=True)
def source(context: Context, arguments: str) -> Result:
    """Run the lines of a file: commands, or Python where its name ends in .py.

    Example: source find-bug.wb
    """
    if not arguments:
        raise CommandError("source: a file is needed, as in 'source find-bug.wb'")
    if context.depth >= MAX_DEPTH:
        raise CommandError(f"source {arguments}: files that source each other, {MAX_DEPTH} deep")
    try:
        text = Path(arguments).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"source {arguments}: can't be read: {error}") from None
    out: list[str] = []
    context.depth += 1
    try:
        if arguments.endswith(".py"):
            lines = ["py\n" + text]
            out.append(context.run_line(lines[0]))
        else:
            context.run_script(text.splitlines(), out.append)
    finally:
        context.depth -= 1
    return Text("".join(out)) if any(out) else None


@command("hook", group="shell", usage="[stop|input|bookmark COMMAND]", needs_trace=False)
def hook(context: Context, arguments: str) -> Result:
    """Run a command after every motion, or after those that came by an input, or ended at a bookmark.

    Without arguments, list the hooks; ``unhook`` takes one away by its number.
    Example: hook stop x/2i $pc
    """
    when, line = split_word(arguments)
    if not arguments:
        rows = [(number, *of) for number, of in context.hooks.items()]
        return Table(("number", "after", "command"), rows, empty="No hooks.")
    if when not in HAPPENINGS or not line:
        raise CommandError(
            f"hook: one of {', '.join(HAPPENINGS)} and a command are needed, as in 'hook stop x/4i $pc'"
        )
    entry, _ = context.registry.resolve(line)
    if entry.group == "motion" or entry.name in ("source", "hook", "quit"):
        raise CommandError(f"hook: {entry.name} can't run after a motion")
    number = max(context.hooks, default=0) + 1
    context.hooks[number] = (when, line)
    return Text(f"Hook {number}: {line}", {"number": number, "after": when, "command": line})


@command("alias", group="shell", usage="[NAME = COMMAND]", needs_trace=False)
def alias(context: Context, arguments: str) -> Result:
    """Have a word stand for the beginning of a line; without arguments, list the aliases.

    Example: alias pool = p *pool.free
    """
    name, equals, text = (part.strip() for part in arguments.partition("="))
    if not arguments:
        return Table(("alias", "stands for"), list(context.aliases.items()), empty="No aliases.")
    if not equals or not text or len(name.split()) != 1:
        raise CommandError("alias: a word and a command are needed, as in 'alias pool = p *pool.free'")
    if name in context.registry.exact:
        raise CommandError(f"alias: {name} is a command")
    context.registry.resolve(text)
    context.aliases[name] = text
    return Text(f"{name} stands for {text}", {"alias": name, "stands for": text})


@command("unhook", group="shell", usage="[NUMBER]…", needs_trace=False)
def unhook(context: Context, arguments: str) -> Result:
    """Take hooks away by number; without a number, all of them.

    Example: unhook 1
    """
    for word in arguments.split() or [str(number) for number in context.hooks]:
        if not word.isdecimal() or context.hooks.pop(int(word), None) is None:
            raise CommandError(f"no hook number {word}; 'hook' lists them")
    return None


@command("echo", group="shell", usage="TEXT", needs_trace=False)
def echo(context: Context, arguments: str) -> Result:
    """Print a text, for scripts; ``\\n`` in it is a line's end.

    Example: echo done
    """
    return Text(arguments.replace("\\n", "\n"))


@command("apropos", group="shell", usage="WORD", needs_trace=False)
def apropos(context: Context, arguments: str) -> Result:
    """List the commands whose name or help has a word.

    Example: apropos backwards
    """
    word = arguments.lower()
    if not word:
        raise CommandError("apropos: a word is needed, as in 'apropos breakpoint'")
    rows = [
        (entry.name, entry.usage, entry.summary)
        for entry in context.registry.commands
        if word in f"{entry.name} {' '.join(entry.aliases)} {entry.help}".lower()
    ]
    return Table(("command", "arguments", "does"), rows, empty=f"Nothing has {arguments!r} in its help.")
