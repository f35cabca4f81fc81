"""Snapshots of pages: what they hold is what RAM held, whoever writes to it and whenever they are read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from machine.tcg.engine import PAGE_SIZE, Engine
from machine.tcg.pageset import PageSet
from machine.tcg.ramfold import checksum
from machine.tcg.snapshot import PageSnapshot
from tests.machine.tcg.conftest import NoHost
from tests.machine.tcg.rvmodel import BASE
from tests.rvasm import assemble

PAGES = 70  # more than one word of a set, more than one span that the host makes ready
#: those that are written to and taken, so few that they meet
SOME = st.sampled_from([0, 1, 15, 16, 63, 64, PAGES - 1])
#: what core/snapshot.c keeps before the machine waits
MOST_KEPT = 8192

#: Fills t1 words from t0 on with t2, by stores that are fast once a page has been written to.
FILL = """
loop:
    sd t2, 0(t0)
    addi t0, t0, 8
    addi t1, t1, -1
    bnez t1, loop
"""
WORDS = PAGE_SIZE // 8


def contents(engine: Engine, page: int) -> bytes:
    return bytes(engine.ram[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])


def read(snapshot: PageSnapshot, pages: int) -> dict[int, bytes]:
    out = bytearray(pages * PAGE_SIZE)
    return {
        page: bytes(out[at * PAGE_SIZE : (at + 1) * PAGE_SIZE])
        for at, page in enumerate(snapshot.read(memoryview(out)))
    }


class Snapshots(RuleBasedStateMachine):
    """Some snapshots at a time, read a few pages at a time, of pages that change or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine(ram_base=BASE, ram_size=PAGES * PAGE_SIZE, host=NoHost(), builtin_sbi=False)
        self.open: list[tuple[PageSnapshot, dict[int, bytes]]] = []

    @rule(page=SOME, at=st.integers(0, PAGE_SIZE - 1), value=st.integers(0, 255))
    def write(self, page: int, at: int, value: int) -> None:
        self.engine.write_phys(BASE + page * PAGE_SIZE + at, bytes([value]))

    @rule()
    def take_dirty(self) -> None:
        self.engine.dirty_pages()

    @rule(pages=st.sets(SOME))
    def make(self, pages: set[int]) -> None:
        made = self.engine.snapshot(PageSet(PAGES, pages))
        self.open.append((made, {page: contents(self.engine, page) for page in pages}))

    @rule(which=st.integers(0, 3), pages=st.integers(0, 3))
    def read(self, which: int, pages: int) -> None:
        if which < len(self.open):
            snapshot, expected = self.open[which]
            found = read(snapshot, pages)
            assert list(found) == sorted(expected)[: len(found)] and len(found) == min(pages, len(expected))
            for page, data in found.items():
                assert data == expected.pop(page)

    @rule(which=st.integers(0, 3))
    def hash(self, which: int) -> None:
        if which < len(self.open):
            snapshot, expected = self.open.pop(which)
            with Engine(ram_base=BASE, ram_size=PAGES * PAGE_SIZE, host=NoHost(), builtin_sbi=False) as other:
                for page, data in expected.items():
                    other.write_phys(BASE + page * PAGE_SIZE, data)
                assert snapshot.hash() == other.snapshot(PageSet(PAGES, expected)).hash()
            assert read(snapshot, PAGES) == {}

    @rule(which=st.integers(0, 3))
    def close(self, which: int) -> None:
        if which < len(self.open):
            self.open.pop(which)[0].close()

    @rule()
    def clear(self) -> None:
        self.engine.clear_ram()

    def teardown(self) -> None:
        self.engine.close()
        for snapshot, expected in self.open:
            assert read(snapshot, PAGES) == expected


TestSnapshots = Snapshots.TestCase


@pytest.fixture
def large() -> Iterator[Engine]:
    """A machine with more RAM than is kept, and a program that fills it."""
    with Engine(
        ram_base=BASE, ram_size=(MOST_KEPT + 64) * PAGE_SIZE, host=NoHost(), builtin_sbi=False
    ) as engine:
        engine.write_phys(BASE, assemble(FILL, BASE)[0])
        yield engine


def fill(engine: Engine, first: int, pages: int, value: int) -> None:
    engine.reset_hart(0, BASE)
    for name, number in (("x5", BASE + first * PAGE_SIZE), ("x6", WORDS * pages), ("x7", value)):
        engine.set_reg(0, name, number)
    engine.run(engine.icount + 4 * WORDS * pages)
    assert engine.get_reg(0, "x6") == 0


def fill_meanwhile(engine: Engine, first: int, pages: int, value: int, work: Callable[[], None]) -> None:
    reader = threading.Thread(target=work)
    reader.start()
    fill(engine, first, pages, value)
    reader.join()


def test_a_running_guest_and_a_reader_do_not_meet(large: Engine) -> None:
    """Each round's contents are read while the next round overwrites them."""
    n = 600
    pages = PageSet(large.ram_pages, range(8, 8 + n))
    fill(large, 8, n, 1)
    for value in range(2, 12):
        large.dirty_pages()
        snapshot = large.snapshot(pages)
        found: dict[int, bytes] = {}

        def take(snapshot: PageSnapshot = snapshot, found: dict[int, bytes] = found) -> None:
            while part := read(snapshot, 7):
                found.update(part)

        fill_meanwhile(large, 8, n, value, take)
        assert found == dict.fromkeys(range(8, 8 + n), (value - 1).to_bytes(8, "little") * WORDS)


def test_a_running_guest_and_whoever_hashes_do_not_meet(large: Engine) -> None:
    n = 600
    pages = PageSet(large.ram_pages, range(8, 8 + n))
    fill(large, 8, n, 1)
    for value in range(2, 12):
        large.dirty_pages()
        expected = large.snapshot(pages).hash()
        snapshot = large.snapshot(pages)
        found: list[bytes] = []

        def take(snapshot: PageSnapshot = snapshot, found: list[bytes] = found) -> None:
            found.append(snapshot.hash())

        fill_meanwhile(large, 8, n, value, take)
        assert found == [expected] != [large.snapshot(pages).hash()]


def test_the_hash_of_all_pages_is_their_checksum(large: Engine) -> None:
    fill(large, 8, 3, 5)
    everything = large.snapshot(PageSet(large.ram_pages, range(large.ram_pages)))
    assert everything.hash() == checksum(large.ram)
    assert large.snapshot(PageSet(large.ram_pages)).hash() == checksum(b"")


@pytest.mark.parametrize("end", ["read", "hash", "close"])
def test_a_guest_that_changes_too_much_waits(large: Engine, end: str) -> None:
    n = MOST_KEPT + 8
    pages = PageSet(large.ram_pages, range(8, 8 + n))
    snapshot = large.snapshot(pages)
    guest = threading.Thread(target=fill, args=(large, 8, n, 7), daemon=True)
    guest.start()
    guest.join(1)
    assert guest.is_alive()
    assert large.ram[(8 + n) * PAGE_SIZE - 1] == 0
    if end == "read":
        assert set(read(snapshot, n).values()) == {bytes(PAGE_SIZE)}
    elif end == "hash":
        snapshot.hash()
    else:
        snapshot.close()
    guest.join(60)
    assert not guest.is_alive()
    assert contents(large, 8 + n - 1) == (7).to_bytes(8, "little") * WORDS
