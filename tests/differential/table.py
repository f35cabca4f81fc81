"""Every instruction of the decode tables: how it is translated, and by what it is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from machine.tcg.decodetree import Pattern
from machine.tcg.engine import Engine
from tests.differential import harness, machines, peer
from tests.differential.generate import Generator
from tests.differential.items import patterns
from tests.differential.starts import VS

#: Instructions that are generated as parts of items alone.
TEMPLATED = frozenset({"sret", "mret", "sc.w", "sc.d", "lr.w", "lr.d"})

#: Those that count vectors.
MACHINES = ("jit", "interp", "qemu")


def translation(engine: Engine, p: Pattern) -> str:
    """Return ``code`` where an instruction becomes ops of its own, ``helper`` where it calls one and does no more.

    Raises:
        AssertionError: it is not translated at all: the block is that of an illegal instruction.
    """
    word = Generator(0, patterns()).word(p)
    if "rd" in p.args.kinds and p.width == 32:
        word = word & ~(31 << 7) | 14 << 7  # not x0, for which some do nothing
    if "rm" in p.args.kinds:
        word &= ~(7 << 12)  # a mode that is none is illegal
    engine.write_phys(harness.CODE, word.to_bytes(4, "little"))
    engine.set_reg(0, "pc", harness.CODE)
    ops = _first_ops(engine)
    assert not any(op[0] == "CALL" and op[5:] == ["helper", _illegal(engine)] for op in ops), p.mnemonic
    calls = [op for op in ops if op[0] == "CALL"]
    return "helper" if calls and all(op[0] in ("CALL", "EXIT", "GOTO") for op in ops) else "code"


def _first_ops(engine: Engine) -> list[list[str]]:
    """The ops of the first instruction at pc, in words."""
    lines = engine.translator.dump_ir(0).splitlines()[1:]
    end = next((i for i, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    return [line.split() for line in lines[:end]]


def _illegal(engine: Engine) -> str:
    """The number of the helper that an illegal instruction calls."""
    engine.write_phys(harness.CODE, b"\0\0\0\0")
    engine.set_reg(0, "pc", harness.CODE)
    return _first_ops(engine)[0][-1]


@dataclass(frozen=True)
class Row:
    """An instruction, how it is translated, its vectors on each machine, and what it is held against beside those."""

    pattern: Pattern
    translated: str
    vectors: tuple[int, int, int]
    beside: str

    def words(self) -> list[str]:
        p = self.pattern
        return [p.mnemonic, p.extension, str(p.width), self.translated, *map(str, self.vectors), self.beside]


HEAD = ["instruction", "extension", "bits", "translated", *MACHINES, "beside"]


def coverage(vectors: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """Return a row of every instruction.

    Args:
        vectors: by machine, the vectors of each instruction: all that ``jit`` ran, those that ``interp`` and ``qemu``
            agreed with.
    """
    with Engine(
        ram_base=harness.BASE,
        ram_size=1 << 20,
        host=machines.BareHost(),
        builtin_sbi=False,
        features=machines.features(128),
    ) as engine:
        engine.set_reg(0, "mstatus", 3 << 13 | VS)
        rows = []
        for p in patterns():
            jit, interp, qemu = (vectors.get(machine, {}).get(p.mnemonic, 0) for machine in MACHINES)
            beside = "" if peer.has(p) or p.mnemonic in TEMPLATED else "model"
            rows.append(Row(p, translation(engine, p), (jit, interp, qemu), beside))
    return rows


def coverage_table(vectors: Mapping[str, Mapping[str, int]]) -> str:
    """Return ``coverage`` as columns of text."""
    widths = (16, 12, 6, 12, -7, -8, -8, 7)
    lines = []
    for words in (HEAD, *(row.words() for row in coverage(vectors))):
        cells = [w.ljust(n) if n > 0 else w.rjust(-n) for w, n in zip(words[:-1], widths, strict=False)]
        lines.append(f"{''.join(cells)}  {words[-1]}".rstrip())
    return "\n".join(lines)


PAGE = """# How instructions are tested

Made by `python -m tests.differential --vlen 0 128 256 --page docs/coverage.md`: random sequences run by
translation to host code, by the interpreter and on QEMU 7.2, whose deviations `tests/differential/peer.py` lists.
Columns `jit`, `interp` and `qemu` count an instruction's vectors: those run, and those of sequences in which the other
machine agreed on each trap and on what was left. `model`: the peer lacks it or can't judge it, and tests hold it
against a model. `code`: translated to operations of the intermediate language, `helper`: to a call.
""".splitlines()


def coverage_page(vectors: Mapping[str, Mapping[str, int]], runs: Sequence[str]) -> str:
    """Return ``coverage`` as a reference page, with a line for each run that it counts."""
    lines = [*PAGE, "", *(f"- {run}" for run in runs)]
    lines += ["", "| " + " | ".join(HEAD) + " |", "| " + " | ".join("---" for _ in HEAD) + " |"]
    lines += ["| " + " | ".join(row.words()).rstrip() + " |" for row in coverage(vectors)]
    return "\n".join(lines) + "\n"
