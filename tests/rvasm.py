"""A small RISC-V assembler for tests, so that guests' sources stand in the test and need no cross compiler.

``assemble(source, base)`` knows RV64IMA, Zicsr, the privileged instructions, labels, ``.dword``, ``.word``,
``.align`` (bytes) and the pseudo-instructions li, la, mv, j, ret, nop, beqz, bnez, csrr, csrw, csrs, csrc, call.
"""

from __future__ import annotations

import re

REGS = {f"x{i}": i for i in range(32)}
REGS |= {
    name: i
    for i, name in enumerate(
        "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6".split()
    )
}
CSRS = {
    "sstatus": 0x100, "sie": 0x104, "stvec": 0x105, "sscratch": 0x140, "sepc": 0x141, "scause": 0x142,
    "stval": 0x143, "sip": 0x144, "stimecmp": 0x14D, "satp": 0x180, "mstatus": 0x300, "medeleg": 0x302,
    "mideleg": 0x303, "mie": 0x304, "mtvec": 0x305, "mcounteren": 0x306, "menvcfg": 0x30A, "mscratch": 0x340,
    "mepc": 0x341, "mcause": 0x342, "mtval": 0x343, "mip": 0x344, "pmpcfg0": 0x3A0, "pmpaddr0": 0x3B0,
    "cycle": 0xC00, "time": 0xC01, "instret": 0xC02, "mhartid": 0xF14, "fcsr": 0x003,
}  # fmt: skip
R_OPS = {
    "add": (0, 0, 0x33), "sub": (0x20, 0, 0x33), "sll": (0, 1, 0x33), "slt": (0, 2, 0x33), "sltu": (0, 3, 0x33),
    "xor": (0, 4, 0x33), "srl": (0, 5, 0x33), "sra": (0x20, 5, 0x33), "or": (0, 6, 0x33), "and": (0, 7, 0x33),
    "addw": (0, 0, 0x3B), "subw": (0x20, 0, 0x3B), "mul": (1, 0, 0x33), "mulh": (1, 1, 0x33), "div": (1, 4, 0x33),
    "divu": (1, 5, 0x33), "rem": (1, 6, 0x33), "remu": (1, 7, 0x33),
}  # fmt: skip
I_OPS = {"addi": (0, 0x13), "slti": (2, 0x13), "sltiu": (3, 0x13), "xori": (4, 0x13), "ori": (6, 0x13),
         "andi": (7, 0x13), "addiw": (0, 0x1B)}  # fmt: skip
SHIFTS = {"slli": (0, 1), "srli": (0, 5), "srai": (0x400, 5)}
LOADS = {"lb": 0, "lh": 1, "lw": 2, "ld": 3, "lbu": 4, "lhu": 5, "lwu": 6}
STORES = {"sb": 0, "sh": 1, "sw": 2, "sd": 3}
BRANCHES = {"beq": 0, "bne": 1, "blt": 4, "bge": 5, "bltu": 6, "bgeu": 7}
CSR_OPS = {"csrrw": 1, "csrrs": 2, "csrrc": 3}
AMOS = {"amoadd": 0, "amoswap": 1, "lr": 2, "sc": 3, "amoxor": 4, "amoor": 8, "amoand": 12}
PLAIN = {"ecall": 0x73, "ebreak": 0x100073, "mret": 0x30200073, "sret": 0x10200073, "wfi": 0x10500073,
         "fence.i": 0x100F, "fence": 0x0FF0000F, "nop": 0x13}  # fmt: skip
PSEUDO = {
    "mv": "addi {0}, {1}, 0", "j": "jal zero, {0}", "call": "jal ra, {0}", "ret": "jalr zero, 0(ra)",
    "beqz": "beq {0}, zero, {1}", "bnez": "bne {0}, zero, {1}", "csrr": "csrrs {0}, {1}, zero",
    "csrw": "csrrw zero, {0}, {1}", "csrs": "csrrs zero, {0}, {1}", "csrc": "csrrc zero, {0}, {1}",
}  # fmt: skip


def _li(rd: str, value: int) -> list[str]:
    value = (value + (1 << 63)) % (1 << 64) - (1 << 63)
    if -2048 <= value < 2048:
        return [f"addi {rd}, zero, {value}"]
    low = (value & 0xFFF) - ((value & 0x800) << 1)
    if -(1 << 31) <= value < (1 << 31):
        return [f"lui {rd}, {((value - low) >> 12) & 0xFFFFF}", f"addiw {rd}, {rd}, {low}"]
    return [*_li(rd, (value - low) >> 12), f"slli {rd}, {rd}, 12", f"addi {rd}, {rd}, {low}"]


def _lines(source: str) -> list[str]:
    out = []
    for raw in source.splitlines():
        line = raw.split("#")[0].strip()
        while match := re.match(r"(\w+):\s*", line):
            out.append(match.group(0).strip())
            line = line[match.end() :]
        for part in filter(None, (p.strip() for p in line.split(";"))):
            op, _, rest = part.partition(" ")
            args = [a.strip() for a in rest.split(",")]
            if op == "li":
                out += _li(args[0], int(args[1], 0))
            elif op in PSEUDO:
                out.append(PSEUDO[op].format(*args))
            else:
                out.append(part)
    return out


