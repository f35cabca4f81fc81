"""Law 4: the machine behaves as if it had no TLB and no instruction cache.

None of these programs executes sfence.vma or fence.i; each relies on stores alone taking effect at once.
"""

from __future__ import annotations

import pytest

from machine.tcg.engine import ExitReason
from tests.bare import Bare

BACKENDS = ["jit", "interp"]
STOP = "li t6, 0x100000; sw zero, 0(t6)\n"

#: The whole of memory is everybody's.
OPEN = "li t0, -1; csrw pmpaddr0, t0; li t0, 0x1f; csrw pmpcfg0, t0"
#: M-mode prepares Sv39 with a gigabyte page for RAM and for devices, and one 4 KiB page at virtual 0x40000000 that
#: leads to `page_a`; then goes on in S-mode at `super`.
PAGING = f"""
    la t0, trap; csrw mtvec, t0
    {OPEN}
    la s0, root; la s1, mid; la s2, leaf
    li t0, 0xcf; sd t0, 0(s0)
    li t0, 0x200000cf; sd t0, 16(s0)
    srli t0, s1, 2; ori t0, t0, 1; sd t0, 8(s0)
    srli t0, s2, 2; ori t0, t0, 1; sd t0, 0(s1)
    la t0, page_a; srli t0, t0, 2; ori t0, t0, 0xcf; sd t0, 0(s2)
    srli t0, s0, 12; li t1, 8; slli t1, t1, 60; or t0, t0, t1; csrw satp, t0
    li t0, 0x1800; csrc mstatus, t0; li t0, 0x800; csrs mstatus, t0
    la t0, super; csrw mepc, t0; li s4, 0x40000000; mret
trap:
    csrr a5, mcause; csrr a6, mtval
"""
TABLES = """
.align 4096
root: .dword 0
.align 4096
mid: .dword 0
.align 4096
leaf: .dword 0
.align 4096
page_a: .dword 0xaaaa
.align 4096
page_b: .dword 0xbbbb
.align 4096
end: .dword 0
"""


def paged(program: str, backend: str) -> Bare:
    bare = Bare(PAGING + STOP + "super:\n" + program + STOP + TABLES, backend=backend)
    assert bare.run() is ExitReason.STOP
    return bare


