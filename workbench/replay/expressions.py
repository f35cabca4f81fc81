"""Expressions of the debugger: registers ``$pc``, symbols, numbers, ``+ - *`` and parentheses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from .errors import EvalError

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|[0-9][0-9_]*)|\$(?P<register>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<symbol>[A-Za-z_.][A-Za-z0-9_.$@]*)|(?P<op>[-+*()]))"
)
_MAX_TEXT: Final = 4096
_MAX_DEPTH: Final = 64


class Expression:
    """One evaluation.

    Args:
        text: the expression.
        register: returns a register's value by name. symbol: a symbol's address, or None.

    Raises:
        EvalError: it is no expression, or names something that does not exist.
    """

    def __init__(
        self, text: str, register: Callable[[str], int], symbol: Callable[[str], int | None]
    ) -> None:
        if len(text) > _MAX_TEXT:
            raise EvalError("the expression is too long")
        self._text = text
        self._register = register
        self._symbol = symbol
        self._tokens = self._scan(text)
        self._at = 0
        self._depth = 0

    def value(self) -> int:
        """Return the value, as a Python integer."""
        value = self._sum()
        if self._at < len(self._tokens):
            raise EvalError(f"{self._text!r}: {self._tokens[self._at][1]!r} is not expected there")
        return value

    def _scan(self, text: str) -> list[tuple[str, str]]:
        tokens, at = [], 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise EvalError(f"{text!r}: {text[at:].strip()[0]!r} is not part of an expression")
            tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
            at = match.end()
        return tokens

    def _next(self, ops: str) -> str:
        if self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind == "op" and text in ops:
                self._at += 1
                return text
        return ""

    def _sum(self) -> int:
        value = self._product()
        while op := self._next("+-"):
            other = self._product()
            value = value + other if op == "+" else value - other
        return value

    def _product(self) -> int:
        value = self._atom()
        while self._next("*"):
            value *= self._atom()
        return value

    def _atom(self) -> int:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise EvalError(f"{self._text[:40]!r}…: nested too deep")
        try:
            return self._unit()
        finally:
            self._depth -= 1

    def _unit(self) -> int:
        if op := self._next("+-("):
            if op != "(":
                value = self._atom()
                return -value if op == "-" else value
            value = self._sum()
            if not self._next(")"):
                raise EvalError(f"{self._text!r}: a ')' is missing")
            return value
        if self._at >= len(self._tokens):
            raise EvalError(f"{self._text!r}: something is missing at the end")
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            return self._number(text)
        if kind == "register":
            return self._register(text)
        if kind == "symbol":
            value_or_none = self._symbol(text)
            if value_or_none is None:
                raise EvalError(f"no symbol {text!r}")
            return value_or_none
        raise EvalError(f"{self._text!r}: {text!r} is not expected there")

    def _number(self, text: str) -> int:
        try:
            return int(text, 10 if text[:2].isdecimal() or len(text) == 1 or text[1] == "_" else 0)
        except ValueError:
            raise EvalError(f"{text!r} is not a number") from None
