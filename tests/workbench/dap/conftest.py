"""What the adapter's tests share: clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workbench.dap.harness import Checked


@pytest.fixture
def client() -> Iterator[Checked]:
    """Return a client that nothing was asked through yet."""
    made = Checked()
    yield made
    made.close()


@pytest.fixture
def launched(client: Checked, panic_trace: Path) -> Checked:
    """Return a client on that trace, which stands at its end."""
    client.ask("initialize", adapterID="workbench", supportsInvalidatedEvent=True)
    client.ask("launch", trace=str(panic_trace), stopAt="end")
    client.event("initialized")
    client.ask("configurationDone")
    assert client.event("stopped")["reason"] == "entry"
    return client
