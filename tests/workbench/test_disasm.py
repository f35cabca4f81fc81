"""Disassembly: capstone first, the engine's tables where it has none, data where both have nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.disasm import Disassembler


def test_compressed_and_full_instructions_have_their_lengths() -> None:
    code = bytes.fromhex("130515008280ef00c001")
    listed = list(Disassembler().listing(code, 0x1000, 10))
    assert [(i.address, len(i.code)) for i in listed] == [(0x1000, 4), (0x1004, 2), (0x1006, 4)]
    assert listed[0].text == "addi a0, a0, 1"


def test_what_capstone_does_not_know_comes_from_the_fallback_or_is_data() -> None:
    unknown = bytes.fromhex("0b000000")
    assert Disassembler(lambda code, pc: (4, "custom")).decode(unknown, 0) is not None
    found = Disassembler(lambda code, pc: (4, "custom")).decode(unknown, 0)
    assert found is not None and found.text == "custom"
    plain = Disassembler().decode(unknown, 0)
    assert plain is not None and plain.text == ".word 0xb"


def test_instruction_that_is_cut_off_is_none() -> None:
    assert Disassembler().decode(b"\x13\x05", 0) is None
    assert Disassembler().decode(b"\x01", 0) is None


@given(st.binary(max_size=64))
def test_listing_covers_any_bytes_in_order(code: bytes) -> None:
    at = 0
    for found in Disassembler().listing(code, 0, 100):
        assert found.address == at and found.code == code[at : at + len(found.code)] and found.text
        at += len(found.code)
    assert len(code) - at < 4
