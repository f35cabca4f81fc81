"""A Linux kernel at one position: where it lies, its symbols and types, its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from workbench.symbols import Symbol, Symbols

from .btf import MAGIC, Btf
from .errors import KernelError
from .modules import Module, module_symbols, modules
from .pagetable import GuestMemory

_MAX_TASKS: Final = 100_000
_MAX_BTF: Final = 64 << 20
_STATES: Final = {0: "R", 1: "S", 2: "D", 4: "T", 8: "t", 0x10: "X", 0x20: "Z", 0x40: "P", 0x80: "I"}
_NOLOAD: Final = 0x402


@dataclass(frozen=True, slots=True)
class Task:
    """A task: its pid (of the thread), the process it is of, its parent's pid, and where its task_struct lies."""

    address: int
    pid: int
    tgid: int
    parent: int
    comm: str
    state: str
    kernel: bool


class Kernel:
    """A Linux kernel in the memory of a machine, at the machine's present state.

    Args:
        engine: of the machine. symbols: the kernel's.
        types: gives the kernel's types, if they are known already from another position.

    Replay: reads the state only. One object is good for one position.
    """

    def __init__(self, engine: Any, symbols: Symbols, types: Callable[[Kernel], Btf] | None = None) -> None:
        self.engine = engine
        self.symbols = symbols
        self._types = types

    @cached_property
    def memory(self) -> GuestMemory:
        """Return memory by the address space of the first hart that has one: the kernel's half is all the same."""
        for hart in range(self.engine.harts):
            satp = self.engine.get_reg(hart, "satp")
            if satp >> 60:
                return GuestMemory(self.engine, satp)
        raise KernelError("the kernel has no page tables yet; go to a later position")

    @cached_property
    def types(self) -> Btf:
        """Return the kernel's types, from its BTF. Raises KernelError: it carries none."""
        return self._types(self) if self._types is not None else Btf(self.btf_bytes())

    def btf_bytes(self) -> bytes:
        """Return the BTF as it lies in memory. Raises KernelError: there is none."""
        start, end = self.symbols.lookup("__start_BTF"), self.symbols.lookup("__stop_BTF")
        if start is None:
            raise KernelError("the kernel carries no BTF (CONFIG_DEBUG_INFO_BTF)")
        head = self.memory.read(start, 24)
        if int.from_bytes(head[:2], "little") != MAGIC:
            raise KernelError(f"no BTF at {start:#x}")
        size = 24 + max(
            sum(int.from_bytes(head[i + j : i + j + 4], "little") for j in (0, 4)) for i in (8, 16)
        )
        if (end is not None and start + size > end) or size > _MAX_BTF:
            raise KernelError("the BTF in memory is longer than its place")
        return self.memory.read(start, size)

    def symbol(self, name: str) -> int:
        """Return a symbol's address. Raises KernelError."""
        found = self.symbols.lookup(name)
        if found is None:
            raise KernelError(f"the kernel has no symbol {name!r}")
        return found

    def field(self, address: int, struct_name: str, path: str, size: int = 8) -> int:
        """Return a member's value as an unsigned number. Raises KernelError."""
        return self.memory.word(address + self.types.offset(struct_name, path), size)

    # tasks

    def current(self, hart: int) -> int:
        """Return the task_struct of the task that a hart runs."""
        scratch = int(self.engine.get_reg(hart, "sscratch"))
        return scratch or int(self.engine.get_reg(hart, "x4"))

    def task(self, address: int) -> Task:
        """Return a task by its task_struct. Raises KernelError: there is none."""
        pid, tgid = (self.field(address, "task_struct", name, 4) for name in ("pid", "tgid"))
        parent = self.field(address, "task_struct", "real_parent")
        state = self.field(address, "task_struct", "__state", 4)
        exit_state = self.field(address, "task_struct", "exit_state", 4)
        return Task(
            address,
            pid,
            tgid,
            self.field(parent, "task_struct", "pid", 4) if parent else 0,
            self.memory.text(address + self.types.offset("task_struct", "comm"), 16),
            _state(exit_state or state),
            self.field(address, "task_struct", "mm") == 0,
        )

    def tasks(self) -> Iterator[Task]:
        """Yield all tasks, threads too, in the order of the kernel's list; the idle task first."""
        init = self.symbol("init_task")
        types = self.types
        next_at = types.offset("task_struct", "tasks")
        node_at = types.offset("task_struct", "thread_node")
        head_at = types.offset("signal_struct", "thread_head")
        leader, seen = init, 0
        while True:
            yield self.task(leader)
            head = self.field(leader, "task_struct", "signal") + head_at
            node = self.memory.word(head)
            while node not in (head, 0) and seen < _MAX_TASKS:
                if node - node_at != leader:
                    yield self.task(node - node_at)
                node = self.memory.word(node)
                seen += 1
            leader = self.memory.word(leader + next_at) - next_at
            seen += 1
            if leader == init:
                return
            if seen > _MAX_TASKS:
                raise KernelError("the list of tasks has no end")

    def find_task(self, pid: int) -> Task:
        """Return a task by pid. Raises KernelError."""
        for task in self.tasks():
            if task.pid == pid:
                return task
        raise KernelError(f"no task has the pid {pid}")

    # modules

    def modules(self) -> Iterator[Module]:
        """Yield loaded modules, the youngest first. Raises KernelError."""
        return modules(self)

    def module_symbols(self) -> list[Symbol]:
        """Return the symbols of the loaded modules. Raises KernelError."""
        return [symbol for module in modules(self) for symbol in module_symbols(self, module)]


def _state(value: int) -> str:
    if value & _NOLOAD == _NOLOAD:
        return "I"
    return next((letter for bit, letter in _STATES.items() if bit and value & bit), "R")
