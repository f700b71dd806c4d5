"""What every process of an evaluation imports: the fork server loads this module once, before it forks.

Importing torch and the model's code takes seconds. The fork server is a process with one thread that never runs a torch
operation, so forking it is safe. Forking the evaluating process itself would not be: it has threads of MLflow and of
the lifeline.
"""

from vl3.system.imports import lean_imports

with lean_imports():
    import vl3.evaluation.worker  # noqa: F401  # imported only so that it is loaded before the fork
