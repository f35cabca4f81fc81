"""What differs between the recorded and the replayed state, in names that a person can follow up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def flatten(document: Any, prefix: str = "") -> dict[str, Any]:
    """Return a JSON document as ``{path: scalar}``, paths with dots and indexes."""
    if isinstance(document, Mapping):
        items = [(f"{prefix}.{key}" if prefix else str(key), value) for key, value in document.items()]
    elif isinstance(document, list):
        items = [(f"{prefix}[{i}]", value) for i, value in enumerate(document)]
    else:
        return {prefix: document}
    out: dict[str, Any] = {}
    for path, value in items:
        out.update(flatten(value, path))
    return out


def differences(recorded: Any, replayed: Any) -> dict[str, tuple[Any, Any]]:
    """Return ``{path: (recorded, replayed)}`` of what two documents differ in."""
    a, b = flatten(recorded), flatten(replayed)
    return {
        path: (a.get(path), b.get(path))
        for path in [*a, *(b.keys() - a.keys())]
        if a.get(path) != b.get(path)
    }


def compare_registers(recorded: Any, replayed: bytes) -> dict[str, tuple[Any, Any]]:
    """Return what the details of two rolling digests differ in; empty where the recording kept none."""
    return {} if recorded is None else differences(recorded, json.loads(replayed))


def differing_pages(recorded: Mapping[int, bytes], replayed: Callable[[int], bytes]) -> list[int]:
    """Return the RAM pages whose hashes differ, of those that the recording has."""
    return sorted(page for page, name in recorded.items() if replayed(page) != name)
