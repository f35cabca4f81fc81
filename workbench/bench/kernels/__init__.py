"""Bare-metal kernels of the benchmark: C for the ``virt`` map, built once and checked in."""

from __future__ import annotations

from pathlib import Path

KERNELS: dict[str, str] = {
    "start": "start and stop alone",
    "sieve": "sieve of Eratosthenes",
    "sha256": "SHA-256",
    "memcpy": "memcpy, 64-bit words",
    "chase": "pointer chase, 32 KiB",
    "fib": "recursive calls",
    "bytecode": "byte-code interpreter loop",
    "heapsort": "heap sort through a function pointer",
    "matmul": "matrix product, double",
    "nbody": "n-body, double",
    "mix": "lists, matrices, states, CRC",
    "smp": "checksums, on any number of harts",
}


def kernel_path(name: str) -> Path:
    """Return the ELF of a kernel, whose console output is ``kernel NAME RESULT``."""
    return Path(__file__).parent / f"{name}.elf"
