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


class DeviceError(MachineError):
    """A device model failed: our bug. Names the device, the access and the failure."""

    exit_code = 70
