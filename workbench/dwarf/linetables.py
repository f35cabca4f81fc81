"""Line-number programs, read without the units that they belong to: a kernel has thousands.

Spec: DWARF 5, section 6.2; versions 2 to 5
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from workbench.lines import Row

_MASK: Final = (1 << 64) - 1
_LONG: Final = 0xFFFF_FFFF
#: Of a number's last seven bits; compilers may pad numbers with bytes that add nothing.
_MAX_SHIFT: Final = 20 * 7
#: Content of a file's entry. Spec: 6.2.4.1
_PATH, _FOLDER = 1, 2
#: Forms: number of bytes of those that have a fixed one.
_FIXED: Final = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}
_STRING, _STRP, _LINE_STRP, _UDATA, _BLOCK = 0x08, 0x0E, 0x1F, 0x0F, 0x09
#: Standard opcodes. Spec: 6.2.5.2
(
    _COPY,
    _ADVANCE_PC,
    _ADVANCE_LINE,
    _SET_FILE,
    _SET_COLUMN,
    _NEGATE,
    _BLOCK_BEGINS,
    _CONST_ADD_PC,
    _FIXED_ADVANCE,
) = range(1, 10)
#: Extended opcodes. Spec: 6.2.5.3
_END_SEQUENCE, _SET_ADDRESS, _DEFINE_FILE = 1, 2, 3


class _Bytes:
    """A place in a section, which goes on as numbers and texts are read."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, min(end, len(data))

    def take(self, size: int) -> bytes:
        at = self.at
        self.at = at + size
        if self.at > self.end:
            raise ValueError("it ends in the middle of an entry")
        return self.data[at : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def unsigned(self) -> int:
        data, at, value, shift = self.data, self.at, 0, 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.at = at
                return value
            shift += 7
            if shift > _MAX_SHIFT:
                raise ValueError("a number of more than 64 bits")

    def signed(self) -> int:
        at = self.at
        value = self.unsigned()
        return value - (1 << 7 * (self.at - at)) if self.data[self.at - 1] & 0x40 else value

    def text(self) -> str:
        end = self.data.find(b"\0", self.at, self.end)
        if end < 0:
            raise ValueError("a name has no end")
        text = self.data[self.at : end].decode("utf-8", "replace")
        self.at = end + 1
        return text


@dataclass(frozen=True, slots=True)
class LineProgram:
    """The head of a program.

    Args:
        offset: in its section. first, last: of its opcodes, and the one behind. version: of the format.
        files: by the numbers that the program uses. made_of: the file that the unit is made of.
        step: bytes of the least instruction. statements: whether rows begin statements, at first.
        line_base, line_range: of special opcodes. operands: counts of the standard opcodes' operands.
    """

    offset: int
    first: int
    last: int
    version: int
    files: list[str]
    made_of: str
    step: int
    statements: bool
    line_base: int
    line_range: int
    operands: bytes


class LineTables:
    """The line-number programs of a file.

    Args:
        line, line_strings, strings: the sections of these names.

    Readers raise what a reader of damaged data stumbles over (``workbench.damage``).
    """

    def __init__(self, line: bytes, line_strings: bytes, strings: bytes) -> None:
        self._data = line
        self._texts = {_LINE_STRP: line_strings, _STRP: strings}
        self._known: dict[tuple[int, int], str] = {}

    @cached_property
    def programs(self) -> dict[int, LineProgram]:
        """The heads of all programs, by offset."""
        return {program.offset: program for program in self._heads()}

    def _heads(self) -> Iterator[LineProgram]:
        at = 0
        while at < len(self._data):
            program = self.head(at)
            yield program
            at = program.last

    def head(self, offset: int) -> LineProgram:
        """Return the head of the program at an offset."""
        read = _Bytes(self._data, offset, len(self._data))
        length, width = read.number(4), 4
        if length == _LONG:
            length, width = read.number(8), 8
        last = read.at + length
        if last > len(self._data):
            raise ValueError(f"the line-number program at {offset:#x} is cut off")
        version = read.number(2)
        if not 2 <= version <= 5:
            raise ValueError(f"a line-number program of version {version}")
        if version == 5:
            read.take(2)  # sizes of addresses and segments
        head = read.number(width)
        first = read.at + head
        step = read.number(1)
        if version >= 4 and read.number(1) != 1:
            raise ValueError("a line-number program for instruction bundles")
        statements, base, span, opcodes = (read.number(1) for _ in range(4))
        if not span or not opcodes or not read.at <= first <= last:
            raise ValueError(f"the head of the line-number program at {offset:#x} is none")
        operands = b"\0" + read.take(opcodes - 1)
        files, made_of = self._files_5(read, width) if version == 5 else self._files_2(read)
        base = base - 256 if base > 127 else base
        return LineProgram(
            offset, first, last, version, files, made_of, step, bool(statements), base, span, operands
        )

    def _files_5(self, read: _Bytes, width: int) -> tuple[list[str], str]:
        folders = [path for path, _ in self._entries(read, width)]
        files = [_joined(folders, folder, path) for path, folder in self._entries(read, width)]
        return files, files[0] if files else ""

    def _entries(self, read: _Bytes, width: int) -> Iterator[tuple[str, int]]:
        """Yield paths and numbers of folders of a list of version 5."""
        kinds = [(read.unsigned(), read.unsigned()) for _ in range(read.number(1))]
        count = read.unsigned()
        if count > read.end - read.at:
            raise ValueError(f"a list of {count} files")
        for _ in range(count):
            path, folder = "", 0
            for kind, form in kinds:
                value = self._value(read, form, width)
                if kind == _PATH:
                    path = str(value)
                elif kind == _FOLDER and isinstance(value, int):
                    folder = value
            yield path, folder

    def _value(self, read: _Bytes, form: int, width: int) -> str | int:
        if form in self._texts:
            return self._text(form, read.number(width))
        if form == _UDATA:
            return read.unsigned()
        if form in _FIXED:
            return read.number(_FIXED[form])
        if form == _STRING:
            return read.text()
        if form == _BLOCK:
            read.take(read.unsigned())
            return 0
        raise ValueError(f"a list of files with form {form:#x}")

    def _text(self, form: int, offset: int) -> str:
        if (form, offset) not in self._known:
            data = self._texts[form]
            self._known[form, offset] = _Bytes(data, offset, len(data)).text()
        return self._known[form, offset]

    def _files_2(self, read: _Bytes) -> tuple[list[str], str]:
        folders = [""]  # number 0 is the compiler's own folder, which stands in the unit
        while text := read.text():
            folders.append(text)
        files = ["?"]
        while text := read.text():
            files.append(_joined(folders, read.unsigned(), text))
            read.unsigned(), read.unsigned()  # time and length
        return files, files[1] if len(files) > 1 else ""

    def rows(self, program: LineProgram) -> list[Row]:
        """Return the rows of a program, in its order; an end of code has line 0."""
        out: list[Row] = []
        read, files = _Bytes(self._data, program.first, program.last), program.files
        data, operands, first_special = self._data, program.operands, len(program.operands)
        span, base, step = program.line_range, program.line_base, program.step
        address, file, line, statement = 0, 1, 1, program.statements
        while read.at < program.last:
            code = data[read.at]
            read.at += 1
            if code >= first_special:
                more, line_more = divmod(code - first_special, span)
                address = (address + more * step) & _MASK
                line += base + line_more
                out.append(Row(address, _named(files, file), line, statement))
            elif code == _COPY:
                out.append(Row(address, _named(files, file), line, statement))
            elif code == _ADVANCE_PC:
                address = (address + read.unsigned() * step) & _MASK
            elif code == _ADVANCE_LINE:
                line += read.signed()
            elif code == _SET_FILE:
                file = read.unsigned()
            elif code == _NEGATE:
                statement = not statement
            elif code == _CONST_ADD_PC:
                address = (address + (255 - first_special) // span * step) & _MASK
            elif code == _FIXED_ADVANCE:
                address = (address + read.number(2)) & _MASK
            elif code:
                for _ in range(operands[code]):
                    read.unsigned()
            else:
                size = read.unsigned()
                after = read.at + size
                sub = read.number(1) if size else 0
                if sub == _END_SEQUENCE:
                    out.append(Row(address, "", 0, True))
                    address, file, line, statement = 0, 1, 1, program.statements
                elif sub == _SET_ADDRESS:
                    address = read.number(size - 1) & _MASK
                elif sub == _DEFINE_FILE:
                    files = [*files, read.text()]
                read.at = after
        return out


def _named(files: list[str], number: int) -> str:
    return files[number] if number < len(files) else "?"


def _joined(folders: list[str], number: int, name: str) -> str:
    folder = folders[number] if number < len(folders) else ""
    path = name if not folder or name.startswith("/") else f"{folder}/{name}"
    return path.removeprefix("./")
