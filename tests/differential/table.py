"""Every instruction of the decode tables: how it is translated, and by what it is tested."""

from __future__ import annotations

from collections.abc import Mapping

from tests.differential import peer
from tests.differential.generate import patterns

#: Instructions whose translation is a call of a helper that leaves or looks at privilege.
TEMPLATED = frozenset({"sret", "sc.w", "sc.d", "lr.w", "lr.d"})


def coverage_table(vectors: Mapping[str, int]) -> str:
    """Return a table: name, extension, bits, who judges it, vectors."""
    lines = [f"{'instruction':<14}{'extension':<12}{'bits':<6}{'judged by':<14}vectors"]
    for p in patterns():
        by_peer = peer.has(p) or p.mnemonic in TEMPLATED
        judge = "qemu, interp" if by_peer else "model, interp"
        lines.append(
            f"{p.mnemonic:<14}{p.extension:<12}{p.width:<6}{judge:<14}{vectors.get(p.mnemonic, 0):>7}"
        )
    return "\n".join(lines)
