"""The trace as a Python library: everything a session does, and every question about the run.

from workbench import Trace
with Trace.open("boot.trace") as t:
    for w in t.mem.writes(t.sym("jiffies"), size=8).last(5): print(w.icount, w.symbol)
    print(t.at("50%").dmesg())
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from traces.lazy import Want
from traces.queries.base import NEVER
from traces.queries.memory import want_mem
from traces.queries.tasks import want_calls
from workbench.kernel.errors import KernelError
from workbench.kernel.linux import Kernel, Task
from workbench.kernel.mounts import Mount
from workbench.kernel.symbols import pack, symbols_in_memory, unpack
from workbench.output import Result
from workbench.registers import canonical
from workbench.replay.errors import EvalError, MemoryAccessError
from workbench.replay.parts import BoardFactory, build_board
from workbench.session import Session
from workbench.symbols import Symbols

from .fill import Filler, Progress
from .history import Value, history
from .origin import MAX_NODES, Source
from .origin import of_memory as origin_of_memory
from .origin import of_register as origin_of_register
from .pushdown import Args
from .rows import Row, Rows
from .sql import Sql

_PAGE = 4096


class Memory:
    """Accesses to memory by instructions: ``writes`` and ``reads`` of an address; not those of devices and firmware."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def writes(self, address: int, size: int = 8) -> Rows:
        """Return the stores that touch ``size`` bytes at a virtual address, by whatever mapping if it has one now."""
        return self._accesses("w", address, size)

    def reads(self, address: int, size: int = 8) -> Rows:
        """Return the loads that touch ``size`` bytes at a virtual address."""
        return self._accesses("r", address, size)

    def _accesses(self, op: str, address: int, size: int) -> Rows:
        trace, address = self._trace, address & NEVER
        paddr = trace.physical(address)
        if paddr is None or address % _PAGE + size > _PAGE:
            return Rows(trace, want_mem(op, vaddr=(address, address + size - 1)))
        return Rows(trace, want_mem(op, paddr=(paddr, paddr + size - 1)))


