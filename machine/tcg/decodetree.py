"""Generate an instruction decoder, disassembler tables and an instruction list from .decode files.

A .decode file is a table of instructions, one line each, and of the names those lines use:

    [M]                                               extension of the instructions that follow
    %imm_b   s31:1 7:1 25:6 8:4 <<1                   field: pos:len, most significant first; s = signed
    %rdc     2:3 +8                                   << shifts the value, + adds to it
    &r       rd:x rs1:x rs2:x                         argument set: a C struct; :kind is how it prints
    @r       &r %rd %rs1 %rs2                         format: argument set, name=%field, name=constant
    add      0000000 ..... ..... 000 ..... 0110011 @r "add {rd}, {rs1}, {rs2}"
    lui      011 . ..... ..... 01 @clui "c.lui {rd}, {imm}" imm!=0 rd!=2
    { ... }                                           group: first match wins; else overlaps are refused

In a pattern's bits `.` is read by a field and `-` is ignored. The first word names the C function,
`trans_add(ctx, &args)`; the template's first word names the instruction. `%rd` is short for `rd=%rd`.

The output depends on the tables alone. Every mistake is a DecodeError with file and line.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("int", "hex", "x", "f", "v", "pc", "hi20", "csr", "rm", "aqrl", "iorw", "vm", "vtype")
"""How the disassembler can print an argument; disasm.c has a case for each."""
MAX_OPERANDS = 5
MAX_CONDITIONS = 2


class DecodeError(Exception):
    """A .decode file is wrong; the message begins with file:line and says what to write instead."""

    exit_code = 1


@dataclass(frozen=True)
class Segment:
    pos: int
    length: int
    signed: bool


@dataclass(frozen=True)
class Field:
    name: str
    segments: tuple[Segment, ...]
    shift: int
    add: int

    def mask(self) -> int:
        """Bits of the encoding that the field reads."""
        return sum(((1 << s.length) - 1) << s.pos for s in self.segments)


@dataclass(frozen=True)
class ArgSet:
    name: str
    kinds: Mapping[str, str]


@dataclass(frozen=True)
class Format:
    args: str | None
    values: Mapping[str, str | int]


@dataclass
class Pattern:
    """One instruction: `values` maps each argument to a field's name or to a constant."""

    where: str
    trans: str
    extension: str
    width: int
    mask: int
    match: int
    args: ArgSet
    values: Mapping[str, str | int]
    template: str
    conditions: tuple[tuple[str, int], ...]

    @property
    def mnemonic(self) -> str:
        """The instruction's name; a number that is part of it is ``N``."""
        return re.sub(r"\{\w+\}(?=.)", "N", self.template.split()[0]).split("{")[0]

    def overlaps(self, other: Pattern) -> bool:
        return not (self.match ^ other.match) & self.mask & other.mask

    def hides(self, other: Pattern) -> bool:
        """Every encoding of `other` is one of this pattern."""
        return not self.conditions and self.overlaps(other) and self.mask & ~other.mask == 0


@dataclass
class Unit:
    """A pattern, or a group of patterns tried in order."""

    patterns: list[Pattern]

    @property
    def mask(self) -> int:
        first = self.patterns[0]
        mask = first.mask
        for p in self.patterns[1:]:
            mask &= p.mask & ~(p.match ^ first.match)
        return mask

    @property
    def match(self) -> int:
        return self.patterns[0].match & self.mask


