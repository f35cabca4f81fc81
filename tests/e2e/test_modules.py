"""Kernel modules of a real guest: their list, their symbols found in memory, breakpoints and backtraces in them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.repl.shell import Shell
from workbench.session import Session


@pytest.mark.slow
def test_symbols_of_loaded_modules_are_found_in_memory(debian_guest: Any, tmp_path: Path) -> None:
    path, folder = tmp_path / "modules.trace", debian_guest.folder
    machine = ["--kernel", str(folder / "Image"), "--initrd", str(folder / "initrd.cpio.gz"), "--no-input"]
    append = "console=ttyS0 wb.modules=virtio_mmio,virtio_rng wb.poweroff"
    command = [sys.executable, "-m", "workbench", "record", "-o", str(path), *machine, "--append", append]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    with Session.open(path) as session:
        shell = Shell(session)
        shell.run_line("goto end")
        listed = re.findall(r"^(\w+) +(0x[0-9a-f]+) +(\d+)$", shell.run_line("lsmod symbols"), re.MULTILINE)
        assert [name for name, _, _ in listed] == ["virtio_rng", "virtio_mmio"]
        base, size = int(listed[0][1], 16), int(listed[0][2])
        probe = session.sym("virtrng_probe")
        assert base <= probe < base + size
        assert session.symbols.format(probe + 2) == "virtrng_probe+0x2"
        shell.run_line("b virtrng_probe")
        shell.run_line("rc")
        assert session.reg("pc") == probe
        # the module is being loaded here, and has the code still that it begins with
        shell.run_line("lsmod symbols")
        frames = re.findall(r"0x[0-9a-f]+ +(\w+)", shell.run_line("bt"))
        assert frames[:3] == ["virtrng_probe", "virtio_dev_probe", "really_probe"]
        assert {"do_init_module", "do_trap_ecall_u"} <= set(frames)
