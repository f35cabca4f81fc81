"""`valueclass`: what ``dataclasses.dataclass`` is, for classes that every command needs at once.

``dataclass`` writes each method of each class as a text and compiles it, about a millisecond a class in every
process; two dozen classes were a quarter of the start of ``workbench run``. Here the fields are dataclasses' own (so
``replace``, ``asdict``, ``fields`` and type checkers see a dataclass) and the methods are shared. An instance takes
some microseconds more to make: not for what is made by the million.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["valueclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass as valueclass
else:
    import dataclasses

    def valueclass(*, frozen: bool = False, slots: bool = False):
        """Return a decorator that makes a class a dataclass; ``frozen`` and ``slots`` as there."""

        def decorate(cls: type) -> type:
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
            fields = dataclasses.fields(made)
            made.__init__ = _init([f for f in fields if f.init], getattr(made, "__post_init__", None))
            made.__repr__ = _repr
            made.__eq__ = _eq
            made.__hash__ = _hash if frozen else None
            if frozen:
                made.__setattr__ = _refuse_assignment
                made.__delattr__ = _refuse_deletion
                made.__setstate__ = _set_state
            return made

        return decorate


def _init(fields: list[Any], after: Any) -> Any:
    from dataclasses import MISSING

    plan = [(f.name, f.default, f.default_factory) for f in fields]
    put = object.__setattr__

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        if len(args) > len(plan):
            raise TypeError(f"{type(self).__name__} takes {len(plan)} values, {len(args)} were given")
        for (name, _, _), given in zip(plan, args):  # noqa: B905 - those that are left come below
            put(self, name, given)
        for name, default, factory in plan[len(args) :]:
            if name in named:
                put(self, name, named.pop(name))
            elif default is not MISSING:
                put(self, name, default)
            elif factory is not MISSING:
                put(self, name, factory())
            else:
                raise TypeError(f"{type(self).__name__} needs a value for {name!r}")
        if named:
            raise TypeError(f"{type(self).__name__} has no place for {', '.join(map(repr, named))}")
        if after is not None:
            after(self)

    return __init__


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
    return f"{type(self).__qualname__}({shown})"


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return tuple.__hash__(_values(self))  # for dicts and sets; nothing in a machine follows hash order


def _refuse_assignment(self: Any, name: str, given: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _set_state(self: Any, state: Any) -> None:
    """Take what pickle and copy kept: a dict of attributes, of slots, or a pair of both."""
    for part in state if isinstance(state, tuple) else (state,):
        for name, kept in (part or {}).items():
            object.__setattr__(self, name, kept)
