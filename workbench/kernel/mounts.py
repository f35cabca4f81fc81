"""The file systems that a task sees mounted, from its mount namespace in memory.

Spec: Linux, fs/mount.h (struct mount: a tree by mnt_mounts and mnt_child) and include/linux/dcache.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .errors import KernelError
from .linux import Kernel

_MOST: Final = 10_000
_DEEPEST: Final = 256
_NAME_BYTES: Final = 256


class Mount(NamedTuple):
    """A mounted file system: what is mounted, where, of which type, and its struct mount."""

    device: str
    path: str
    type: str
    address: int


def mounts(kernel: Kernel, task: int) -> Iterator[Mount]:
    """Yield the mounts of a task's namespace: each before those that lie in it.

    Args:
        kernel: at some position. task: a task_struct.

    Raises:
        KernelError: the task has no namespace (it has ended), or memory is not of a known shape.
    """
    proxy = kernel.field(task, "task_struct", "nsproxy")
    if not proxy:
        raise KernelError("the task has no namespaces any more")
    root = kernel.field(kernel.field(proxy, "nsproxy", "mnt_ns"), "mnt_namespace", "root")
    pending, seen = [(root, "/")], 1
    while pending:
        mount, path = pending.pop()
        super_block = kernel.field(mount, "mount", "mnt.mnt_sb")
        kind = kernel.field(kernel.field(super_block, "super_block", "s_type"), "file_system_type", "name")
        device = kernel.field(mount, "mount", "mnt_devname")
        text = kernel.memory.text
        yield Mount(text(device, _NAME_BYTES) if device else "none", path, text(kind, 64), mount)
        below = []
        for child in _children(kernel, mount):
            if (seen := seen + 1) > _MOST:
                raise KernelError("the tree of mounts has no end")
            below.append((child, _join(path, _path(kernel, child, mount))))
        pending += reversed(below)


def _children(kernel: Kernel, mount: int) -> Iterator[int]:
    head = mount + kernel.types.offset("mount", "mnt_mounts")
    link = kernel.types.offset("mount", "mnt_child")
    node = kernel.memory.word(head)
    for _ in range(_MOST):
        if node in (head, 0):
            return
        yield node - link
        node = kernel.memory.word(node)
    raise KernelError("a list of mounts has no end")


def _path(kernel: Kernel, mount: int, parent: int) -> str:
    """Return where a mount lies in the file system that it is mounted on."""
    dentry = kernel.field(mount, "mount", "mnt_mountpoint")
    top = kernel.field(parent, "mount", "mnt.mnt_root")
    names: list[str] = []
    for _ in range(_DEEPEST):
        above = kernel.field(dentry, "dentry", "d_parent")
        if dentry == top or above == dentry:
            return "/".join(reversed(names))
        names.append(kernel.memory.text(kernel.field(dentry, "dentry", "d_name.name"), _NAME_BYTES))
        dentry = above
    raise KernelError(f"a mount point lies more than {_DEEPEST} folders deep")


def _join(above: str, name: str) -> str:
    return f"{above.rstrip('/')}/{name}" if name else above
