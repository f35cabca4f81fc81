"""Commands that look at the guest's Linux kernel at the cursor."""

from __future__ import annotations

from workbench.errors import CommandError
from workbench.kernel.cexpr import evaluate
from workbench.kernel.dmesg import messages
from workbench.kernel.mounts import mounts as mounts_of
from workbench.kernel.pagetable import GuestMemory
from workbench.output import Result, Style, Table, Text
from workbench.query.api import Trace
from workbench.repl.context import Context
from workbench.repl.library import HERE, call, value_code
from workbench.repl.registry import command

_HEX: dict[str, Style] = {
    "task": "hex16",
    "address": "hex16",
    "entry": "hex16",
    "at": "hex16",
    "paddr": "hex",
}
_MAX_AREAS = 2000


def _dmesg_code(context: Context, arguments: str) -> str:
    lines = f".splitlines()[-{context.count(arguments)}:]" if arguments else ""
    return f"{HERE}.dmesg(){lines}"


@command("dmesg", group="state", usage="[LINES]", library=_dmesg_code)
def dmesg(context: Context, arguments: str) -> Result:
    """Show the kernel's log as its memory has it at the cursor: all of it, or the last LINES messages.

    What the kernel has logged but not yet printed is there too.

    Example: dmesg 10
    """
    found = list(messages(Trace.of(context.session).kernel))
    if arguments:
        found = found[-context.count(arguments) :]
    value = [{"seq": m.seq, "ts_ns": m.ts_ns, "level": m.level, "text": m.text} for m in found]
    return Text("\n".join(str(m) for m in found), value, kind="console")


def _ps_code(context: Context, arguments: str) -> str:
    return f"[task for task in {HERE}.ps() if {arguments!r} in task.comm]" if arguments else f"{HERE}.ps()"


@command("ps", group="state", usage="[NAME]", library=_ps_code)
def ps(context: Context, arguments: str) -> Result:
    """List the kernel's tasks at the cursor; those that harts run have a star. With a NAME: those that contain it.

    Example: ps init
    """
    session = context.session
    kernel = Trace.of(session).kernel
    running = {kernel.current(hart) for hart in range(session.harts)}
    rows = [
        (
            "*" if t.address in running else "",
            t.pid,
            t.tgid,
            t.parent,
            t.state,
            f"[{t.comm}]" if t.kernel else t.comm,
            t.address,
        )
        for t in kernel.tasks()
        if arguments in t.comm
    ]
    return Table(("", "pid", "tgid", "ppid", "state", "name", "task"), rows, _HEX, empty="No such task.")


@command("lsmod", group="state", usage="[symbols]", library=f"list({HERE}.kernel.modules())")
def lsmod(context: Context, arguments: str) -> Result:
    """List the kernel's modules at the cursor, the youngest first.

    ``lsmod symbols`` takes their symbols, from the tables that the kernel keeps of them: then breakpoints, backtraces
    and ``sym()`` know the functions of the modules that are loaded, at every position. ``symbol-file`` takes a module's
    file, ``NAME.ko.debug``, or a folder of them: then source lines and variables are known too.
    Example: lsmod
    """
    kernel = Trace.of(context.session).kernel
    found = list(kernel.modules())
    if arguments not in ("", "symbols"):
        raise CommandError(f"lsmod: {arguments[:40]!r}: expected nothing, or 'symbols'")
    known = context.session.modules if arguments or context.session.knows_modules else None
    rows: list[tuple[object, ...]] = [(module.name, module.base, module.size) for module in found]
    columns: tuple[str, ...] = ("module", "address", "bytes")
    if known is not None and known.files:
        columns += ("debug information",)
        told: list[object] = [
            known.problems.get(module.name) or known.files.get(module.name, "") for module in found
        ]
        rows = [(*row, str(why)) for row, why in zip(rows, told, strict=True)]
    return Table(columns, rows, _HEX, empty="No modules are loaded.")


@command("mounts", group="state", usage="[PID]", library=HERE + ".mounts({count})")
def mounts(context: Context, arguments: str) -> Result:
    """List the file systems that process 1 sees mounted at the cursor, or those that the task PID sees.

    Example: mounts
    """
    kernel = Trace.of(context.session).kernel
    task = kernel.find_task(context.count(arguments, 1))
    rows = [(m.device, m.path, m.type, m.address) for m in mounts_of(kernel, task.address)]
    return Table(("device", "path", "type", "address"), rows, _HEX)


@command(
    *("ptype-print", "kp"),
    group="state",
    usage="EXPRESSION",
    completes="expression",
    library=HERE + ".p({text})",
)
def kernel_print(context: Context, arguments: str) -> Result:
    """Evaluate an expression with the kernel's types: ``kp task->comm``, ``kp *(struct module *)0xffff…``.

    ``task`` is the selected hart's current task. Types come from the BTF that the kernel carries.

    Example: kp task->comm
    """
    if not arguments:
        raise CommandError("kp: an expression is needed, as in 'kp task->comm'")
    session = context.session
    kernel = Trace.of(session).kernel
    value = evaluate(kernel, arguments, kernel.current(session.hart))
    return Text(f"= {value.show()}", value.python())


#: The page tables of the selected hart.
_TABLES = "GuestMemory(session.board.engine, session.reg('satp'))"


@command(
    "pt",
    group="state",
    usage="ADDRESS",
    completes="address",
    library=lambda context, text: f"list({call(_TABLES + '.walk', value_code(context, text or '$pc'))})",
)
def pt(context: Context, arguments: str) -> Result:
    """Walk the page tables of the selected hart for an address; show every entry on the way.

    Example: pt $pc
    """
    session = context.session
    address = context.number(arguments or "$pc")
    memory = GuestMemory(session.board.engine, session.reg("satp"))
    if not memory.levels:
        raise CommandError("no page tables are in use: satp is 0")
    rows = [
        (entry.level, entry.paddr, entry.value, entry.flags, entry.target if entry.value & 1 else None)
        for entry in memory.walk(address)
    ]
    return Table(("level", "at", "entry", "flags", "paddr"), rows, _HEX)


#: Where user memory and the kernel's lie.
_HALVES = {"user": (0, 1 << 63), "kernel": (1 << 63, 1 << 64), "": (0, 1 << 64)}


def _half(text: str) -> tuple[int, int]:
    if text not in _HALVES:
        raise CommandError(f"vmmap: {text!r} is neither user nor kernel")
    return _HALVES[text]


@command(
    "vmmap",
    group="state",
    usage="[user|kernel]",
    library=lambda _, text: f"list({call(_TABLES + '.areas', *(f'{end:#x}' for end in _half(text)))})",
)
def vmmap(context: Context, arguments: str) -> Result:
    """List what the selected hart's page tables map: user memory, the kernel's, or both.

    Example: vmmap kernel
    """
    session = context.session
    memory = GuestMemory(session.board.engine, session.reg("satp"))
    if not memory.levels:
        raise CommandError("no page tables are in use: satp is 0")
    low, high = _half(arguments)
    rows: list[tuple[object, ...]] = []
    for area in memory.areas(low, high):
        if len(rows) >= _MAX_AREAS:
            raise CommandError(f"more than {_MAX_AREAS} areas: 'vmmap user' or 'vmmap kernel' has fewer")
        rows.append(
            (
                f"{area.start:#018x}",
                f"{area.end - 1:#018x}",
                (area.end - area.start) >> 10,
                area.flags,
                area.paddr,
            )
        )
    return Table(("from", "to", "KiB", "flags", "paddr"), rows, _HEX, empty="Nothing is mapped.")
