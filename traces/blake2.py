"""BLAKE2b as ``hashlib`` has it, without the host's OpenSSL that importing ``hashlib`` loads: 4 ms of each command."""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # another Python keeps it elsewhere
    from hashlib import blake2b

__all__ = ["blake2b"]
