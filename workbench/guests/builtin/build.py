"""Build the built-in guest with a cross compiler: ``make guest``.

The result is checked in, so only those who change the guest need the compiler. The same compiler gives the
same bytes wherever the sources lie.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from workbench.errors import MissingToolError, WorkbenchError
from workbench.guests.builtin import IMAGE_NAME

COMPILER = "riscv64-linux-gnu-gcc"
SOURCES = Path(__file__).parent

_FLAGS = (
    "-march=rv64gc -mabi=lp64d -mcmodel=medany -std=gnu11 -O2 -g "
    "-gno-statement-frontiers -gno-variable-location-views -ffreestanding -nostdlib -static "
    "-no-pie -fno-pic -fno-stack-protector -fno-omit-frame-pointer -fno-asynchronous-unwind-tables "
    "-fno-tree-loop-distribute-patterns -Wall -Wextra -Werror -Wshadow "
    "-Wl,--build-id=none -Wl,-z,max-page-size=4096"
).split()


class BuildError(WorkbenchError):
    """The guest does not compile."""


def build(output: Path) -> None:
    """Build the guest's ELF.

    Raises:
        MissingToolError: there is no cross compiler here.
        BuildError: the compiler refused; the message is its first one.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise MissingToolError(f"guest build: no {COMPILER}; on Debian: apt install gcc-riscv64-linux-gnu")
    sources = [path.name for path in sorted(SOURCES.glob("*.[cS]"))]
    maps = [f"-ffile-prefix-map={SOURCES}=builtin", "-ffile-prefix-map=/usr/lib=lib"]
    command = [compiler, *_FLAGS, *maps, "-Wl,-T,kernel.ld"]
    done = subprocess.run(
        [*command, "-o", str(output.resolve()), *sources],
        cwd=SOURCES,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"guest build: {done.stderr.strip().splitlines()[0]}")
    output.chmod(0o644)


if __name__ == "__main__":
    try:
        build(SOURCES / IMAGE_NAME)
    except WorkbenchError as error:
        sys.exit(f"workbench: error: {error}")
