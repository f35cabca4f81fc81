"""Bare-metal kernels of the benchmark: C for the ``virt`` map, built once and checked in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Kernel(NamedTuple):
    """A kernel: what it does, and the processor that it needs, as ``--cpu`` and QEMU's ``-cpu`` spell it."""

    text: str
    cpu: str = "rv64"


KERNELS: dict[str, Kernel] = {
    "start": Kernel("start and stop alone"),
    "sieve": Kernel("sieve of Eratosthenes"),
    "sha256": Kernel("SHA-256"),
    "memcpy": Kernel("memcpy, 64-bit words"),
    "chase": Kernel("pointer chase, 32 KiB"),
    "fib": Kernel("recursive calls"),
    "bytecode": Kernel("byte-code interpreter loop"),
    "heapsort": Kernel("heap sort through a function pointer"),
    "matmul": Kernel("matrix product, double"),
    "nbody": Kernel("n-body, double"),
    "mix": Kernel("lists, matrices, states, CRC"),
    "smp": Kernel("checksums, on any number of harts"),
    "vector": Kernel("vector copies, products and searches", cpu="rv64,v=on"),
}


def kernel_path(name: str) -> Path:
    """Return the ELF of a kernel, whose console output is ``kernel NAME RESULT``."""
    return Path(__file__).parent / f"{name}.elf"