class Trace(Session):
    """A session that answers questions. Rows that were found out are kept in the trace, or beside it."""

    _progress: Progress | None = None
    _jobs: int | None = None
    _searched = False
    _asker: Sql | None = None
    _shell: Any = None

    @classmethod
    def open(cls, path: str | Path, backend: str = "jit", board_factory: BoardFactory = build_board) -> Trace:
        """Open a trace at its start; as ``Session.open``."""
        return cls.of(super().open(path, backend, board_factory))

    @classmethod
    def of(cls, session: Session) -> Trace:
        """Return a session as one that answers questions: the same machine, cursor and breakpoints."""
        if isinstance(session, cls):
            return session
        view = cls.__new__(cls)
        view.__dict__ = session.__dict__
        return view

    def asking(self, *, jobs: int | None = None, progress: Progress | None = None) -> Trace:
        """Set how questions are answered: by how many processes (None: as many as pay), and who is told how far."""
        self._jobs, self._progress = jobs, progress
        if self._asker is not None:
            self.filler.jobs, self.filler.progress = jobs, progress
        return self

    @property
    def filler(self) -> Filler:
        """The lazy tables: of the trace that the session has now, as a branch has one of its own."""
        return self.asker.filler

    @property
    def asker(self) -> Sql:
        """SQL over recorded and lazy tables."""
        if self._asker is None or self._asker.filler.trace is not self.trace:
            self._forget()
            filler = Filler.of(self, jobs=self._jobs, progress=self._progress)
            self._asker = Sql(filler, lambda: self.board.engine, lambda: self.lines)
        return self._asker

    def _forget(self) -> None:
        if self._asker is not None:
            self._asker.filler.close()
            self._asker = None

    def __enter__(self) -> Trace:
        return self

    @property
    def symbols(self) -> Symbols:
        """The kernel's symbols: of its files, else as they are found in the guest's memory at the cursor."""
        found = super().symbols
        if not len(found) and not self.__dict__.get("_searched"):
            self._searched = True
            kept = self.filler.store.get_cache("kallsyms")
            if kept is not None:
                found.add(unpack(kept))
            elif in_memory := symbols_in_memory(self.board.engine):
                found.add(in_memory)
                self.filler.store.put_cache("kallsyms", pack(found))
            else:
                self._searched = False  # not unpacked yet: a later position may have them
        return found

    def close(self) -> None:
        """Free the machine and the files."""
        self._forget()
        super().close()

    # rows

    @property
    def mem(self) -> Memory:
        """Accesses to memory."""
        return Memory(self)

    def calls(self, function: str | int | None = None) -> Rows:
        """Return calls: of a function by name or address, or all. Raises EvalError: no such symbol."""
        address = self.sym(function) if isinstance(function, str) else function
        return Rows(self, want_calls(address))

    @property
    def traps(self) -> Rows:
        """Exceptions and interrupts."""
        return Rows(self, Want("traps", follows=True))

    @property
    def syscalls(self) -> Rows:
        """System calls."""
        return Rows(self, Want("syscalls", follows=True))

    @property
    def switches(self) -> Rows:
        """Switches between tasks."""
        return Rows(self, Want("switches"))

    @property
    def mmio(self) -> Rows:
        """Accesses to devices."""
        return Rows(self, Want("mmio"))

    @property
    def csr(self) -> Rows:
        """CSR writes."""
        return Rows(self, Want("csr"))

    @property
    def insns(self) -> Rows:
        """Instructions; bound them with ``between``."""
        return Rows(self, Want("insns"))

    @property
    def dma(self) -> Rows:
        """Writes to memory by devices and the built-in firmware."""
        return Rows(self, Want("dma"))

    def sql(self, text: str, params: Args = ()) -> list[dict[str, Any]]:
        """Run SQL over recorded and lazy tables; returns rows by column. Raises TraceError, QueryRefused."""
        columns, rows = self.asker.run(text, params)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    # the machine

    def sym(self, name: str) -> int:
        """Return a symbol's address. Raises EvalError: there is none."""
        address = self.symbols.lookup(name)
        if address is None:
            raise EvalError(f"no symbol {name!r}")
        return address

    def at(self, position: int | str) -> Moment:
        """Go to a position and return what can be seen there; it stays true as long as the cursor stays."""
        self.goto(position)
        return Moment(self)

    @property
    def kernel(self) -> Kernel:
        """The guest's Linux kernel at the cursor."""
        return Kernel(self.board.engine, self.symbols, self.filler.types)

    def physical(self, address: int) -> int | None:
        """Return the physical address behind a virtual one at the cursor, whatever mode the hart is in; or None.

        An address of the kernel's half that is not mapped yet is looked up as it is at the end of the run: so questions
        asked at its start mean the same memory as those asked later.
        """
        found = self._mapped(address)
        cursor = self.cursor
        if found is None and address >> 63 and not self.live and cursor < self.end:
            try:
                self.goto(self.end)
                found = self._mapped(address)
            finally:
                self.goto(cursor)
        return found

    def _mapped(self, address: int) -> int | None:
        try:
            found = self.kernel.memory.translate(address)
        except KernelError:
            found = self.translate(address)
        if found is None:
            return None
        try:
            self.read_phys(found, 1)
        except MemoryAccessError:
            return None
        return found

    def last_write(self, address: int, size: int = 8) -> Row | None:
        """Return the last write before the cursor to an address, or None: a row of ``mem``, or of ``dma``.

        A row of ``dma`` has a ``device`` and no ``pc``.
        """
        stored: Row | None = self.mem.writes(address, size).before(self.cursor).last()
        device: Row | None = self.device_writes(address, size).before(self.cursor).last()
        if stored is None or device is None:
            return stored or device
        # a device that writes at a step's position does so before the step, or during its access to the device
        return device if device.icount > stored.icount else stored

    def next_write(self, address: int, size: int = 8) -> Row | None:
        """Return the first write from the cursor on to an address, or None; as ``last_write``."""
        stored: Row | None = self.mem.writes(address, size).after(self.cursor).first()
        device: Row | None = self.device_writes(address, size).after(self.cursor).first()
        if stored is None or device is None:
            return stored or device
        return device if device.icount <= stored.icount else stored

    def device_writes(self, address: int, size: int = 8) -> Rows:
        """Return the writes by devices that touch ``size`` bytes at a virtual address, as it is mapped now."""
        paddr = self.physical(address & NEVER)
        if paddr is None:
            return self.dma.where("0")
        return self.dma.where("paddr < ? AND paddr + size > ?", paddr + size, paddr)

    def history(self, what: str | int, size: int | None = None) -> Iterator[Value]:
        """Yield all values of a variable over the run, each with its writer, task and stack.

        Args:
            what: an address; a symbol; or an expression with the kernel's types, as ``init_task.__state``, whose
                place in memory is that which it has at the cursor.
            size: bytes, 1 to 4096; None for those of its type, 8 where no type is known.

        Raises:
            EvalError: no such symbol. KernelError: the expression can't be evaluated. ValueError: no such size.

        The bytes are followed write by write, by devices too, so a store to a part of them gives the whole value.
        """
        return history(self, what, size)

    def cmd(self, line: str) -> Result:
        """Run a command of the REPL and return its result, which a notebook shows as a table.

        Raises:
            CommandError: and whatever error the command met.
        """
        from workbench.repl.shell import Shell

        if self._shell is None:
            self._shell = Shell(self)
        shell: Shell = self._shell
        return shell.execute(line)

    def origin(self, what: str | int, size: int = 8, limit: int = MAX_NODES) -> Source:
        """Return where a value at the cursor came from: of a register by name, or of ``size`` bytes at an address.

        It is followed back through copies, calculations, loads and stores to constants, devices, inputs, or the state
        that the trace begins with; address calculations and conditions of branches are not part of a value.

        Args:
            what: ``a0``, ``x10``, ``ft0``; or a virtual address. size: 1 to 8 bytes within a page.
            limit: how many places are followed, 1 to 10,000.

        Raises:
            ValueError: no such register, size or limit. MemoryAccessError: nothing is mapped there.
        """
        if isinstance(what, str):
            return origin_of_register(self, canonical(what), limit)
        address = what & NEVER
        paddr = self.physical(address)
        if paddr is None or address % _PAGE + size > _PAGE:
            raise MemoryAccessError(f"cannot access {size} bytes of RAM in one page at {address:#x}")
        return origin_of_memory(self, paddr, size, limit)


