"""The heavy imports of a worker, without what they pull in for features that training never uses.

DeepSpeed's autotuner imports mlflow (which imports pandas, SQL and web frameworks) and one of transformers' detection
losses imports scipy; both guard the import and do without. A worker starts in half the time when they are not found.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_UNUSED = ("mlflow", "scipy", "sklearn", "pandas", "matplotlib")


@contextmanager
def lean_imports() -> Iterator[None]:
    """Let optional imports of unused libraries fail; collect no garbage, since imports make none."""
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
