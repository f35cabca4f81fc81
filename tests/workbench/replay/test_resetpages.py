"""RAM after reset: pages that an image fills are read from it, others are copies."""

from __future__ import annotations

import random

import pytest

from machine.config import Images
from workbench.replay.resetpages import ResetPages, loaded_images

PAGE = 4096
ALIGN = 512  # pages, as the loader places images
KERNEL = random.Random(1).randbytes(5 * PAGE + 100)
INITRD = random.Random(2).randbytes(3 * PAGE)


@pytest.fixture
def ram() -> bytearray:
    ram = bytearray((2 * ALIGN + 8) * PAGE)
    ram[ALIGN * PAGE : ALIGN * PAGE + len(KERNEL)] = KERNEL
    ram[2 * ALIGN * PAGE : 2 * ALIGN * PAGE + len(INITRD)] = INITRD
    ram[7 * PAGE] = 1
    return ram


PAGES = [7, *range(ALIGN, ALIGN + 6), *range(2 * ALIGN, 2 * ALIGN + 3)]
IMAGES = Images(kernel=KERNEL, initrd=INITRD, dtb=b"small")


def test_all_pages_are_there_after_the_guest_has_written_over_them(ram: bytearray) -> None:
    kept = ResetPages(IMAGES, PAGES, memoryview(ram))
    loaded = bytes(ram)
    ram[:] = bytes(len(ram))
    assert sorted(kept) == PAGES
    assert len(kept) == len(PAGES)
    assert {page: kept[page] for page in PAGES} == {
        page: loaded[page * PAGE : (page + 1) * PAGE] for page in PAGES
    }
    assert kept.get(8) is None


def test_an_image_that_something_was_written_over_is_not_taken_for_ram(ram: bytearray) -> None:
    ram[(ALIGN + 3) * PAGE + 5] ^= 1
    assert list(loaded_images(IMAGES, PAGES, memoryview(ram))) == ["initrd"]
    kept = ResetPages(IMAGES, PAGES, memoryview(ram))
    assert b"".join(kept[page] for page in PAGES[1:7]) == ram[ALIGN * PAGE : (ALIGN + 6) * PAGE]
