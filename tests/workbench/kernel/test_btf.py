"""BTF: types that were laid out by hand are read back; damaged data is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.kernel.btf import Btf
from workbench.kernel.cexpr import evaluate
from workbench.kernel.errors import KernelError
from workbench.kernel.linux import Kernel
from workbench.symbols import Symbol, Symbols


class Maker:
    """Lays out a BTF section."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types: list[bytes] = []

    def string(self, text: str) -> int:
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(self, kind: int, name: str, other: int, extra: bytes = b"", vlen: int = 0, flag: int = 0) -> int:
        head = struct.pack("<III", self.string(name), kind << 24 | vlen | flag << 31, other)
        self.types.append(head + extra)
        return len(self.types)

    def struct(
        self, kind: int, name: str, size: int, members: list[tuple[str, int, int]], flag: int = 0
    ) -> int:
        extra = b"".join(struct.pack("<III", self.string(n), t, at) for n, t, at in members)
        return self.add(kind, name, size, extra, len(members), flag)

    def data(self) -> bytes:
        types = b"".join(self.types)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings))
        return head + types + self.strings


def example() -> bytes:
    make = Maker()
    int_ = make.add(1, "int", 4, struct.pack("<I", 1 << 24 | 32))
    char = make.add(1, "char", 1, struct.pack("<I", 8))
    long_ = make.add(1, "long unsigned int", 8, struct.pack("<I", 64))
    text = make.add(3, "", 0, struct.pack("<III", char, long_, 16))
    state = make.add(6, "state", 4, struct.pack("<IiIi", make.string("OFF"), 0, make.string("ON"), 1), 2)
    alias = make.add(8, "pid_t", int_)
    inner = make.struct(4, "", 8, [("low", int_, 0), ("high", int_, 32)])
    pointer = make.add(2, "", 10)
    bits = make.struct(4, "bits", 4, [("one", int_, 1 << 24 | 0), ("three", int_, 3 << 24 | 1)], flag=1)
    task = make.struct(
        4,
        "task_struct",
        64,
        [
            ("pid", alias, 0),
            ("", inner, 64),
            ("comm", text, 128),
            ("next", pointer, 256),
            ("st", state, 320),
            ("b", bits, 352),
        ],
    )
    assert task == 10
    make.add(14, "head", pointer, struct.pack("<I", 1))
    return make.data()


def test_sizes_offsets_and_names() -> None:
    types = Btf(example())
    task = types.find("struct task_struct")
    assert types.size(task) == 64
    assert types.offset("task_struct", "comm") == 16
    assert types.offset("task_struct", "high") == 12  # through the nameless struct
    assert types.offset("task_struct", "b.three") == 44
    assert [types.name(m.type) for m in types.members(task)] == [
        "pid_t", "struct {…}", "char[16]", "struct task_struct *", "enum state", "struct bits",
    ]  # fmt: skip
    assert types.enumerators(types.find("enum state")) == {0: "OFF", 1: "ON"}
    assert types.variable("head") == types.member(task, "next").type
    for name in ("struct nothing", "nothing", "enum task_struct"):
        with pytest.raises(KernelError, match="have no"):
            types.find(name)
    with pytest.raises(KernelError, match="no member 'nothing'"):
        types.offset("task_struct", "nothing")


def test_a_type_that_points_to_itself_has_no_end_and_no_name() -> None:
    make = Maker()
    make.add(2, "", 1)
    make.add(8, "loop", 2)
    types = Btf(make.data())
    with pytest.raises(KernelError, match="of itself"):
        types.name(1)
    with pytest.raises(KernelError, match="of itself"):
        types.resolve(2)


class FakeEngine:
    """One page of memory, mapped one to one."""

    harts = 1

    def __init__(self, base: int, data: bytes) -> None:
        self.base, self.data = base, data.ljust(4096, b"\0")

    def get_reg(self, hart: int, name: str) -> int:
        return 0

    def read_phys(self, paddr: int, size: int) -> bytes:
        at = paddr - self.base
        if not 0 <= at <= 4096 - size:
            raise ValueError(paddr)
        return self.data[at : at + size]


def kernel() -> Kernel:
    def task(pid: int, name: bytes, following: int, on: int, bits: int) -> bytes:
        head = struct.pack("<iiii", pid, 0, 7, -9) + name.ljust(16, b"\0")
        return (head + struct.pack("<QII", following, on, bits)).ljust(64, b"\0")

    base = 0x1000
    memory = task(-5, b"one", base + 64, 1, 0b1101) + task(6, b'two"', 0, 0, 0) + struct.pack("<Q", base)
    symbols = Symbols([Symbol(base, 64, "first", "object"), Symbol(base + 128, 8, "head", "object")])
    made = Kernel(FakeEngine(base, memory), symbols, lambda _: Btf(example()))
    from workbench.kernel.pagetable import GuestMemory

    made.__dict__["memory"] = GuestMemory(made.engine, 0)
    return made


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("head->pid", -5),
        ("head->comm", "one"),
        ("head->next->comm", 'two"'),
        ("head->next->next", 0),
        ("(*head).high", -9),
        ("head->low", 7),
        ("head->st", "ON"),
        ("head->b.one", 1),
        ("head->b.three", 6),
        ("head->comm[1]", ord("n")),
        ("((struct task_struct *)&first)->pid", -5),
        ("((struct task_struct *)0x1040)->pid", 6),
        ("&head", 0x1080),
        ("task->pid", 6),
        ("head->b", {"one": 1, "three": 6}),
    ],
)
def test_expressions(text: str, value: object) -> None:
    assert evaluate(kernel(), text, 0x1040).python() == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "head->",
        "nothing",
        "head->nothing",
        "head.pid",
        "*first",
        "head->pid]",
        "head->next->next->pid",
        "(struct x *)1",
        "§",
        "((head",
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(KernelError) as refused:
        evaluate(kernel(), text, 0x1040).python()
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=64), st.integers(0, 400))
def test_damaged_types_do_no_harm(noise: bytes, at: int) -> None:
    data = bytearray(example())
    data[at : at + len(noise)] = noise
    try:
        types = Btf(bytes(data))
        task = types.find("struct task_struct")
        for member in types.members(task):
            types.size(member.type)
            types.name(member.type)
    except KernelError:
        pass
