"""Commands that ask about the whole run: who wrote, who called, which traps and system calls, what it cost.

The first question of a kind replays the run once with probes; its rows stay in the trace.
"""

from __future__ import annotations

from itertools import islice

from workbench.errors import CommandError
from workbench.kernel.errors import KernelError
from workbench.output import Result, Style, Table, Text
from workbench.query.api import Trace
from workbench.query.command import shown_progress
from workbench.query.origin import Source
from workbench.query.profile import profile as costs
from workbench.query.rows import Row, Rows
from workbench.registers import canonical
from workbench.repl.context import Context
from workbench.repl.library import ASK, Library, call, limited, value_code
from workbench.repl.registry import command
from workbench.replay.errors import EvalError

_HEX: dict[str, Style] = {
    "pc": "hex16",
    "target": "hex16",
    "epc": "hex16",
    "tval": "hex",
    "value": "hex",
    "vaddr": "hex16",
}


def _asking(context: Context) -> Trace:
    """Return the session as one that answers questions, and shows on a terminal how far it is."""
    return Trace.of(context.session).asking(progress=shown_progress())


def _place(context: Context, arguments: str) -> tuple[int, int]:
    """Return address and size of ``ADDRESS [SIZE]``; the size is 8 unless it is given."""
    head, _, tail = arguments.rpartition(" ")
    if head and tail.isdecimal() and 1 <= int(tail) <= 4096:
        return context.number(head), int(tail)
    if not arguments:
        raise CommandError("an address is needed, as in 'last-write jiffies' or 'last-write $sp+8 4'")
    return context.located(arguments) or (context.number(arguments), 8)


def _write(context: Context, row: Row | None, none: str) -> Result:
    if row is None:
        raise CommandError(none)
    size = min(row.size, 8)
    value = row.value & (1 << 8 * size) - 1
    fields = {"position": row.icount, "value": value, "size": row.size}
    if "device" in row.values:
        by = f"the device {row.device} (DMA)"
        fields["device"] = row.device
    else:
        by = context.place(row.pc)
        fields |= {"pc": f"{row.pc:#x}", "symbol": context.session.symbols.format(row.pc)}
    text = f"position {row.icount:_} · {row.size} bytes = {value:#x}{' …' if row.size > 8 else ''} · by {by}"
    return Text(f"{text}\n'goto {row.icount}' goes to right before it", fields)


def _write_code(name: str) -> Library:
    def library(context: Context, arguments: str) -> str:
        address, size = _place(context, arguments)
        shown = value_code(context, arguments) if arguments.isidentifier() else f"{address:#x}"
        return call(f"{ASK}.{name}", shown, str(size))

    return library


@command(
    "last-write",
    group="trace",
    usage="ADDRESS [SIZE]",
    completes="address",
    library=_write_code("last_write"),
)
def last_write(context: Context, arguments: str) -> Result:
    """Tell the last store before the cursor to an address: where, by whom, what.

    The size is 8 bytes unless it is given. Stores through any mapping of the same memory are seen, and what devices
    and the built-in firmware write.

    Example: last-write pool.free
    """
    address, size = _place(context, arguments)
    row = _asking(context).last_write(address, size)
    return _write(context, row, f"nothing writes to {address:#x} before the cursor")


@command(
    "next-write",
    group="trace",
    usage="ADDRESS [SIZE]",
    completes="address",
    library=_write_code("next_write"),
)
def next_write(context: Context, arguments: str) -> Result:
    """Tell the first store from the cursor on to an address: where, by whom, what.

    Example: next-write ticks
    """
    address, size = _place(context, arguments)
    row = _asking(context).next_write(address, size)
    return _write(context, row, f"nothing writes to {address:#x} from the cursor on")


def _of_history(context: Context, arguments: str) -> tuple[str, int | None]:
    """Return the expression, and the size in bytes that may stand behind it."""
    head, _, tail = arguments.rpartition(" ")
    text, size = (head, int(tail)) if head and tail.isdecimal() else (arguments, None)
    if not text:
        raise CommandError(
            "history: a variable is needed, as in 'history jiffies' or 'history init_task.__state'"
        )
    return text, size


