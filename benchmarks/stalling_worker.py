"""A worker of a stage that hangs on request: `benchmarks.stalls` starts it in place of the real one, which it runs.

While the file that VL3_BENCHMARK_HANG names exists, rank 1 waits for ever in its next forward pass.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any


def hang_for_ever() -> None:
    """What the stack of the rank must show."""
    while True:
        time.sleep(1.0)


def main() -> None:
    """Wrap the forward pass, then be the worker."""
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    from vl3.training import worker
    from vl3.training.engine import RowLoss

    forward, wish = RowLoss.forward, Path(os.environ["VL3_BENCHMARK_HANG"])

    def stalling(self: Any, row: Any) -> Any:
        if os.environ.get("RANK") == "1" and wish.exists():
            hang_for_ever()
        return forward(self, row)

    RowLoss.forward = stalling  # type: ignore[method-assign]
    code = worker.main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
