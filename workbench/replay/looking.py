"""What a session sees at the cursor: registers, memory, symbols, expressions."""

from __future__ import annotations

from workbench.registers import canonical
from workbench.symbols import Symbols

from .errors import EvalError, MemoryAccessError
from .expressions import Evaluator, parse
from .parts import BoardLike

_PAGE = 4096
_MASK = (1 << 64) - 1
#: Most memory that one read returns, in bytes.
_MAX_READ = 64 << 20


class Looking:
    """The state at the cursor, to be read. A part of ``Session``."""

    #: the selected hart
    hart: int = 0

    @property
    def board(self) -> BoardLike:
        """The machine, to be looked at; motions are the session's."""
        raise NotImplementedError

    @property
    def symbols(self) -> Symbols:
        """The kernel's symbols, empty where it has none; more can be added."""
        raise NotImplementedError

    @property
    def cursor(self) -> int:
        """The position."""
        raise NotImplementedError

    def reg(self, name: str, hart: int | None = None) -> int:
        """Return a register of the selected hart (or another) by name. Raises EvalError: there is none."""
        known = canonical(name)
        if known == "x0":
            return 0
        try:
            return int(self.board.engine.get_reg(self.hart if hart is None else hart, known))
        except (ValueError, KeyError):
            raise EvalError(f"no register {name!r}") from None

    def regs(self, hart: int | None = None) -> dict[str, int]:
        """Return all registers of the selected hart, or of another, by name."""
        engine = self.board.engine
        which = self.hart if hart is None else hart
        return {name: engine.get_reg(which, name) for name in engine.reg_names}

    def translate(self, vaddr: int, access: str = "r") -> int | None:
        """Return the physical address behind a virtual one for the selected hart, or None; changes nothing."""
        found: int | None = self.board.engine.translate(self.hart, vaddr & _MASK, access)
        return found

    def read_phys(self, paddr: int, n: int) -> bytes:
        """Return RAM at a physical address. Raises MemoryAccessError: not RAM."""
        if not 0 <= n <= _MAX_READ:
            raise MemoryAccessError(f"{n} bytes are more than one read gives ({_MAX_READ})")
        try:
            return bytes(self.board.engine.read_phys(paddr, n))
        except (ValueError, OverflowError):
            raise MemoryAccessError(f"no RAM at physical address {paddr:#x}") from None

    def read_mem(self, vaddr: int, n: int) -> bytes:
        """Return memory as the selected hart sees it. Raises MemoryAccessError: not mapped, or not RAM."""
        if not 0 <= n <= _MAX_READ:
            raise MemoryAccessError(f"{n} bytes are more than one read gives ({_MAX_READ})")
        out = bytearray()
        while len(out) < n:
            at = (vaddr + len(out)) & _MASK
            paddr = self.translate(at)
            if paddr is None:
                raise MemoryAccessError(f"cannot access memory at address {at:#x}")
            out += self.read_phys(paddr, min(n - len(out), _PAGE - at % _PAGE))
        return bytes(out)

    def eval(self, text: str) -> int:
        """Return the value of an expression, 0 to 2^64-1. Raises EvalError, MemoryAccessError."""
        return Evaluator(self._register, self.read_mem).value(parse(text, self.symbols.lookup))

    def sym(self, name: str) -> int:
        """Return a symbol's address. Raises EvalError: there is none."""
        address = self.symbols.lookup(name)
        if address is None:
            raise EvalError(f"no symbol {name!r}")
        return address

    def _register(self, name: str) -> int:
        if name == "icount":
            return self.cursor
        return self.reg(name)
