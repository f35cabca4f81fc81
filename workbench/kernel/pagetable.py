"""Guest memory by its own page tables, whatever mode a hart is in: Sv39, Sv48, Sv57 or none.

Permissions and the accessed bit do not matter here; nothing is changed. Spec: privileged, 12.3 to 12.5
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .errors import KernelError

PAGE = 4096
#: Levels of page tables by satp's mode.
_LEVELS = {8: 3, 9: 4, 10: 5}
_FLAGS = "VRWXUGAD"
_PPN = (1 << 44) - 1
#: Longest range that ``areas`` lists before it gives up, in entries.
_MAX_AREAS = 100_000
#: And the most page tables that it looks into.
_MAX_TABLES = 8192


class Entry(NamedTuple):
    """A page-table entry: its level (0 is the last), where it lies, and its value."""

    level: int
    paddr: int
    value: int

    @property
    def flags(self) -> str:
        """Return the set flags, as letters."""
        return "".join(c if self.value >> bit & 1 else "-" for bit, c in enumerate(_FLAGS))

    @property
    def leaf(self) -> bool:
        return bool(self.value & 0xE)

    @property
    def target(self) -> int:
        """Return the physical address of the page or table that it points to."""
        return (self.value >> 10 & _PPN) << 12


class Area(NamedTuple):
    """Neighbouring pages with the same flags."""

    start: int
    end: int
    paddr: int
    flags: str


class GuestMemory:
    """Memory of a machine at its present state, by virtual address.

    Args:
        engine: of the machine. satp: the address space.

    Replay: reads the state only. One object is good for one position.
    """

    def __init__(self, engine: Any, satp: int) -> None:
        self._engine = engine
        self.satp = satp
        self.levels = _LEVELS.get(satp >> 60, 0)
        self._root = (satp & _PPN) << 12
        self._pages: dict[int, int] = {}
        self._tables = 0

    def walk(self, vaddr: int) -> list[Entry]:
        """Return the entries that a translation reads, from the root on; the last one may be invalid."""
        out: list[Entry] = []
        table = self._root
        for level in range(self.levels - 1, -1, -1):
            entry = self._entry(level, table, vaddr >> (12 + 9 * level) & 511)
            out.append(entry)
            if not entry.value & 1 or entry.leaf:
                break
            table = entry.target
        return out

    def _entry(self, level: int, table: int, index: int) -> Entry:
        paddr = table + 8 * index
        try:
            value = int.from_bytes(self._engine.read_phys(paddr, 8), "little")
        except (ValueError, OverflowError):
            value = 0
        return Entry(level, paddr, value)

    def translate(self, vaddr: int) -> int | None:
        """Return the physical address, or None where nothing is mapped."""
        if not self.levels:
            return vaddr
        page = vaddr >> 12
        if page not in self._pages:
            entries = self.walk(vaddr)
            last = entries[-1]
            if not (last.value & 1 and last.leaf):
                return None
            low = (1 << (12 + 9 * last.level)) - 1
            self._pages[page] = (last.target & ~low | vaddr & low) & ~(PAGE - 1)
        return self._pages[page] | vaddr & PAGE - 1

    def read(self, vaddr: int, size: int) -> bytes:
        """Return memory. Raises KernelError: not mapped, or not RAM."""
        vaddr &= (1 << 64) - 1
        out = bytearray()
        while len(out) < size:
            at = vaddr + len(out)
            paddr = self.translate(at)
            n = min(size - len(out), PAGE - at % PAGE)
            try:
                if paddr is None:
                    raise ValueError
                out += self._engine.read_phys(paddr, n)
            except (ValueError, OverflowError):
                raise KernelError(f"cannot access memory at address {at:#x}") from None
        return bytes(out)

    def word(self, vaddr: int, size: int = 8) -> int:
        """Return an unsigned number. Raises KernelError."""
        return int.from_bytes(self.read(vaddr, size), "little")

    def text(self, vaddr: int, limit: int = 256) -> str:
        """Return a text that ends in NUL, at most ``limit`` bytes of it. Raises KernelError."""
        out = b""
        while len(out) < limit:
            part = self.read(vaddr + len(out), min(limit - len(out), PAGE - (vaddr + len(out)) % PAGE))
            end = part.find(b"\0")
            if end >= 0:
                return (out + part[:end]).decode("utf-8", "replace")
            out += part
        return out.decode("utf-8", "replace")

    def areas(self, low: int = 0, high: int = 1 << 64) -> Iterator[Area]:
        """Yield what is mapped between two addresses; neighbours that continue each other are one area."""
        last: Area | None = None
        self._tables = 0
        for count, (vaddr, entry) in enumerate(self._leaves(self._root, self.levels - 1, 0, low, high)):
            if count > _MAX_AREAS:
                raise KernelError(f"more than {_MAX_AREAS} mappings; give a smaller range")
            size = 1 << (12 + 9 * entry.level)
            flags = entry.flags[:6]
            if (
                last
                and (last.end, last.flags) == (vaddr, flags)
                and last.paddr + last.end - last.start == entry.target
            ):
                last = last._replace(end=vaddr + size)
                continue
            if last:
                yield last
            last = Area(vaddr, vaddr + size, entry.target, flags)
        if last:
            yield last

    def _leaves(self, table: int, level: int, base: int, low: int, high: int) -> Iterator[tuple[int, Entry]]:
        self._tables += 1
        if self._tables > _MAX_TABLES:
            raise KernelError(f"more than {_MAX_TABLES} page tables; give a smaller range")
        size = 1 << (12 + 9 * level)
        try:
            raw = memoryview(self._engine.read_phys(table, PAGE)).cast("Q")
        except (ValueError, OverflowError):
            return
        for index in range(512):
            if not raw[index] & 1 or (level == 0 and not raw[index] & 0xE):
                continue
            vaddr = base + index * size
            if level == self.levels - 1 and index >= 256:
                vaddr += (1 << 64) - (512 * size)
            if vaddr + size <= low or vaddr >= high:
                continue
            entry = Entry(level, table + 8 * index, raw[index])
            if entry.leaf:
                yield vaddr, entry
            else:
                yield from self._leaves(entry.target, level - 1, vaddr, low, high)
