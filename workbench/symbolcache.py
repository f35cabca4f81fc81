"""Symbols of a trace's images, kept by the image's hash in the XDG cache folder: found once, read in milliseconds.

workbench-symbols 1\\n          what it is, and its version
count                          u64, little endian
addresses, sizes               u64 for each symbol, in the order that names addresses
kinds                          a byte each: f func, o object, x other
meanings                       u32 for each symbol: 1 where its name means this address
names                          UTF-8, one a line
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from itertools import compress, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, overload

from machine.errors import MachineError
from machine.images import unpack
from traces.blobs import blob_hash
from traces.errors import TraceError
from workbench.errors import WorkbenchError
from workbench.symbols import MAX_SYMBOLS, Symbol, Symbols

if TYPE_CHECKING:
    from traces.reader import TraceReader

_MAGIC = b"workbench-symbols 1\n"
_KINDS = {"func": "f", "object": "o", "other": "x"}
_WORDS = {letter: word for word, letter in _KINDS.items()}
_MASK = (1 << 64) - 1
#: The symbols of files from this size on are kept.
_LARGE_BYTES = 4 << 20
_TRAP_HANDLER = "handle_exception"
#: Linux moves itself by multiples of this. Spec: Linux, arch/riscv/mm/init.c
_KASLR_ALIGN = 2 << 20
#: The roles of images that hold programs; of one name, the first role's symbol counts.
ROLES = ("kernel", "bios")


def trace_symbols(trace: TraceReader) -> Symbols:
    """Return the symbols of a trace's kernel and firmware; none where they carry none, or are damaged."""
    found = Symbols()
    hashes = {row.role: row.hash for row in trace.images()}
    for role in ROLES:
        if role not in hashes:
            continue
        cached = load(hashes[role])
        if cached is None:
            cached = _find(trace, role)
            save(hashes[role], cached)
        if role == "kernel":
            cached = moved(cached, slide(trace, cached))
        if len(found):
            found.add(cached)
        else:
            found = cached
    return found


def file_symbols(path: Path, data: bytes) -> Symbols:
    """Return the symbols of a file, an ELF or a System.map; those of a large one are kept.

    Raises:
        InputError: it is neither of them.
    """
    if data[:4] != b"\x7fELF":
        return Symbols.from_map(data, str(path))
    if len(data) < _LARGE_BYTES:
        return Symbols.from_elf(data, str(path))
    digest = blob_hash(data)
    found = load(digest)
    if found is None:
        found = Symbols.from_elf(data, str(path))
        save(digest, found)
    return found


def slide(trace: TraceReader, symbols: Symbols) -> int:
    """Return by how much a kernel runs above the address that it was linked for (KASLR), in bytes.

    Linux has its trap handler in stvec all along; that of the last checkpoint is held against its symbol.
    """
    linked = symbols.lookup(_TRAP_HANDLER)
    rows = trace.checkpoints()
    if linked is None or not rows:
        return 0
    try:
        stvec = trace.checkpoint_state(rows[-1].id)["harts"][0]["stvec"]
    except (TraceError, KeyError, IndexError, TypeError):
        return 0
    if not isinstance(stvec, int) or not stvec >> 63:
        return 0  # the page tables were not on yet
    distance = (stvec & ~3) - linked
    return 0 if distance % _KASLR_ALIGN else distance


def moved(symbols: Symbols, distance: int) -> Symbols:
    """Return symbols at other addresses."""
    if not distance:
        return symbols
    return Symbols(row._replace(address=row.address + distance & _MASK) for row in symbols)


def _find(trace: TraceReader, role: str) -> Symbols:
    from workbench.kallsyms import find_symbols

    try:
        data = trace.image(role)
        data = unpack(data, role) if data else b""
        if data[:4] == b"\x7fELF":
            return Symbols.from_elf(data, role)
    except (TraceError, MachineError, WorkbenchError):
        return Symbols()
    return Symbols(find_symbols(data)) if role == "kernel" else Symbols()


def cache_path(digest: bytes) -> Path:
    """Return where an image's symbols are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "workbench" / "symbols" / f"{digest.hex()}.symbols"


def save(digest: bytes, symbols: Symbols) -> None:
    """Keep symbols for the next time; where that can't be done, the next time finds them anew."""
    path = cache_path(digest)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(encode(symbols))
        Path(file.name).replace(path)


def load(digest: bytes) -> Symbols | None:
    """Return the symbols that were kept, or None."""
    try:
        return decode(cache_path(digest).read_bytes())
    except OSError:
        return None


def encode(symbols: Symbols) -> bytes:
    """Return a file's contents."""
    rows = list(symbols)
    meant: set[str] = set()
    meanings = array("I")
    for row in rows:
        means = row.name not in meant and symbols.lookup(row.name) == row.address
        meanings.append(means)
        if means:
            meant.add(row.name)
    parts = (
        _little(array("Q", (row.address for row in rows))),
        _little(array("Q", (row.size for row in rows))),
        "".join(_KINDS.get(row.kind, "x") for row in rows).encode(),
        _little(meanings),
        "\n".join(row.name for row in rows).encode(),
    )
    return _MAGIC + len(rows).to_bytes(8, "little") + b"".join(parts)


def decode(data: bytes) -> Symbols | None:
    """Return the symbols of a file's contents, None where it is damaged."""
    head = len(_MAGIC) + 8
    if data[: len(_MAGIC)] != _MAGIC or len(data) < head:
        return None
    count = int.from_bytes(data[len(_MAGIC) : head], "little")
    if count > MAX_SYMBOLS or len(data) < head + 21 * count:
        return None
    addresses, sizes, meanings = array("Q"), array("Q"), array("I")
    at = head
    for values, width in ((addresses, 8), (sizes, 8)):
        values.frombytes(data[at : at + width * count])
        at += width * count
    kinds = data[at : at + count].decode("latin-1")
    meanings.frombytes(data[at + count : at + 5 * count])
    if sys.byteorder == "big":
        for values in (addresses, sizes, meanings):
            values.byteswap()
    try:
        names = data[at + 5 * count :].decode().split("\n") if count else []
    except UnicodeDecodeError:
        return None
    if len(names) != count or not set(kinds) <= set(_WORDS) or any(a > b for a, b in pairwise(addresses)):
        return None
    by_name = dict(compress(zip(names, addresses, strict=True), meanings))
    return Symbols.ordered(_Columns(addresses, sizes, names, kinds), addresses.tolist(), by_name)


class _Columns(Sequence[Symbol]):
    """The symbols of a file, each made when it is asked for."""

    def __init__(self, addresses: array[int], sizes: array[int], names: list[str], kinds: str) -> None:
        self._columns = addresses, sizes, names, kinds

    def __len__(self) -> int:
        return len(self._columns[0])

    @overload
    def __getitem__(self, index: int) -> Symbol: ...
    @overload
    def __getitem__(self, index: slice) -> list[Symbol]: ...
    def __getitem__(self, index: int | slice) -> Symbol | list[Symbol]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        addresses, sizes, names, kinds = self._columns
        return Symbol(addresses[index], sizes[index], names[index], _WORDS[kinds[index]])

    def __iter__(self) -> Iterator[Symbol]:
        addresses, sizes, names, kinds = self._columns
        return map(Symbol, addresses, sizes, names, map(_WORDS.__getitem__, kinds))


def _little(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
