"""The heavy imports of a worker, without libraries for features that training never uses.

DeepSpeed's autotuner imports mlflow (which imports pandas, SQL and web frameworks) and one of transformers' detection
losses imports scipy; both imports are optional. Without them a worker starts in half the time.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_UNUSED = ("mlflow", "scipy", "sklearn", "pandas", "matplotlib")


@contextmanager
def lean_imports() -> Iterator[None]:
    """Let optional imports of unused libraries fail; switch off garbage collection, since imports make no garbage."""
    hidden = [name for name in _UNUSED if name not in sys.modules]
    collecting = gc.isenabled()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
        if collecting:
            gc.enable()
