"""Values of options as QEMU spells them, and files that options name."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.errors import InputError

ON = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
MAX_IMAGE_BYTES = 2 << 30


def split_commas(text: str) -> list[str]:
    """Split at single commas; ``,,`` stands for a comma, as in QEMU."""
    parts = [""]
    at = 0
    while at < len(text):
        if text[at] != ",":
            parts[-1] += text[at]
        elif text[at : at + 2] == ",,":
            parts[-1] += ","
            at += 1
        else:
            parts.append("")
        at += 1
    return parts


def read_image(path: str | None, what: str) -> bytes:
    """Return an image's bytes, none where no path was given.

    Raises:
        InputError: when it can't be read, is empty, or is larger than any image.
    """
    if not path:
        return b""
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_IMAGE_BYTES:
                raise InputError(f"{what} {path}: larger than {MAX_IMAGE_BYTES >> 30} GiB: not a {what}")
            data = file.read(MAX_IMAGE_BYTES)
    except OSError as error:
        raise InputError(f"{what} {path}: can't be read: {error.strerror}; check the path") from None
    if not data:
        raise InputError(f"{what} {path}: the file is empty")
    return data
