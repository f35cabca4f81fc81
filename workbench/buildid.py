"""Build ids: whether a file of symbols belongs to the kernel that ran.

Spec: ELF, note sections; the GNU note of type 3 has the linker's hash of the program
"""

from __future__ import annotations

import re
from typing import Final

from workbench.damage import stumbles

#: Name of four bytes, a description of 8 to 20 bytes, type 3, ``GNU``.
_NOTE: Final = re.compile(rb"\x04\0\0\0([\x08-\x14])\0\0\0\x03\0\0\0GNU\0")
MAX_NOTES: Final = 1000


def build_ids(data: bytes) -> list[bytes]:
    """Return the build ids that lie in a program's image, in order: its own, and those of programs inside of it."""
    out: list[bytes] = []
    for match in _NOTE.finditer(data):
        size = match[1][0]
        found = data[match.end() : match.end() + size]
        if len(found) == size and len(out) < MAX_NOTES:
            out.append(found)
    return out


def elf_build_id(data: bytes) -> bytes | None:
    """Return an ELF file's own build id, None where it has none."""
    import io

    from elftools.elf.elffile import ELFFile

    try:
        for section in ELFFile(io.BytesIO(data)).iter_sections():
            if section["sh_type"] == "SHT_NOTE":
                found = build_ids(section.data())
                if found:
                    return found[0]
    except stumbles():
        return None
    return None
