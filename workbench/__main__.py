"""The process's start: ``python -m workbench``, and the program ``workbench``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is being imported ends it as Ctrl-C does later."""
    try:
        from workbench.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("workbench: error: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
