"""The graph: opening nodes from options, naming them, changing edges as one transaction, draining."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from machine.block import perms, registry
from machine.block.backend import BlockBackend
from machine.block.errors import BlockError, OptionError, PermissionConflictError
from machine.block.flags import Perm, Role
from machine.block.node import Edge, Node
from machine.block.options import OptionReader, Options, from_filename, nest, parse_bool
from machine.block.sched import Scheduler

T = TypeVar("T")
Reference = str | Mapping[str, Any]
#: A chain of backing files deeper than this is taken for a loop.
MAX_DEPTH = 200


class Graph:
    """All nodes that live together, and the scheduler that drives them."""

    def __init__(self, sched: Scheduler | None = None) -> None:
        self.sched = sched if sched is not None else Scheduler()
        self.nodes: dict[str, Node] = {}
        self.backends: list[BlockBackend] = []
        self.jobs: list[Any] = []
        self.replications: list[Any] = []
        self._counter = 0
        self._opening = 0

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Drive a coroutine to its end; see ``Scheduler.run``."""
        return self.sched.run(coro)

    def node(self, name: str) -> Node:
        """Return the node of that name. Raises BlockError ENOENT."""
        try:
            return self.nodes[name]
        except KeyError:
            raise BlockError(errno.ENOENT, f"node '{name}' not found") from None

    def new_name(self) -> str:
        """Return an unused generated name."""
        self._counter += 1
        return f"#block{self._counter:03d}"

    # Opening.

    async def open(
        self,
        what: Reference,
        *,
        driver: str | None = None,
        read_only: bool = False,
        defaults: Options | None = None,
    ) -> Node:
        """Open a node and everything below it.

        Args:
            what: a file name, json: name or URI; or options, nested or with dotted keys.
            driver: format, when ``what`` names none; without it the format is probed.
            read_only: default for ``read-only``.
            defaults: options that hold where ``what`` does not say otherwise.

        Raises:
            OptionError: an option is unknown or wrong.
            BlockError: with the errno of what failed; everything opened so far is closed again.
        """
        options = self._normalise(what, driver)
        for key, value in (defaults or {}).items():
            options.setdefault(key, value)
        self._opening += 1
        if self._opening > MAX_DEPTH:
            self._opening -= 1
            raise BlockError(errno.ELOOP, f"backing chain is deeper than {MAX_DEPTH}: it refers to itself")
        try:
            return await self._open(options, read_only)
        finally:
            self._opening -= 1

    def _normalise(self, what: Reference, driver: str | None) -> Options:
        options = nest(what) if isinstance(what, Mapping) else from_filename(what)
        chosen = options.get("driver", driver)
        if chosen is None:
            if "file" not in options and "filename" in options:
                options["file"] = from_filename(str(options.pop("filename")))
            return options
        protocol = registry.is_protocol(str(chosen))
        if (
            not protocol
            and "file" not in options
            and "filename" in options
            and registry.takes_file(str(chosen))
        ):
            options["file"] = from_filename(str(options.pop("filename")))
        if driver is not None and not isinstance(what, Mapping) and not registry.is_protocol(driver):
            if options.get("driver") is not None and registry.is_protocol(str(options["driver"])):
                options = {"file": options}
        elif not isinstance(what, Mapping) and protocol and driver is None:
            return {"file": options}
        options["driver"] = (
            driver if driver is not None and "driver" not in options else options.get("driver", chosen)
        )
        return options

    async def _open(self, options: Options, read_only: bool) -> Node:
        probed = False
        if "driver" not in options:
            if "file" not in options:
                raise OptionError("options name no driver and no file")
            below = await self.open_ref(options["file"], read_only=read_only, protocol=True)
            options["file"] = below
            name = await registry.probe(below)
            options["driver"] = name
            probed = name == "raw"
        reader = OptionReader(options, f"driver {options['driver']}")
        cls = registry.driver_class(reader.text("driver"))
        name = reader.text("node-name", "") or self.new_name()
        if name in self.nodes or len(name) > 31:
            await self._release(options)
            raise BlockError(errno.EEXIST, f"node name '{name}' is in use or longer than 31 characters")
        node = cls(self, name, parse_bool(reader.take("read-only", read_only), "read-only"))
        node.auto_read_only = reader.flag("auto-read-only")
        cache = reader.take("cache", {})
        node.no_flush = isinstance(cache, dict) and parse_bool(cache.get("no-flush", False), "cache.no-flush")
        node.cache_direct = isinstance(cache, dict) and parse_bool(cache.get("direct", False), "cache.direct")
        node.discard_mode = reader.choice("discard", ("ignore", "unmap", "off", "on"), "ignore")
        node.discard_mode = {"off": "ignore", "on": "unmap"}.get(node.discard_mode, node.discard_mode)
        node.detect_zeroes = reader.choice("detect-zeroes", ("off", "on", "unmap"), "off")
        node.force_share = reader.flag("force-share")
        node.probed = probed
        try:
            await node.drv_open(reader)
            reader.finish()
            if node.force_share and not node.read_only:
                raise OptionError(f"{node.name}: force-share needs read-only")
        except BaseException:
            await self._discard_node(node)
            await self._release(options)
            raise
        self.nodes[name] = node
        child = node.child("file")
        node.debug_node = child if child is not None and child.driver == "blkdebug" else None
        return node

    async def _release(self, options: Options) -> None:
        """Close a file node that was opened for probing and found no parent."""
        below = options.get("file")
        if isinstance(below, Node) and not (below.parents or below.monitor_owned or below.closed):
            await self.close_node(below)

    async def _discard_node(self, node: Node) -> None:
        below = [edge.node for edge in node.children.values()]
        for link in tuple(node.children):
            self.cut(node.children[link])
        for child in below:
            if not child.parents and not child.monitor_owned:
                await self.close_node(child)

    async def open_ref(
        self, what: Any, *, read_only: bool, protocol: bool = False, defaults: Options | None = None
    ) -> Node:
        """Open a child: an opened node, the name of one, or options (a nested dict or a json: name)."""
        if isinstance(what, Node):
            return what
        if isinstance(what, str) and what in self.nodes:
            return self.nodes[what]
        if protocol:
            options = nest(what) if isinstance(what, Mapping) else from_filename(str(what))
            if isinstance(what, str) and not what.startswith("json:") and "/" not in what and ":" not in what:
                raise BlockError(errno.ENOENT, f"node '{what}' not found")
            if "driver" not in options and "filename" in options:
                options = {**from_filename(str(options.pop("filename"))), **options}
            for key, value in (defaults or {}).items():
                options.setdefault(key, value)
            if "driver" in options:
                return await self._open(options, read_only)
            what = options
        if not isinstance(what, str | Mapping):
            raise OptionError("a child must be a node name or options")
        return await self.open(what, read_only=read_only, defaults=defaults)

    def link(self, parent: Node, link: str, child: Node, role: Role) -> Edge:
        """Attach a child edge; permissions are settled by the next ``perms.refresh`` over the parent."""
        if parent in perms.topological([child]):
            raise BlockError(
                errno.ELOOP, f"{child.name} can't be a child of {parent.name}: that makes a loop"
            )
        edge = Edge(parent, child, link, role, Perm.NONE, Perm.ALL)
        parent.children[link] = edge
        child.parents.append(edge)
        try:
            perms.refresh([parent])
        except BlockError:
            del parent.children[link]
            child.parents.remove(edge)
            raise
        return edge

    def cut(self, edge: Edge) -> None:
        """Take an edge out of the graph."""
        edge.node.parents.remove(edge)
        if isinstance(edge.owner, Node):
            edge.owner.children.pop(edge.link, None)
        perms.refresh([edge.node])

    # Closing.

    async def close_node(self, node: Node) -> None:
        """Close a node without parents, and whatever only it used."""
        if node.parents:
            raise BlockError(errno.EBUSY, f"node '{node.name}' is in use by {node.parents[0].owner.name}")
        if node.closed:
            return
        try:
            if not node.read_only:
                await node.flush()
        finally:
            try:
                await node.drv_close()
            finally:
                node.closed = True
                self.nodes.pop(node.name, None)
                await self._discard_node(node)

    async def unref(self, node: Node) -> None:
        """Close a node if nobody uses it any more."""
        if not node.parents and not node.monitor_owned and not node.closed:
            await self.close_node(node)

    async def close(self) -> None:
        """Close every backend and node; the first error is raised after everything was closed."""
        first: BlockError | None = None
        for job in tuple(self.jobs):
            await job.end()
        for backend in tuple(self.backends):
            backend.close()
        while self.nodes:
            roots = [n for n in self.nodes.values() if not n.parents]
            if not roots:
                raise BlockError(errno.EBUSY, "nodes are held by something that is no backend")
            for node in roots:
                try:
                    await self.close_node(node)
                except BlockError as error:
                    first = first or error
        if first is not None:
            raise first

    async def backend(
        self,
        what: Reference | Node,
        *,
        writable: bool = True,
        name: str = "",
        driver: str | None = None,
        perm: Perm | None = None,
        shared: Perm = Perm.ALL,
    ) -> BlockBackend:
        """Open ``what`` and return a backend on it."""
        node = (
            what if isinstance(what, Node) else await self.open(what, driver=driver, read_only=not writable)
        )
        if perm is None:
            perm = Perm.CONSISTENT_READ | (Perm.WRITE if writable else Perm.NONE)
        backend = BlockBackend(self, name or f"backend{len(self.backends)}", perm, shared)
        try:
            backend.attach(node)
        except BlockError:
            backend.close()
            if node is not what:
                await self.unref(node)
            raise
        return backend

    # Changing edges.

    def repoint(self, changes: Sequence[tuple[Edge, Node]]) -> None:
        """Point edges at other nodes, all or none.

        Raises:
            PermissionConflictError: an edge is frozen by a job, or users would exclude each other.
        """
        for edge, _ in changes:
            if edge.frozen:
                raise PermissionConflictError(
                    f"edge '{edge.link}' of {edge.owner.name} is frozen by a job: wait for its end"
                )
        undo = [(edge, edge.node) for edge, _ in changes]
        try:
            self._move(changes)
        except BlockError:
            self._move(undo)
            raise

    def _move(self, changes: Sequence[tuple[Edge, Node]]) -> None:
        touched: dict[Node, None] = {}
        for edge, node in changes:
            edge.node.parents.remove(edge)
            touched[edge.node] = None
            edge.node = node
            node.parents.append(edge)
            owner = edge.owner
            touched[owner if isinstance(owner, Node) else node] = None
            touched[node] = None
            if isinstance(owner, Node) and owner in perms.topological([node]):
                raise BlockError(errno.ELOOP, f"{node.name} below {owner.name} would make a loop")
        perms.refresh(touched)

    def replace_node(self, old: Node, new: Node, keep: Callable[[Edge], bool] | None = None) -> None:
        """Re-point the parents of ``old`` to ``new``, except those inside ``new`` and those ``keep``
        accepts."""
        inside = set(perms.topological([new]))
        changes = [
            (edge, new)
            for edge in old.parents
            if not (isinstance(edge.owner, Node) and edge.owner in inside) and not (keep and keep(edge))
        ]
        self.repoint(changes)

    def set_backing(self, node: Node, backing: Node | None) -> None:
        """Set, change or cut the backing of an overlay."""
        edge = node.children.get("backing")
        if edge is not None and edge.frozen:
            raise PermissionConflictError(f"backing of {node.name} is frozen by a job: wait for its end")
        if edge is not None and backing is not None:
            self.repoint([(edge, backing)])
        elif edge is not None:
            self.cut(edge)
        elif backing is not None:
            self.link(node, "backing", backing, Role.COW)

    def insert_filter(self, target: Node, filter_node: Node) -> None:
        """Put an opened filter, whose child is ``target``, between it and its parents."""
        self.replace_node(target, filter_node)

    async def drop_filter(self, filter_node: Node) -> None:
        """Take a filter out and close it."""
        below = filter_node.filtered
        if below is None:
            raise BlockError(errno.EINVAL, f"{filter_node.name} is no filter")
        async with self.drained(filter_node):
            self.replace_node(filter_node, below)
        await self.unref(filter_node)

    async def append(self, overlay: Node, below: Node) -> None:
        """Make ``overlay`` the new top over ``below``: an external snapshot."""
        async with self.drained(below):
            self.set_backing(overlay, below)
            try:
                self.replace_node(below, overlay)
            except BlockError:
                self.set_backing(overlay, None)
                raise

    async def reopen(self, changes: Sequence[tuple[Node, bool]]) -> None:
        """Switch nodes between read-only (True) and writable, all or none."""
        done: list[tuple[Node, bool]] = []
        try:
            for node, read_only in changes:
                if node.read_only == read_only:
                    continue
                if read_only:
                    await node.flush()
                done.append((node, node.read_only))
                await node.drv_reopen(read_only)
                node.read_only = read_only
            perms.refresh([node for node, _ in changes])
        except BlockError:
            for node, before in reversed(done):
                if node.read_only != before:
                    await node.drv_reopen(before)
                    node.read_only = before
            perms.refresh([node for node, _ in changes])
            raise

    # Draining.

    @asynccontextmanager
    async def drained(self, *nodes: Node) -> AsyncIterator[None]:
        """No request is in flight in the subtrees of the nodes, and nobody above submits new ones; nests."""
        above: dict[Node, None] = dict.fromkeys(nodes)
        roots: dict[Any, None] = {}
        stack = list(nodes)
        while stack:
            for edge in stack.pop().parents:
                if isinstance(edge.owner, Node):
                    if edge.owner not in above:
                        above[edge.owner] = None
                        stack.append(edge.owner)
                elif hasattr(edge.owner, "quiesce"):
                    roots[edge.owner] = None
        for root in roots:
            root.quiesce()
        try:
            watched = dict.fromkeys([*above, *perms.topological(nodes)])
            for root in roots:
                job = getattr(root, "job", None)
                if job is not None:
                    await job.wait_quiet()
            while True:
                busy = next((n for n in watched if n.tracker.requests), None)
                if busy is None:
                    break
                await busy.tracker.idle.wait()
            yield
        finally:
            for root in roots:
                root.unquiesce()

    async def drain_all(self) -> None:
        """Wait until no request is in flight anywhere."""
        async with self.drained(*self.nodes.values()):
            pass