def _history_code(context: Context, arguments: str) -> str:
    text, size = _of_history(context, arguments)
    located = context.located(text)
    what, size = (f"{located[0]:#x}", size or located[1]) if located else (repr(text), size)
    return f"list({call(f'{ASK}.history', what, size=size)})"


@command(
    "history",
    group="trace",
    usage="EXPRESSION [SIZE]",
    completes="expression",
    library=_history_code,
)
def history(context: Context, arguments: str) -> Result:
    """List all values of a variable over the run, each with its writer: ``history jiffies``.

    The expression may have the kernel's types, as in ``history init_task.__state``; it means the memory that it names
    at the cursor.

    Example: history ticks
    """
    text, size = _of_history(context, arguments)
    trace = _asking(context)
    located = context.located(text)
    try:
        values = list(trace.history(located[0], size or located[1]) if located else trace.history(text, size))
    except (EvalError, KernelError):
        # what no kernel knows may be an expression of the debugger's
        values = list(trace.history(context.number(text), size))
    except ValueError as error:
        raise CommandError(str(error)) from None
    rows = [(v.icount, v.value, v.task, v.pc, v.symbol) for v in values]
    return Table(("icount", "value", "task", "pc", "writer"), rows, _HEX, empty="Nothing ever writes there.")


def _is_register(name: str) -> bool:
    return name[:1] in ("x", "f") and name[1:].isdecimal() and int(name[1:]) < 32


def _origin_code(context: Context, arguments: str) -> str:
    if _is_register(canonical(arguments.strip())):
        return call(f"{ASK}.origin", repr(arguments.strip()))
    address, size = _place(context, arguments)
    return call(f"{ASK}.origin", f"{address:#x}", str(size))


@command(
    "origin",
    group="trace",
    usage="REGISTER|ADDRESS [SIZE]",
    completes="address",
    library=_origin_code,
)
def origin(context: Context, arguments: str) -> Result:
    """Tell where a value at the cursor came from, back through copies, calculations, loads and stores.

    ``origin a0`` is of a register, ``origin jiffies 4`` of memory, 8 bytes unless a size is given. Each line is what
    gave the one above it its value. The way ends at constants in the code, devices, inputs, and the state that the
    trace begins with; how an address was made and what a branch decided is not part of a value.

    Example: origin a0
    """
    trace = _asking(context)
    name = canonical(arguments.strip())
    if _is_register(name):
        found = trace.origin(name)
    else:
        address, size = _place(context, arguments)
        if size > 8:
            raise CommandError(f"origin: of 1 to 8 bytes, not {size}")
        found = trace.origin(address, size)
    lines = [f"{'  ' * depth}{_source(context, source)}" for depth, source in found.walk()]
    return Text("\n".join(lines), found.record())


def _source(context: Context, source: Source) -> str:
    at = "" if source.icount is None else f" · at {source.icount:_}"
    by = "" if source.pc is None else f" {context.place(source.pc)}"
    return f"{source.what} = {source.value:#x} · {source.kind}{at}{by}" + (
        f": {source.text}" if source.text else ""
    )


def _count(arguments: str, default: int = 20) -> tuple[str, int]:
    """Return the words before a count, and the count that may end them."""
    head, _, tail = arguments.rpartition(" ")
    return (head, int(tail)) if tail.isdecimal() else (arguments, default)


def _table(rows: Rows, columns: tuple[str, ...], limit: int, name: bool = False) -> Table:
    found = [
        [getattr(row, c) for c in columns] + ([row.symbol] if name else []) for row in islice(rows, limit)
    ]
    heads = (*columns, "where") if name else columns
    return Table(heads, found, _HEX, empty="None from the cursor on.")


def _calls_code(context: Context, arguments: str) -> str:
    name, limit = _count(arguments)
    return limited(call(f"{ASK}.calls", repr(name)), limit)


