"""RAM as it is after reset: a machine's own images, and copies of what else was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from machine.config import Images
from machine.tcg.pagediff import LoadedImage, find_image


def loaded_images(images: Images, pages: Sequence[int], ram: memoryview) -> dict[str, LoadedImage]:
    """Return by role the images that lie in RAM as they are in their files.

    Args:
        images: what was loaded. pages: those of RAM that were written. ram: the whole of it, after reset.
    """
    found = {role: find_image(data, pages, ram) for role, data in images.by_role().items()}
    return {role: image for role, image in found.items() if image is not None}


class ResetPages(Mapping[int, bytes]):
    """The pages of RAM that were written by a reset, by number.

    Args:
        images: what was loaded; it is kept instead of copies of the pages that it fills.
        pages: those that were written. ram: the whole of it, after reset.
    """

    def __init__(self, images: Images, pages: Sequence[int], ram: memoryview) -> None:
        self._images = list(loaded_images(images, pages, ram).values())
        filled = {page for image in self._images for page in image.pages}
        self._others = {page: bytes(ram[page << 12 : page + 1 << 12]) for page in pages if page not in filled}

    def __getitem__(self, index: int) -> bytes:
        for image in self._images:
            if index in image.pages:
                return image.page(index)
        return self._others[index]

    def __iter__(self) -> Iterator[int]:
        return chain(*(image.pages for image in self._images), self._others)

    def __len__(self) -> int:
        return sum(len(image.pages) for image in self._images) + len(self._others)
