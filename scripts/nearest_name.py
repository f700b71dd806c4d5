"""Say what a misspelt variable or target of `make` may have meant. The Makefile prints the line as its error.

It runs before .venv exists, so with any Python 3 and nothing but its standard library:

    nearest_name.py variable "DTA" "WORKFLOW RECIPE RUN DATA"
    variable DTA is unknown. The nearest is DATA; all are WORKFLOW RECIPE RUN DATA
"""

import difflib
import sys


def unknown_name(kind: str, given: str, known: str) -> str:
    """What is wrong with an unknown name; make adds the full stop.

    Args:
        kind: variable or target.
        given: the name.
        known: the names that there are, separated by spaces.
    """
    names = known.split()
    fold = str.lower if kind == "target" else str.upper  # `make data=x` and `make Test` are near misses, too
    folded = {fold(name): name for name in names}
    nearest = folded[difflib.get_close_matches(fold(given), folded, n=1, cutoff=0.0)[0]]
    advice = ". To pass an environment variable on, write it before `make`" if kind == "variable" else ""
    return f"{kind} {given} is unknown. The nearest is {nearest}; all are {', '.join(names)}{advice}"


if __name__ == "__main__":
    print(unknown_name(*sys.argv[1:4]))
