"""Digests: the whole state at a position as 32 bytes, and the cheap rolling one between.

The whole digest is BLAKE2b over the canonical JSON of everything but RAM, and a fold over RAM: the sum modulo
2^256 of a hash of (page index, contents' hash) over all pages that are not zero (``machine/tcg/core/ramfold.h``).
A sum is kept up to date page by page, whatever the order, so a digest costs the pages that changed. The rolling
digest is BLAKE2b over the harts' registers and the engine's fast hash of the pages written since the last one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

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


def hart_states(engine: EngineLike, harts: int) -> dict[str, Any]:
    """Return what of a machine but its pages goes into a rolling digest."""
    return {
        "icount": engine.icount,
        "warp_ns": engine.warp_ns,
        "sched": engine.save_sched(),
        "harts": [engine.save_state(h) for h in range(harts)],
    }


def rolling_digest(engine: EngineLike, harts: int, pages: Sequence[int]) -> tuple[bytes, bytes]:
    """Return ``(digest, detail)`` at the present position.

    Args:
        engine: stands at the position.
        harts: how many there are.
        pages: RAM pages written since the last rolling digest, ascending.

    Returns:
        32 bytes, and the JSON document of the registers that went into it.
    """
    detail = canonical_json(hart_states(engine, harts) | {"pages": len(pages)})
    return blake2b(detail + b"\0" + engine.hash_pages(pages), digest_size=32).digest(), detail
