"""Debug information: variables where they lie, types, frames, C expressions; of the built-in guest."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.buildid import build_ids
from workbench.dwarf.errors import DwarfError
from workbench.dwarf.file import DebugFile
from workbench.dwarf.program import Program
from workbench.errors import CommandError, InputError, WorkbenchError
from workbench.guests import builtin
from workbench.kernel.errors import KernelError
from workbench.lines import Lines
from workbench.repl.shell import Shell
from workbench.session import Session


@pytest.fixture(scope="module")
def trace(panic_trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(panic_trace, tmp_path_factory.mktemp("dwarf")))


@pytest.fixture
def shell(trace: Path) -> Iterator[Shell]:
    """Return a shell at the guest's panic."""
    with Session.open(trace) as session:
        session.goto("end")
        session.add_breakpoint(session.sym("panic"), temporary=True)
        session.reverse_cont()
        yield Shell(session)


def test_print_shows_variables_by_their_types(shell: Shell) -> None:
    assert shell.run_line("p pool.buffers") == "= 0x80 (128)\n"
    whole = json.loads(shell.run_line("p tick_queue --json"))
    assert set(whole) == {"first", "last", "taken", "lost"}
    assert shell.run_line("p/x tick_queue.first->magic") == "= 0x43534544\n"
    assert shell.run_line("p tick_queue.first->magic == 0x43534544 && tick_queue.taken == 2") == "= 0x1 (1)\n"
    assert shell.run_line("p sizeof(struct buffer) / 8") == "= 0x10 (16)\n"
    pointer = shell.run_line("p tick_queue.first + 1").split()
    assert int(pointer[-2], 0) == int(shell.run_line("p tick_queue.first --json")) + 128
    assert "<pool>" in shell.run_line("p &pool")
    assert "owner = 1" in shell.run_line("p *(struct buffer *)tick_queue.first")
    assert json.loads(shell.run_line("p tick_queue.first->words[3] --json")) > 0


def test_what_an_expression_can_not_be_is_said(shell: Shell) -> None:
    for line, why in (
        ("p pool.nothing", "no member 'nothing'"),
        ("p pool.free->", "expected"),
        ("p pool / 0", "is not a number"),
        ("p pool.buffers / 0", "division by zero"),
        ("p *pool.buffers", "is no pointer"),
        ("p " + "(" * 200 + "pool" + ")" * 200, "nested too deeply"),
    ):
        with pytest.raises(WorkbenchError, match=why):
            shell.run_line(line)


def test_locals_and_arguments_follow_the_selected_frame(shell: Shell) -> None:
    rows = json.loads(shell.run_line("bt --json"))
    assert [row["where"].split("+")[0] for row in rows[:1]] == ["panic"]
    assert "tick_drain" in rows[1]["where"] and rows[1]["source"].startswith("pool.c:")
    shell.run_line("frame 2")
    shell.run_line("up")
    assert json.loads(shell.run_line("frame --json"))["frame"] == 3
    shell.run_line("down 9")
    assert "format" in json.loads(shell.run_line("info args --json"))
    shell.run_line("rsi")
    assert shell.context.frame_level == 0


def test_inlined_functions_and_registers_that_were_not_kept(shell: Shell) -> None:
    session = shell.context.session
    session.goto("start")
    session.add_breakpoint(session.lines.addresses("drivers.c", 36)[0], temporary=True)
    session.cont()
    found = {v.name: v for v in shell.context.variables()}
    assert found["round"].function == "driver_test" and found["driver"].function == "driver_init"
    assert "in driver_test" in shell.run_line("bt")
    taken = found["taken"].value
    assert taken is not None and taken.types.array(taken.types.resolve(taken.type)[0])[1] == 64
    outer = session.program.frames(session)[1]
    with pytest.raises(DwarfError, match="was not kept"):
        session.program.evaluate(session, outer, "$t0 + pool.buffers")


def test_frames_agree_with_frame_pointers_and_keep_saved_registers(shell: Shell) -> None:
    """The guest keeps frame pointers as well: both ways must lead to the same callers."""
    from workbench.unwind import backtrace

    session = shell.context.session
    session.reverse_stepi(50)
    frames = session.program.frames(session)
    pointers = backtrace(session)
    assert [f.pc for f in frames][: len(pointers)] == [f.pc for f in pointers]
    assert len(frames) >= 3
    assert all(f.cfa is not None and f.cfa % 16 == 0 for f in frames[:-1])


def test_types_are_shown_with_offsets(shell: Shell) -> None:
    text = shell.run_line("ptype struct buffer")
    assert text.startswith("struct buffer {\n/*    0 */  struct buffer * next;") and "128 bytes" in text
    assert shell.run_line("whatis pool.free") == "struct buffer *\n"
    assert "TASK_READY = 1" in shell.run_line("ptype enum task_state")
    with pytest.raises(CommandError, match="no type is known"):
        shell.run_line("ptype nonsense")


def test_watch_and_set_take_parts_of_variables(shell: Shell) -> None:
    assert "8 bytes" in shell.run_line("watch tick_queue.taken")
    shell.run_line("rc")
    assert "tick_drain" in shell.run_line("bt") or "tickd" in shell.run_line("bt")
    shell.run_line("delete")
    assert "expect" not in shell.run_line("expect pool.buffers == 128")


