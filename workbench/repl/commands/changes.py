"""Commands that change the run: writes, inputs, interrupts. In history they open a branch, live they are recorded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from workbench.errors import CommandError
from workbench.output import Result, Table, Text
from workbench.registers import canonical
from workbench.repl.context import Context
from workbench.repl.library import ASK, call, value_code
from workbench.repl.registry import command, split_word
from workbench.replay.settings import FIXED, SETTINGS

_MEMORY = re.compile(r"(?:\*\s*\(\s*(\w+)\s*\*\s*\)|\{\s*(\w+)\s*\}|\*)\s*(.+)", re.DOTALL)
_SIZES = {"u8": 1, "char": 1, "u16": 2, "short": 2, "u32": 4, "int": 4, "u64": 8, "long": 8}
_MASK = (1 << 64) - 1
#: What ``set`` sets beside registers and memory.
_OTHERS = ("hart", "thread", "substitute-path", "into-traps")


def _set_code(context: Context, arguments: str) -> str:
    place, equals, value = (part.strip() for part in arguments.removeprefix("var ").partition("="))
    word, rest = split_word(arguments)
    if word in SETTINGS and rest and not rest.startswith("="):
        return call("session.configure", repr(word), repr(rest))
    if not equals or not value or split_word(place)[0] in _OTHERS:
        return call(f"{ASK}.cmd", repr(f"set {arguments}"))
    if place.startswith("$"):
        return call("session.write_reg", repr(canonical(place)), value_code(context, value))
    address, size = _target(context, place)
    data = (context.number(value) & (1 << 8 * size) - 1).to_bytes(size, "little")
    return call("session.write_mem", f"{address:#x}", repr(data))


@command(
    "set",
    group="changes",
    usage=f"PLACE = VALUE | {' | '.join(f'{each.name} {each.usage}' for each in SETTINGS.values())} | hart N"
    " | into-traps on|off | substitute-path OLD [NEW]",
    completes="expression",
    library=_set_code,
)
def set_(context: Context, arguments: str) -> Result:
    """Write a register or memory: ``set $a0 = 1``, ``set *(u32 *)jiffies = 7``, ``set {u8}0x80400000 = 0``.

    In a recorded run that opens a branch: a new trace, on which the session goes on from here; the recorded one
    is never changed. In a live recording, at its end, the write is an input like any other.

    ``set quantum STEPS`` and the like branch with another configuration from here on: ``info settings`` lists them.
    ``set hart N`` selects a hart; ``set into-traps on`` has stepping go into the handlers of interrupts and exceptions.
    ``set substitute-path OLD NEW`` looks for sources whose path begins with OLD at NEW; without NEW, no more.

    Example: set $a0 = 1
    """
    text = arguments.removeprefix("var ").strip()
    place, equals, value = text.partition("=")
    place = place.strip()
    word, rest = split_word(text)
    if word in ("hart", "thread"):
        return context.run("hart", rest.removeprefix("=").strip())
    if word in (*SETTINGS, *FIXED) and rest and not rest.startswith("="):
        return _written(context, context.session.configure(word, rest))
    if word == "substitute-path":
        return _substitute(context, rest)
    if word == "into-traps" and rest in ("on", "off"):
        context.into_traps = rest == "on"
        return None
    if not equals or not place or not value.strip():
        raise CommandError(
            "set: a place and a value are needed, as in 'set $a0 = 1' or 'set *(u32 *)ADDRESS = 1'"
        )
    number = context.number(value)
    session = context.session
    if place.startswith("$"):
        return _written(context, session.write_reg(canonical(place), number))
    address, size = _target(context, place)
    return _written(
        context, session.write_mem(address, (number & (1 << 8 * size) - 1).to_bytes(size, "little"))
    )


def _substitute(context: Context, arguments: str) -> Result:
    words = arguments.split()
    if len(words) not in (1, 2):
        raise CommandError("set substitute-path: as in 'set substitute-path /build/linux ~/linux'")
    context.sources.substitute(words[0], words[1] if len(words) == 2 else "")
    return Text(
        "\n".join(f"{old} is looked for at {new}" for old, new in context.sources.substitutions),
        dict(context.sources.substitutions),
    )


def _target(context: Context, place: str) -> tuple[int, int]:
    match = _MEMORY.fullmatch(place)
    if match is not None:
        kind = (match[1] or match[2] or "u64").removesuffix("_t").replace("uint", "u")
        if kind not in _SIZES:
            raise CommandError(f"set: no type {kind!r}; there are {', '.join(_SIZES)}")
        return context.number(match[3]), _SIZES[kind]
    located = context.located(place)
    if located is not None and located[1] in (1, 2, 4, 8):
        return located
    symbol = context.session.symbols.symbol_at(context.number(place))
    size = symbol.size if symbol is not None and symbol.name == place and symbol.size in (1, 2, 4, 8) else 8
    return context.number(place), size


def _written(context: Context, written: Any) -> Text:
    value = {"position": written.icount, "branch": str(written.branch) if written.branch else None}
    return Text(str(written), value)


def _typed(arguments: str) -> bytes:
    """Return what a text stands for, with a line's end behind it."""
    try:
        text = arguments.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise CommandError(f"send: {error.reason} in {arguments!r}") from None
    return text.encode("utf-8", "surrogateescape") + b"\n"


