"""Sets of pages against Python's sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.tcg.engine import Engine
from machine.tcg.pageset import PageSet, as_numbers

PAGES = 200
NUMBERS = st.frozensets(st.integers(0, PAGES - 1))


def made(numbers: frozenset[int]) -> PageSet:
    pages = PageSet(PAGES)
    pages.update(numbers)
    return pages


@given(NUMBERS, NUMBERS, st.integers(0, PAGES), st.integers(0, PAGES))
def test_a_set_of_pages_is_a_set(a: frozenset[int], b: frozenset[int], first: int, end: int) -> None:
    pages = made(a)
    assert (len(pages), list(pages), list(pages.numbers())) == (len(a), sorted(a), sorted(a))
    other = made(a)
    other |= made(b)
    assert list(other) == sorted(a | b)
    other -= made(b)
    assert list(other) == sorted(a - b)
    other = made(a)
    other.remove_range(range(first, max(first, end)))
    assert list(other) == [number for number in sorted(a) if not first <= number < end]
    assert list(pages) == sorted(a)
    pages.clear()
    assert not pages


def test_what_does_not_fit_is_refused() -> None:
    pages = PageSet(PAGES)
    with pytest.raises(ValueError, match=f"page {PAGES}: there are {PAGES}"):
        pages.update((1, PAGES))
    with pytest.raises(OverflowError):
        pages.update((1, -1))
    assert not pages
    with pytest.raises(ValueError, match="201 pages"):
        pages |= PageSet(PAGES + 1)
    with pytest.raises(ValueError, match="201 pages"):
        pages -= PageSet(PAGES + 1)
    with pytest.raises(OverflowError):
        as_numbers([1 << 32])


def test_written_pages_are_told_once(engine: Engine) -> None:
    engine.dirty_pages()
    engine.write_phys(engine.ram_base + 4095, b"ab")
    engine.write_phys(engine.ram_base + (engine.ram_pages << 12) - 1, b"c")
    assert list(engine.dirty_pages(clear=False)) == [0, 1, engine.ram_pages - 1]
    assert list(engine.dirty_pages()) == [0, 1, engine.ram_pages - 1]
    assert not engine.dirty_pages()
    engine.write_phys(engine.ram_base + 64 * 4096, b"d")
    engine.clear_ram()
    assert not engine.dirty_pages()
