"""The sources of the C core, and whether a core was built from those that are here.

A core that is older than they are would run another machine under this one's name: a recording by it says that it is
of the present semantics, and is not. No number that somebody has to raise can tell; the sources' contents do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
#: There in a checkout, where a core is built in place; an installed package has its core and sources from one build.
_CHECKOUT = _HERE.parent.parent / "setup.py"
_ENDINGS = (".c", ".h", ".inc", ".decode")
_BUILDERS = ("build.py", "decodetree.py", "sources.py")
_NO_SOURCES = ("_build", "__pycache__")


class StaleCoreError(ImportError):
    """The C core was not built from the sources beside it; ``make build`` mends it."""

    exit_code = 6


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_ENDINGS) or entry.name in _BUILDERS:
                yield entry
            elif entry.is_dir() and entry.name not in _NO_SOURCES:
                yield from _files(entry.path)


def digest() -> int:
    """Return a number of 32 bits that the names and contents of all sources make: the core has it as WB_SOURCES."""
    from zlib import crc32

    value = 0
    for path in sorted(Path(entry.path) for entry in _files(str(_HERE))):
        value = crc32(f"{path.relative_to(_HERE)}\0".encode(), value)
        value = crc32(path.read_bytes(), value)
    return value


def check(core: Any) -> None:
    """Refuse a core that was built from other sources.

    Sources that are no younger than the core are not read, as ``make build`` does not: that would take many times as
    long as asking for their times, which is half a millisecond.

    Args:
        core: the extension module.

    Raises:
        StaleCoreError: it is another's; run ``make build``.
    """
    if not _CHECKOUT.exists():
        return
    file = Path(core.__file__)
    built = file.stat().st_mtime_ns
    younger = any(entry.stat().st_mtime_ns > built for entry in _files(str(_HERE)))
    if younger and getattr(core.lib, "WB_SOURCES", None) != digest():
        raise StaleCoreError(f"{file.name}: the C core is not of this source: run `make build`")
