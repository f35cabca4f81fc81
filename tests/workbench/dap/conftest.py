"""What the adapter's tests share: a trace of the built-in guest that panics, and a client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workbench.dap.harness import Checked
from workbench.guests import demo


@pytest.fixture(scope="session")
def panic_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a boot of the built-in guest that fails."""
    path = tmp_path_factory.mktemp("dap") / "panic.trace"
    demo.hunt(path, first_seed=10)
    return path


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
