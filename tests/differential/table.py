"""Every instruction of the decode tables: how it is translated, and by what it is tested."""

from __future__ import annotations

from collections.abc import Mapping

from machine.tcg.decodetree import Pattern
from machine.tcg.engine import Engine
from tests.differential import harness, machines, peer
from tests.differential.generate import VECTOR, Generator, patterns

#: Instructions that are generated as parts of items alone.
TEMPLATED = frozenset({"sret", "mret", "sc.w", "sc.d", "lr.w", "lr.d"})


def translation(engine: Engine, p: Pattern) -> str:
    """Return ``code`` where an instruction becomes ops of its own, ``helper`` where it calls one and does no more,
    ``by vtype`` where the state of vectors decides.

    Raises:
        AssertionError: it is not translated at all: the block is that of an illegal instruction.
    """
    if p.extension == VECTOR:
        return "by vtype"
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
    lines = engine.dump_ir(0).splitlines()[1:]
    end = next((i for i, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    return [line.split() for line in lines[:end]]


def _illegal(engine: Engine) -> str:
    """The number of the helper that an illegal instruction calls."""
    engine.write_phys(harness.CODE, b"\0\0\0\0")
    engine.set_reg(0, "pc", harness.CODE)
    return _first_ops(engine)[0][-1]


def coverage_table(vectors: Mapping[str, Mapping[str, int]]) -> str:
    """Return a table of every instruction: how it is translated, what it is held against, vectors on each machine.

    Args:
        vectors: by machine, the vectors of each instruction: all that ``jit`` ran, those that ``interp`` and ``qemu``
            agreed with.
    """
    lines = [
        f"{'instruction':<16}{'extension':<12}{'bits':<6}{'translated':<12}{'jit':>7}{'interp':>8}{'qemu':>8}  beside"
    ]
    with Engine(
        ram_base=harness.BASE, ram_size=1 << 20, host=machines.BareHost(), builtin_sbi=False
    ) as engine:
        engine.set_reg(0, "mstatus", 3 << 13)
        for p in patterns():
            counts = [vectors.get(machine, {}).get(p.mnemonic, 0) for machine in ("jit", "interp", "qemu")]
            beside = "" if peer.has(p) or p.mnemonic in TEMPLATED else "model"
            line = f"{p.mnemonic:<16}{p.extension:<12}{p.width:<6}{translation(engine, p):<12}"
            lines.append(f"{line}{counts[0]:>7}{counts[1]:>8}{counts[2]:>8}  {beside}".rstrip())
    return "\n".join(lines)
