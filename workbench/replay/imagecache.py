"""How traces begin, kept in the XDG cache folder: images are hashed, compressed and put into tables once.

An entry is a trace's file as it is when it holds its images and nothing else. It is found by the images' contents,
never by a file's name or times, and is used only if it is what was written: so it is as good as making it anew.
What can't be read or written is made anew.

workbench-begin 2\\n      what it is, and its version
sum                     32 bytes over what follows
images                  for each of them 32 bytes, BLAKE2b-256 of its contents
file                    a database
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from machine.tcg.ramfold import checksum
from traces.blake2 import blake2b
from traces.blobs import BlobPacker, Packed
from traces.schema import FORMAT
from traces.writer import TraceWriter

from .parts import PAGE_BYTES

_MAGIC: Final = b"workbench-begin 2\n"
_HASH: Final = 32
_SUM: Final = len(_MAGIC)
_HEAD: Final = _SUM + _HASH
#: Fewer bytes of images are not worth a file.
_LEAST_BYTES: Final = 1 << 20
#: Files that are kept; the ones not used for longest go.
_MOST_FILES: Final = 16


def begin_with(
    writer: TraceWriter, images: Mapping[str, bytes], names: Mapping[str, bytes]
) -> dict[str, Packed]:
    """Begin a trace with its images' contents, as another one began where that is kept.

    Args:
        writer: of a trace that has not begun.
        images: the contents, by role. names: ``page_names`` of each of them.

    Returns:
        the images by role, as which ``TraceWriter.add_packed_image`` knows them.

    Raises:
        TraceError: an image is too large.
    """
    path = cache_path(images, names) if sum(map(len, images.values())) >= _LEAST_BYTES else None
    entry = None if path is None else load(path)
    if entry is not None:
        packed = {
            role: Packed(bytes(entry[at * _HASH : (at + 1) * _HASH]), len(data), "", b"")
            for at, (role, data) in enumerate(images.items())
        }
        writer.begin(list(packed.values()), entry[len(images) * _HASH :])
        return packed
    packed = {role: BlobPacker().pack(data) for role, data in images.items()}

    def keep(file: bytes) -> None:
        if path is not None:
            save(path, b"".join([each.name for each in packed.values()]) + file)

    writer.begin(list(packed.values()), keep=keep)
    return packed


def tree_hash(data: bytes, names: bytes) -> bytes:
    """Return 32 bytes that stand for contents: BLAKE2b-256 over the names of their pages, what is left, and the length.

    Args:
        data: the contents. names: ``page_names`` of it.
    """
    root = blake2b(names, digest_size=_HASH)
    root.update(data[len(data) // PAGE_BYTES * PAGE_BYTES :])
    root.update(len(data).to_bytes(8, "little"))
    return root.digest()


def cache_path(images: Mapping[str, bytes], names: Mapping[str, bytes]) -> Path:
    """Return where the beginning of a trace is kept that holds these images, in this order."""
    key = blake2b(f"{FORMAT} {len(images)}".encode(), digest_size=_HASH)
    for role, data in images.items():
        key.update(tree_hash(data, names[role]))
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "workbench" / "images" / f"{key.hexdigest()}.begin"


def _sum(body: bytes | memoryview) -> bytes:
    """Return 32 bytes that are others once an entry is damaged; whoever could forge them can write the folder."""
    tail = body[len(body) // PAGE_BYTES * PAGE_BYTES :]
    return blake2b(
        b"".join((checksum(body), tail, len(body).to_bytes(8, "little"))), digest_size=_HASH
    ).digest()


def load(path: Path) -> memoryview | None:
    """Return what was kept, None where there is nothing or it is not what was written."""
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        os.utime(path)
    except (OSError, ValueError):  # ValueError: it is empty
        return None
    if bytes(data[:_SUM]) != _MAGIC or bytes(data[_SUM:_HEAD]) != _sum(data[_HEAD:]):
        return None
    return data[_HEAD:]


def save(path: Path, body: bytes) -> None:
    """Keep something for the next recording; where that can't be done, the next one begins anew."""
    import tempfile

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(_MAGIC + _sum(body))
                file.write(body)
                file.flush()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
        kept = sorted(path.parent.iterdir(), key=lambda each: each.stat().st_mtime)
        for old in kept[:-_MOST_FILES]:
            old.unlink()
