"""Commands that move the cursor, forwards and backwards."""

from __future__ import annotations

from workbench.errors import CommandError
from workbench.output import Result
from workbench.repl.commands.breakpoints import place_code, place_of
from workbench.repl.context import Context
from workbench.repl.library import Library, call
from workbench.repl.registry import command
from workbench.repl.stops import describe_stop

MAX_STEPS = 1 << 48


def _again(motion: str) -> Library:
    """Return the library's row of a motion that is made COUNT times."""

    def library(context: Context, arguments: str) -> str:
        count = context.count(arguments)
        return motion if count == 1 else f"for _ in range({count}):\n    {motion}"

    return library


def _unit(context: Context) -> str:
    """Return what a step by lines goes by: instructions where no lines are known."""
    return "insn" if context.session.lines.at(context.session.reg("pc")) is None else "line"


def _stepping(name: str, by: str = "line") -> Library:
    """Return the library's row of a step."""

    def library(context: Context, arguments: str) -> str:
        count = _steps(context, arguments)
        unit = _unit(context) if by == "line" else by
        return call(f"session.{name}", *[str(count)] * (count > 1), by=unit, into_traps=context.into_traps)

    return library


def _to_place(name: str) -> Library:
    return lambda context, arguments: call(f"session.{name}", place_code(context, arguments))


@command(
    *("continue", "c", "cont", "fg", "g"),
    group="motion",
    usage="[COUNT]",
    repeat=True,
    library=_again("session.cont()"),
)
def continue_(context: Context, arguments: str) -> Result:
    """Run forwards to the next breakpoint, or to the end of the trace.

    With COUNT, to the COUNTth breakpoint from here.

    Example: continue 2
    """
    for _ in range(context.count(arguments)):
        stop = context.session.cont()
        if stop.stopper is None:
            break
    return describe_stop(context, stop)


@command(
    "reverse-continue",
    "rc",
    "g-",
    group="motion",
    usage="[COUNT]",
    repeat=True,
    library=_again("session.reverse_cont()"),
)
def reverse_continue(context: Context, arguments: str) -> Result:
    """Run backwards to the last breakpoint before here, or to the start of the trace.

    With COUNT, to the COUNTth breakpoint before here.

    Example: reverse-continue
    """
    for _ in range(context.count(arguments)):
        stop = context.session.reverse_cont()
        if stop.stopper is None:
            break
    return describe_stop(context, stop)


@command("stepi", "si", "t", group="motion", usage="[N]", repeat=True, library="session.stepi({count})")
def stepi(context: Context, arguments: str) -> Result:
    """Step the machine forwards by one step, or by N: an instruction, or the entry of a trap or interrupt.

    Example: stepi 100
    """
    return describe_stop(context, context.session.stepi(_steps(context, arguments)))


@command(
    *("reverse-stepi", "rsi", "t-"),
    group="motion",
    usage="[N]",
    repeat=True,
    library="session.reverse_stepi({count})",
)
def reverse_stepi(context: Context, arguments: str) -> Result:
    """Step the machine backwards by one step, or by N.

    Example: reverse-stepi 10
    """
    return describe_stop(context, context.session.reverse_stepi(_steps(context, arguments)))


@command("step", "s", group="motion", usage="[N]", repeat=True, library=_stepping("step"))
def step(context: Context, arguments: str) -> Result:
    """Step forwards by a source line, or by N; into functions; where no lines are known, by an instruction.

    Stepping stays in the task that it began in, and passes over interrupts and exceptions unless
    ``set into-traps on`` was said.

    Example: step
    """
    return _stepped(context, arguments, "step")


@command("reverse-step", "rs", group="motion", usage="[N]", repeat=True, library=_stepping("reverse_step"))
def reverse_step(context: Context, arguments: str) -> Result:
    """Step backwards to the beginning of a source line, or by N; as ``step`` otherwise.

    Example: reverse-step
    """
    return _stepped(context, arguments, "reverse_step")


@command("next", "n", group="motion", usage="[N]", repeat=True, library=_stepping("next"))
def next_(context: Context, arguments: str) -> Result:
    """Step forwards by a source line, or by N, past the functions that it calls; as ``step`` otherwise.

    Example: next
    """
    return _stepped(context, arguments, "next")


@command(
    *("reverse-next", "rn", "p-"),
    group="motion",
    usage="[N]",
    repeat=True,
    library=_stepping("reverse_next"),
)
def reverse_next(context: Context, arguments: str) -> Result:
    """Step backwards to the beginning of a source line, or by N, past the functions that it calls.

    Example: reverse-next
    """
    return _stepped(context, arguments, "reverse_next")


