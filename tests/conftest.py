"""Fixtures and options that all tests share."""

import functools
import gc
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """Take Ctrl-C as usual, and let children take it, also where a script's `&` has had it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # kfp asks for the name of its caller, six times a task. By default that reads the source of every frame, and under
    # pytest there are sixty: three quarters of the time of each test that compiles a workflow.
    inspect.stack = functools.partial(inspect.stack, 0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first: `make test` deals files to two processes, and short ones fill the gap left.

    Example: [a.py::quick, b.py::quick, b.py::slow] becomes [b.py::quick, b.py::slow, a.py::quick].
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failure when it happens: a run that CI's limit of time cuts off never gets to its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(
            f"\n--- {report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext[-4000:]}", flush=True
        )


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what is imported by now, which is none: torch alone is half a million objects."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _plain_linear() -> Iterator[None]:
    """Take back what DeepSpeed's ZeRO 3 replaces in torch for the whole process: another test may count its calls."""
    torch = sys.modules.get("torch")
    linear = torch.nn.functional.linear if torch else None
    yield
    if torch and linear is not None:
        torch.nn.functional.linear = linear


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare a text, or data as JSON, with `tests/golden/<name>`; `make golden` rewrites the file."""

    def check(name: str, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run `make golden` and review the difference"
        assert path.read_text(encoding="utf-8") == text, f"{name} changed: run `make golden` and review the difference"

    return check