@command("info settings", group="changes", library="session.playback.config")
def info_settings(context: Context, arguments: str) -> Result:
    """List what of the machine's configuration can be another from here on; ``set`` changes it and opens a branch.

    All else is what the machine was made with, and takes a new recording.
    Example: info settings
    """
    config = context.session.playback.config
    rows = [(each.name, each.now(config), each.usage, each.what) for each in SETTINGS.values()]
    rows += [
        (name, "", f"record {option}", "what the machine was made with") for name, option in FIXED.items()
    ]
    return Table(("setting", "now", "values", "what"), rows)


@command(
    "send",
    group="changes",
    usage="TEXT",
    library=lambda _, text: call("session.inject", repr(_typed(text))),
)
def send(context: Context, arguments: str) -> Result:
    """Type a text on the guest's console, with a line's end behind it; in history that opens a branch.

    ``\\n``, ``\\t``, ``\\xHH`` and the like are what Python takes them for.

    Example: send exit
    """
    return _written(context, context.session.inject(_typed(arguments)))


def _drop_code(context: Context, arguments: str) -> str:
    if _is_device(arguments):
        return call("session.drop_source", repr(arguments))
    return call("session.drop_input", str(context.count(arguments)))


def _is_device(text: str) -> bool:
    return bool(text) and not text[0].isdecimal()


@command("drop-input", group="changes", usage="NUMBER|DEVICE", library=_drop_code)
def drop_input(context: Context, arguments: str) -> Result:
    """Branch where an input came, and go on without it; ``info inputs`` has the numbers.

    With a device's name, branch here, and it gets no more inputs: after ``drop-input uart0`` nobody types.
    Example: drop-input 1
    """
    if _is_device(arguments):
        return _written(context, context.session.drop_source(arguments))
    return _written(context, context.session.drop_input(_number(context, arguments, "drop-input")))


def _delay(context: Context, arguments: str) -> tuple[int, int]:
    """Return the number of an input, and the steps by which it is late."""
    number, steps = split_word(arguments)
    if not steps:
        raise CommandError("delay-input: an input's number and steps are needed, as in 'delay-input 3 500'")
    return _number(context, number, "delay-input"), context.count(steps)


def _delay_code(context: Context, arguments: str) -> str:
    return call("session.delay_input", *map(str, _delay(context, arguments)))


@command("delay-input", group="changes", usage="NUMBER STEPS", library=_delay_code)
def delay_input(context: Context, arguments: str) -> Result:
    """Branch where an input came, and have it come so many steps later.

    Example: delay-input 1 500
    """
    return _written(context, context.session.delay_input(*_delay(context, arguments)))


def _late(context: Context, arguments: str) -> int | None:
    """Return by how many steps an interrupt is late, None for one that never comes."""
    if not arguments:
        raise CommandError("delay-interrupt: steps are needed, as in 'delay-interrupt 500', or 'never'")
    return None if arguments == "never" else context.count(arguments)


