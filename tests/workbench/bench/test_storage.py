"""The storage benchmark does its work on small disks, and says whether its figures are met."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.bench import storage
from workbench.guests import fetch

M = 1 << 20


@pytest.mark.requires("qemu-img", "qemu-nbd", "nbdcopy")
def test_every_figure_is_measured_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (
        ("SEQUENTIAL", 4 * M),
        ("CONVERTED", 16 * M),
        ("SERVED", 4 * M),
        ("RANDOM_REQUESTS", 2000),
    ):
        monkeypatch.setattr(storage, name, size)
    monkeypatch.setattr(fetch, "cached", lambda name: None)
    notes: list[str] = []
    result = storage.run(1, tmp_path, notes.append)
    figures = result["figures"]
    assert set(figures) == set(storage.LIMITS) - {"guest's dd, qcow2 over raw"}
    assert len(notes) == 5 and all(figure["value"] > 0 for figure in figures.values())
    for name, figure in figures.items():
        limit, lower, _ = storage.LIMITS[name]
        assert figure["met"] == (figure["value"] >= limit if lower else figure["value"] <= limit)
    assert list(tmp_path.glob("*.raw")) == list(tmp_path.glob("*.qcow2")) == []
