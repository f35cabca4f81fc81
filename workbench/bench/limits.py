"""What is wanted of each ratio, and whether a measurement meets it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

#: Of a kernel: the peer's time over ours, at least; by kernel and peer.
KERNELS: Final[Mapping[str, Mapping[str, float]]] = {
    "sieve": {"qemu": 1.1, "qemu -icount": 3.0},
    "sha256": {"qemu": 1.2, "qemu -icount": 1.3},
    "chacha": {"qemu": 1.0, "qemu -icount": 1.0},
    "memcpy": {"qemu": 1.1, "qemu -icount": 1.3},
    "chase": {"qemu": 1.1, "qemu -icount": 1.3},
    "fib": {"qemu": 3.5, "qemu -icount": 4.5},
    "bytecode": {"qemu": 2.5, "qemu -icount": 3.0},
    "heapsort": {"qemu": 2.5, "qemu -icount": 3.0},
    "matmul": {"qemu": 3.5, "qemu -icount": 4.0},
    "nbody": {"qemu": 3.5, "qemu -icount": 4.0},
    "mix": {"qemu": 1.5, "qemu -icount": 2.0},
    "atomics": {"qemu": 1.0, "qemu -icount": 1.5},
}
#: Of a Linux benchmark, by ratio: at least (the peer's time over ours), or at most (what recording costs).
AT_LEAST: Final[Mapping[str, Mapping[str, float]]] = {
    "boot": {
        "qemu / record": 1.3,
        "qemu -icount / record": 1.5,
        "qemu rr=record / record": 1.5,
        "record / replay": 1.0,
    },
    "shell": {
        "qemu / record": 1.2,
        "qemu -icount / record": 1.5,
        "qemu rr=record / record": 1.5,
        "record / replay": 1.0,
    },
}
AT_MOST: Final[Mapping[str, float]] = {"record / run": 1.1}
#: Peak memory beyond the guest's RAM, in MiB.
BEYOND_RAM_MIB: Final = 200


def judge(result: Mapping[str, Any], guest_mib: int = 512) -> list[dict[str, Any]]:
    """Hold a result against what is wanted.

    Args:
        result: of one benchmark, as ``workbench bench --json`` has it.
        guest_mib: RAM of the guests of Linux benchmarks.

    Returns:
        a row for each figure: ``figure``, ``wanted`` as text, ``wall`` and ``cpu`` (by CPU time; None where it
        is no time), ``met`` and ``met by cpu``. Figures that were not measured have none.
    """
    name = result["benchmark"]
    if name == "kernels":
        return list(_kernels(result["kernels"]))
    if name in AT_LEAST:
        return list(_linux(name, result, guest_mib))
    return [
        {
            "figure": f"{name}: {what}",
            "wanted": _wanted(found),
            "wall": found["value"],
            "cpu": found.get("by_cpu"),
            "met": found["met"],
            "met by cpu": None if found.get("by_cpu") is None else found["by_cpu"] <= found["at_most"],
        }
        for what, found in result.get("figures", {}).items()
    ]


def _wanted(found: Mapping[str, Any]) -> str:
    if "is to be" in found:
        return str(found["is to be"])
    unit, at_least, _ = found["unit"].partition(", at least")
    return f"{'>=' if at_least else '<='} {found['at_most']:g} {unit}"


def _kernels(kernels: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for kernel, peers in KERNELS.items():
        found = kernels.get(kernel, {"ratios": {}})
        for peer in (p for p in peers if p in found["ratios"]):
            ratios = found["ratios"][peer], found["cpu_ratios"][peer]
            yield _row(f"{kernel}: {peer}", peers[peer], *ratios, at_least=True)


def _linux(name: str, result: Mapping[str, Any], guest_mib: int) -> Iterable[dict[str, Any]]:
    wanted = [(ratio, limit, True) for ratio, limit in AT_LEAST[name].items()]
    wanted += [(ratio, limit, False) for ratio, limit in AT_MOST.items()]
    for ratio, limit, at_least in (w for w in wanted if w[0] in result["ratios"]):
        both = result["ratios"][ratio], result["cpu_ratios"][ratio]
        yield _row(f"{name}: {ratio}", limit, *both, at_least=at_least)
    most = guest_mib + BEYOND_RAM_MIB
    peak = max(f["peak_mib"] for who, f in result["figures"].items() if not who.startswith("qemu"))
    yield {
        "figure": f"{name}: peak memory",
        "wanted": f"<= {most} MiB",
        "wall": peak,
        "cpu": None,
        "met": peak <= most,
        "met by cpu": None,
    }


def _row(figure: str, limit: float, wall: float, cpu: float, *, at_least: bool) -> dict[str, Any]:
    met, met_by_cpu = ((value >= limit) if at_least else (value <= limit) for value in (wall, cpu))
    wanted = f"{'>=' if at_least else '<='} {limit:g}"
    return {
        "figure": figure, "wanted": wanted, "wall": wall, "cpu": cpu, "met": met, "met by cpu": met_by_cpu
    }  # fmt: skip