@command(
    "delay-interrupt",
    group="changes",
    usage="STEPS|never",
    library=lambda context, text: call("session.delay_interrupt", repr(_late(context, text))),
)
def delay_interrupt(context: Context, arguments: str) -> Result:
    """Branch before the timer interrupt that is taken next here, and have it come later, or never.

    ``catch interrupt`` and ``rc`` lead to such a place.

    Example: delay-interrupt 500
    """
    return _written(context, context.session.delay_interrupt(_late(context, arguments)))


@command(
    "branch",
    "branches",
    "info branches",
    group="changes",
    usage="[list|diff [FILE]|FILE|parent]",
    touches_host=True,
    library=lambda _, text: (
        "branches(session.trace)" if text in ("", "list") else call(f"{ASK}.cmd", repr(f"branch {text}"))
    ),
)
def branch(context: Context, arguments: str) -> Result:
    """List the branches of this trace; go over to one by its file's name, or back to the ``parent``.

    ``branch diff FILE`` finds where a branch parts from this run, ``branch diff`` where this one parts from its parent.

    Example: branch
    """
    from workbench.replay.branches import branches

    trace = context.session.trace
    word, rest = split_word(arguments)
    if word == "diff":
        if not rest and "parent_path" not in trace.meta:
            raise CommandError(
                f"{Path(trace.path).name} is no branch; 'branch diff FILE' compares it with one"
            )
        return diff(context, rest or Path(trace.meta["parent_path"]).name)
    if arguments in ("", "list"):
        rows = [(row.path.name, row.icount, row.final_icount, row.note) for row in branches(trace)]
        return Table(("branch", "leaves at", "ends at", "changed"), rows, empty="No branches.")
    name = trace.meta.get("parent_path", "") if arguments == "parent" else arguments
    if not name:
        raise CommandError(f"{trace.path.name} is no branch")
    # a branch's parent is named without its folder: they lie side by side
    return context.run("open", str(Path(trace.path).parent / Path(name).name))


def _number(context: Context, text: str, name: str) -> int:
    if not text:
        raise CommandError(f"{name}: an input's number is needed; 'info inputs' lists them")
    return context.count(text)


def _beside(context: Context, arguments: str) -> Path:
    """Return the file of another trace, which is looked for beside this one, too."""
    if not arguments:
        raise CommandError("diff: another trace is needed; 'branch' lists this one's branches")
    other = Path(arguments).expanduser()
    return (
        other
        if other.exists() or other.name != arguments
        else Path(context.session.trace.path).parent / other
    )


def _diff_code(context: Context, arguments: str) -> str:
    other = str(_beside(context, arguments))
    return f"compare(Session.open(session.trace.path), Session.open({other!r}))"


@command("diff", group="changes", usage="TRACE", completes="file", touches_host=True, library=_diff_code)
def diff(context: Context, arguments: str) -> Result:
    """Find where another run of the same configuration, such as a branch, parts from this one.

    A name without a folder is looked for beside this trace, too.

    Example: diff other.trace
    """
    from workbench.replay.comparing import compare
    from workbench.session import Session

    here, other = Path(context.session.trace.path), _beside(context, arguments)
    with Session.open(here) as mine, Session.open(other) as theirs:
        found = compare(mine, theirs)
    value = {"start": found.start, "end": found.end, "state": found.state, "path": found.path}
    if found.state is None and found.path is None:
        return Text(f"The same run over positions {found.start:_} to {found.end:_}.", value)
    lines = []
    if found.state is not None:
        lines.append(f"The states differ from position {found.state:_} on.")
    if found.path is None:
        lines.append(f"The steps are the same up to {found.end:_}.")
    else:
        lines.append(f"The runs part at position {found.path:_}; 'goto {found.path}' goes there.")
    for name, side in zip((here.name, other.name), found.sides or (), strict=False):
        lines.append(f"{name}: {side.does}")
    return Text("\n".join(lines), value)