@dataclass
class Table:
    """What one .decode file says."""

    stem: str
    width: int = 0
    units: list[Unit] = field(default_factory=list)

    def patterns(self) -> list[Pattern]:
        return [p for u in self.units for p in u.patterns]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that say something, without comments."""
    for number, line in enumerate(text.splitlines(), 1):
        if line := line.split("#")[0].strip():
            yield number, line


class Parser:
    """Reads .decode files; names defined in one hold in all."""

    def __init__(self) -> None:
        self.fields: dict[str, Field] = {}
        self.arg_sets: dict[str, ArgSet] = {}
        self.formats: dict[str, Format] = {}
        self.tables: list[Table] = []
        self._where = ""

    def define(self, texts: Mapping[str, str]) -> None:
        """Take the definitions of all files, in whatever order they stand.

        Raises: DecodeError at the first mistake.
        """
        for sigil in "%&@":
            for name, text in texts.items():
                for number, line in _lines(text):
                    if line.startswith(sigil):
                        self._where = f"{name}:{number}"
                        self._definition(line)

    def parse(self, name: str, text: str) -> Table:
        """Parse the patterns of the file `name`, and check them against each other.

        Raises: DecodeError at the first mistake.
        """
        table = Table(Path(name).stem)
        extension = ""
        group: list[Pattern] | None = None
        for number, line in _lines(text):
            self._where = f"{name}:{number}"
            if line.startswith("["):
                extension = line.strip("[] ")
            elif line[0] in "%&@":
                continue
            elif line == "{":
                if group is not None:
                    self._fail("groups do not nest; close the one before with '}'")
                group = []
            elif line == "}":
                if not group:
                    self._fail("'}' without a group, or a group of nothing")
                else:
                    table.units.append(Unit(group))
                group = None
            else:
                pattern = self._pattern(line, extension, table)
                if group is None:
                    table.units.append(Unit([pattern]))
                else:
                    group.append(pattern)
        if group is not None:
            self._fail("the last group is not closed with '}'")
        _check_overlaps(table, [u for t in self.tables if t.width == table.width for u in t.units])
        self.tables.append(table)
        self._check_functions()
        return table

    def _fail(self, message: str) -> None:
        raise DecodeError(f"{self._where}: {message}")

    def _definition(self, line: str) -> None:
        sigil, words = line[0], line[1:].split()
        known = {"%": self.fields.keys(), "&": self.arg_sets.keys(), "@": self.formats.keys()}[sigil]
        if not words or not re.fullmatch(r"[a-z_]\w*", words[0]):
            self._fail(f"a name must follow '{sigil}'")
        if words[0] in known:
            self._fail(f"{sigil}{words[0]} is defined twice")
        if sigil == "%":
            self.fields[words[0]] = self._field(words[0], words[1:])
        elif sigil == "&":
            self.arg_sets[words[0]] = self._arg_set(words[0], words[1:])
        else:
            args, values = self._assignments(words[1:])
            self.formats[words[0]] = Format(args, values)

    def _field(self, name: str, words: Sequence[str]) -> Field:
        segments: list[Segment] = []
        shift = add = 0
        for word in words:
            if m := re.fullmatch(r"(s?)(\d+):(\d+)", word):
                segments.append(Segment(int(m[2]), int(m[3]), bool(m[1])))
            elif m := re.fullmatch(r"<<(\d+)", word):
                shift = int(m[1])
            elif m := re.fullmatch(r"\+(\d+)", word):
                add = int(m[1])
            else:
                self._fail(f"'{word}' is not pos:len, <<shift or +offset")
        if not segments or any(s.length == 0 or s.signed for s in segments[1:]):
            self._fail(f"%{name} needs bits, and only its first segment may be signed")
        return Field(name, tuple(segments), shift, add)

    def _arg_set(self, name: str, words: Sequence[str]) -> ArgSet:
        kinds: dict[str, str] = {}
        for word in words:
            arg, _, kind = word.partition(":")
            if arg in kinds:
                self._fail(f"argument '{arg}' is in &{name} twice")
            kinds[arg] = self._kind(kind or "int")
        return ArgSet(name, kinds)

    def _kind(self, kind: str) -> str:
        if kind not in KINDS:
            self._fail(f"no kind '{kind}'; there are {', '.join(KINDS)}")
        return kind

    def _assignments(self, words: Sequence[str]) -> tuple[str | None, dict[str, str | int]]:
        args: str | None = None
        values: dict[str, str | int] = {}
        for word in words:
            if word.startswith("&"):
                args = word[1:]
                if args not in self.arg_sets:
                    self._fail(f"no argument set &{args}")
                continue
            m = re.fullmatch(r"(?:(\w+)=)?%(\w+)|(\w+)=(-?\d+)", word)
            if not m:
                self._fail(f"'{word}' is not &set, %field, name=%field or name=constant")
                continue
            target = m[1] or m[2] or m[3]
            if m[2] and m[2] not in self.fields:
                self._fail(f"no field %{m[2]}")
            if target in values:
                self._fail(f"argument '{target}' is set twice")
            values[target] = m[2] or int(m[4])
        return args, values

    def _pattern(self, line: str, extension: str, table: Table) -> Pattern:
        m = re.fullmatch(r'([a-z]\w*)\s+([01.\- ]+?)\s+([@&%][^"]*?)\s*"([^"]+)"\s*(.*)', line)
        if not m:
            self._fail('a pattern is: name bits @format "template" [arg!=constant]')
            raise AssertionError
        bits = m[2].replace(" ", "")
        width = len(bits)
        if width not in (16, 32) or table.width not in (0, width):
            self._fail(f"{width} bits; a file's patterns have all 16 or all 32")
        table.width = width
        args, values = self._arguments(m[3].split())
        conditions = self._conditions(m[5].split(), values)
        pattern = Pattern(
            where=self._where,
            trans=m[1],
            extension=extension,
            width=width,
            mask=int("".join("01"[c in "01"] for c in bits), 2),
            match=int(bits.replace(".", "0").replace("-", "0"), 2),
            args=args,
            values=values,
            template=m[4],
            conditions=conditions,
        )
        if not extension:
            self._fail("an [Extension] line must stand before the first pattern")
        self._check_bits(pattern, bits)
        self._check_template(pattern)
        return pattern

    def _arguments(self, words: Sequence[str]) -> tuple[ArgSet, dict[str, str | int]]:
        base: Mapping[str, str | int] = {}
        name: str | None = None
        if words[0].startswith("@"):
            if words[0][1:] not in self.formats:
                self._fail(f"no format {words[0]}")
            fmt = self.formats[words[0][1:]]
            name, base, words = fmt.args, fmt.values, words[1:]
        own_name, own = self._assignments(words)
        name = own_name or name
        if name is None:
            self._fail("neither the pattern nor its format names an argument set")
            raise AssertionError
        if twice := base.keys() & own.keys():
            self._fail(f"argument '{min(twice)}' is set by the format and again by the pattern")
        values = {**base, **own}
        args = self.arg_sets[name]
        if wrong := values.keys() ^ args.kinds.keys():
            self._fail(f"argument '{min(wrong)}' is not both in &{name} and set")
        return args, values

    def _conditions(
        self, words: Sequence[str], values: Mapping[str, str | int]
    ) -> tuple[tuple[str, int], ...]:
        out = []
        for word in words:
            m = re.fullmatch(r"(\w+)!=(-?\d+)", word)
            if not m or not isinstance(values.get(m[1]), str):
                self._fail(f"'{word}' is not arg!=constant of an argument read from a field")
                continue
            if not -128 <= int(m[2]) < 128:
                self._fail(f"'{word}': the constant is not in -128..127")
            out.append((str(values[m[1]]), int(m[2])))
        if len(out) > MAX_CONDITIONS:
            self._fail(f"a pattern has at most {MAX_CONDITIONS} conditions")
        return tuple(out)

    def _check_bits(self, p: Pattern, bits: str) -> None:
        read = 0
        for value in p.values.values():
            if isinstance(value, str):
                read |= self.fields[value].mask()
        if read >> p.width:
            self._fail(f"a field reads above the {p.width} bits of the instruction")
        for i, c in enumerate(reversed(bits)):
            if c == "." and not read >> i & 1:
                self._fail(f"bit {i} is read by no field; fix it, or write '-' to ignore it")
            if c == "-" and read >> i & 1:
                self._fail(f"bit {i} is ignored and read by a field; write '.'")

    def _check_template(self, p: Pattern) -> None:
        operands = template_operands(p)
        for arg, kind in operands:
            if not isinstance(p.values.get(arg), str):
                self._fail(f"{{{arg}}} in the template is no argument read from a field")
            self._kind(kind)
        if len(operands) > MAX_OPERANDS or "%" in p.template:
            self._fail(f"a template has at most {MAX_OPERANDS} operands and no '%'")

    def _check_functions(self) -> None:
        seen: dict[str, Pattern] = {}
        for p in (p for t in self.tables for p in t.patterns()):
            other = seen.setdefault(p.trans, p)
            if other.args is not p.args:
                raise DecodeError(
                    f"{p.where}: trans_{p.trans} takes &{other.args.name} at {other.where}, "
                    f"not &{p.args.name}; give it another name"
                )


def template_operands(p: Pattern) -> list[tuple[str, str]]:
    """(argument, kind) of each operand of a pattern's template, in order."""
    found = re.findall(r"\{(\w+)(?::(\w+))?\}", p.template)
    return [(arg, kind or p.args.kinds.get(arg, "int")) for arg, kind in found]


