"""Print where a recorded run last called a function, going backwards from the end.

python examples/last_calls.py boot.trace do_sys_openat2 5
"""

import sys

from workbench import Trace


def main(path: str, function: str, count: int) -> None:
    with Trace.open(path) as trace:
        trace.goto("end")
        trace.add_breakpoint(trace.eval(function))
        for _ in range(count):
            stop = trace.reverse_continue()
            if stop.reason != "breakpoint":
                break
            caller = trace.symbols.format(trace.reg("ra"))
            print(
                f"{stop.icount:>15,}  {function} from {caller}  a0={trace.reg('a0'):#x} a1={trace.reg('a1'):#x}"
            )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 5)
