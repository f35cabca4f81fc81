"""Runs sequences on all machines, compares, shrinks what differs, and tells it as assembly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from machine.tcg.engine import Engine
from tests.differential import harness, machines, peer
from tests.differential.generate import Generator
from tests.differential.harness import CODE, Outcome, Start
from tests.differential.items import Sequence_, patterns
from tests.differential.starts import template

Run = Callable[[list[Start], bytes], list[Outcome]]
RUNS: dict[str, Run] = {
    "jit": machines.run_ours,
    "interp": lambda starts, fill: machines.run_ours(starts, fill, "interp"),
    "qemu": machines.run_qemu,
}


def inconclusive(sequence: Sequence_, pair: tuple[str, str], a: Outcome, b: Outcome) -> str:
    """Return why a difference would be none, or nothing."""
    if harness.BROKEN in (a.status, b.status):
        return "the peer aborted"
    if "watchdog" in (a.status, b.status):
        return "the watchdog's time, which is real on the peer"
    if "qemu" in pair and (a.rewritten | b.rewritten) & ~sequence.may_rewrite():
        # Only ours then executes the new code at once. SPEC: unprivileged, Zifencei
        return "code was written over without FENCE.I"
    return ""


def unlike_itself(sequence: Sequence_, fill: bytes, before: Outcome) -> str:
    """Return why a difference from the peer is none of ours, or nothing: the peer is asked again, and what was executed
    is looked at."""
    (again,) = RUNS["qemu"]([sequence.assemble()], fill)
    if differences(before, again):
        return "the peer, asked again, did otherwise: its time is real"
    lacking = [p for p in patterns() if not peer.has(p) and p.extension in peer.MISSING_EXTENSIONS]
    words = machines.instructions_run(sequence.assemble(), fill)
    if any(int.from_bytes(w[: p.width // 8], "little") & p.mask == p.match for w in words for p in lacking):
        return "it went into data that is an instruction of ours alone"
    return ""


def differences(a: Outcome, b: Outcome) -> dict[str, tuple[int | str, int | str]]:
    """Return the fields that differ."""
    out: dict[str, tuple[int | str, int | str]] = {
        name: (value, b.fields.get(name, "none"))
        for name, value in a.fields.items()
        if value != b.fields.get(name)
    }
    if a.status != b.status:
        out["status"] = (a.status, b.status)
    return out


@dataclass
class Failure:
    """A sequence, shrunk, that two machines disagree on."""

    sequence: Sequence_
    pair: tuple[str, str]
    fill_seed: int
    found: dict[str, tuple[int | str, int | str]]

    def text(self) -> str:
        start = self.sequence.assemble()
        s = start
        lines = [
            f"seed {self.sequence.seed} (template {self.fill_seed}): {self.pair[0]} differs from {self.pair[1]}"
        ]
        lines.append(f"  mstatus {s.mstatus:#x}, fcsr {s.fcsr:#x}, satp {s.satp:#x}, menvcfg {s.menvcfg:#x}")
        lines[-1] += f", medeleg {s.medeleg:#x}"
        if s.satp:
            lines.append("  PTEs " + " ".join(f"{p:x}" for p in s.ptes))
        if s.leaf_at:
            lines.append(f"  superpage {s.leaf:x} at {s.leaf_at:#x}")
        lines += [f"  {line}" for line in disassemble(start)]
        lines += [f"  {name}: {_hex(a)} != {_hex(b)}" for name, (a, b) in self.found.items()]
        return "\n".join(lines)


def _hex(value: int | str) -> str:
    return value if isinstance(value, str) else f"{value:#x}"


class _NoHost:
    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        return None

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool:
        return False

    def sbi_call(self, hart: int) -> None:
        return None


def disassemble(start: Start) -> list[str]:
    """Return the code as assembly, with the values of the registers each line names first."""
    out: list[str] = []
    seen: set[str] = set()
    pc = CODE
    with Engine(ram_base=harness.BASE, ram_size=1 << 20, host=_NoHost(), builtin_sbi=False) as engine:
        while pc < CODE + len(start.code):
            size, text = engine.disasm(start.code[pc - CODE :][:4], pc)
            out.append(f"{pc:#x}: {text}")
            words = set(text.replace(",", " ").replace("(", " ").replace(")", " ").split()) - seen
            seen |= words
            known = [(n, start.x[i]) for i, n in enumerate(X_NAMES) if n in words and i]
            known += [(n, start.f[i]) for i, n in enumerate(F_NAMES) if n in words]
            if known:
                out[-1] += "    # " + ", ".join(f"{n} {v:#x}" for n, v in known)
            pc += max(size, 2)
    return out


X_NAMES = (
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
).split()
F_NAMES = (
    "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 "
    "fs11 ft8 ft9 ft10 ft11"
).split()


def _smaller(sequence: Sequence_) -> Iterator[Sequence_]:
    """Simpler sequences: with items left out, from halves down to one, then with a simpler start."""
    n = len(sequence.items)
    size = n
    while size >= 1:
        for at in range(0, n, size):
            items = sequence.items[:at] + sequence.items[at + size :]
            yield replace(sequence, items=items)
        size //= 2
    start = sequence.start
    simpler = [
        replace(start, menvcfg=1 << 61 | 1 << 62),
        replace(start, mstatus=0x6000 | start.mstatus & 0x1E00),
        replace(start, fcsr=0),
        replace(start, medeleg=0),
    ]
    yield from (replace(sequence, start=other) for other in simpler if other != start)


def shrink(sequence: Sequence_, pair: tuple[str, str], fill: bytes) -> Sequence_:
    """Return the smallest sequence found that the two machines still disagree on; a round is one run of each."""
    for _ in range(40):
        candidates = list(_smaller(sequence))
        starts = [c.assemble() for c in candidates]
        a, b = (RUNS[name](starts, fill) for name in pair)
        failing = [
            c
            for c, x, y in zip(candidates, a, b, strict=True)
            if not inconclusive(c, pair, x, y) and differences(x, y)
        ]
        if not failing:
            break
        sequence = min(failing, key=lambda c: len(c.items))
    return sequence


def _agrees_alone(sequence: Sequence_, fill: bytes, ours: Outcome) -> bool:
    """Does the peer do what we did when it runs the sequence alone? Its time is real and it has two threads."""
    start = [sequence.assemble()]
    return not differences(RUNS["jit"](start, fill)[0], ours) and not differences(
        RUNS["qemu"](start, fill)[0], ours
    )


@dataclass
class Tally:
    """What has been run: vectors by instruction, inconclusive sequences, differences explained and not."""

    vectors: Counter[str] = field(default_factory=Counter)
    agreed: dict[str, Counter[str]] = field(default_factory=dict)  # by machine that agreed with the JIT
    sequences: int = 0
    traps: int = 0
    inconclusive: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    @property
    def instructions(self) -> int:
        return sum(self.vectors.values())

    def add(self, other: Tally) -> None:
        """Count what another tally has counted."""
        self.vectors += other.vectors
        for name, vectors in other.agreed.items():
            self.agreed.setdefault(name, Counter()).update(vectors)
        self.sequences += other.sequences
        self.traps += other.traps
        self.inconclusive += other.inconclusive
        self.failures += other.failures

    def summary(self) -> str:
        """Return the numbers in one line, and why sequences were inconclusive."""
        why = "; ".join(f"{count}: {reason}" for reason, count in self.inconclusive.most_common())
        return (
            f"{self.sequences} sequences, {self.instructions} instructions, {self.traps} traps, "
            f"{len(self.failures)} differences, {self.inconclusive.total()} inconclusive"
            + (f" ({why})" if why else "")
        )


def compare(
    seed: int,
    count: int,
    *,
    against: Sequence[str] = ("interp", "qemu"),
    tally: Tally | None = None,
    shrinks: int = 3,
    vlen: int = 0,
) -> Tally:
    """Run ``count`` sequences of the generator's seeds from ``seed`` on, and compare the JIT with ``against``.

    Args:
        shrinks: how many failures to shrink; those behind are only counted.
        vlen: on machines with vectors of so many bits.
    """
    tally = tally or Tally()
    fill = template(seed)
    pool = [p for p in patterns() if peer.has(p)] if "qemu" in against else list(patterns())
    sequences = [Generator(seed + i, pool, vlen=vlen).sequence() for i in range(count)]
    starts = [s.assemble() for s in sequences]
    ours = RUNS["jit"](starts, fill)
    for s in sequences:
        tally.vectors.update(item.name for item in s.items)
    tally.sequences += count
    tally.traps += sum(o.fields["traps"] for o in ours)
    for other in against:
        for s, a, b in zip(sequences, ours, RUNS[other](starts, fill), strict=True):
            pair = ("jit", other)
            if why := inconclusive(s, pair, a, b):
                tally.inconclusive[why] += 1
                continue
            found = differences(a, b)
            if not found:
                tally.agreed.setdefault(other, Counter()).update(item.name for item in s.items)
                continue
            if other == "qemu" and (why := unlike_itself(s, fill, b)):
                tally.inconclusive[why] += 1
                continue
            if other == "qemu" and _agrees_alone(s, fill, a):
                tally.inconclusive["the peer, alone with it, does what we did"] += 1
                continue
            if len(tally.failures) < shrinks:
                s = shrink(s, pair, fill)
                x, y = (RUNS[name]([s.assemble()], fill)[0] for name in pair)
                found = differences(x, y) or found
            tally.failures.append(Failure(s, pair, seed, found))
    return tally