class Moment:
    """What can be seen at a position. Made by ``Trace.at``."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.icount = trace.cursor
        self.kernel = trace.kernel

    def dmesg(self) -> str:
        """Return the kernel's log. Raises KernelError."""
        from workbench.kernel.dmesg import dmesg

        return dmesg(self.kernel)

    def ps(self) -> list[Task]:
        """Return the tasks. Raises KernelError."""
        return list(self.kernel.tasks())

    def drgn(self) -> Any:
        """Return a ``drgn.Program`` on the kernel as it is here (an extra). Raises MissingToolError, KernelError."""
        from workbench.kernel.drgnview import program

        return program(self.kernel)

    def mounts(self, pid: int = 1) -> list[Mount]:
        """Return the file systems that a task sees mounted. Raises KernelError."""
        from workbench.kernel.mounts import mounts

        return list(mounts(self.kernel, self.kernel.find_task(pid).address))

    @property
    def task(self) -> Task:
        """The task that the selected hart runs. Raises KernelError."""
        return self.kernel.task(self.kernel.current(self.trace.hart))

    def bt(self) -> list[str]:
        """Return where the selected hart is, and the calls that led there."""
        from workbench.unwind import backtrace

        return [f.symbol(self.trace.symbols) or f"{f.pc:#x}" for f in backtrace(self.trace)]

    def reg(self, name: str) -> int:
        """Return a register of the selected hart."""
        return self.trace.reg(name)

    def p(self, expression: str) -> Any:
        """Return the value of a typed expression: ``init_task.comm``, ``task->mm``. Raises KernelError."""
        from workbench.kernel.cexpr import evaluate

        return evaluate(self.kernel, expression, self.kernel.current(self.trace.hart)).python()
