"""The modules that a kernel has loaded at a session's cursor: their symbols, source lines and debug information.

They follow the cursor: where another module lies in the place of one, what is told is that other's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from workbench.buildid import build_ids, elf_build_id
from workbench.dwarf.file import DebugFile
from workbench.dwarf.relocating import placed
from workbench.errors import InputError, WorkbenchError
from workbench.kernel.btf import Btf
from workbench.kernel.errors import KernelError
from workbench.kernel.linux import Kernel
from workbench.kernel.modules import Module, module_sections, module_symbols, modules
from workbench.lines import Row
from workbench.symbols import Symbol, Symbols, read_file

if TYPE_CHECKING:
    from workbench.session import Session

MAX_FILES: Final = 50_000
#: Of a note with a build id of 20 bytes.
_NOTE_BYTES: Final = 36
#: A module's file: as the kernel's build has it, and as debug packages do.
_FILE: Final = re.compile(r"(.+)\.ko(\.debug)?")


_Key = tuple[object, ...]


class Told(NamedTuple):
    """What a module's file tells where the module lies: its debug information and the rows of its line tables."""

    file: DebugFile
    rows: list[Row]


def module_name(file: Path) -> str | None:
    """Return the name of the module that a file is of, by the file's name, None if it is of none."""
    found = _FILE.fullmatch(file.name)
    return found[1].replace("-", "_") if found else None


class LoadedModules:
    """What is known of the loaded modules of a session.

    Args:
        session: whose. base: its symbols without modules, which the list of modules is found by.

    Attributes:
        files: by the name of a module, a file with its debug information.
        problems: by the name of a module, why its file tells nothing here.
    """

    def __init__(self, session: Session, base: Symbols) -> None:
        self._session = session
        self._base = base
        self._types: Btf | None = None
        self._cursor: int | None = None
        self._busy = False
        self._placed: dict[_Key, Told] = {}
        self._shown: dict[_Key, Told] = {}
        self._named: list[Symbol] = []
        self.files: dict[str, Path] = {}
        self.problems: dict[str, str] = {}

    def add(self, path: Path) -> int:
        """Take a module's file, or those in a folder and the folders in it; return how many.

        Raises:
            InputError: it is named as no module's file is, or the folder has none, or too many.
        """
        found = {name: file for file in _files(path) if (name := module_name(file)) is not None}
        if not found:
            raise InputError(f"{path}: no module's file: they are called NAME.ko or NAME.ko.debug")
        self.files |= found
        self._cursor = None
        return len(found)

    @property
    def symbols(self) -> int:
        """How many symbols the loaded modules have here."""
        return len(self._named)

    def follow(self) -> None:
        """Let the session have what is loaded at its cursor."""
        if self._busy or self._cursor == self._session.cursor:
            return
        self._busy = True
        try:
            self._take()
            self._cursor = self._session.cursor
        finally:
            self._busy = False

    def _take(self) -> None:
        kernel = Kernel(self._session.board.engine, self._base, self._kernel_types)
        named: list[Symbol] = []
        files: dict[_Key, Told] = {}
        self.problems.clear()
        try:
            for module in modules(kernel):
                named += self._symbols(kernel, module)
                self._place(kernel, module, files)
        except KernelError:
            pass  # before the kernel has set up its list there are none; a damaged one ends there
        if named != self._named:
            self._session.replace_symbols(self._named, named)
            self._named = named
        gone = [told for key, told in self._shown.items() if key not in files]
        new = [told for key, told in files.items() if key not in self._shown]
        if gone or new:
            self._session.replace_files(gone, new)
            self._shown = files

    def _symbols(self, kernel: Kernel, module: Module) -> list[Symbol]:
        try:
            return module_symbols(kernel, module)
        except KernelError as error:
            self.problems[module.name] = str(error)
            return []

    def _place(self, kernel: Kernel, module: Module, files: dict[_Key, Told]) -> None:
        path = self.files.get(module.name)
        if path is None:
            return
        try:
            addresses = module_sections(kernel, module)
            key = (module.name, str(path), *sorted(addresses.items()))
            if key not in self._placed:
                data = read_file(path)
                _check_build(kernel, addresses, data)
                file = DebugFile(placed(data, str(path), addresses), str(path))
                self._placed[key] = Told(file, file.rows())
            files[key] = self._placed[key]
        except WorkbenchError as error:
            self.problems[module.name] = str(error)

    def _kernel_types(self, kernel: Kernel) -> Btf:
        if self._types is None:
            self._types = Btf(kernel.btf_bytes())
        return self._types


def _check_build(kernel: Kernel, addresses: dict[str, int], data: bytes) -> None:
    """Refuse a file of another build than the module that is loaded. Raises InputError, KernelError."""
    mine, note = elf_build_id(data), addresses.get(".note.gnu.build-id")
    if mine is None or note is None:
        return
    known = build_ids(kernel.memory.read(note, _NOTE_BYTES))
    if known and mine not in known:
        raise InputError(f"build id {mine.hex()}, but the module that is loaded has {known[0].hex()}")


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for count, file in enumerate(sorted(path.rglob("*.ko*"))):
        if count == MAX_FILES:
            raise InputError(f"{path}: more than {MAX_FILES} modules' files; name a folder further in")
        yield file
