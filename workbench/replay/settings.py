"""What of a machine's configuration can be another from a past position on, and what can not: one table.

A branch with such a change goes on with the parent's inputs from there on, but for those that the change makes anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from machine.config import MachineConfig
from machine.inputs import Input
from machine.values import valueclass
from workbench.errors import CommandError

_MAX_QUANTUM: Final = 1 << 40
_MAX_SEED: Final = 1 << 63


@valueclass(frozen=True, slots=True)
class Setting:
    """One line of the table.

    Args:
        name: for ``set``. usage: its values. what: what it changes.
        now: returns its value in a configuration. changed: returns a configuration with another value, which is given
            as text; raises CommandError: it can't be that.
        drawn: kinds of answers that the parent's inputs have of it; the branch makes them anew.
    """

    name: str
    usage: str
    what: str
    now: Callable[[MachineConfig], str]
    changed: Callable[[MachineConfig, str], MachineConfig]
    drawn: tuple[str, ...] = ()


def _number(name: str, text: str, least: int, limit: int) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise CommandError(f"{name} {text[:40]!r}: expected a number") from None
    if not least <= value < limit:
        raise CommandError(
            f"{name} {value}: expected {'at least ' if least else ''}{least}, below 2^{limit.bit_length() - 1}"
        )
    return value


def _quantum(config: MachineConfig, text: str) -> MachineConfig:
    return replace(config, quantum_steps=_number("quantum", text, 1, _MAX_QUANTUM))


def _chaos(config: MachineConfig, text: str) -> MachineConfig:
    if text == "off":
        return replace(config, chaos=False)
    return replace(config, chaos=True, seed=_number("chaos", text, 0, _MAX_SEED))


def _seed(config: MachineConfig, text: str) -> MachineConfig:
    if not config.chaos and config.options.get("entropy") != "seed":
        raise CommandError(
            "seed: nothing is drawn from it here; 'set chaos SEED' and 'set entropy seed' have something drawn"
        )
    return replace(config, seed=_number("seed", text, 0, _MAX_SEED))


def _entropy(config: MachineConfig, text: str) -> MachineConfig:
    if text not in ("host", "seed"):
        raise CommandError(f"entropy {text[:40]!r}: expected host or seed")
    return replace(config, options={**config.options, "entropy": text})


SETTINGS: Final = {
    each.name: each
    for each in (
        Setting(
            "quantum",
            "STEPS",
            "the length of the harts' turns, from the next turn on",
            lambda config: f"{config.quantum_steps}",
            _quantum,
        ),
        Setting(
            "chaos",
            "SEED|off",
            "whether turns, delays and latencies are drawn from a generator, from here on",
            lambda config: f"{config.seed}" if config.chaos else "off",
            _chaos,
            ("strike",),
        ),
        Setting(
            "seed",
            "NUMBER",
            "what chaos, and entropy where it is seeded, are drawn from",
            lambda config: f"{config.seed}",
            _seed,
            ("strike", "entropy"),
        ),
        Setting(
            "entropy",
            "host|seed",
            "where the guest's random bytes come from: others than the recording's, from here on",
            lambda config: str(config.options.get("entropy", "host")),
            _entropy,
            ("entropy",),
        ),
    )
}

#: What a machine is made of, and stays: the option of ``record`` that makes another one of it.
FIXED: Final = {
    "memory": "--memory",
    "harts": "--smp",
    "cpu": "--cpu",
    "bios": "--bios",
    "kernel": "--kernel",
    "initrd": "--initrd",
    "append": "--append",
    "bootargs": "--append",
    "drive": "--drive",
    "devices": "--device",
}


def changed_config(config: MachineConfig, name: str, text: str) -> MachineConfig:
    """Return a configuration with another value of a setting. Raises CommandError: there is none, or not this value."""
    if name in FIXED:
        raise CommandError(
            f"{name} is what the machine was made with: record anew with {FIXED[name]}; registers and memory can be "
            "written here"
        )
    if name not in SETTINGS:
        raise CommandError(f"no setting {name[:40]!r}; there are {', '.join(SETTINGS)}")
    return SETTINGS[name].changed(config, text)


def taken_over(asked: Iterable[Input], name: str) -> list[Input]:
    """Return the parent's answers without those that a changed setting makes anew."""
    return [item for item in asked if item.kind not in SETTINGS[name].drawn]


def fitted(state: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
    """Return a state for a machine that has other devices.

    Args:
        state: of the parent's machine. fresh: of the branch's after reset: devices that only it has begin with that.
    """
    had, has = state["devices"], fresh["devices"]
    if had.keys() == has.keys():
        return state
    clock = [row for row in state["clock"] if row[0] in has or row[0] not in had]
    clock += [row for row in fresh["clock"] if row[0] in has and row[0] not in had]
    return {
        **state,
        "devices": {name: had.get(name, begun) for name, begun in has.items()},
        "clock": sorted(clock, key=lambda row: row[2]),
    }
