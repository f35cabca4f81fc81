"""Digests: the whole state at a position as 32 bytes, and the cheap rolling one between.

The whole digest is BLAKE2b over the canonical JSON of everything but RAM, and a fold over RAM: the sum modulo
2^256 of a hash of (page index, contents' hash) over all pages that are not zero (``machine/tcg/core/ramfold.h``).
A sum is kept up to date page by page, whatever the order, so a digest costs the pages that changed. The rolling
digest is BLAKE2b over the harts' registers and the engine's fast hash of the pages written since the last one.
"""

from __future__ import annotations

import json
from typing import Any

from machine.tcg.pageset import PageSet
from traces.blake2 import blake2b

from .parts import EngineLike


def canonical_json(document: Any) -> bytes:
    """Return a JSON document as bytes that depend on its value alone. Raises TypeError, ValueError: not JSON."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def whole_digest(state: bytes, fold: int) -> bytes:
    """Return the digest of a whole state.

    Args:
        state: ``canonical_json`` of the board's ``save_state()``.
        fold: ``RamFold.value`` over all of RAM.
    """
    return blake2b(state + b"\0" + fold.to_bytes(32, "little"), digest_size=32).digest()


class RollingDigest:
    """The rolling digest of the present position: made there, and worked out once, by whichever thread has the time.

    Args:
        engine: stands at the position.
        harts: how many there are.
        pages: of RAM, written since the last rolling digest.
    """

    def __init__(self, engine: EngineLike, harts: int, pages: PageSet) -> None:
        self._state = {
            "icount": engine.icount,
            "warp_ns": engine.warp_ns,
            "sched": engine.save_sched(),
            "harts": [engine.save_state(h) for h in range(harts)],
            "pages": len(pages),
        }
        self._pages = engine.snapshot(pages)

    def work_out(self) -> tuple[bytes, bytes]:
        """Return 32 bytes, and the JSON document of the registers that went into them."""
        detail = canonical_json(self._state)
        return blake2b(detail + b"\0" + self._pages.hash(), digest_size=32).digest(), detail
