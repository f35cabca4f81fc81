"""The built-in guest: a small kernel of our own whose boot fails now and then (see ``pool.c``)."""

from __future__ import annotations

from importlib import resources

IMAGE_NAME = "builtin.elf"


def read_image() -> bytes:
    """Return the guest's ELF, with its symbols and line numbers."""
    return resources.files(__package__).joinpath(IMAGE_NAME).read_bytes()
