"""Memory and code: ``readMemory writeMemory disassemble``."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from workbench.dap.link import MAX_ITEMS, Link, Meaning, address_of
from workbench.dap.protocol import Arguments, BadRequest
from workbench.disasm import Disassembler, Instruction
from workbench.peek import Peek

MAX_BYTES: Final = 1 << 20
_MAX_SYMBOL: Final = 1 << 16
_NO_CODE_BYTES: Final = 2


class Memory:
    """Guest memory at the cursor.

    Args:
        link: the client.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def requests(self) -> dict[str, Meaning]:
        """Return the meanings by the request's command."""
        return {"readMemory": self.read, "writeMemory": self.write, "disassemble": self.disassemble}

    def read(self, arguments: Arguments) -> dict[str, Any]:
        """Bytes in base64: as many as can be read, at most MAX_BYTES."""
        address = self._address(arguments, "offset")
        count = min(arguments.number("count"), MAX_BYTES)
        data = Peek(self._link.session).read(address, count)
        body: dict[str, Any] = {"address": f"{address:#x}", "data": base64.b64encode(data).decode()}
        if len(data) < count:
            body["unreadableBytes"] = count - len(data)
        return body

    def write(self, arguments: Arguments) -> dict[str, Any]:
        """Write bytes: in history that opens a branch."""
        address = self._address(arguments, "offset")
        try:
            data = base64.b64decode(arguments.text("data"), validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest("data: base64 was expected") from None
        if len(data) > MAX_BYTES:
            raise BadRequest(f"data: at most {MAX_BYTES} bytes")
        link = self._link
        if data:
            link.tell(str(link.session.write_mem(address, data)))
            link.changed()
        return {"bytesWritten": len(data)}

    def disassemble(self, arguments: Arguments) -> dict[str, Any]:
        """Exactly as many instructions as asked for; where there are none, they are marked as invalid."""
        address = self._address(arguments, "offset")
        count = arguments.number("instructionCount", high=MAX_ITEMS)
        offset = arguments.number("instructionOffset", 0, low=-MAX_ITEMS, high=MAX_ITEMS)
        engine = self._link.session.board.engine
        decoder = Disassembler(engine.disasm)
        peek = Peek(self._link.session)
        found = self._before(decoder, peek, address, -offset) if offset < 0 else []
        wanted = count if offset < 0 else count + offset
        if len(found) < wanted:
            code = peek.read(address, 4 * (wanted - len(found)))
            found += list(decoder.listing(code, address, wanted - len(found)))
        found = found[max(offset, 0) :][:count]
        out = [self._shown(entry) for entry in found]
        last = found[-1].address + len(found[-1].code) if found else address
        out += [_invalid(last + _NO_CODE_BYTES * i) for i in range(count - len(out))]
        return {"instructions": out}

    def _before(self, decoder: Disassembler, peek: Peek, address: int, count: int) -> list[Any]:
        """Return exactly ``count`` instructions before an address: listed from where functions begin."""
        symbols, end = self._link.session.symbols, address
        found: list[Any] = []
        while len(found) < count:
            symbol = symbols.symbol_at(end - 1)
            if symbol is None or not 0 < end - symbol.address <= _MAX_SYMBOL:
                break
            size = end - symbol.address
            part = list(decoder.listing(peek.read(symbol.address, size), symbol.address, size))
            if not part:
                break
            found, end = part + found, symbol.address
        found = found[-count:]
        first = found[0].address if found else address
        missing = count - len(found)
        at = [max(first - _NO_CODE_BYTES * (missing - i), 0) for i in range(missing)]
        return [Instruction(place, b"", "??") for place in at] + found

    def _shown(self, entry: Any) -> dict[str, Any]:
        if not entry.code:
            return _invalid(entry.address)
        link = self._link
        body: dict[str, Any] = {
            "address": f"{entry.address:#x}",
            "instructionBytes": entry.code.hex(" "),
            "instruction": entry.text,
        }
        symbol = link.session.symbols.format(entry.address)
        if symbol:
            body["symbol"] = symbol
        line = link.session.lines.at(entry.address)
        if line is not None:
            body |= {"location": link.source(line.file), "line": link.line_out(line.line)}
        return body

    def _address(self, arguments: Arguments, offset: str) -> int:
        more = arguments.number(offset, 0, low=-(1 << 53))
        return address_of(arguments.text("memoryReference"), more)


def _invalid(address: int) -> dict[str, Any]:
    return {"address": f"{address:#x}", "instruction": "??", "presentationHint": "invalid"}
