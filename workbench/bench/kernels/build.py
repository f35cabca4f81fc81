"""Build the benchmark's kernels with a cross compiler: ``python -m workbench.bench.kernels.build``.

The results are checked in, so only those who change a kernel need the compiler. The same compiler gives the
same bytes wherever the sources lie.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from workbench.bench.kernels import KERNELS, kernel_path
from workbench.errors import MissingToolError, WorkbenchError

COMPILER = "riscv64-linux-gnu-gcc"
SOURCES = Path(__file__).parent

_FLAGS = (
    "-march=rv64gc -mabi=lp64d -mcmodel=medany -std=gnu11 -O2 -s -ffreestanding -nostdlib -static "
    "-no-pie -fno-pic -fno-stack-protector -fno-asynchronous-unwind-tables "
    "-fno-tree-loop-distribute-patterns -Wall -Wextra -Werror -Wshadow "
    "-Wl,--build-id=none -Wl,-z,max-page-size=4096 -fno-math-errno -Wl,--no-warn-rwx-segments -Wl,-T,kernel.ld"
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
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise MissingToolError(f"kernel build: no {COMPILER}; on Debian: apt install gcc-riscv64-linux-gnu")
    command = [compiler, *_FLAGS, f"-ffile-prefix-map={SOURCES}=kernels", "-o", str(output.resolve())]
    entry = f"{name}.S" if (SOURCES / f"{name}.S").exists() else "entry.S"
    done = subprocess.run(
        [*command, entry, "main.c", f"{name}.c"],
        cwd=SOURCES,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"kernel build: {name}: {done.stderr.strip().splitlines()[0]}")
    output.chmod(0o644)


if __name__ == "__main__":
    try:
        for kernel in KERNELS:
            build(kernel, kernel_path(kernel))
    except WorkbenchError as error:
        sys.exit(f"workbench: error: {error}")
