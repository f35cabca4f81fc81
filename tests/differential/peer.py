"""What the peer, QEMU 7.2, does not have or does otherwise, and which section of the specification says who is right.

Beside the lists here, sequences keep away from these: sepc keeps bit 0 (privileged, 4.1.7: it is always 0); scounteren
keeps 64 bits (4.1.5: it has 32); a PTE's memory type is taken without menvcfg.PBMTE (Svpbmt), and reserved bits are
ignored while Svnapot or Svpbmt is there (4.4.1); A is set before the PMP refuses the access (4.3.2 allows it);
an access that goes on in another page is held against the PMP as if it went on behind the first (3.7.1), and its
mtval is the whole access's address (3.1.16: the faulting part's); an SC of another width than its LR fails
(unprivileged, 8.2 leaves it open); AMOs of a machine with one hart fault like loads
(unprivileged, 8.4: like stores); pages that M-mode has fetched from are not translated for its loads and stores with
MPRV (privileged, 3.1.6.3); mtval is 0 after a breakpoint, which 3.1.16 allows.

Of vectors (vector 1.0): vxsat and vxrm keep all bits (3.8, 3.9: they have one and two); floating point of 16 bits is
legal without Zvfh (13); vstart stays where it is not less than vl (5.4) or the end of whole registers (7.9), and behind
moves of one element and slides up (3.7: every instruction clears it); that vstart is zero (14, 15) and that vl is VLMAX
are taken as they were when the block began, behind a fault-only-first load too (7.7). Alike in both, and left open by
6.2 and 5.2: vl is cut by a vsetvl of x0 and x0 that changes VLMAX, and a register may be read with two widths.
"""

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
    # SPEC: vector 1.0, 7.8: which fields of the segment that a fault-only-first load ends at are loaded is left open
    cut_segment = p.mnemonic.startswith("vlseg") and p.mnemonic.endswith("ff.v")
    # Its translator fails an assertion over conversions of vectors that round towards zero, when they are legal.
    aborts = p.extension == "V" and ".rtz." in p.mnemonic
    return not (p.extension in MISSING_EXTENSIONS or p.trans in LEFT_OUT or cut_segment or aborts)