def _check_overlaps(table: Table, others: Sequence[Unit]) -> None:
    """Refuse patterns that are never reached, and units that overlap in this table or with those of others."""
    for i, unit in enumerate(table.units):
        for k, p in enumerate(unit.patterns):
            for before in unit.patterns[:k]:
                if before.hides(p):
                    raise DecodeError(f"{p.where}: never reached, {before.where} matches all of it first")
            for q in (q for other in (*others, *table.units[:i]) for q in other.patterns):
                if p.overlaps(q):
                    raise DecodeError(f"{p.where}: overlaps {q.where}; if meant, put both in a {{ group }}")


# Generated C


def _field_function(f: Field) -> str:
    """A C function from an encoding to the field's value."""
    expr = ""
    for s in f.segments:
        get = "sextract" if s.signed else "extract"
        part = f"{get}(insn, {s.pos}, {s.length})"
        expr = part if not expr else f"({expr} << {s.length} | {part})"
    if f.shift:
        expr = f"({expr} << {f.shift})"
    if f.add:
        expr = f"{expr} + {f.add}"
    return f"static inline int32_t field_{f.name}(uint32_t insn)\n{{\n    return (int32_t)({expr});\n}}\n"


_FIELDS_HEAD = """\
static inline uint32_t extract(uint32_t insn, int pos, int len)
{
    return (insn >> pos) & ((1u << len) - 1);
}
static inline uint32_t sextract(uint32_t insn, int pos, int len)
{
    return (uint32_t)((int32_t)(insn << (32 - pos - len)) >> (32 - len));
}
"""


