"""Digests: the whole state at a position as 32 bytes, and the cheap rolling one between.

The whole digest is BLAKE2b over the canonical JSON of everything but RAM, and a fold over RAM: the sum modulo
2^256 of a hash of (page index, contents' hash) over all pages that are not zero. A sum is kept up to date page
by page, whatever the order, so a digest costs the pages that changed. The rolling digest is BLAKE2b over the
harts' registers and the engine's fast hash of the pages written since the last one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from .parts import PAGE_BYTES, EngineLike

_ZERO_NAME: Final = hashlib.blake2b(bytes(PAGE_BYTES), digest_size=32).digest()
_MOD: Final = 1 << 256


def canonical_json(document: Any) -> bytes:
    """Return a JSON document as bytes that depend on its value alone. Raises TypeError, ValueError: not JSON."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def page_term(index: int, content_hash: bytes) -> int:
    """Return what one page adds to the fold, from the BLAKE2b-256 of its contents."""
    return int.from_bytes(
        hashlib.blake2b(index.to_bytes(8, "little") + content_hash, digest_size=32).digest()
    )


class RamFold:
    """The fold over RAM, kept from the pages that changed."""

    def __init__(self) -> None:
        self._terms: dict[int, int] = {}
        self._hashes: dict[int, bytes] = {}
        self.value = 0

    def update(self, index: int, data: bytes | memoryview) -> bytes | None:
        """Take a page's present contents; returns their hash, or None if they are what they were when last taken."""
        name = hashlib.blake2b(data, digest_size=32).digest()
        if self._hashes.get(index, _ZERO_NAME) == name:
            return None
        self._hashes[index] = name
        term = 0 if name == _ZERO_NAME else page_term(index, name)
        self.value = (self.value - self._terms.pop(index, 0) + term) % _MOD
        if term:
            self._terms[index] = term
        return name

    def update_all(self, pages: Iterable[int], read: Callable[[int], memoryview]) -> None:
        """Take the present contents of several pages."""
        for index in pages:
            self.update(index, read(index))

    def page_hash(self, index: int) -> bytes:
        """Return the BLAKE2b-256 of a page's contents as last taken."""
        return self._hashes.get(index, _ZERO_NAME)

    def pages(self) -> set[int]:
        """Return the pages that were ever taken with contents other than zeros."""
        return set(self._hashes)


def whole_digest(state: bytes, fold: int) -> bytes:
    """Return the digest of a whole state.

    Args:
        state: ``canonical_json`` of the board's ``save_state()``.
        fold: ``RamFold.value`` over all of RAM.
    """
    return hashlib.blake2b(state + b"\0" + fold.to_bytes(32, "little"), digest_size=32).digest()


def hart_states(engine: EngineLike, harts: int) -> dict[str, Any]:
    """Return what of a machine but its pages goes into a rolling digest."""
    return {
        "icount": engine.icount,
        "warp_ns": engine.warp_ns,
        "sched": engine.save_sched(),
        "harts": [engine.save_state(h) for h in range(harts)],
    }


def rolling_digest(engine: EngineLike, harts: int, pages: Iterable[int]) -> tuple[bytes, bytes]:
    """Return ``(digest, detail)`` at the present position.

    Args:
        engine: stands at the position.
        harts: how many there are.
        pages: RAM pages written since the last rolling digest.

    Returns:
        32 bytes, and the JSON document of the registers that went into it.
    """
    ordered = sorted(pages)
    detail = canonical_json(hart_states(engine, harts) | {"pages": len(ordered)})
    return hashlib.blake2b(detail + b"\0" + engine.hash_pages(ordered), digest_size=32).digest(), detail
