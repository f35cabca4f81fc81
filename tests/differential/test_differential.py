"""Random sequences on both back ends and on the peer; every instruction of the tables is tested by one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import requires
from tests.differential import harness, machines, peer
from tests.differential.compare import Tally, compare, differences, inconclusive, shrink
from tests.differential.generate import Generator
from tests.differential.harness import Start
from tests.differential.items import BASES, Item, Sequence_, patterns
from tests.differential.machines import QEMU, run_ours, run_qemu
from tests.differential.starts import template
from tests.differential.table import TEMPLATED, coverage, coverage_table

SEED = 20_000_000


def explain(tally: Tally) -> str:
    return "\n".join(failure.text() for failure in tally.failures[:3])


def plain_start() -> Start:
    x = [0] * 32
    for reg, value in BASES.items():
        x[reg] = value
    return Start(b"", x, [0] * 32, 0, 0x6000)


def word(name: str, value: int) -> Item:
    return Item(name, 4, lambda pc, to: value.to_bytes(4, "little"))


def test_back_ends_agree_with_the_peer() -> None:
    requires(QEMU)
    tally = compare(SEED, 600)
    assert not tally.failures, explain(tally)
    assert tally.instructions > 20_000 and tally.traps > 2000
    assert tally.inconclusive.total() < 60


@pytest.mark.parametrize("vlen", [128, 256])
def test_vectors_agree_with_the_peer(vlen: int) -> None:
    requires(QEMU)
    tally = compare(SEED + 50_000 + vlen, 120, vlen=vlen)
    assert not tally.failures, explain(tally)
    assert tally.instructions > 4000


def test_back_ends_agree_on_everything_in_the_tables() -> None:
    tally = compare(SEED + 10_000, 600, against=["interp"])
    assert not tally.failures, explain(tally)


@pytest.mark.parametrize("tb_max", [1, 2, 5])
def test_length_of_blocks_changes_nothing(tb_max: int) -> None:
    fill = template(SEED)
    sequences = [Generator(SEED + 20_000 + i, patterns()).sequence() for i in range(150)]
    starts = [s.assemble() for s in sequences]
    for s, a, b in zip(sequences, run_ours(starts, fill), run_ours(starts, fill, tb_max=tb_max), strict=True):
        assert inconclusive(s, ("jit", "jit"), a, b) or not differences(a, b), s.seed


def test_every_instruction_is_generated() -> None:
    tally = Tally()
    compare(SEED + 30_000, 400, against=[], tally=tally)
    compare(SEED + 40_000, 500, against=[], tally=tally, vlen=256)
    left_out = {p.mnemonic for p in patterns() if p.trans in peer.LEFT_OUT and p.mnemonic not in TEMPLATED}
    missing = {p.mnemonic for p in patterns()} - set(tally.vectors)
    assert missing <= left_out - set(tally.vectors), missing
    assert len(coverage_table({"jit": tally.vectors, **tally.agreed}).splitlines()) == len(patterns()) + 1


def test_the_page_has_vectors_of_every_instruction() -> None:
    """Made anew by ``python -m tests.differential --vlen 0 128 256 --page docs/coverage.md``."""
    page = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
    table = [
        line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")
    ][2:]
    rows = coverage({})
    assert [row[:4] for row in table] == [row.words()[:4] for row in rows]
    for words, row in zip(table, rows, strict=True):
        jit, interp, qemu = map(int, words[4:7])
        assert jit >= interp > 0 and jit >= qemu, words
        assert qemu or row.beside == "model", words


def test_a_difference_is_shrunk_to_its_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """One back end is made to get a single instruction wrong."""
    from tests.differential import compare as module

    xor = 0x00C5_C533  # xor a0, a1, a2

    def wrong(starts: list[Start], fill: bytes) -> list[harness.Outcome]:
        out = []
        for start, outcome in zip(starts, run_ours(starts, fill), strict=True):
            hit = xor.to_bytes(4, "little") in start.code
            fields = outcome.fields | ({"x10": outcome.fields["x10"] ^ 1} if hit else {})
            out.append(replace(outcome, fields=fields))
        return out

    monkeypatch.setitem(module.RUNS, "interp", wrong)
    items = [word("addi", 0x0010_0093 | i << 20) for i in range(30)]
    items.insert(17, word("xor", xor))
    small = shrink(Sequence_(1, tuple(items), plain_start()), ("jit", "interp"), template(1))
    assert [item.name for item in small.items] == ["xor"]


def test_harness_sees_what_a_sequence_does() -> None:
    """Registers, memory, traps with their values, and the end: against what the words say."""
    items = (
        word("addi", 0x02A0_0093),  # addi ra, zero, 42
        word("sd", 0x0014_3023),  # sd ra, 0(s0)
        word("ld", 0x0004_3183),  # ld gp, 0(s0)
        word("illegal", 0xFFFF_FFFF),
        word("lw", 0x0000_2203),  # lw tp, 0(zero): denied
    )
    sequence = Sequence_(0, items, plain_start())
    for backend in ("jit", "interp"):
        (o,) = run_ours([sequence.assemble()], template(3), backend)
        assert o.status == "ended"
        assert (o.fields["x1"], o.fields["x3"], o.fields["x4"]) == (42, 42, 0)
        causes = [(o.fields[f"trap{i}.cause"], o.fields[f"trap{i}.tval"]) for i in range(3)]
        assert causes == [(2, 0xFFFF_FFFF), (5, 0), (8, 0)]
        assert o.fields["trap0.epc"] == harness.CODE + 12


def test_watchdog_ends_a_loop() -> None:
    loop = Sequence_(0, (word("jal", 0x0000_006F),), plain_start())
    (o,) = run_ours([loop.assemble()], template(3))
    assert o.status == "watchdog"


def test_peer_runs_the_same_harness() -> None:
    requires(QEMU)
    sequence = Sequence_(0, (word("addi", 0x02A0_0093),), plain_start())
    fill = template(3)
    assert not differences(run_qemu([sequence.assemble()], fill)[0], run_ours([sequence.assemble()], fill)[0])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("vlen", [128, 256])
def test_twenty_five_thousand_instructions_with_vectors_agree_with_the_peer(vlen: int) -> None:
    requires(QEMU)
    tally, seed = Tally(), SEED + 2_000_000 + 10_000 * vlen
    while tally.instructions < 25_000:
        compare(seed, 500, tally=tally, vlen=vlen)
        seed += 500
    assert not tally.failures, explain(tally)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_thousand_instructions_agree_with_the_peer(capsys: pytest.CaptureFixture[str]) -> None:
    requires(QEMU)
    tally, seed = Tally(), SEED + 1_000_000
    while tally.instructions < 200_000:
        compare(seed, 2000, tally=tally)
        seed += 2000
    with capsys.disabled():
        table = coverage_table({"jit": tally.vectors, **tally.agreed})
        print(f"\n{table}\nseeds {SEED + 1_000_000} to {seed - 1}")
    assert not tally.failures, explain(tally)


def test_machines_that_do_not_end_are_told() -> None:
    start = plain_start()
    with pytest.raises(machines.MachineFailed, match="jit"):
        machines.run_ours([replace(start, code=b"\x73\0\0\0")] * 1, template(1), steps=1000)
