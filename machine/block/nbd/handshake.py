"""The server's half of option negotiation."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from machine.block.nbd import wire as W

if TYPE_CHECKING:
    import ssl

    from machine.block.hostio import Stream
    from machine.block.nbd.server import Export


class DroppedError(Exception):
    """The peer broke the rules, or left; the connection ends."""


class Handshake:
    """What one client negotiates. ``run`` returns the export it chose, or None if it left in order."""

    def __init__(
        self,
        stream: Stream,
        exports: dict[str, Export],
        tls: ssl.SSLContext | None,
        *,
        tls_required: bool = True,
    ) -> None:
        self.stream = stream
        self.exports = exports
        self._tls = tls
        self._need_tls = tls is not None and tls_required
        self._secure = False
        self._no_zeroes = False
        self.structured = False
        self.contexts: dict[str, int] = {}
        self._contexts_of: str | None = None

    async def run(self) -> Export | None:
        """Negotiate. Raises DroppedError when the connection has to be cut."""
        await self.stream.write(
            W.INIT_MAGIC, W.OPTION_MAGIC, struct.pack(">H", W.FLAG_FIXED_NEWSTYLE | W.FLAG_NO_ZEROES)
        )
        (flags,) = struct.unpack(">I", await self.stream.read(4))
        if flags & ~3:
            raise DroppedError(f"unknown client flags {flags:#x}")
        fixed = bool(flags & W.FLAG_FIXED_NEWSTYLE)
        self._no_zeroes = bool(flags & W.FLAG_NO_ZEROES)
        while True:
            magic, option, length = W.OPTION.unpack(await self.stream.read(W.OPTION.size))
            if magic != W.OPTION_MAGIC or length > W.MAX_PAYLOAD:
                raise DroppedError("option with a wrong magic or too long")
            if not fixed and option != W.OPT_EXPORT_NAME:
                raise DroppedError(f"option {option} without fixed newstyle")
            if length > 1 << 16:
                await self._skip(length)
                await self._reply(option, W.ERR_INVALID, b"option is too long")
                continue
            data = await self.stream.read(length)
            if self._need_tls and not self._secure and option not in (W.OPT_STARTTLS, W.OPT_ABORT):
                if option == W.OPT_EXPORT_NAME:
                    raise DroppedError("export name before TLS")
                await self._reply(option, W.ERR_TLS_REQD, b"TLS is required")
                continue
            done, export = await self._option(option, data)
            if done:
                return export

    async def _skip(self, length: int) -> None:
        while length:
            step = min(length, 1 << 16)
            await self.stream.read(step)
            length -= step

    async def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        await self.stream.write(W.OPTION_REPLY.pack(W.REPLY_MAGIC, option, kind, len(data)), data)

    async def _option(self, option: int, data: bytes) -> tuple[bool, Export | None]:
        if option == W.OPT_EXPORT_NAME:
            export = self.exports.get(data.decode(errors="replace"))
            if export is None:
                raise DroppedError("unknown export")
            self._settle(export)
            pad = b"" if self._no_zeroes else bytes(124)
            await self.stream.write(struct.pack(">QH", export.size_bytes, export.flags(self.structured)), pad)
            return True, export
        if option == W.OPT_ABORT:
            await self._reply(option, W.REP_ACK)
            return True, None
        if option == W.OPT_STARTTLS:
            await self._starttls(option, data)
        elif option == W.OPT_LIST:
            await self._list(option, data)
        elif option in (W.OPT_INFO, W.OPT_GO):
            export = await self._info(option, data)
            if export is not None and option == W.OPT_GO:
                self._settle(export)
                return True, export
        elif option == W.OPT_STRUCTURED_REPLY:
            if data or self.structured:
                await self._reply(option, W.ERR_INVALID, b"structured replies were asked for already")
            else:
                self.structured = True
                await self._reply(option, W.REP_ACK)
        elif option in (W.OPT_LIST_META, W.OPT_SET_META):
            await self._meta(option, data)
        else:
            await self._reply(option, W.ERR_UNSUP)
        return False, None

    def _settle(self, export: Export) -> None:
        if self._contexts_of != export.name:
            self.contexts = {}

    async def _starttls(self, option: int, data: bytes) -> None:
        if data:
            raise DroppedError("STARTTLS with data")
        if self._tls is None:
            await self._reply(option, W.ERR_POLICY, b"TLS is not configured")
            return
        if self._secure:
            await self._reply(option, W.ERR_INVALID, b"TLS is on already")
            return
        await self._reply(option, W.REP_ACK)
        await self.stream.start_tls(self._tls, server=True)
        self._secure = True
        self.structured, self.contexts = False, {}

    async def _list(self, option: int, data: bytes) -> None:
        if data:
            await self._reply(option, W.ERR_INVALID)
            return
        for export in self.exports.values():
            name = export.name.encode()
            body = struct.pack(">I", len(name)) + name + export.description.encode()
            await self._reply(option, W.REP_SERVER, body)
        await self._reply(option, W.REP_ACK)

    async def _info(self, option: int, data: bytes) -> Export | None:
        if len(data) < 6:
            await self._reply(option, W.ERR_INVALID)
            return None
        (length,) = struct.unpack_from(">I", data)
        if length > W.MAX_NAME or len(data) < 6 + length:
            await self._reply(option, W.ERR_INVALID)
            return None
        (count,) = struct.unpack_from(">H", data, 4 + length)
        if len(data) != 6 + length + 2 * count:
            await self._reply(option, W.ERR_INVALID)
            return None
        wanted = struct.unpack_from(f">{count}H", data, 6 + length)
        export = self.exports.get(data[4 : 4 + length].decode(errors="replace"))
        if export is None:
            await self._reply(option, W.ERR_UNKNOWN, b"no such export")
            return None
        if W.INFO_NAME in wanted:
            await self._reply(option, W.REP_INFO, struct.pack(">H", W.INFO_NAME) + export.name.encode())
        if export.description:
            body = struct.pack(">H", W.INFO_DESCRIPTION) + export.description.encode()
            await self._reply(option, W.REP_INFO, body)
        real = export.alignment
        smallest = real if W.INFO_BLOCK_SIZE in wanted or option == W.OPT_INFO else 1
        sizes = struct.pack(">HIII", W.INFO_BLOCK_SIZE, smallest, max(4096, real), W.MAX_PAYLOAD)
        await self._reply(option, W.REP_INFO, sizes)
        body = struct.pack(">HQH", W.INFO_EXPORT, export.size_bytes, export.flags(self.structured))
        await self._reply(option, W.REP_INFO, body)
        if option == W.OPT_INFO and W.INFO_BLOCK_SIZE not in wanted and real > 1:
            await self._reply(option, W.ERR_BLOCK_SIZE)
            return None
        await self._reply(option, W.REP_ACK)
        return export

    async def _meta(self, option: int, data: bytes) -> None:
        queries: list[str] = []
        try:
            (length,) = struct.unpack_from(">I", data)
            name = data[4 : 4 + length].decode()
            (count,) = struct.unpack_from(">I", data, 4 + length)
            at = 8 + length
            for _ in range(count):
                (size,) = struct.unpack_from(">I", data, at)
                if size > W.MAX_NAME or at + 4 + size > len(data):
                    raise ValueError
                queries.append(data[at + 4 : at + 4 + size].decode())
                at += 4 + size
            if at != len(data):
                raise ValueError
        except (struct.error, ValueError):
            await self._reply(option, W.ERR_INVALID)
            return
        if not self.structured:
            await self._reply(option, W.ERR_INVALID, b"structured replies come first")
            return
        export = self.exports.get(name)
        if export is None:
            await self._reply(option, W.ERR_UNKNOWN, b"no such export")
            return
        listing = option == W.OPT_LIST_META
        chosen = {
            n: i
            for n, i in export.contexts().items()
            if (listing and not queries) or _matches(n, queries, listing)
        }
        for context, number in chosen.items():
            await self._reply(
                option, W.REP_META, struct.pack(">I", 0 if listing else number) + context.encode()
            )
        if not listing:
            self.contexts, self._contexts_of = chosen, name
        await self._reply(option, W.REP_ACK)


def _matches(context: str, queries: list[str], listing: bool) -> bool:
    """Whether a query names the context; in a listing ``base:`` and ``qemu:…:`` stand for all below."""
    return any(q == context or (listing and q.endswith(":") and context.startswith(q)) for q in queries)
