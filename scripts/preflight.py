"""Check RUN and DATA of a local run before set-up installs anything; the rest is checked when the run starts.

It runs with a bare Python: what it imports of vl3 needs nothing but the standard library.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from vl3.cli.addresses import with_addresses
from vl3.config.parameters import WorkflowParameters
from vl3.errors import ConfigError
from vl3.pipelines.local.folder import new_run_folder


def main() -> int:
    """Print what is wrong and return its exit code, or 0."""
    try:
        with_addresses(WorkflowParameters(data_uri=os.environ.get("DATA", "")))
        if os.environ.get("RUN"):
            new_run_folder(os.environ["RUN"])
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
