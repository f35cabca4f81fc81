"""The lazy tables: one decorated function each. A new table is a new function in a module of this package."""

from .base import QUERIES, Names, ProbeNeed, Query, Stretch, declared, find_query

__all__ = ["QUERIES", "Names", "ProbeNeed", "Query", "Stretch", "declared", "find_query"]
