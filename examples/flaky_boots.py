"""Boot the built-in guest with many seeds, without traces, and say which fail and how.

python examples/flaky_boots.py 50
"""

import re
import sys

from machine.config import Images, MachineConfig
from workbench.guests import builtin
from workbench.runner import Runner


def main(boots: int) -> None:
    failed = 0
    for seed in range(boots):
        console = bytearray()
        config = MachineConfig(memory_bytes=32 << 20, seed=seed, options={"entropy": "seed"})
        runner = Runner(config, Images(kernel=builtin.read_image()), echo=console.extend)
        result = runner.run(steps=50_000_000)
        runner.board.engine.close()
        if result.reason == "fail":
            failed += 1
            message = re.search(rb"panic: [^\r\n]*", bytes(console))
            print(f"seed {seed}: {message.group(0).decode() if message else result.reason}")
    print(f"{failed} of {boots} boots failed")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
