"""The lean start of a worker."""

import subprocess
import sys

from vl3.system.imports import lean_imports


def test_unused_libraries_are_hidden_only_inside() -> None:
    code = (
        "import sys, gc\n"
        "from vl3.system.imports import lean_imports\n"
        "with lean_imports():\n"
        "    try:\n"
        "        import scipy\n"
        "    except ImportError:\n"
        "        print('hidden', gc.isenabled())\n"
        "import scipy\n"
        "print(scipy.__name__, gc.isenabled())\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ["hidden False", "scipy True"]


def test_what_is_imported_already_stays() -> None:
    import pandas

    with lean_imports():
        assert sys.modules["pandas"] is pandas
