"""Devices, one file each: registers, device-tree node and saved state derive from a declaration."""
