"""Builds the translator's C core as the extension module ``machine.tcg._core`` (cffi, API mode).

setuptools takes ``ffibuilder``; ``make build`` builds in place. Decoders are generated from the
``.decode`` tables first. ``WORKBENCH_SANITIZE=1`` adds the address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GENERATED = HERE / "_build"

CALLBACKS = """
extern "Python" int wb_py_mmio_read(void *, uint64_t, uint32_t, uint32_t, uint64_t *);
extern "Python" int wb_py_mmio_write(void *, uint64_t, uint32_t, uint32_t, uint64_t);
extern "Python" int wb_py_entropy(void *, uint32_t, uint64_t *);
extern "Python" int wb_py_sbi_call(void *, uint32_t);
"""


def _beside(name: str) -> Any:
    # By path: a package import would pull in the engine, which needs what is being built.
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def generate() -> None:
    """Write the decoders that the ``.decode`` tables describe; a file that would not change is left alone."""
    GENERATED.mkdir(exist_ok=True)
    tables = sorted((HERE / "guest" / "riscv").glob("*.decode"))
    for name, text in _beside("decodetree").generate(tables).items():
        path = GENERATED / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


# What cffi makes around the API: nothing in it is hot, and at -O2 it takes half as long again to compile.
PREAMBLE = """
#include "core/brief.h"
#include "core/api.h"
"""


def _sources() -> list[str]:
    files = [p for folder in ("core", "guest/riscv", "host") for p in sorted((HERE / folder).glob("*.c"))]
    return [os.path.relpath(p, ROOT) for p in files]


def _flags() -> list[str]:
    flags = ["-std=gnu11", "-O2", "-g1", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-fvisibility=hidden"]
    # cffi's own generated file is not held to our warnings.
    flags += ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-fno-strict-aliasing"]
    # A twelfth of the compilation, for nothing that a boot or a kernel of the benchmarks shows; clang has no such pass.
    flags += ["-fno-gcse", "-Wno-ignored-optimization-argument"]
    if os.environ.get("WORKBENCH_SANITIZE"):
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1"]
    return flags


def make_builder() -> FFI:
    """Return the cffi builder with the decoders generated."""
    generate()
    builder = FFI()
    cdef = (HERE / "cdef.h").read_text()
    builder.cdef(cdef + CALLBACKS + "#define WB_SOURCES ...\n")
    sanitize = ["-fsanitize=address,undefined"] if os.environ.get("WORKBENCH_SANITIZE") else []
    builder.set_source(
        "machine.tcg._core",
        f"{PREAMBLE}\n#define WB_SOURCES {_beside('sources').digest():#x}u\n",
        sources=_sources(),
        include_dirs=[os.path.relpath(HERE, ROOT), os.path.relpath(GENERATED, ROOT)],
        extra_compile_args=_flags(),
        extra_link_args=sanitize,
        depends=[os.path.relpath(p, ROOT) for kind in ("*.h", "*.inc", "*.decode") for p in HERE.rglob(kind)],
    )
    return builder


ffibuilder = make_builder()
