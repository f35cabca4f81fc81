"""Devices, one file each: registers, interrupts, device-tree node and saved state derive from a declaration."""
