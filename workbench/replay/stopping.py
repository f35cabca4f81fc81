"""What stops the motions of a session: its breakpoints, watchpoints and catches."""

from __future__ import annotations

from typing import Any

from .moving import Moving
from .stoppers import Condition, Stopper


class Stopping(Moving):
    """The stoppers. A part of ``Session``."""

    @property
    def breakpoints(self) -> list[Stopper]:
        """The breakpoints, by number."""
        return [s for s in self._stoppers if s.kind == "breakpoint"]

    def add_breakpoint(
        self,
        addr: int,
        temporary: bool = False,
        enabled: bool = True,
        *,
        physical: bool = False,
        condition: Condition = None,
        hits_ignored: int = 0,
    ) -> Stopper:
        """Stop before an instruction.

        Args:
            addr: its address: a virtual one in every address space, on every hart.
            temporary: delete it when it stops a motion. enabled: whether it stops any.
            physical: the address is a physical one: the instruction that lies there, wherever it is mapped.
            condition: an expression that must not be 0, gdb's byte code, or several of these of which one must hold.
            hits_ignored: how many hits don't stop.

        Raises:
            EvalError: the condition is none.
        """
        more = {"temporary": temporary, "enabled": enabled, "hits_ignored": hits_ignored}
        return self._stoppers.breakpoint(addr, physical, condition, **more)

    def add_watchpoint(
        self,
        addr: int,
        size: int,
        access: str = "w",
        *,
        physical: bool = False,
        condition: Condition = None,
        temporary: bool = False,
        enabled: bool = True,
        hits_ignored: int = 0,
    ) -> Stopper:
        """Stop at accesses to memory by instructions: forwards behind the access, backwards before it.

        Args:
            addr, size: the range, in bytes. access: ``r``, ``w`` or ``a`` (both).
            condition: may ask for ``$value`` (stored or loaded), ``$old`` (before a store), ``$addr``, ``$size``.
            The others: as for ``add_breakpoint``.

        Raises:
            EvalError: the range, the access or the condition is none.
        """
        more = {"temporary": temporary, "enabled": enabled, "hits_ignored": hits_ignored}
        return self._stoppers.watchpoint(addr, size, access, physical, condition, **more)

    def add_catch(
        self,
        what: str,
        arg: Any = None,
        condition: Condition = None,
        *,
        temporary: bool = False,
        enabled: bool = True,
        hits_ignored: int = 0,
    ) -> Stopper:
        """Stop at happenings.

        Args:
            what: and what ``arg`` is then, all or a certain one: ``trap`` (an exception's cause), ``interrupt`` (its
                number), ``syscall`` (its number or name), ``priv`` (a change of privilege), ``satp`` (a change of the
                address space, or its new value), ``csr`` (name or number: a write by an instruction), ``reg``
                (name: an instruction that writes it), ``console`` (text), ``mmio`` (a device's name, an address,
                or a pair of them).
            condition: as for ``add_watchpoint``.

        Raises:
            EvalError: there is nothing of that kind, or the condition is none.
        """
        more = {"temporary": temporary, "enabled": enabled, "hits_ignored": hits_ignored}
        return self._stoppers.catch(what, arg, condition, **more)

    def delete_stopper(self, n: int) -> None:
        """Delete a stopper. Raises KeyError: there is none of this number."""
        self._stoppers.delete(n)

    def enable_stopper(self, n: int, on: bool = True) -> None:
        """Switch a stopper on or off. Raises KeyError: there is none of this number."""
        self._stoppers.get(n).enabled = on

    delete_breakpoint = delete_stopper
    enable_breakpoint = enable_stopper

    def _device_range(self, name: str) -> tuple[int, int] | None:
        for device in getattr(self.board, "devices", ()):
            if device.name == name:
                return device.base, device.base + device.size - 1
        return None