class _Assembler:
    def __init__(self, base: int) -> None:
        self.base = base
        self.labels: dict[str, int] = {}

    def imm(self, text: str) -> int:
        return self.labels[text] if text in self.labels else int(text, 0)

    def memory(self, text: str) -> tuple[int, int]:
        match = re.fullmatch(r"(.*)\((\w+)\)", text)
        assert match, f"expected offset(register): {text}"
        return self.imm(match.group(1) or "0"), REGS[match.group(2)]

    def encode(self, line: str, pc: int) -> list[int]:
        op, _, rest = line.partition(" ")
        a = [x.strip() for x in rest.split(",")] if rest else []
        if op in PLAIN:
            return [PLAIN[op]]
        if op == "sfence.vma":
            return [0x12000073]
        if op in R_OPS:
            f7, f3, code = R_OPS[op]
            return [f7 << 25 | REGS[a[2]] << 20 | REGS[a[1]] << 15 | f3 << 12 | REGS[a[0]] << 7 | code]
        if op in I_OPS:
            f3, code = I_OPS[op]
            return [(self.imm(a[2]) & 0xFFF) << 20 | REGS[a[1]] << 15 | f3 << 12 | REGS[a[0]] << 7 | code]
        if op in SHIFTS:
            high, f3 = SHIFTS[op]
            return [(high | self.imm(a[2])) << 20 | REGS[a[1]] << 15 | f3 << 12 | REGS[a[0]] << 7 | 0x13]
        if op in LOADS or op == "jalr":
            offset, rs1 = self.memory(a[1])
            f3, code = (0, 0x67) if op == "jalr" else (LOADS[op], 0x03)
            return [(offset & 0xFFF) << 20 | rs1 << 15 | f3 << 12 | REGS[a[0]] << 7 | code]
        if op in STORES:
            offset, rs1 = self.memory(a[1])
            high, low = (offset >> 5) & 0x7F, offset & 31
            return [high << 25 | REGS[a[0]] << 20 | rs1 << 15 | STORES[op] << 12 | low << 7 | 0x23]
        if op in BRANCHES:
            d = self.imm(a[2]) - pc
            bits = (d >> 12 & 1) << 31 | (d >> 5 & 63) << 25 | (d >> 1 & 15) << 8 | (d >> 11 & 1) << 7
            return [bits | REGS[a[1]] << 20 | REGS[a[0]] << 15 | BRANCHES[op] << 12 | 0x63]
        if op in ("lui", "auipc"):
            return [(self.imm(a[1]) & 0xFFFFF) << 12 | REGS[a[0]] << 7 | (0x37 if op == "lui" else 0x17)]
        if op == "jal":
            d = self.imm(a[1]) - pc
            bits = (d >> 20 & 1) << 31 | (d >> 1 & 0x3FF) << 21 | (d >> 11 & 1) << 20 | (d >> 12 & 0xFF) << 12
            return [bits | REGS[a[0]] << 7 | 0x6F]
        if op == "la":
            d = self.imm(a[1]) - pc
            high = (d + 0x800) >> 12 & 0xFFFFF
            rd = REGS[a[0]]
            return [high << 12 | rd << 7 | 0x17, (d & 0xFFF) << 20 | rd << 15 | rd << 7 | 0x13]
        if op in CSR_OPS:
            number = CSRS[a[1]] if a[1] in CSRS else int(a[1], 0)
            return [number << 20 | REGS[a[2]] << 15 | CSR_OPS[op] << 12 | REGS[a[0]] << 7 | 0x73]
        name, _, size = op.partition(".")
        if name in AMOS and size in ("w", "d"):
            rs2 = REGS[a[1]] if name != "lr" else 0
            _, rs1 = self.memory(a[-1])
            return [
                AMOS[name] << 27
                | rs2 << 20
                | rs1 << 15
                | (2 if size == "w" else 3) << 12
                | REGS[a[0]] << 7
                | 0x2F
            ]
        if op == ".word":
            return [self.imm(a[0]) & 0xFFFFFFFF]
        if op == ".dword":
            value = self.imm(a[0]) & ((1 << 64) - 1)
            return [value & 0xFFFFFFFF, value >> 32]
        if op == ".align":
            return [0x13] * (-pc % self.imm(a[0]) // 4)
        raise ValueError(f"can't assemble {line!r}")

    def run(self, lines: list[str]) -> bytes:
        words: list[int] = []
        for final in (False, True):
            words = []
            for line in lines:
                pc = self.base + 4 * len(words)
                if line.endswith(":"):
                    self.labels[line[:-1]] = pc
                    continue
                try:
                    words += self.encode(line, pc)
                except (KeyError, ValueError):
                    if final:
                        raise
                    # a label further on: its size is known, its value is not
                    words += [0] * (2 if line.split()[0] in ("la", ".dword") else 1)
        return b"".join(w.to_bytes(4, "little") for w in words)


def assemble(source: str, base: int) -> tuple[bytes, dict[str, int]]:
    """Return the code of a program at ``base`` and the addresses of its labels."""
    assembler = _Assembler(base)
    code = assembler.run(_lines(source))
    return code, assembler.labels
