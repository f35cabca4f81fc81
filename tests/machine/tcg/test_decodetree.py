"""The generator of decoders: what it accepts, what it refuses and where, and what it makes of it."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.tcg import decodetree
from machine.tcg.decodetree import DecodeError, Field, Parser, Pattern, Segment
from machine.tcg.engine import Engine

TCG = Path(decodetree.__file__).resolve().parent
TABLES = sorted((TCG / "guest" / "riscv").glob("*.decode"))

NAMES = """\
%rd 7:5
%rs1 15:5
%imm s20:12
&i rd:x rs1:x imm
@i &i %rd %rs1 %imm
[I]
"""
ADDI = 'addi ............ ..... 000 ..... 0010011 @i "addi {rd}, {rs1}, {imm}"\n'


def parse(text: str) -> Parser:
    parser = Parser()
    parser.define({"t.decode": text})
    parser.parse("t.decode", text)
    return parser


def refused(text: str) -> str:
    with pytest.raises(DecodeError) as e:
        parse(text)
    return str(e.value)


def find(parser: Parser, word: int) -> Pattern | None:
    """A slow decoder: the first pattern whose fixed bits and conditions hold."""
    for p in (p for t in parser.tables for p in t.patterns()):
        ok = all(field_value(parser.fields[f], word) != v for f, v in p.conditions)
        if word & p.mask == p.match and ok:
            return p
    return None


def field_value(f: Field, word: int) -> int:
    value, bits = 0, 0
    for s in f.segments:
        value = value << s.length | (word >> s.pos) & ((1 << s.length) - 1)
        bits += s.length
    if f.segments[0].signed and value >> (bits - 1):
        value -= 1 << bits
    return (value << f.shift) + f.add


def test_a_pattern_names_function_instruction_and_arguments() -> None:
    (entry,) = decodetree.instructions(parse(NAMES + ADDI))
    assert entry["name"] == "addi"
    assert entry["extension"] == "I"
    assert entry["width"] == 32
    assert (entry["mask"], entry["match"]) == (0x707F, 0x13)


def test_tables_are_the_same_in_any_order() -> None:
    one = {k: sorted(v.splitlines()[1:]) for k, v in decodetree.generate(TABLES).items() if "args" in k}
    two = {k: sorted(v.splitlines()[1:]) for k, v in decodetree.generate(TABLES[::-1]).items() if "args" in k}
    assert one == two


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (NAMES + ADDI + ADDI, 8, "overlaps t.decode:7"),
        (NAMES + ADDI.replace("@i", "@j"), 7, "no format @j"),
        (NAMES + "@x &nothing %rd\n", 7, "no argument set &nothing"),
        (NAMES + "@x &i %rd %rs1 imm=%no\n", 7, "no field %no"),
        (NAMES + "%rd 1:2\n", 7, "%rd is defined twice"),
        (NAMES + "%x 1:2 s3:4\n", 7, "only its first segment may be signed"),
        (NAMES + "&x a:colour\n", 7, "no kind 'colour'"),
        (NAMES + ADDI.replace("@i", "&i %rd %rs1"), 7, "'imm' is not both in &i and set"),
        (NAMES + ADDI.replace("@i", "@i rd=1"), 7, "set by the format and again"),
        (NAMES + ADDI.replace("000", "0.0"), 7, "bit 13 is read by no field"),
        (NAMES + ADDI.replace("..... 0010011", "----- 0010011"), 7, "bit 7 is ignored and read"),
        (NAMES + ADDI.replace("0010011", "001001"), 7, "31 bits"),
        (NAMES + ADDI.replace("{imm}", "{shamt}"), 7, "{shamt} in the template is no argument"),
        (NAMES + ADDI.replace("\n", " rs2!=0\n"), 7, "'rs2!=0' is not arg!=constant"),
        (NAMES + ADDI.replace("\n", " imm!=200\n"), 7, "'imm!=200': the constant is not in -128..127"),
        (NAMES + ADDI.replace("\n", " rd!=0 rs1!=0 imm!=0\n"), 7, "at most 2 conditions"),
        (NAMES.replace("[I]", "") + ADDI, 7, "[Extension]"),
        (NAMES + "{\n" + ADDI + ADDI + "}\n", 9, "never reached"),
        (NAMES + "{\n" + ADDI, 8, "not closed"),
        (NAMES + "}\n", 7, "without a group"),
        (NAMES + "what is this\n", 7, "a pattern is"),
    ],
)
def test_mistakes_are_refused_at_their_line(text: str, line: int, says: str) -> None:
    message = refused(text)
    assert message.startswith(f"t.decode:{line}: ")
    assert says in message


def test_a_function_has_one_argument_set() -> None:
    other = '%all 7:25\n&u all\naddi ......................... 0110011 &u %all "x {all}"\n'
    assert "trans_addi takes &i at t.decode:7, not &u" in refused(NAMES + ADDI + other)


def test_a_group_may_overlap_and_the_first_match_wins() -> None:
    nop = 'nop 000000000000 00000 000 00000 0010011 &i rd=0 rs1=0 imm=0 "nop"\n'
    parser = parse(NAMES + "{\n" + nop + ADDI + "}\n")
    hit, other = find(parser, 0x13), find(parser, 0x93)
    assert hit is not None and hit.mnemonic == "nop"
    assert other is not None and other.mnemonic == "addi"


@given(st.integers(0, 0xFFFFFFFF))
def test_generated_fields_read_what_the_table_says(word: int) -> None:
    """The C expression, evaluated here, against the definition."""
    f = Field(
        "f", (Segment(31, 1, True), Segment(7, 1, False), Segment(25, 6, False), Segment(8, 4, False)), 1, 3
    )
    text = decodetree._field_function(f)
    m = re.search(r"return \(int32_t\)\((.*)\);", text)
    assert m is not None

    def extract(insn: int, pos: int, length: int) -> int:
        return insn >> pos & ((1 << length) - 1)

    def sextract(insn: int, pos: int, length: int) -> int:
        value = extract(insn, pos, length)
        return value - (1 << length) if value >> (length - 1) else value

    names = {"insn": word, "extract": extract, "sextract": sextract}
    assert eval(m[1], names) == field_value(f, word)


@pytest.mark.requires("gcc")
def test_generated_tree_finds_what_a_plain_search_finds(tmp_path: Path) -> None:
    """The C switch tree for the real tables, over all 16-bit words and many wide ones."""
    parser = decodetree.parse_files(TABLES)
    listed = decodetree.instructions(parser)
    patterns = [p for t in parser.tables for p in t.patterns()]
    rng = random.Random(5)
    words = [w for w in range(1 << 16) if w & 3 != 3]
    words += [rng.getrandbits(32) | 3 for _ in range(5_000)]
    words += [p.match | rng.getrandbits(32) & ~p.mask for p in patterns if p.width == 32 for _ in range(8)]
    for name, text in decodetree.generate(TABLES).items():
        (tmp_path / name).write_text(text)
    place = {id(p): i for i, p in enumerate(patterns)}
    finders = ""
    for table in parser.tables:
        body = "\n".join(decodetree._tree(table.units, 0, lambda p: f"return {place[id(p)]};"))
        finders += f"static int find_{table.stem}(uint32_t insn)\n{{\n{body}\n    return -1;\n}}\n"
    wide = [t.stem for t in parser.tables if t.width == 32]
    chain = "".join(f" if ((w & 3) == 3 && i < 0) i = find_{stem}(w);" for stem in wide)
    (tmp_path / "t.c").write_text(
        "#include <stdint.h>\n#include <stdio.h>\n"
        f'#include "decode_fields.inc"\n{finders}'
        "int main(void) { uint32_t w;\n"
        "while (fread(&w, 4, 1, stdin) == 1) {\n"
        f"int i = -1; if ((w & 3) != 3) i = find_insn16(w);{chain}\n"
        'printf("%d\\n", i); } return 0; }\n'
    )
    program = tmp_path / "t"
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", tmp_path / "t.c", "-o", program], check=True)
    data = b"".join(w.to_bytes(4, "little") for w in words)
    found = subprocess.run([program], input=data, capture_output=True, check=True).stdout.split()
    by_width = {w: [p for p in patterns if p.width == w] for w in (16, 32)}
    parser16, parser32 = Parser(), Parser()
    for width, part in ((16, parser16), (32, parser32)):
        part.fields = parser.fields
        part.tables = [t for t in parser.tables if t.width == width]
    assert len(by_width[16]) + len(by_width[32]) == len(listed)
    for word, index in zip(words, map(int, found), strict=True):
        expected = find(parser32 if word & 3 == 3 else parser16, word)
        assert (patterns[index] if index >= 0 else None) is expected, hex(word)


@pytest.mark.parametrize("width", (16, 32))
def test_the_disassembler_finds_what_a_plain_search_finds(width: int, engine: Engine) -> None:
    parser = decodetree.parse_files(TABLES)
    parser.tables = [t for t in parser.tables if t.width == width]
    rng = random.Random(6)
    if width == 16:
        words = [w for w in range(0, 1 << 16, 5) if w & 3 != 3]
    else:
        patterns = [p for t in parser.tables for p in t.patterns()]
        words = [p.match | rng.getrandbits(32) & ~p.mask for p in patterns for _ in range(3)]
        words += [rng.getrandbits(32) | 3 for _ in range(500)]
    known = 0
    for word in words:
        length, text = engine.disasm(word.to_bytes(width // 8, "little"), 0x1000)
        pattern = find(parser, word)
        wanted = f".{width // 8}byte {{}}" if pattern is None else pattern.template
        known += pattern is not None
        regex = ".*".join(map(re.escape, re.split(r"\{[^}]*\}", wanted)))
        assert length == width // 8 and re.fullmatch(regex, text), hex(word)
    assert known > len(words) // 2


def test_the_list_has_every_instruction() -> None:
    listed = json.loads(decodetree.generate(TABLES)["instructions.json"])
    count: dict[str, set[str]] = {}
    for entry in listed:
        count.setdefault(entry["extension"], set()).add(entry["name"])
    sizes = {extension: len(names) for extension, names in count.items()}
    # fence.tso and pause are fences by other names, and prefetches are ORs
    assert sizes == {
        "I": 52 + 2 + 3,
        "Zifencei": 1,
        "Zicsr": 6,
        "Priv": 4,
        "M": 13,
        "A": 22,
        "F": 30,
        "D": 32,
        "C": 36,
        "Zcb": 12,
        "Zba": 8,
        "Zbb": 24,
        "Zbc": 3,
        "Zbs": 8,
        "Zicond": 2,
        "Zfhmin": 8,
        "Zicbom": 3,
        "Zicboz": 1,
        "Zawrs": 2,
        "Svinval": 3,
        "V": 411,  # accesses to segments of 2 to 8 fields count once
    }


def test_script_writes_files_and_tells_mistakes(tmp_path: Path) -> None:
    script = [sys.executable, str(TCG / "decodetree.py"), "--out-dir", str(tmp_path / "out")]
    subprocess.run([*script, *map(str, TABLES)], check=True)
    assert (tmp_path / "out" / "decode_insn32.inc").read_text().count("return trans_") > 150
    bad = tmp_path / "bad.decode"
    bad.write_text("[I]\nadd 0 @r\n")
    result = subprocess.run([*script, str(bad)], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("bad.decode:2: ")
