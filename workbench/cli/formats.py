"""The options of commands that list: ``--json``, ``--csv``, ``--table``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Fmt = Literal["text", "json", "csv", "table"]


def format_options(function: F) -> F:
    """Add the three formats to a command; its argument ``fmt`` is text, json, csv or table."""
    for name, text in (
        ("table", "Print a table."),
        ("csv", "Print CSV."),
        ("json", "Print one JSON document."),
    ):
        function = click.option(f"--{name}", "fmt", flag_value=name, help=text)(function)
    return click.option("--text", "fmt", flag_value="text", default="text", hidden=True)(function)
