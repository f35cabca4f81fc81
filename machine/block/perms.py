"""Permissions over the graph: computed top-down, checked on every node, applied or left as they were."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from machine.block.errors import BlockError, PermissionConflictError
from machine.block.flags import Perm
from machine.block.node import Edge, Node


def _names(perm: Perm) -> str:
    words = [p.name.lower().replace("_", "-") for p in Perm if p in perm and p is not Perm.NONE and p.name]
    return ", ".join(words)


def topological(roots: Iterable[Node]) -> list[Node]:
    """Return every node at or below the roots, parents before children."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(node, False) for node in roots]
    while stack:
        node, left = stack.pop()
        if left:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((edge.node, False) for edge in node.children.values() if edge.node not in seen)
    order.reverse()
    return order


def cumulative(node: Node, new: dict[Edge, tuple[Perm, Perm]] | None = None) -> tuple[Perm, Perm]:
    """Return what all users of a node take together, and what all of them share."""
    perm, shared = Perm.NONE, Perm.ALL
    for edge in node.parents:
        taken, lets = (new or {}).get(edge, (edge.perm, edge.shared))
        perm |= taken
        shared &= lets
    return perm, shared


def _check_node(node: Node, new: dict[Edge, tuple[Perm, Perm]]) -> None:
    edges = [(e, *new.get(e, (e.perm, e.shared))) for e in node.parents]
    for edge, taken, _ in edges:
        for other, _, lets in edges:
            if other is not edge and taken & ~lets:
                raise PermissionConflictError(
                    f"conflicts with use by {other.owner.name} as '{other.link}', which does not allow "
                    f"'{_names(taken & ~lets)}' on {node.name}; wanted by {edge.owner.name} as '{edge.link}'",
                    errno.EPERM,
                )
        if taken & Perm.WRITE and node.read_only:
            raise BlockError(errno.EPERM, f"{node.name} is read-only: {edge.owner.name} can't write to it")


def refresh(roots: Iterable[Node]) -> None:
    """Recompute the edges at and below the roots.

    Raises:
        PermissionConflictError: two users exclude each other; nothing was changed.
        BlockError: EPERM, a writer on a read-only node; nothing was changed.
    """
    new: dict[Edge, tuple[Perm, Perm]] = {}
    nodes = topological(roots)
    for node in nodes:
        _check_node(node, new)
        perm, shared = cumulative(node, new)
        for edge in node.children.values():
            new[edge] = node.drv_child_perm(edge, perm, shared)
    done: list[Node] = []
    try:
        for node in nodes:
            done.append(node)
            node.drv_perm_check(*cumulative(node, new))
    except BlockError:
        for node in done:
            node.drv_perm_check(*cumulative(node))
        raise
    for edge, (taken, lets) in new.items():
        edge.perm, edge.shared = taken, lets