def test_source_paths_are_substituted(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "pool.c").write_text("mine\n" * 200)
    shell.run_line(f"set substitute-path builtin {tmp_path}")
    assert "mine" in shell.run_line("list pool.c:56")
    assert str(tmp_path / "pool.c") in shell.run_line("info sources pool")
    shell.run_line("set substitute-path builtin")
    assert "=>    56" in shell.run_line("list pool.c:56") and "mine" not in shell.run_line("list pool.c:56")


def _with_note(data: bytes, build_id: bytes) -> bytes:
    """Return an ELF file whose note section has a build id, in the place of the one it has or of .comment."""
    import struct

    elf = ELFFile(io.BytesIO(data))
    for index in range(elf.num_sections()):
        section = elf.get_section(index)
        if section.name == ".comment":
            note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id
            at = section["sh_offset"]
            header = elf["e_shoff"] + index * elf["e_shentsize"]
            out = bytearray(data)
            end = len(out)
            out += note
            struct.pack_into("<I", out, header + 4, 7)  # SHT_NOTE
            struct.pack_into("<QQ", out, header + 24, end, len(note))
            assert at < end
            return bytes(out)
    raise AssertionError("no .comment")


def test_file_of_another_build_is_refused(tmp_path: Path) -> None:
    from machine.config import Images, MachineConfig
    from workbench.replay.recorder import Recorder

    image = builtin.read_image()
    path = tmp_path / "own.trace"
    recorder = Recorder(
        MachineConfig(memory_bytes=32 << 20), Images(kernel=_with_note(image, b"A" * 20)), path
    )
    recorder.run(steps=1000)
    recorder.board.engine.close()
    other, same = tmp_path / "other.elf", tmp_path / "same.elf"
    other.write_bytes(_with_note(image, b"B" * 20))
    same.write_bytes(_with_note(image, b"A" * 20))
    with Session.open(path) as session:
        with pytest.raises(InputError, match="another build's symbols would mislead"):
            session.add_symbol_file(other)
        assert session.add_symbol_file(other, force=True) == session.add_symbol_file(same) > 50


def test_large_file_is_read_a_unit_at_a_time(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.dwarf.file.LARGE_BYTES", 1000)
    path = tmp_path / "vmlinux"
    path.write_bytes(builtin.read_image())
    with Session.open(trace) as session:
        session._lines, session._program = Lines(), Program([])
        session.add_symbol_file(path)
        assert len(session.lines) == 0
        at = session.lines.at(session.sym("pool_put"))
        assert at is not None and at.file == "builtin/pool.c"
        some = len(session.lines)
        assert some and "builtin/print.c" in session.lines.files()
        assert session.lines.addresses("print.c", 186) and len(session.lines) > some
        session.goto("50%")
        shell = Shell(session)
        shell.run_line("tbreak drivers.c:36")
        shell.run_line("restart")
        shell.run_line("c")
        assert "round = " in shell.run_line("info locals")
        # a variable is found by its symbol, a type by its name
        assert "buffers = 128," in shell.run_line("p pool")
        assert shell.run_line("p sizeof(struct buffer)") == shell.run_line("p sizeof(*pool.free)")
        with pytest.raises(CommandError, match="no type is known of 'struct nobody'"):
            shell.run_line("ptype struct nobody")
        assert not session.program.files[0].globals


@given(st.binary(max_size=300))
def test_build_ids_of_anything(data: bytes) -> None:
    note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0" + b"x" * 20
    assert b"x" * 20 in build_ids(data + note)
    assert build_ids(note[:-1]) == []


@settings(max_examples=60)
@given(st.integers(0x6000, 117_000), st.binary(min_size=1, max_size=8))
def test_damaged_debug_information_is_an_error_of_ours(at: int, junk: bytes) -> None:
    image = bytearray(builtin.read_image())
    image[at : at + len(junk)] = junk
    try:
        program = Program([DebugFile(bytes(image), "damaged")])
        for file in program.files:
            file.scopes_at(0x80200C6C)
            assert isinstance(file.globals, dict)
        for types in program.types:
            types.members(types.resolve(types.find("struct buffer"))[0])
            types.name(types.find("struct task"))
    except (KernelError, InputError) as error:
        assert str(error)


def test_entries_that_go_round_in_circles_are_damage() -> None:
    """A successor that lies before its entry was followed for ever."""
    data = bytearray(builtin.read_image())
    file = DebugFile(bytes(data), "whole")
    unit = next(iter(file.units()))
    die = next(d for d in unit.get_top_DIE().iter_children() if "DW_AT_sibling" in d.attributes)
    section: Any = ELFFile(io.BytesIO(data)).get_section_by_name(".debug_info")
    at = section["sh_offset"] + die.attributes["DW_AT_sibling"].offset
    data[at : at + 4] = (die.offset - unit.cu_offset).to_bytes(4, "little")
    with pytest.raises(DwarfError, match="is followed by one before it"):
        _ = DebugFile(bytes(data), "damaged").globals
