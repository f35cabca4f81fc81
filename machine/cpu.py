"""The processor, as ``--cpu`` spells it: ``rv64[,feature=value…]``. ``FEATURES`` has a row for each that can be chosen.

The translator has a row of its own for each (``RISCV_FEATURES`` in guest/riscv/riscv.h), with the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from machine.errors import ConfigError
from machine.values import valueclass

#: The one model there is.
MODEL = "rv64"
SWITCH: Mapping[str, int] = MappingProxyType({"off": 0, "on": 1})


@valueclass(frozen=True, slots=True)
class Feature:
    """Something that a processor has or has not, or has of some size.

    Args:
        name: as it is written, and as the translator calls it.
        values: what can be written, and what the translator is told for it.
        default: the value where nothing is written.
        text: one line of help.
        isa: extensions that the device tree names when it is on, in the order of names.
    """

    name: str
    values: Mapping[str, int]
    default: str
    text: str
    isa: tuple[str, ...] = ()


FEATURES = (
    Feature("v", SWITCH, "off", "vectors, version 1.0", ("v",)),
    Feature("vlen", MappingProxyType({"128": 128, "256": 256}), "128", "bits of a vector register"),
)


def parse_cpu(text: str) -> dict[str, int]:
    """Return what the translator is told of each feature.

    Raises:
        ConfigError: the model, a feature or a value is not known, or one is given twice.
    """
    model, *choices = text.split(",")
    if model != MODEL:
        raise ConfigError(f"--cpu {model}: the one processor is {MODEL}")
    rows = {feature.name: feature for feature in FEATURES}
    chosen: dict[str, int] = {}
    for choice in choices:
        name, _, value = choice.partition("=")
        if name not in rows:
            raise ConfigError(f"--cpu: no feature {name!r}; there are {', '.join(rows)}")
        if value not in rows[name].values:
            raise ConfigError(f"--cpu: {choice!r}: expected {name}={'|'.join(rows[name].values)}")
        if name in chosen:
            raise ConfigError(f"--cpu: {name} is given twice")
        chosen[name] = rows[name].values[value]
    return {name: chosen.get(name, row.values[row.default]) for name, row in rows.items()}


def isa_extensions(text: str) -> tuple[str, ...]:
    """Return the extensions that a processor has by choice, for the device tree. Raises ConfigError."""
    values = parse_cpu(text)
    return tuple(name for feature in FEATURES if values[feature.name] for name in feature.isa)
