"""Build hook: the C core is a cffi extension in API mode, ``machine.tcg._core``.

``WORKBENCH_NO_CORE=1`` installs the Python alone: enough to query traces where there is no C compiler.
"""

import os

from setuptools import setup

without_core = os.environ.get("WORKBENCH_NO_CORE", "0") not in ("", "0")
setup(cffi_modules=[] if without_core else ["machine/tcg/build.py:ffibuilder"])
