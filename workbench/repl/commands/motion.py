"""Commands that move the cursor, forwards and backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import CommandError
from workbench.output import Result
from workbench.repl.context import Context
from workbench.repl.registry import command
from workbench.repl.stops import code_at, describe_stop
from workbench.unwind import is_call, return_address

if TYPE_CHECKING:
    from workbench.session import Stop

MAX_STEPS = 1 << 48


@command(
    "continue", "c", "cont", "fg", "g", group="motion", usage="[COUNT]", repeat=True, library="session.cont()"
)
def continue_(context: Context, arguments: str) -> Result:
    """Run forwards to the next breakpoint, or to the end of the trace.

    With COUNT, to the COUNTth breakpoint from here.
    """
    for _ in range(context.count(arguments)):
        stop = context.session.cont()
        if stop.reason != "breakpoint":
            break
    return describe_stop(context, stop)


@command(
    "reverse-continue",
    "rc",
    "g-",
    group="motion",
    usage="[COUNT]",
    repeat=True,
    library="session.reverse_cont()",
)
def reverse_continue(context: Context, arguments: str) -> Result:
    """Run backwards to the last breakpoint before here, or to the start of the trace.

    With COUNT, to the COUNTth breakpoint before here.
    """
    for _ in range(context.count(arguments)):
        stop = context.session.reverse_cont()
        if stop.reason != "breakpoint":
            break
    return describe_stop(context, stop)


@command("stepi", "si", "step", "s", group="motion", usage="[N]", repeat=True)
def stepi(context: Context, arguments: str) -> Result:
    """Step forwards by one step, or by N: an instruction, an exception's or an interrupt's trap entry."""
    return describe_stop(context, context.session.stepi(_steps(context, arguments)))


@command("reverse-stepi", "rsi", "reverse-step", "rs", group="motion", usage="[N]", repeat=True)
def reverse_stepi(context: Context, arguments: str) -> Result:
    """Step backwards by one step, or by N."""
    return describe_stop(context, context.session.reverse_stepi(_steps(context, arguments)))


@command("nexti", "ni", "next", "n", group="motion", usage="[N]", repeat=True)
def nexti(context: Context, arguments: str) -> Result:
    """Step forwards by one instruction, or by N; a call counts as one, and runs until it returns.

    A breakpoint inside the call stops there.
    """
    session = context.session
    for _ in range(context.count(arguments)):
        pc = session.reg("pc")
        code = code_at(context, pc)
        if not is_call(code):
            stop = session.stepi(1)
            continue
        stop = _run_to(context, pc + len(code), session.reg("x2"))
        if stop.reason != "end" and stop.pc != pc + len(code):
            break
    return describe_stop(context, stop)


@command("finish", "fin", group="motion", repeat=True)
def finish(context: Context, arguments: str) -> Result:
    """Run forwards until the function at the cursor has returned."""
    target = return_address(context.session)
    if target is None:
        raise CommandError("finish: no return address found at the cursor; 'bt' shows the frames")
    return describe_stop(context, _run_to(context, target, context.session.reg("x2")))


@command(
    "goto",
    "!tt",
    "seek",
    group="motion",
    usage="POSITION",
    completes="position",
    library="session.goto({text})",
)
def goto(context: Context, arguments: str) -> Result:
    """Go to a position.

    A position is a step's number (1234567, 1_234_567), relative (+100, -100), start, end, a share of the run
    (50%), virtual time (1.25s), a bookmark (@panic), an input (input:42) or what the console shows
    (console:"Unable to mount"). ``!tt 50`` goes to a share of the run.
    """
    if arguments.isdecimal() and context.word == "!tt":
        arguments += "%"
    if not arguments:
        raise CommandError("goto: where to? 'help goto' lists the forms of a position")
    return describe_stop(context, context.session.goto(context.session.parse_position(arguments)))


def _steps(context: Context, text: str) -> int:
    count = context.count(text)
    if count > MAX_STEPS:
        raise CommandError(f"{count} steps are more than any trace has")
    return count


def _run_to(context: Context, address: int, stack: int) -> Stop:
    """Run to an address with the stack at least as high as it was, so that a recursive call is passed by."""
    session = context.session
    point = session.add_breakpoint(address)
    try:
        while True:
            stop = session.cont()
            here = stop.pc == address and stop.reason == "breakpoint"
            if not here or session.reg("x2") >= stack:
                return stop
    finally:
        session.delete_breakpoint(point.number)


@command(
    "restart",
    "run",
    group="motion",
    usage="[BOOKMARK]",
    completes="bookmark",
    library="session.goto('start')",
)
def restart(context: Context, arguments: str) -> Result:
    """Go to the start of the run, or to a bookmark."""
    return goto(context, f"@{arguments.removeprefix('@')}" if arguments else "start")
