"""Pages as what differs from a loaded image, and where an image lies in RAM."""

from __future__ import annotations

import random

import pytest

from machine.tcg.pagediff import NOWHERE, LoadedImage, find_image

PAGE = 4096
IMAGE = random.Random(1).randbytes(10 * PAGE + 100)


def image_page(number: int) -> bytes:
    return IMAGE[number * PAGE : (number + 1) * PAGE]


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def words_changed(data: bytes, count: int) -> bytes:
    out = bytearray(data)
    for word in random.Random(count).sample(range(512), count):
        out[8 * word + word % 8] ^= 0x80
    return bytes(out)


@pytest.mark.parametrize("changed", [0, 1, 256, 257, 512])
def test_a_page_of_which_half_or_less_differs_becomes_the_difference(changed: int) -> None:
    page = words_changed(image_page(3), changed)
    copies = bytearray(page)
    places = LoadedImage(IMAGE, 100).subtract([103], [0], memoryview(copies))
    if changed <= 256:
        assert list(places) == [3 * PAGE]
        assert copies == xor(page, image_page(3))
    else:
        assert list(places) == [NOWHERE]
        assert copies == page


def test_pages_outside_of_the_image_and_those_not_meant_stay() -> None:
    pages = [99, 100, 101, 109, 110, 111]
    contents = [image_page(max(0, min(page - 100, 9))) for page in pages]
    copies = bytearray(b"".join(contents))
    places = LoadedImage(IMAGE, 100).subtract(pages, [0, 1, 3, 4, 5], memoryview(copies))
    assert list(places) == [NOWHERE, 0, 9 * PAGE, NOWHERE, NOWHERE]  # of page 110 the image has a part only
    for at, data in enumerate(contents):
        assert copies[at * PAGE : (at + 1) * PAGE] == (bytes(PAGE) if at in (1, 3) else data)


def test_more_pages_than_copies_are_refused() -> None:
    with pytest.raises(ValueError, match="expected all"):
        LoadedImage(IMAGE, 0).subtract([1, 2], [0], memoryview(bytearray(PAGE)))
    with pytest.raises(ValueError, match="expected all"):
        LoadedImage(IMAGE, 0).subtract([1], [1], memoryview(bytearray(PAGE)))


def test_an_image_is_found_where_it_is_aligned() -> None:
    ram = bytearray(64 * PAGE)
    for first in (5, 32):
        ram[first * PAGE : first * PAGE + len(IMAGE)] = IMAGE
    pages = [*range(5, 16), *range(32, 43)]
    found = find_image(IMAGE, pages, memoryview(ram), align=16 * PAGE)
    assert found is not None
    assert list(found.subtract([33], [0], memoryview(bytearray(image_page(1))))) == [PAGE]
    assert find_image(IMAGE, pages[:11], memoryview(ram), align=16 * PAGE) is None
    assert find_image(IMAGE[1:], pages, memoryview(ram), align=PAGE) is None
    assert find_image(b"", pages, memoryview(ram), align=PAGE) is None
    assert found.pages == range(32, 42)


def test_an_image_of_which_a_byte_in_ram_differs_is_not_found() -> None:
    """What is known of its pages by name is taken for what RAM holds."""
    for at in (0, 5 * PAGE, len(IMAGE) - 1):
        ram = bytearray(64 * PAGE)
        ram[32 * PAGE : 32 * PAGE + len(IMAGE)] = IMAGE
        assert find_image(IMAGE, range(32, 43), memoryview(ram), align=PAGE) is not None
        ram[32 * PAGE + at] ^= 1
        assert find_image(IMAGE, range(32, 43), memoryview(ram), align=PAGE) is None
    cut = bytearray(32 * PAGE) + IMAGE[:-1]
    assert find_image(IMAGE, [32], memoryview(cut), align=PAGE) is None


def test_a_page_of_an_image_is_as_it_was_loaded() -> None:
    image = LoadedImage(IMAGE, 100)
    assert [image.page(page) for page in image.pages] == [image_page(n) for n in range(10)]
