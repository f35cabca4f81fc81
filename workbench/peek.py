"""Memory as a debugger wants it: also where the hart itself could not look just now.

A hart in user mode can't read the kernel, one in S mode not the user's pages, and before the page tables are
on, no virtual address means anything. So behind the hart's own view come a walk of its page tables that asks
for no permission, and the kernel's image as it was loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from workbench.errors import exit_code_of
from workbench.kernel.pagetable import GuestMemory

if TYPE_CHECKING:
    from workbench.session import Session

PAGE = 4096
_MASK = (1 << 64) - 1


class Segment(NamedTuple):
    """A part of an image: where it is linked to run, and its bytes."""

    address: int
    data: bytes


class Peek:
    """Reads memory of a session at its cursor.

    Args:
        session: whose machine.

    Replay: outside of it; changes nothing.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._image: list[Segment] | None = None

    def read(self, address: int, size: int, physical: bool = False) -> bytes:
        """Return memory from an address on: as much of ``size`` bytes as there is, nothing where there is none."""
        data = bytearray()
        while len(data) < size and 0 <= address + len(data) <= _MASK:
            at = address + len(data)
            part = self._part(at, min(size - len(data), PAGE - (at & PAGE - 1)), physical)
            if not part:
                break
            data += part
        return bytes(data)

    def word(self, address: int, size: int = 8) -> int | None:
        """Return a little-endian number, or None where it can't be read."""
        data = self.read(address, size)
        return int.from_bytes(data, "little") if len(data) == size else None

    def _part(self, address: int, size: int, physical: bool) -> bytes:
        session = self._session
        if physical:
            return self._physical(address, size)
        found = _or_nothing(session.read_mem, address, size)
        if found:
            return found
        paddr = self.walk(address)
        return self._from_image(address, size) if paddr is None else self._physical(paddr, size)

    def _physical(self, address: int, size: int) -> bytes:
        return _or_nothing(self._session.read_phys, address, size)

    def paddr(self, vaddr: int) -> int | None:
        """Return the physical address behind a virtual one: as the selected hart sees it, or by its page tables."""
        found = self._session.translate(vaddr)
        return self.walk(vaddr) if found is None else found

    def walk(self, vaddr: int) -> int | None:
        """Return the physical address that the selected hart's page tables have for a virtual one, or None."""
        tables = GuestMemory(self._session.board.engine, self._session.reg("satp"))
        return tables.translate(vaddr) if tables.levels else None

    def _from_image(self, address: int, size: int) -> bytes:
        if self._image is None:
            self._image = kernel_segments(self._session)
        for start, data in self._image:
            if start <= address < start + len(data):
                return data[address - start : address - start + size]
        return b""


def kernel_image(session: Session) -> bytes:
    """Return the kernel's image, unpacked; nothing where the trace has none that can be read."""
    from machine.images import unpack

    try:
        data = session.trace.image("kernel")
        return unpack(data, "kernel") if data else b""
    # no image, or one that is damaged: its own errors carry an exit code
    except Exception as error:
        if exit_code_of(error) is None:
            raise
        return b""


def kernel_segments(session: Session) -> list[Segment]:
    """Return the kernel's image in segments, by the addresses at which it is linked to run; none without one."""
    from workbench.kallsyms import LINK_ADDRESS

    data = kernel_image(session)
    if data[:4] == b"\x7fELF":
        return _elf_segments(data)
    return [Segment(LINK_ADDRESS, data)] if data else []


def _elf_segments(data: bytes) -> list[Segment]:
    import io

    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        headers = [segment.header for segment in ELFFile(io.BytesIO(data)).iter_segments("PT_LOAD")]
    except (ELFError, ConstructError, ValueError, KeyError, OverflowError):
        return []
    return [Segment(h["p_vaddr"], data[h["p_offset"] : h["p_offset"] + h["p_filesz"]]) for h in headers]


def _or_nothing(read: Callable[[int, int], bytes], address: int, size: int) -> bytes:
    try:
        return bytes(read(address, size))
    except ValueError:
        return b""
    # the session's own error for an address that is not mapped, or is no RAM, carries an exit code
    except Exception as error:
        if exit_code_of(error) is None:
            raise
        return b""
