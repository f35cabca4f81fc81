"""Steps by stack, as a tree of calls; it reads as folded stacks do, ``outermost;…;innermost``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

#: What the outermost calls are on top of.
OUTSIDE: Final = -1


class Stacks(Mapping[str, int]):
    """Steps by stack.

    A stretch of a run has hundreds of thousands of stacks, a tenth of a gigabyte of names: they are spelt out for
    whoever asks for them by name.

    Args:
        names: of each call. below: the call that it is on top of, an earlier one, or ``OUTSIDE``.
        steps: with this call on top. notes: lines that tell what the stacks do not show.

    Calls of one name on top of one stack may be several: they are one stack.
    """

    def __init__(
        self, names: Sequence[str], below: Sequence[int], steps: Sequence[int], notes: Sequence[str] = ()
    ) -> None:
        self.names, self.below, self.steps, self.notes = names, below, steps, tuple(notes)

    @classmethod
    def of(cls, folded: Mapping[str, int]) -> Stacks:
        """Return the tree of folded stacks."""
        names, below, steps = list[str](), list[int](), list[int]()
        known: dict[tuple[int, str], int] = {}
        for stack, count in folded.items():
            at = OUTSIDE
            for name in stack.split(";"):
                under, at = at, known.setdefault((at, name), len(names))
                if at == len(names):
                    names.append(name)
                    below.append(under)
                    steps.append(0)
            steps[at] += count
        return cls(names, below, steps)

    def __getitem__(self, stack: str) -> int:
        return self._folded[stack]

    def __iter__(self) -> Iterator[str]:
        return iter(self._folded)

    def __len__(self) -> int:
        return len(self._folded)

    def totals(self) -> list[int]:
        """Return the steps of each call with those of all that it called."""
        out = list(self.steps)
        for at in range(len(out) - 1, -1, -1):
            if self.below[at] != OUTSIDE:
                out[self.below[at]] += out[at]
        return out

    @cached_property
    def _folded(self) -> dict[str, int]:
        stacks, found = list[str](), Counter[str]()
        for name, under, steps in zip(self.names, self.below, self.steps, strict=True):
            stack = name if under == OUTSIDE else f"{stacks[under]};{name}"
            stacks.append(stack)
            if steps:
                found[stack] += steps
        return dict(found)
