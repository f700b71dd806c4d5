"""What every process of an evaluation imports, once: the fork server loads this module before it forks.

Importing torch and the model's code takes seconds. The fork server is a clean process of one thread that never runs
an operation of torch, so its children may be forked safely, which would not be so for the process that evaluates:
that one has threads of MLflow and of the lifeline.
"""

from vl3.system.imports import lean_imports

with lean_imports():
    import vl3.evaluation.worker  # noqa: F401  # imported for its side effect: it is loaded
