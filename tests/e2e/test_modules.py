"""Kernel modules of a real guest: their list, their symbols found in memory, breakpoints and backtraces in them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.kernel.modules import module_sections
from workbench.query.api import Trace
from workbench.repl.shell import Shell
from workbench.session import Session


@pytest.fixture(scope="module")
def modules_trace(debian_guest: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A boot that loads two modules."""
    path, folder = tmp_path_factory.mktemp("modules") / "modules.trace", debian_guest.folder
    machine = ["--kernel", str(folder / "Image"), "--initrd", str(folder / "initrd.cpio.gz"), "--no-input"]
    append = "console=ttyS0 wb.modules=virtio_mmio,virtio_rng wb.poweroff"
    command = [sys.executable, "-m", "workbench", "record", "-o", str(path), *machine, "--append", append]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    return path


@pytest.mark.slow
def test_symbols_of_loaded_modules_are_found_in_memory(modules_trace: Path) -> None:
    with Session.open(modules_trace) as session:
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


def text_of(session: Session) -> range:
    kernel = Trace.of(session).kernel
    module = next(module for module in kernel.modules() if module.name == "virtio_rng")
    sections = module_sections(kernel, module)
    assert sections[".text"] == module.base
    return range(sections[".text"], sections[".exit.text"])


NOTE = """
asm(".pushsection .note.gnu.build-id, \\"a\\", @note; .long 4, 20, 3; .asciz \\"GNU\\"; .zero 20; .popsection");
"""


def debug_file(session: Session, folder: Path, note: str = "") -> Path:
    """Return an object file whose functions are as large as virtio_rng's, one a line from line 2 on."""
    folder.mkdir(exist_ok=True)
    text = text_of(session)
    functions = sorted(s for s in session.symbols if s.kind == "func" and s.address in text)
    source = [f"long first_word = 1; {note.strip()}"]
    for each in functions:
        source.append(
            f'__attribute__((naked)) void {each.name}(void *device) {{ asm(".skip {each.size}"); }}'
        )
    (folder / "virtio-rng.c").write_text("\n".join(source) + "\n")
    path = folder / "virtio-rng.ko.debug"
    command = ["riscv64-linux-gnu-gcc", "-g", "-O1", "-fno-toplevel-reorder", "-mno-relax", "-fno-pic"]
    flags = ["-mcmodel=medany", "-falign-functions=1", "-msmall-data-limit=0", "-c", "virtio-rng.c"]
    subprocess.run([*command, *flags, "-o", path.name], check=True, cwd=folder)
    return path


@pytest.mark.slow
@pytest.mark.requires("riscv64-linux-gnu-gcc")
def test_lines_and_variables_of_a_module_are_there_where_it_is_loaded(
    modules_trace: Path, tmp_path: Path
) -> None:
    """A module's file has no addresses: its lines and types were not read, and its names stayed everywhere."""
    with Session.open(modules_trace) as session:
        shell = Shell(session)
        shell.run_line("goto end")
        shell.run_line("lsmod symbols")
        probe = session.sym("virtrng_probe")
        path = debug_file(session, tmp_path)
        line = 1 + path.with_name("virtio-rng.c").read_text().split(" virtrng_probe(")[0].count("\n")
        assert "symbols" in shell.run_line(f"symbol-file {tmp_path}")
        assert str(path) in shell.run_line("lsmod")
        assert str(session.lines.at(probe)) == f"virtio-rng.c:{line}"
        other = debug_file(session, tmp_path / "other", NOTE)
        shell.run_line(f"symbol-file {other}")
        assert re.search(
            r"virtio_rng .* build id 0{40}, but the module that is loaded has", shell.run_line("lsmod")
        )
        assert session.lines.at(probe) is None
        shell.run_line(f"symbol-file {path}")
        kernel = Trace.of(session).kernel
        module = next(module for module in kernel.modules() if module.name == "virtio_rng")
        place = module_sections(kernel, module)[".data"]
        assert f"{place:#x}" in shell.run_line("p &first_word")
        assert f"{kernel.memory.word(place):#x}" in shell.run_line("p first_word")
        shell.run_line(f"b virtio-rng.c:{line}")
        shell.run_line("rc")
        assert session.reg("pc") == probe
        assert "asm(" in shell.run_line("list")
        frames = shell.run_line("bt")
        assert re.search(rf"virtrng_probe.*virtio-rng\.c:{line}", frames)
        assert "virtio_dev_probe" in frames
        shell.run_line("delete")
        shell.run_line("watch first_word")
        shell.run_line("rc")
        assert session.cursor < session.trace.final_icount
        shell.run_line("delete")
        shell.run_line("goto 10%")
        assert session.symbols.lookup("virtrng_probe") is None
        assert session.lines.at(probe) is None
        assert session.program.files == []
        shell.run_line("goto end")
        assert session.sym("virtrng_probe") == probe
        assert str(session.lines.at(probe)) == f"virtio-rng.c:{line}"
