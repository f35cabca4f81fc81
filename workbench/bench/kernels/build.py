"""Build the benchmark's kernels with a cross compiler: ``python -m workbench.bench.kernels.build``.

The results are checked in, so only those who change a kernel need the compiler. The same compiler gives the
same bytes wherever the sources lie. ``build_native`` makes a program of the host from the same C.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from workbench.bench.kernels import KERNELS, kernel_path
from workbench.errors import MissingToolError, WorkbenchError

COMPILER = "riscv64-linux-gnu-gcc"
SOURCES = Path(__file__).parent
#: The host's own compiler, and the kernel that is of no host: it asks for its hart's number.
HOST_COMPILER = "gcc"
GUEST_ONLY = "smp"

#: What the work is compiled with, for the guest and for the host.
_WORK = (
    "-std=gnu11 -O2 -s -fno-stack-protector -fno-tree-loop-distribute-patterns -fno-math-errno "
    "-Wall -Wextra -Werror -Wshadow"
).split()
_FLAGS = (
    "-march=rv64gc -mabi=lp64d -mcmodel=medany -ffreestanding -nostdlib -static "
    "-no-pie -fno-pic -fno-asynchronous-unwind-tables "
    "-Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -Wl,-T,kernel.ld"
).split()


class BuildError(WorkbenchError):
    """A kernel does not compile."""


def build(name: str, output: Path) -> None:
    """Build one kernel's ELF.

    Args:
        name: one of KERNELS.
        output: where to write it.

    Raises:
        MissingToolError: there is no cross compiler here.
        BuildError: the compiler refused; the message is its first one.
    """
    entry = f"{name}.S" if (SOURCES / f"{name}.S").exists() else "entry.S"
    _compile(COMPILER, "gcc-riscv64-linux-gnu", _FLAGS, (entry, "main.c", f"{name}.c"), output)


def build_native(name: str, output: Path) -> None:
    """Build a program of the host that does a kernel's work and prints what it prints.

    Args:
        name: one of KERNELS, but for GUEST_ONLY.
        output: where to write it.

    Raises:
        MissingToolError: there is no compiler here.
        BuildError: the compiler refused; the message is its first one.
    """
    _compile(HOST_COMPILER, "gcc", (), ("native.c", f"{name}.c"), output)
    output.chmod(0o755)


def _compile(compiler: str, package: str, flags: Sequence[str], sources: Sequence[str], output: Path) -> None:
    found = shutil.which(compiler)
    if found is None:
        raise MissingToolError(f"kernel build: no {compiler}; on Debian: apt install {package}")
    command = [found, *_WORK, *flags, f"-ffile-prefix-map={SOURCES}=kernels", "-o", str(output.resolve())]
    done = subprocess.run([*command, *sources], cwd=SOURCES, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"kernel build: {sources[-1]}: {done.stderr.strip().splitlines()[0]}")
    output.chmod(0o644)


if __name__ == "__main__":
    try:
        for kernel in KERNELS:
            build(kernel, kernel_path(kernel))
    except WorkbenchError as error:
        sys.exit(f"workbench: error: {error}")
