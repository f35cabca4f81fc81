"""What can go wrong outside the guest. A guest's own misbehaviour is never an exception."""

from __future__ import annotations


class MachineError(Exception):
    """A machine cannot be built or run as asked; the message says what failed, where, and what to do.

    ``exit_code`` is the process exit code of the command line.
    """

    exit_code = 3


class ConfigError(MachineError):
    """The configuration asks for a machine that cannot exist (too many harts, too little memory)."""

    exit_code = 2


class ImageError(MachineError):
    """A kernel, initrd, firmware, device tree or disk image is missing, damaged, or does not fit."""


class ChangedImageError(ImageError):
    """A disk image is not the one that was recorded.

    Args:
        file: as the configuration names it. expected, found: content hashes or sizes, as text.
    """

    def __init__(self, file: str, expected: str, found: str) -> None:
        self.file, self.expected, self.found = file, expected, found
        super().__init__(
            f"drive {file} is not the image expected: it has {found[:32]}, not {expected[:32]}; it changed. Give the "
            "image that was recorded, or replay what 'workbench trace pack' makes, which needs none"
        )


class DeviceError(MachineError):
    """A device model failed: our bug. Names the device, the access and the failure."""

    exit_code = 70
