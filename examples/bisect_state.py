"""Find the step at which something in a run's memory changed for good, by bisection over its positions.

python examples/bisect_state.py demo.trace ticks 5      # when did `ticks` reach 5?
"""

import sys

from workbench import Trace


def main(path: str, symbol: str, value: int) -> None:
    with Trace.open(path) as trace:
        address = trace.eval(symbol)

        def reached(position: int) -> bool:
            trace.goto(position)
            return int.from_bytes(trace.read_phys(address, 8), "little") >= value

        low, high = trace.start, trace.end
        if not reached(high):
            sys.exit(f"{symbol} never reaches {value}")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        trace.goto(low)
        print(f"step {low:,} at {trace.symbols.format(trace.reg('pc'))} makes {symbol} {value}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3], 0))
