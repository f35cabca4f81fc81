"""Items of vector instructions: settings of vl and vtype, their CSRs, and instructions that often make groups."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from machine.tcg.decodetree import Pattern
from tests.differential.items import BASES, FENCE_I, Item, dest, fixed, put, scratch
from tests.differential.starts import STRIDES

VECTOR = "V"
#: CSRs of vectors, and values that are written.
VCSRS = (
    (0x008, (0,)), (0x009, (0, 1)), (0x00A, (0, 1, 2, 3)), (0x00F, tuple(range(8))),
    (0xC20, (0,)), (0xC21, (0,)), (0xC22, (0,)),
)  # fmt: skip
#: What sequences with vectors set SEW to (its code), and the floating-point instructions that they have: where one of
#: 16 bits would be asked for, the peer has it.
SEWS: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...] = (
    ((0, 1, 2, 3), ()),
    ((2, 3), ("vf", "vmf")),
    ((1, 2, 3), ("vfwcvt.f.x", "vfncvt.x", "vfncvt.rtz.x")),
)
#: Instructions at which the peer keeps a vstart that is not zero.
KEEP_VSTART = frozenset({"vslideup", "vmv_x_s", "vmv_s_x", "vfmv_f_s", "vfmv_s_f"})


def _is_integer(p: Pattern) -> bool:
    """Is this vector instruction one that has no floating point, and that may stand alone?"""
    return (not p.mnemonic.startswith(("vf", "vmf")) or p.mnemonic == "vfirst.m") and not p.trans.startswith(
        "vset"
    )


class Vectors:
    """Draws items of vector instructions.

    Args:
        rng: what is drawn from.
        pool: instructions that may occur; those of other extensions do not.
    """

    def __init__(self, rng: random.Random, pool: Sequence[Pattern]) -> None:
        self.rng = rng
        self._pool = [p for p in pool if p.extension == VECTOR]
        #: of the pool, in the present sequence
        self.chosen = self._pool
        self.sews: tuple[int, ...] = ()

    def begin(self) -> None:
        """Draw what a sequence has: elements' sizes, and the instructions that go with them."""
        self.sews, floating = self.rng.choice(SEWS)
        self.chosen = [p for p in self._pool if _is_integer(p) or p.mnemonic.startswith(floating or "-")]

    def item(self) -> Item:
        """A setting of vl and vtype, one of the CSRs, or an instruction with registers that often make groups."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.2:
            return self._setting()
        if kind < 0.24:
            number, values = rng.choice(VCSRS)
            return fixed("csrrwi", number << 20 | rng.choice(values) << 15 | 5 << 12 | dest(rng) << 7 | 0x73)
        if kind < 0.28:
            return self._resumed()
        p = rng.choice(self.chosen)
        return fixed(p.mnemonic, self._word(p), *([FENCE_I] if p.mnemonic.endswith("ff.v") else []))

    def _word(self, p: Pattern) -> int:
        rng = self.rng
        word = p.match | rng.getrandbits(32) & ~p.mask
        step = rng.choice((1, 1, 1, 2, 2, 4, 8))
        for name in ("vd", "vs2", "rs1"):
            if p.args.kinds.get(name) == "v" and f"{{{name}}}" in p.template:
                word = put(p, word, name, rng.randrange(32) & -step)
            elif name == "vd" and "{vd:x}" in p.template:
                word = put(p, word, name, dest(rng))
        if p.args.name == "vmem":
            if rng.random() < 0.9:
                word = put(p, word, "rs1", rng.choice(tuple(BASES)))
            if "{vs2:x}" in p.template and rng.random() < 0.8:
                word = put(p, word, "vs2", rng.choice((*STRIDES, 0)))
            if "{nf}" in p.template and rng.random() < 0.6:
                word = put(p, word, "nf", rng.randint(2, 4))
        if "vm" in p.args.kinds and rng.random() < 0.6:
            word = put(p, word, "vm", 1)
        return word

    def _setting(self) -> Item:
        rng = self.rng
        vtype = rng.choice((0, 0, 0, 1, 2, 3, 5, 6, 7)) | rng.randrange(4) << 6
        if rng.random() < 0.05:
            vtype = rng.getrandbits(11) & ~(7 << 3)
        vtype |= rng.choice(self.sews) << 3
        rd = rng.choice((0, dest(rng)))
        kind = rng.random()
        if kind < 0.5:  # vsetivli
            return fixed(
                "vsetivli", 3 << 30 | vtype << 20 & 0x3FF0_0000 | rng.randrange(32) << 15 | 0x7057 | rd << 7
            )
        if kind < 0.95:  # vsetvli
            return fixed(
                "vsetvli", vtype << 20 | rng.choice((0, 0, rng.randrange(32))) << 15 | 0x7057 | rd << 7
            )
        t = scratch(rng)  # the type by a register
        words = [
            vtype << 20 | t << 7 | 0x13,
            0x80 << 24 | t << 20 | rng.randrange(32) << 15 | 0x7057 | rd << 7,
        ]
        return fixed("vsetvl", *words)

    def _resumed(self) -> Item:
        """An instruction that begins behind its first elements. vstart is less than vl: else the peer leaves it.

        FENCE.I ends the peer's block, in which vstart and whether vl is VLMAX are what they were at its begin.
        """
        rng = self.rng
        pool = [
            p for p in self.chosen if p.trans not in KEEP_VSTART and not re.match(r"v[ls]\dr", p.mnemonic)
        ]
        p = rng.choice(pool)
        setting = 3 << 30 | rng.choice(self.sews) << 23 | 3 << 20 | rng.randint(4, 31) << 15 | 0x7057
        vstart = 0x008 << 20 | rng.randint(1, 3) << 15 | 5 << 12 | 0x73
        return fixed(p.mnemonic, setting, vstart, self._word(p), FENCE_I)
