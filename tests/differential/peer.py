"""What the peer, QEMU 7.2, does not have or does otherwise, and which section of the specification says who is right."""

from __future__ import annotations

from machine.tcg.decodetree import Pattern

#: Extensions of our tables that it has not.
MISSING_EXTENSIONS = frozenset({"Zicond", "Zcb", "Zawrs", "Zicbom", "Zicboz"})
#: Instructions that are not generated on their own, and why.
LEFT_OUT = {
    "wfi": "U-mode: ours is illegal at once, the peer waits. SPEC: privileged, 3.3.3: with S-mode present, a wait that "
    "is not ended in a bounded time is illegal",
    "mret": "would only be illegal: covered by random words",
    "sret": "with a random sepc it ends the sequence; generated with a target",
    "sc_w": "an SC without reservation: the peer fails it without translating the address. SPEC: unprivileged, 8.2 "
    "leaves it open",
    "sc_d": "the same",
    "ctzw": "the peer counts zeros above bit 31. SPEC: unprivileged, Zbb, ctzw: 32 for a word of zeros",
    "lr_w": "generated with its SC",
    "lr_d": "the same",
}


def has(p: Pattern) -> bool:
    """Can the peer judge this instruction?"""
    return p.extension not in MISSING_EXTENSIONS and p.trans not in LEFT_OUT
