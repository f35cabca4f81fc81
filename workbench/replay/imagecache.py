"""Images in the form that a trace stores, kept in the XDG cache folder: a kernel is hashed and compressed once.

An entry is found by the contents themselves, never by a file's name or times, and is used only if what it holds is
what was written: so it is as good as packing anew. What can't be read or written is packed anew.

workbench-image 1\\n      what it is, and its version
sum                     32 bytes: ``tree_hash`` of what follows
size                    u64, little endian: bytes of the contents
hash                    32 bytes: BLAKE2b-256 of the contents
stored                  one zstd frame
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from machine.tcg.ramfold import tree_hash
from traces.blobs import BlobPacker, Packed

_MAGIC: Final = b"workbench-image 1\n"
_SUM, _SIZE, _HASH, _HEAD = (len(_MAGIC) + n for n in (0, 32, 40, 72))
#: Smaller images are not worth a file.
_LEAST_BYTES: Final = 1 << 20
#: Images that are kept; the ones not used for longest go.
_MOST_FILES: Final = 16


def packed_image(data: bytes) -> Packed:
    """Return an image as a trace stores it, from the cache where it is there. Raises TraceError: it is too large."""
    if len(data) < _LEAST_BYTES:
        return BlobPacker().pack(data)
    path = cache_path(tree_hash(data))
    packed = load(path)
    if packed is None or packed.size != len(data):
        packed = BlobPacker().pack(data)
        if packed.codec == "zstd":
            save(path, packed)
    return packed


def cache_path(key: bytes) -> Path:
    """Return where the image whose contents have this ``tree_hash`` is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "workbench" / "images" / f"{key.hex()}.image"


def load(path: Path) -> Packed | None:
    """Return what was kept, None where there is nothing or it is not what was written."""
    try:
        data = memoryview(path.read_bytes())
        os.utime(path)
    except OSError:
        return None
    if (
        len(data) < _HEAD
        or bytes(data[:_SUM]) != _MAGIC
        or bytes(data[_SUM:_SIZE]) != tree_hash(data[_SIZE:])
    ):
        return None
    size = int.from_bytes(data[_SIZE:_HASH], "little")
    return Packed(bytes(data[_HASH:_HEAD]), size, "zstd", data[_HEAD:])


def save(path: Path, packed: Packed) -> None:
    """Keep an image for the next recording; where that can't be done, the next one packs anew."""
    body = b"".join((packed.size.to_bytes(8, "little"), packed.name, packed.stored))
    import tempfile

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(_MAGIC + tree_hash(body) + body)
                file.flush()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
        kept = sorted(path.parent.iterdir(), key=lambda each: each.stat().st_mtime)
        for old in kept[:-_MOST_FILES]:
            old.unlink()