@command("nexti", "ni", group="motion", usage="[N]", repeat=True, library=_stepping("next", "insn"))
def nexti(context: Context, arguments: str) -> Result:
    """Step forwards by one instruction, or by N; a call counts as one, and runs until it returns.

    A breakpoint inside the call stops there.

    Example: nexti
    """
    return _stepped(context, arguments, "next", "insn")


@command(
    *("reverse-nexti", "rni"),
    group="motion",
    usage="[N]",
    repeat=True,
    library=_stepping("reverse_next", "insn"),
)
def reverse_nexti(context: Context, arguments: str) -> Result:
    """Step backwards by one instruction, or by N; a call counts as one.

    Example: reverse-nexti
    """
    return _stepped(context, arguments, "reverse_next", "insn")


@command("finish", "fin", "gu", group="motion", repeat=True, library="session.finish()")
def finish(context: Context, arguments: str) -> Result:
    """Run forwards until the function at the cursor has returned.

    Example: finish
    """
    return describe_stop(context, context.session.finish())


@command(
    *("reverse-finish", "rfin", "uncall"), group="motion", repeat=True, library="session.reverse_finish()"
)
def reverse_finish(context: Context, arguments: str) -> Result:
    """Run backwards to the call of the function at the cursor.

    Example: reverse-finish
    """
    return describe_stop(context, context.session.reverse_finish())


@command(
    *("until", "u", "advance"),
    group="motion",
    usage="PLACE",
    completes="address",
    library=_to_place("until"),
)
def until(context: Context, arguments: str) -> Result:
    """Run forwards to a place in this task: a symbol, an address or a source line.

    Example: until pool_get
    """
    return describe_stop(context, context.session.until(_place(context, arguments, "until")))


@command(
    *("reverse-until", "ru", "reverse-advance"),
    group="motion",
    usage="PLACE",
    completes="address",
    library=_to_place("reverse_until"),
)
def reverse_until(context: Context, arguments: str) -> Result:
    """Run backwards to a place in this task: a symbol, an address or a source line.

    Example: reverse-until pool_get
    """
    return describe_stop(context, context.session.reverse_until(_place(context, arguments, "reverse-until")))


def _target(context: Context, arguments: str) -> str:
    return arguments + "%" if arguments.isdecimal() and context.word == "!tt" else arguments


@command(
    *("goto", "!tt", "seek"),
    group="motion",
    usage="POSITION",
    completes="position",
    library=lambda context, arguments: f"session.goto({_target(context, arguments)!r})",
)
def goto(context: Context, arguments: str) -> Result:
    """Go to a position.

    A position is a step's number (1234567, 1_234_567), relative (+100, -100), start, end, a share of the run
    (50%), virtual time (1.25s), a bookmark (@panic), an input (input:42) or what the console shows
    (console:"Unable to mount"). ``!tt 50`` goes to a share of the run.

    Example: goto 50%
    """
    arguments = _target(context, arguments)
    if not arguments:
        raise CommandError("goto: where to? 'help goto' lists the forms of a position")
    return describe_stop(context, context.session.goto(context.session.parse_position(arguments)))


def _steps(context: Context, text: str) -> int:
    count = context.count(text)
    if count > MAX_STEPS:
        raise CommandError(f"{count} steps are more than any trace has")
    return count


def _place(context: Context, text: str, name: str) -> int:
    if not text:
        raise CommandError(f"{name}: a place is needed, as in '{name} start_kernel'")
    return place_of(context, text)


def _stepped(context: Context, arguments: str, name: str, by: str = "line") -> Result:
    """Step in a context, by the session's method of this name; by instructions where no lines are known."""
    by = _unit(context) if by == "line" else by
    move = getattr(context.session, name)
    return describe_stop(context, move(_steps(context, arguments), by=by, into_traps=context.into_traps))


@command(
    "restart",
    "run",
    group="motion",
    usage="[BOOKMARK]",
    completes="bookmark",
    library=lambda _, arguments: f"session.goto({_bookmark(arguments)!r})",
)
def restart(context: Context, arguments: str) -> Result:
    """Go to the start of the run, or to a bookmark.

    Example: restart
    """
    return goto(context, _bookmark(arguments))


def _bookmark(arguments: str) -> str:
    return f"@{arguments.removeprefix('@')}" if arguments else "start"
