"""The memory limit of a process, tried in a process of its own."""

import subprocess
import sys

SCRIPT = """
from vl3.system.memory import has_grown, limit_memory
print(has_grown(0.5))
limit_memory(200 << 20)
print(has_grown(0.5))
kept = bytearray(150 << 20)
print(has_grown(0.5))
try:
    more = bytearray(100 << 20)
except MemoryError:
    print("refused")
del kept
print(has_grown(0.5), len(bytearray(100 << 20)) >> 20)
"""


def test_what_exceeds_the_limit_is_refused_and_what_is_given_back_counts_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True", "refused", "False", "100"]
