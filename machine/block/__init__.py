"""Disks of the machine: node graph, image formats, jobs, replication, NBD.

Start at ``graph.Graph``: it opens nodes from options, and its scheduler drives every request. Errors are
``BlockError`` with an errno.
"""

from machine.block.errors import BlockError

__all__ = ["BlockError"]
