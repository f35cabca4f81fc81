"""The digest of RAM against its definition, in Python's own BLAKE2b."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.tcg.engine import PAGE_SIZE
from machine.tcg.ramfold import RamFold, checksum, page_names

PAGES = 40
Contents = dict[int, bytes]


def name(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def page(seed: int) -> bytes:
    """Return a page's contents that differ in every word, all zeros for 0."""
    return hashlib.shake_128(bytes([seed])).digest(PAGE_SIZE) if seed else bytes(PAGE_SIZE)


def definition(contents: Contents) -> int:
    terms = [
        hashlib.blake2b(index.to_bytes(8, "little") + name(data), digest_size=32).digest()
        for index, data in contents.items()
        if any(data)
    ]
    return sum(int.from_bytes(term) for term in terms) % (1 << 256)


@given(st.lists(st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 3), max_size=20), max_size=6))
def test_the_fold_is_its_definition_whatever_the_order_and_number_of_pages(
    writes: list[dict[int, int]],
) -> None:
    fold, final = RamFold(PAGES), dict.fromkeys(range(PAGES), 0)
    for write in writes:
        taken = fold.take_copies(list(write), b"".join(page(seed) for seed in write.values()))
        changed = [(i, seed) for i, (index, seed) in enumerate(write.items()) if final[index] != seed]
        assert list(taken.at) == [i for i, _ in changed]
        assert taken.names == b"".join([name(page(seed)) for _, seed in changed])
        final |= write
    contents = {index: page(seed) for index, seed in final.items()}
    assert fold.value == definition(contents)
    assert fold.pages() == [index for index, seed in final.items() if seed]
    assert [fold.name(index) for index in final] == [name(data) for data in contents.values()]


@pytest.mark.parametrize("count", [1, 7, 64, 65, 130])
def test_pages_whose_names_are_known_are_as_good_as_their_contents(count: int) -> None:
    data = b"".join(page(i % 5) for i in range(count))
    by_contents, by_names = RamFold(200), RamFold(200)
    for fold in (by_contents, by_names):
        fold.take_copies([30, 31], page(9) + page(8))
    by_contents.take_copies(list(range(30, 30 + count)), data)
    by_names.take_names(30, page_names(data + b"a tail is no page"))
    assert by_names.value == by_contents.value
    assert by_names.pages() == by_contents.pages()
    for first, names in ((200 - count + 1, page_names(data)), (-1, bytes(32)), (0, bytes(33))):
        with pytest.raises(ValueError, match="there are 200"):
            by_names.take_names(first, names)


@pytest.mark.parametrize("count", [*range(1, 18), PAGES])
def test_pages_in_ram_and_copies_of_them_are_the_same(count: int) -> None:
    """Hashes are made several at once, by the host's widest registers; every remainder is met."""
    ram = b"".join(page(i) for i in range(PAGES))
    pages = list(range(PAGES - count, PAGES))
    here, there = RamFold(PAGES), RamFold(PAGES)
    assert here.take(pages, memoryview(ram)) == there.take_copies(pages, ram[(PAGES - count) * PAGE_SIZE :])
    assert here.value == there.value == definition({i: page(i) for i in pages})


def test_the_fold_tells_pages_apart_by_their_place() -> None:
    here, there = RamFold(3), RamFold(3)
    here.take_copies([1], page(1))
    there.take_copies([2], page(1))
    assert here.value != there.value


def test_what_is_no_page_of_the_fold_is_refused() -> None:
    fold = RamFold(2)
    for pages, size in (([2], 1), ([-1], 1), ([0, 1], 1)):
        with pytest.raises(ValueError, match="pages"):
            fold.take_copies(pages, bytes(size * PAGE_SIZE))
    with pytest.raises(ValueError, match="expected 2 pages"):
        fold.take([0], memoryview(bytes(PAGE_SIZE)))
    assert fold.value == 0


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65 * 4096 + 17, 130 * 4096])
def test_names_are_those_of_whole_pages(size: int) -> None:
    data = hashlib.shake_128(b"tree").digest(size)
    names = b"".join(name(data[at : at + 4096]) for at in range(0, size - size % 4096, 4096))
    assert page_names(data) == names


def test_the_checksum_is_another_where_one_bit_of_a_page_is() -> None:
    data = bytearray(b"".join(page(i) for i in range(3)) + bytes(PAGE_SIZE))
    seen = {checksum(bytes(data))}
    for at in range(0, len(data), 61):
        data[at] ^= 1 << at % 8
        seen.add(checksum(bytes(data)))
        data[at] ^= 1 << at % 8
    assert len(seen) == 1 + len(range(0, len(data), 61))
    assert checksum(page(1) + page(2)) != checksum(page(2) + page(1))
    assert checksum(b"less than a page") == checksum(b"")