@command("calls", group="trace", usage="FUNCTION [COUNT]", completes="address", library=_calls_code)
def calls(context: Context, arguments: str) -> Result:
    """List calls of a function from the cursor on, 20 or COUNT of them: arguments, result and steps taken.

    Example: calls pool_put 3
    """
    name, limit = _count(arguments)
    if not name:
        raise CommandError("calls: a function is needed; 'sql select … from calls' asks for all of them")
    trace = _asking(context)
    address = trace.symbols.lookup(name)
    rows = trace.calls(context.number(name) if address is None else address).after(trace.cursor)
    columns = ("icount", "pc", "caller", "a0", "a1", "a2", "ret", "steps")
    found = [
        (r.icount, r.pc, trace.symbols.format(r.pc), *(v & (1 << 64) - 1 for v in (r.a0, r.a1, r.a2)), r.ret,
         None if r.ret_icount is None else r.ret_icount - r.icount)
        for r in rows.first(limit)
    ]  # fmt: skip
    return Table(
        columns, found, {**_HEX, "a0": "hex", "a1": "hex", "a2": "hex"}, empty="None from the cursor on."
    )


def _rows_code(table: str) -> Library:
    return lambda _, arguments: limited(f"{ASK}.{table}", _count(arguments)[1])


@command("traps", group="trace", usage="[COUNT]", library=_rows_code("traps"))
def traps(context: Context, arguments: str) -> Result:
    """List exceptions and interrupts from the cursor on, 20 or COUNT of them.

    Example: traps 5
    """
    _, limit = _count(arguments)
    trace = _asking(context)
    columns = ("icount", "hart", "cause", "is_interrupt", "epc", "tval", "from_priv", "ret_icount")
    return _table(trace.traps.after(trace.cursor), columns, limit, name=True)


def _task_and_count(arguments: str) -> tuple[int | None, int]:
    """Return the pid, None for all tasks, and how many rows."""
    words = arguments.split()
    if not all(word.isdecimal() for word in words) or len(words) > 2:
        raise CommandError("syscalls: a pid and a count, both numbers")
    return int(words[0]) if words else None, int(words[1]) if len(words) == 2 else 20


def _syscalls_code(context: Context, arguments: str) -> str:
    pid, limit = _task_and_count(arguments)
    return limited(f"{ASK}.syscalls" + ("" if pid is None else f".where(pid={pid})"), limit)


@command("syscalls", group="trace", usage="[PID] [COUNT]", library=_syscalls_code)
def syscalls(context: Context, arguments: str) -> Result:
    """List system calls from the cursor on, of all tasks or of one: 20 of them, or COUNT.

    Example: syscalls 1 10
    """
    pid, limit = _task_and_count(arguments)
    trace = _asking(context)
    rows = trace.syscalls.after(trace.cursor)
    if pid is not None:
        rows = rows.where(pid=pid)
    return _table(rows, ("icount", "pid", "comm", "name", "args", "ret", "ret_icount"), limit)


@command("switches", group="trace", usage="[COUNT]", library=_rows_code("switches"))
def switches(context: Context, arguments: str) -> Result:
    """List switches between tasks from the cursor on, 20 or COUNT of them.

    Example: switches 5
    """
    _, limit = _count(arguments)
    trace = _asking(context)
    columns = ("icount", "hart", "prev_pid", "prev_comm", "next_pid", "next_comm")
    return _table(trace.switches.after(trace.cursor), columns, limit)


def _stretch(arguments: str) -> tuple[str, str, int]:
    """Return from where, to where, and how many functions."""
    words = arguments.split()
    limit = int(words.pop()) if len(words) in (1, 3) and words[-1].isdecimal() else 20
    if len(words) not in (0, 2):
        raise CommandError("profile: two positions, as in 'profile 10% 20%', and a count")
    low, high = words or ("start", "end")
    return low, high, limit


def _profile_code(context: Context, arguments: str) -> str:
    low, high, limit = _stretch(arguments)
    ends = (call("session.parse_position", repr(text)) for text in (low, high))
    return f"{call('profile', ASK, *ends)}[:{limit}]"


@command("profile", group="trace", usage="[FROM TO] [COUNT]", library=_profile_code)
def profile(context: Context, arguments: str) -> Result:
    """Show which functions a stretch of the run spent its steps in, exactly: 20 of them, or COUNT.

    Without positions it is the whole run, and takes some twenty times as long as replaying it.

    Example: profile 10% 12% 5
    """
    first, last, limit = _stretch(arguments)
    trace = _asking(context)
    low, high = (trace.parse_position(text) for text in (first, last))
    rows = [(c.symbol, c.steps, f"{c.share:.2%}") for c in costs(trace, low, high)[:limit]]
    return Table(("symbol", "steps", "share"), rows)