def _tests(mask: int, match: int, conditions: Sequence[tuple[str, int]]) -> str:
    tests = [f"(insn & 0x{mask:x}u) == 0x{match & mask:x}u"] if mask else []
    tests += [f"field_{name}(insn) != {value}" for name, value in conditions]
    return " && ".join(tests)


def _tree(units: Sequence[Unit], known: int, leaf: Callable[[Pattern], str], depth: int = 1) -> list[str]:
    """C statements that return at the first match; falling out of them means no match."""
    pad = "    " * depth
    common = ~known
    for u in units:
        common &= u.mask
    out: list[str] = []
    if len(units) == 1 or common == 0:
        for p in (p for u in units for p in u.patterns):
            test = _tests(p.mask & ~known, p.match, p.conditions)
            out += [f"{pad}if ({test})", f"{pad}    {leaf(p)}"] if test else [f"{pad}{leaf(p)}"]
        return out
    cases: dict[int, list[Unit]] = {}
    for u in units:
        cases.setdefault(u.match & common, []).append(u)
    out.append(f"{pad}switch (insn & 0x{common:x}u) {{")
    for value in sorted(cases):
        out.append(f"{pad}case 0x{value:x}u:")
        body = _tree(cases[value], known | common, leaf, depth + 1)
        out += body if body[-1].startswith(f"{pad}    return") else [*body, f"{pad}    break;"]
    out.append(f"{pad}}}")
    return out


def _decode_leaf(p: Pattern) -> str:
    inits = [f".{a} = " + (f"field_{v}(insn)" if isinstance(v, str) else str(v)) for a, v in p.values.items()]
    return f"return trans_{p.trans}(ctx, &(arg_{p.args.name}){{{', '.join(inits) or '0'}}});"


def _decoder(table: Table) -> str:
    # Not inline: the compiler takes half as long again for one function of all tables.
    body = "\n".join(_tree(table.units, 0, _decode_leaf))
    head = f"static __attribute__((noinline)) bool decode_{table.stem}(Ctx *ctx, uint32_t insn)"
    return f"{head}\n{{\n{body}\n    return false;\n}}\n"


def _arguments_text(parser: Parser) -> str:
    out = []
    for s in parser.arg_sets.values():
        members = f"int32_t {', '.join(s.kinds)};" if s.kinds else "char none;"
        out.append(f"typedef struct {{ {members} }} arg_{s.name};")
    functions = {p.trans: p.args.name for t in parser.tables for p in t.patterns()}
    out += [f"static bool trans_{name}(Ctx *ctx, const arg_{args} *a);" for name, args in functions.items()]
    return "\n".join(out) + "\n"


