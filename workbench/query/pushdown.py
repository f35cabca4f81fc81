"""What a SELECT limits its rows to, where that is plain to see; so that no more is replayed than is asked for.

Only one SELECT over one table whose conditions are all joined by AND is looked into. Whatever else there is, the
answer is "no limits", which is always right and only costs time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_NUMBER: Final = r"(?:-?\d+|0[xX][0-9a-fA-F]+)"
_VALUE: Final = rf"({_NUMBER}|addr\s*\(\s*'[^']*'\s*\))"
_BETWEEN: Final = re.compile(rf"^(\w+)\s+between\s+{_VALUE}\s+and\s+{_VALUE}$", re.I)
_COMPARE: Final = re.compile(rf"^(\w+)\s*(=|==|<|<=|>|>=)\s*{_VALUE}$", re.I)
_TEXT: Final = re.compile(r"^(\w+)\s*==?\s*'([^']*)'$", re.I)
_WHERE: Final = re.compile(
    r"\bwhere\b(.*?)(?:\bgroup\s+by\b|\border\s+by\b|\blimit\b|\bwindow\b|\bhaving\b|;|$)", re.I | re.S
)
_MANY: Final = re.compile(r"\b(or|union|intersect|except|join|not|with|case)\b|,\s*\w+\s+where\b", re.I)
_LIMIT: Final = 1 << 62

#: What parameters of a statement are bound to, by place or by name.
Args = Sequence[Any] | Mapping[str, Any]


@dataclass
class Limits:
    """Inclusive ranges of integer columns, and values of text columns."""

    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def narrow(self, column: str, low: int, high: int) -> None:
        """Add a condition on a column."""
        was = self.ranges.get(column, (-_LIMIT * 4, _LIMIT * 4))
        self.ranges[column] = max(was[0], low), min(was[1], high)


def find_limits(sql: str, address: Callable[[str], int], args: Args = ()) -> Limits:
    """Return the limits of a statement.

    Args:
        sql: one statement. address: the value of ``addr('…')``. args: what its parameters are bound to.
    """
    limits = Limits()
    literals: list[str] = []
    bound = itertools.count()

    def hide(match: re.Match[str]) -> str:
        if match[0][0] == '"':
            return match[0] if match[0][1:-1].isidentifier() else '"_"'
        if match[0][0] != "'":
            return " "  # a comment
        literals.append(match[0])
        return f"'{len(literals) - 1}'"

    def bind(match: re.Match[str]) -> str:
        value = _bound(match, args, bound)
        if isinstance(value, int):
            return str(int(value))
        if isinstance(value, str) and "'" not in value:
            literals.append(f"'{value}'")
            return f"'{len(literals) - 1}'"
        return match[0]

    # what a text literal holds is not SQL
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", hide, sql, flags=re.S)
    bare = re.sub(r"\?(\d*)|[:@$](\w+)", bind, bare)
    if len(re.findall(r"\bselect\b", bare, re.I)) != 1 or _MANY.search(bare) or _several_tables(bare):
        return limits
    found = _WHERE.search(bare)
    if found is None:
        return limits
    for term in _terms(found.group(1)):
        _take(limits, re.sub(r"'(\d+)'", lambda m: literals[int(m[1])], term), address)
    return limits


def _bound(match: re.Match[str], args: Args, following: Iterator[int]) -> Any:
    """Return what a parameter is bound to, None where nothing is: SQLite will say so."""
    number, name = match.groups()
    if isinstance(args, Mapping):
        return args.get(name)
    place = int(number) - 1 if number else next(following) if number is not None else -1
    return args[place] if 0 <= place < len(args) else None


def _several_tables(bare: str) -> bool:
    source = re.search(r"\bfrom\b(.*?)(?:\bwhere\b|\bgroup\b|\border\b|\blimit\b|;|$)", bare, re.I | re.S)
    return source is None or "," in source.group(1) or "(" in source.group(1)


def _terms(where: str) -> list[str]:
    """Split at AND, but not at the AND of BETWEEN."""
    terms: list[str] = []
    for part in re.split(r"\band\b", where, flags=re.I):
        if terms and re.search(r"\bbetween\b(?!.*\band\b)", terms[-1], re.I | re.S):
            terms[-1] += f" and {part}"
        else:
            terms.append(part)
    return [" ".join(term.split()) for term in terms]


def _take(limits: Limits, term: str, address: Callable[[str], int]) -> None:
    def value(text: str) -> int:
        name = re.match(r"addr\s*\(\s*'([^']*)'", text, re.I)
        return address(name.group(1)) if name else int(text, 0) if "x" in text.lower() else int(text)

    if match := _TEXT.match(term):
        limits.texts[match[1].lower()] = match[2]
    elif match := _BETWEEN.match(term):
        limits.narrow(match[1].lower(), value(match[2]), value(match[3]))
    elif match := _COMPARE.match(term):
        column, sign, number = match[1].lower(), match[2], value(match[3])
        low = number + (sign == ">") if sign[0] in ">=" else -_LIMIT * 4
        high = number - (sign == "<") if sign[0] in "<=" else _LIMIT * 4
        limits.narrow(column, low, high)
