"""What the editor starts as the adapter: the ``workbench`` of the environment, or the one that WORKBENCH names."""

import os

PROGRAM = os.environ.get("WORKBENCH", "workbench")
os.execvp(PROGRAM, [PROGRAM, "dap"])