@pytest.mark.parametrize("backend", BACKENDS)
def test_pte_store_takes_effect_on_the_next_load(backend: str) -> None:
    bare = paged(
        """
        li s5, 100
        la t1, page_a; srli t1, t1, 2; ori t1, t1, 0xcf
        la t2, page_b; srli t2, t2, 2; ori t2, t2, 0xcf
        again:
        sd t1, 0(s2); ld a0, 0(s4); sd t2, 0(s2); ld a1, 0(s4)
        add a2, a2, a0; add a3, a3, a1
        addi s5, s5, -1; bnez s5, again
        """,
        backend,
    )
    assert (bare.reg("x12"), bare.reg("x13")) == (0xAAAA * 100, 0xBBBB * 100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cleared_accessed_bit_is_set_again_by_the_next_access(backend: str) -> None:
    bare = paged(
        """
        li s5, 50; li s6, 0x40
        again:
        ld a0, 0(s4)
        ld t0, 0(s2); li t1, -65; and t0, t0, t1; sd t0, 0(s2)
        ld a0, 0(s4)
        ld t0, 0(s2); and t0, t0, s6; add a2, a2, t0
        addi s5, s5, -1; bnez s5, again
        """,
        backend,
    )
    assert bare.reg("x12") == 0x40 * 50


@pytest.mark.parametrize("backend", BACKENDS)
def test_cleared_dirty_bit_is_set_again_by_the_next_store_only(backend: str) -> None:
    bare = paged(
        """
        li s5, 50; li s6, 0x80
        again:
        sd s5, 0(s4)
        ld t0, 0(s2); li t1, -129; and t0, t0, t1; sd t0, 0(s2)
        ld a0, 0(s4)
        ld t0, 0(s2); and t0, t0, s6; add a2, a2, t0
        sd s5, 0(s4)
        ld t0, 0(s2); and t0, t0, s6; add a3, a3, t0
        addi s5, s5, -1; bnez s5, again
        """,
        backend,
    )
    assert (bare.reg("x12"), bare.reg("x13")) == (0, 0x80 * 50)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unmapping_a_middle_table_faults_at_once(backend: str) -> None:
    bare = paged("ld a0, 0(s4); sd zero, 0(s1); ld a1, 0(s4); li a2, 1\n", backend)
    assert (bare.reg("x15"), bare.reg("x16"), bare.reg("x12")) == (13, 0x4000_0000, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unmapping_the_page_that_is_being_executed_faults_on_the_next_fetch(backend: str) -> None:
    # The code is copied to page_a and runs at 0x40000000, where it clears its own PTE.
    bare = paged(
        """
        la t0, page_a; la t1, payload; li t2, 10
        copy: lw t3, 0(t1); sw t3, 0(t0); addi t0, t0, 4; addi t1, t1, 4; addi t2, t2, -1; bnez t2, copy
        li s5, 3
        jalr zero, 0(s4)
        payload: addi a2, a2, 1; addi s5, s5, -1; bne s5, zero, payload; sd zero, 0(s2); addi a2, a2, 100; nop; nop; nop
        """,
        backend,
    )
    assert (bare.reg("x15"), bare.reg("x16"), bare.reg("x12")) == (12, 0x4000_0010, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_code_at_virtual_address_0_is_found_like_any_other(backend: str) -> None:
    """An empty entry of the jump cache is all zero, and so would be one for pc 0."""
    bare = paged(
        """
        la t0, low_mid; la t1, low_leaf; la t2, low_code; ld s6, 0(s0)
        srli t2, t2, 2; ori t2, t2, 0xcf; sd t2, 0(t1)
        srli t1, t1, 2; ori t1, t1, 1; sd t1, 0(t0)
        srli t0, t0, 2; ori t0, t0, 1; sd t0, 0(s0)
        li s5, 50
        again:
        la t0, zero_address; ld t0, 0(t0); jalr ra, 0(t0)
        addi s5, s5, -1; bnez s5, again
        sd s6, 0(s0)
        """
        + STOP
        + """
        .align 4096
        low_code: addi a2, a2, 1; ret
        zero_address: .dword 0
        .align 4096
        low_mid: .dword 0
        .align 4096
        low_leaf: .dword 0
        """,
        backend,
    )
    assert bare.reg("x12") == 50


@pytest.mark.parametrize("backend", BACKENDS)
def test_remapped_code_is_seen_after_other_code_took_its_place_in_the_caches(backend: str) -> None:
    """4 MiB apart, two pages share an entry of the fetch TLB; what one loses must not be found by the jump cache."""
    bare = paged(
        """
        la t0, near_a; srli t1, t0, 2; ori t1, t1, 0xcf
        la t0, near_b; srli t2, t0, 2; ori t2, t2, 0xcf
        la t0, far_code; srli t3, t0, 2; ori t3, t3, 0xcf
        la t0, far_leaf; sd t3, 0(t0); srli t0, t0, 2; ori t0, t0, 1; sd t0, 16(s1)
        li s7, 0x40400000; li s5, 50
        again:
        sd t1, 0(s2); jalr ra, 0(s4); jalr ra, 0(s7)
        sd t2, 0(s2); jalr ra, 0(s4); jalr ra, 0(s7); jalr ra, 0(s4)
        addi s5, s5, -1; bnez s5, again
        """
        + STOP
        + """
        .align 4096
        near_a: addi a2, a2, 1; ret
        .align 4096
        near_b: addi a3, a3, 1; ret
        .align 4096
        far_code: addi a4, a4, 1; ret
        .align 4096
        far_leaf: .dword 0
        """,
        backend,
    )
    assert (bare.reg("x12"), bare.reg("x13"), bare.reg("x14")) == (50, 100, 100)


#: What makes the permissions of `head_a` hold for a part of it alone: four of its bytes have a PMP entry.
PARTED = "la t0, head_a; srli t0, t0, 2; csrw pmpaddr0, t0; li t0, -1; csrw 0x3b1, t0; li t0, 0x1f17; csrw pmpcfg0, t0"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pmp", [OPEN, PARTED], ids=["whole", "parted"])
@pytest.mark.parametrize(
    ("first", "second", "slot", "a2", "a3"),
    [("t1", "t2", 64, 100, 101), ("t3", "t4", 65, 50 * (1 + 1 + 0x100), 0)],
    ids=["head", "tail"],
)
def test_halves_of_an_instruction_across_two_pages_are_of_the_pages_that_are_mapped_now(
    backend: str, pmp: str, first: str, second: str, slot: int, a2: int, a3: int
) -> None:
    """Where one page alone is mapped anew, the jump cache had the old instruction: its pc is on the other page.

    Permissions that hold for all of the second page hid those of the first, whose translation nobody watched. The
    instruction has a place of the fetch TLB that no other code here takes: whoever does takes the jumps along.
    """
    bare = Bare(
        PAGING.replace(OPEN, pmp)
        + STOP
        + f"""
        super:
        li s6, 4092; la t1, head_a; add t0, t1, s6; li s7, 0x06130001; sw s7, 0(t0)
        la t2, head_b; add t0, t2, s6; li s7, 0x06930001; sw s7, 0(t0)
        la t3, tail_a; la t4, tail_b
        srli t1, t1, 2; ori t1, t1, 0xcf; sd t1, 512(s2)
        srli t2, t2, 2; ori t2, t2, 0xcf
        srli t3, t3, 2; ori t3, t3, 0xcf; sd t3, 520(s2)
        srli t4, t4, 2; ori t4, t4, 0xcf
        li s7, 0x40040ffe; li s5, 50
        again:
        sd {first}, {8 * slot}(s2); jalr ra, 0(s7); jalr ra, 0(s7)
        sd {second}, {8 * slot}(s2); jalr ra, 0(s7)
        addi s5, s5, -1; bnez s5, again
        """
        + STOP
        + TABLES
        + """
        .align 4096
        head_a: .dword 0
        .align 4096
        head_b: .dword 0
        .align 4096
        tail_a: .word 0x80820016
        .align 4096
        tail_b: .word 0x80821006
        """,
        backend=backend,
    )
    assert bare.run() is ExitReason.STOP
    # head_a makes of it addi a2, a2, …, head_b addi a3, a2, …; with tail_a it adds 1, with tail_b 0x100
    assert (bare.reg("x12"), bare.reg("x13")) == (a2, a3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_jump_into_a_page_that_is_remapped_leads_to_the_new_code(backend: str) -> None:
    """Jumps are remembered by parts of a page: 64 functions, c.addi a2, 1 (2) and ret, have a part each."""
    bare = paged(
        """
        la s8, code_a; la s9, code_b; li t4, -0x7f7df9fb; li t5, -0x7f7df9f7; li s5, 64
        fill: sw t4, 0(s8); sw t5, 0(s9); addi s8, s8, 64; addi s9, s9, 64; addi s5, s5, -1; bnez s5, fill
        la t1, code_a; srli t1, t1, 2; ori t1, t1, 0xcf
        la t2, code_b; srli t2, t2, 2; ori t2, t2, 0xcf
        li s6, 20
        round:
        sd t1, 0(s2); addi s10, s4, 0; li s5, 64
        first: jalr ra, 0(s10); addi s10, s10, 64; addi s5, s5, -1; bnez s5, first
        sd t2, 0(s2); addi s10, s4, 0; li s5, 64
        second: jalr ra, 0(s10); addi s10, s10, 64; addi s5, s5, -1; bnez s5, second
        addi s6, s6, -1; bnez s6, round
        """
        + STOP
        + """
        .align 4096
        code_a: .dword 0
        .align 4096
        code_b: .dword 0
        .align 4096
        """,
        backend,
    )
    assert bare.reg("x12") == 20 * 64 * (1 + 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_store_to_code_takes_effect_on_the_next_instruction(backend: str) -> None:
    # patches the immediate of the instruction right behind the store, in its own block, in a hot loop
    source = """
        la t0, patch; lw t1, 0(t0); li s5, 200; li s6, 0x100000
        again: add t1, t1, s6; sw t1, 0(t0)
        patch: addi a1, zero, 0
        add a2, a2, a1
        addi s5, s5, -1; bnez s5, again
    """
    bare = Bare(source + STOP, backend=backend)
    assert bare.run() is ExitReason.STOP
    assert bare.reg("x12") == sum(range(1, 201))


@pytest.mark.parametrize("backend", BACKENDS)
def test_data_beside_code_stays_right_and_fast_enough(backend: str) -> None:
    source = "la t0, cell; li s5, 2000\n"
    source += "again: ld t1, 0(t0); addi t1, t1, 1; sd t1, 0(t0); addi s5, s5, -1; bnez s5, again\n"
    bare = Bare(source + STOP + "here: j here\n.align 8\ncell: .dword 0\n", backend=backend)
    assert bare.run() is ExitReason.STOP
    assert bare.ram("cell") == 2000
    assert bare.engine.translator.stat("tb_translated") < 50


@pytest.mark.parametrize("backend", BACKENDS)
def test_dma_to_a_page_table_and_to_code_takes_effect(backend: str) -> None:
    bare = Bare("a: addi a0, a0, 1\nj a\n", backend=backend)
    bare.run(10_000)
    before = bare.reg("x10")
    bare.engine.write_phys(0x8000_0000, (0x00250513).to_bytes(4, "little"))  # addi a0, a0, 2
    bare.run(10_000)
    assert bare.reg("x10") == before + 2 * 5000


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropping_every_cache_at_every_stop_changes_nothing(backend: str) -> None:
    program = (
        "li s5, 300\nagain: sd s5, 0(s4); ld a0, 0(s4); add a2, a2, a0; addi s5, s5, -1; bnez s5, again\n"
    )
    source = PAGING + STOP + "super:\n" + program + STOP + TABLES
    plain, dropped = Bare(source, backend=backend), Bare(source, backend=backend)
    plain.run()
    n = 0
    while dropped.engine.run(n := n + 17) is ExitReason.UNTIL:
        dropped.engine.translator.drop_tlb()
        dropped.engine.translator.drop_code()
    assert plain.state() == dropped.state()


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_block_length_changes_nothing(backend: str, limit: int) -> None:
    program = (
        "li s5, 300\nagain: sd s5, 0(s4); ld a0, 0(s4); add a2, a2, a0; addi s5, s5, -1; bnez s5, again\n"
    )
    source = PAGING + STOP + "super:\n" + program + STOP + TABLES
    plain, cut = Bare(source, backend="interp"), Bare(source, backend=backend)
    cut.engine.translator.set_tb_max(limit)
    plain.run(), cut.run()
    assert plain.state() == cut.state()
