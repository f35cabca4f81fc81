"""Which checkpoint to give up when there are too many: spacing becomes logarithmic away from the places of interest."""

from __future__ import annotations

from collections.abc import Sequence


def choose_victim(positions: Sequence[int], places: Sequence[int] = ()) -> int | None:
    """Return the index of the checkpoint whose loss is felt least, or None if none may go.

    The loss of a checkpoint is the gap that it leaves, measured against its distance from the nearest place of
    interest: the end, or a bookmark. So gaps grow in proportion to that distance.

    Args:
        positions: ascending. The first and the last one stay.
        places: bookmarks' positions.
    """
    best: tuple[float, int] | None = None
    for i in range(1, len(positions) - 1):
        gap = positions[i + 1] - positions[i - 1]
        near = min([positions[-1] - positions[i], *(abs(place - positions[i]) for place in places)])
        loss = gap / (near + gap)
        if best is None or loss < best[0]:
            best = (loss, i)
    return None if best is None else best[1]
