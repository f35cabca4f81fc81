"""Fixtures of the block layer's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machine.block.errors import BlockError
from machine.block.graph import Graph


@pytest.fixture
def graph() -> Iterator[Graph]:
    """A graph that is closed at the end of the test, as far as the test left it usable."""
    graph = Graph()
    yield graph
    try:
        graph.run(graph.close())
    except BlockError:
        for backend in tuple(graph.backends):
            backend.edge = None
