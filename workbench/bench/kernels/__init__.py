"""Bare-metal kernels of the benchmark: C for the ``virt`` map, built once and checked in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Kernel(NamedTuple):
    """A kernel.

    Args:
        text: what it does.
        cpu: the processor that it needs, as ``--cpu`` and QEMU's ``-cpu`` spell it.
        counted: of how many steps from its beginning host instructions are counted, translation included.
    """

    text: str
    cpu: str = "rv64"
    counted: int = 20_000_000


KERNELS: dict[str, Kernel] = {
    "start": Kernel("start and stop alone"),
    "sieve": Kernel("sieve of Eratosthenes"),
    "sha256": Kernel("SHA-256"),
    "chacha": Kernel("ChaCha20"),
    "memcpy": Kernel("memcpy, 64-bit words"),
    "chase": Kernel("pointer chase, 32 KiB"),
    "fib": Kernel("recursive calls"),
    "bytecode": Kernel("byte-code interpreter loop"),
    "heapsort": Kernel("heap sort through a function pointer"),
    "matmul": Kernel("matrix product, double"),
    "nbody": Kernel("n-body, double"),
    "mix": Kernel("lists, matrices, states, CRC"),
    "atomics": Kernel("a lock, counters, a stack without a lock"),
    "smp": Kernel("checksums, on any number of harts"),
    "vector": Kernel("vector copies, products and searches", "rv64,v=on", counted=2_000_000),
}


def kernel_path(name: str) -> Path:
    """Return the ELF of a kernel, whose console output is ``kernel NAME RESULT``."""
    return Path(__file__).parent / f"{name}.elf"
