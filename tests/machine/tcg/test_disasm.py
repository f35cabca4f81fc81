"""The tables' decoder and templates, held against GNU objdump: what is legal, and how it reads."""

from __future__ import annotations

import json
import random
import re
import struct
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from machine.tcg import decodetree
from tests.conftest import requires

TCG = Path(decodetree.__file__).resolve().parent
TABLES = sorted((TCG / "guest" / "riscv").glob("*.decode"))
OBJDUMP, OBJCOPY, AS = (f"riscv64-linux-gnu-{tool}" for tool in ("objdump", "objcopy", "as"))
#: What objdump 2.40 knows of our extensions; Zcb and Zicond came later.
MARCH = "rv64gcv_zicbom_zicbop_zicboz_zawrs_zba_zbb_zbc_zbs_zfhmin_svinval"
LATER = ("c.lbu c.lhu c.lh c.sb c.sh c.zext.b c.sext.b c.zext.h c.sext.h c.zext.w c.not c.mul "
         "czero.eqz czero.nez").split()  # fmt: skip

# Reads 32-bit words, prints a line for each; pc counts 4 a word.
DRIVER = """
#include "guest/riscv/riscv.h"
#include <stdio.h>
int main(void)
{
    uint8_t code[4];
    char text[96];
    for (uint64_t pc = 0; fread(code, 1, 4, stdin) == 4; pc += 4) {
        const uint32_t n = riscv_disasm(code, 4, pc, text, sizeof text);
        printf("%u %s\\n", n, text);
    }
    return 0;
}
"""

Disassemble = Callable[[Iterable[int]], list[str]]


@pytest.fixture(scope="session")
def disassemble(tmp_path_factory: pytest.TempPathFactory) -> Disassemble:
    """The C disassembler, as a function from words to texts."""
    requires("gcc")
    out = tmp_path_factory.mktemp("disasm")
    for name, text in decodetree.generate(TABLES).items():
        (out / name).write_text(text)
    (out / "driver.c").write_text(DRIVER)
    program = out / "driver"
    source = TCG / "guest" / "riscv" / "disasm.c"
    command: list[str | Path] = [
        "gcc",
        "-std=gnu11",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{TCG}",
        f"-I{out}",
    ]
    subprocess.run([*command, out / "driver.c", source, "-o", program], check=True)

    def run(words: Iterable[int]) -> list[str]:
        data = b"".join(struct.pack("<I", w) for w in words)
        result = subprocess.run([program], input=data, capture_output=True, check=True)
        return [line.split(" ", 1)[1] for line in result.stdout.decode().splitlines()]

    return run


def objdump(words: Iterable[int], tmp_path: Path) -> list[str]:
    """What objdump makes of the words; every instruction stands at a multiple of 4."""
    requires(OBJDUMP, OBJCOPY, AS)
    data, source, path = tmp_path / "words.bin", tmp_path / "empty.s", tmp_path / "words.o"
    # Behind a 16-bit instruction stands c.ebreak, to be skipped below.
    data.write_bytes(b"".join(struct.pack("<I", w if w & 3 == 3 else w | 0x9002 << 16) for w in words))
    # It takes the extensions from an object's attributes.
    source.write_text("")
    subprocess.run([AS, f"-march={MARCH}", "-o", path, source], check=True)
    subprocess.run([OBJCOPY, "--update-section", f".text={data}", path], check=True)
    listing: list[str | Path] = [OBJDUMP, "-D", "-z", "-j", ".text", "-M", "no-aliases", path]
    text = subprocess.run(listing, capture_output=True, check=True, text=True).stdout
    out = []
    for line in text.splitlines():
        m = re.match(r"\s*([0-9a-f]+):\t[0-9a-f ]+\t(.*)", line)
        if m and int(m[1], 16) % 4 == 0:
            out.append(re.sub(r"\s*(#|<).*", "", m[2]))
    return out


def is_illegal(text: str) -> bool:
    return text.startswith((".2byte", ".4byte", ".word", ".short", ".insn", "unimp", "c.unimp", "0x"))


def normal(text: str) -> str:
    """One spelling for both."""
    return re.sub(r",\s+", ",", re.sub(r"\s+", " ", text)).strip()


def samples(rng: random.Random, count: int) -> list[int]:
    """Legal encodings: each instruction of 32 bits, its free bits at random."""
    listed = json.loads(decodetree.generate(TABLES)["instructions.json"])
    wide = [i for i in listed if i["width"] == 32]
    return [i["match"] | rng.getrandbits(32) & ~i["mask"] for i in wide for _ in range(count)]