def _disassembler(parser: Parser) -> str:
    """A table of all patterns in the order of their tables: the first that an encoding matches is the instruction."""
    fields = list(parser.fields)
    out = ["typedef enum {", *(f"    DK_{k.upper()}," for k in KINDS), "} DisKind;"]
    out += ["enum {", *(f"    FIELD_{f}," for f in fields), "};"]
    out += ["static int32_t disasm_field(uint8_t field, uint32_t insn)", "{", "    switch (field) {"]
    out += [f"    case FIELD_{f}:\n        return field_{f}(insn);" for f in fields]
    out += ["    }", "    return 0;", "}"]
    out += ["typedef struct {", "    const char *text; /* '%' stands for the next operand */"]
    out += ["    uint32_t mask, match;", f"    uint8_t conditions, field_not[{MAX_CONDITIONS}];"]
    out += [f"    int8_t value_not[{MAX_CONDITIONS}];"]
    out += [f"    uint8_t kind[{MAX_OPERANDS}], field[{MAX_OPERANDS}];", "} DisInsn;"]
    out.append("static const DisInsn disasm_insns[] = {")
    for p in (p for t in parser.tables for p in t.patterns()):
        operands = template_operands(p)
        text = re.sub(r"\{[^}]*\}", "%", p.template)
        lists = (
            [f"FIELD_{name}" for name, _ in p.conditions],
            [str(value) for _, value in p.conditions],
            [f"DK_{kind.upper()}" for _, kind in operands],
            [f"FIELD_{p.values[arg]}" for arg, _ in operands],
        )
        held, values, kinds, names = (f"{{{', '.join(words) or 0}}}" for words in lists)
        out.append(f'    {{"{text}", 0x{p.mask:x}, 0x{p.match:x},')
        out.append(f"     {len(p.conditions)}, {held}, {values}, {kinds}, {names}}},")
    return "\n".join([*out, "};"]) + "\n"


def instructions(parser: Parser) -> list[dict[str, str | int]]:
    """Every instruction of the tables: name, extension, width (bits), mask, match, trans, template."""
    return [
        {
            "name": p.mnemonic,
            "extension": p.extension,
            "width": p.width,
            "mask": p.mask,
            "match": p.match,
            "trans": p.trans,
            "template": p.template,
        }
        for t in parser.tables
        for p in t.patterns()
    ]


def parse_files(paths: Sequence[str | Path]) -> Parser:
    """Parse .decode files.

    Raises: DecodeError: a table is wrong. OSError: a file cannot be read.
    """
    texts = {Path(path).name: Path(path).read_text(encoding="utf-8") for path in paths}
    parser = Parser()
    parser.define(texts)
    for name, text in texts.items():
        parser.parse(name, text)
    return parser


def generate(paths: Sequence[str | Path]) -> dict[str, str]:
    """Return the generated files, by file name.

    Args: paths: .decode files of one guest, in any order.
    Returns: decode_fields.inc, decode_args.inc, decode_<stem>.inc for each file, disasm_tables.inc,
        instructions.json.
    Raises: DecodeError: a table is wrong. OSError: a file cannot be read.
    """
    parser = parse_files(paths)
    note = f"/* generated by decodetree.py from {', '.join(Path(p).name for p in paths)} */\n"
    files = {
        "decode_fields.inc": note + _FIELDS_HEAD + "".join(map(_field_function, parser.fields.values())),
        "decode_args.inc": note + _arguments_text(parser),
        "disasm_tables.inc": note + _disassembler(parser),
        "instructions.json": json.dumps(instructions(parser), indent=1) + "\n",
    }
    for table in parser.tables:
        files[f"decode_{table.stem}.inc"] = note + _decoder(table)
    return files


def main(argv: Sequence[str] | None = None) -> int:
    """Write the generated files to a directory."""
    args = argparse.ArgumentParser(description="Generate a decoder and a disassembler from .decode tables.")
    args.add_argument("--out-dir", type=Path, required=True, help="where the .inc and .json files go")
    args.add_argument("tables", nargs="+", help=".decode files of one guest")
    options = args.parse_args(argv)
    try:
        files = generate(options.tables)
    except (DecodeError, OSError) as e:
        sys.stderr.write(f"{e}\n")
        return 1
    options.out_dir.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (options.out_dir / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