def differs_rightly(word: int, ours: str, theirs: str) -> bool:
    """Where objdump 2.40 sees otherwise than the architecture has it, and why we do not follow."""
    name, other = ours.split()[0], theirs.split()[0]
    if name in LATER:
        return is_illegal(theirs)
    if name in ("fence", "fence.i", "fence.tso", "pause"):
        return True  # reserved fields are to be ignored; it takes them for another instruction
    if name in ("fcvt.d.w", "fcvt.d.wu", "fcvt.d.s", "fcvt.s.h", "fcvt.d.h"):
        # It knows these conversions, which are exact, with one rounding mode only, and leaves that out.
        return is_illegal(theirs) or normal(ours) == normal(theirs) + ",rne"
    if name.startswith("f") and word & 0x7F in (0x43, 0x47, 0x4B, 0x4F, 0x53) and word >> 12 & 7 in (5, 6):
        return "unknown" in theirs  # a reserved rounding mode is a matter of execution
    if name in ("c.slli", "c.srli", "c.srai"):
        return other == name + "64"  # a shift by 0 is RV128's shift by 64 to it, a HINT in RV64
    if other in ("uret", "hret", "sfence.vm") or word == 0x6101:
        return is_illegal(ours)  # of drafts; c.addi16sp 0 is reserved
    # It knows more CSRs by name, of extensions that this machine does not have.
    return name.startswith("csrr") and ours.split(", ")[1].startswith("0x")


def compare(words: list[int], ours: list[str], theirs: list[str]) -> list[str]:
    assert len(words) == len(ours) == len(theirs)
    out = []
    for word, a, b in zip(words, ours, theirs, strict=True):
        if is_illegal(a) and is_illegal(b):
            continue
        if normal(a) != normal(b) and not differs_rightly(word, a, b):
            out.append(f"{word:08x}: {a!r} not {b!r}")
    return out


def test_every_instruction_reads_as_objdump_has_it(disassemble: Disassemble, tmp_path: Path) -> None:
    words = samples(random.Random(1), 40)
    assert compare(words, disassemble(words), objdump(words, tmp_path)) == []


def test_random_words_are_legal_where_objdump_says_so(disassemble: Disassemble, tmp_path: Path) -> None:
    rng = random.Random(2)
    words = [w for w in (rng.getrandbits(32) | 3 for _ in range(60_000)) if w & 0x1F != 0x1F]
    assert compare(words, disassemble(words), objdump(words, tmp_path)) == []


def test_near_misses_are_legal_where_objdump_says_so(disassemble: Disassemble, tmp_path: Path) -> None:
    """One bit away from a legal encoding is where a table is too wide or too narrow."""
    rng = random.Random(3)
    words = [w ^ 1 << rng.randrange(5, 32) for w in samples(rng, 60)]
    words = [w for w in words if w & 0x1F != 0x1F]
    assert compare(words, disassemble(words), objdump(words, tmp_path)) == []


def test_all_16_bit_encodings_are_as_objdump_has_them(disassemble: Disassemble, tmp_path: Path) -> None:
    words = [w for w in range(1 << 16) if w & 3 != 3]
    assert compare(words, disassemble(words), objdump(words, tmp_path)) == []


def test_longer_encodings_are_illegal(disassemble: Disassemble) -> None:
    rng = random.Random(4)
    words = [rng.getrandbits(32) | 0x1F | 1 << 31 for _ in range(2000)]
    assert all(is_illegal(text) for text in disassemble(words))


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0x00B50533, "add a0, a0, a1"),
        (0xFE000EE3, "beq zero, zero, 0xfffffffffffffffc"),
        (0x34011073, "csrrw zero, mscratch, sp"),
        (0x100527AF, "lr.w a5, (a0)"),
        (0x0E05262F, "amoswap.w.aqrl a2, zero, (a0)"),
        (0x02A58553, "fadd.d fa0, fa1, fa0, rne"),
        (0x0FF0000F, "fence iorw, iorw"),
        (0x0100000F, "pause"),
        (0x00000000, ".2byte 0x0000"),
        (0xFFFFFFFF, ".4byte 0xffffffff"),
    ],
)
def test_known_encodings_read_well(disassemble: Disassemble, word: int, text: str) -> None:
    assert disassemble([word]) == [text]
