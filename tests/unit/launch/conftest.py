"""A worker without torch that misbehaves on request, under the real torchrun."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from vl3.launch.job import LaunchJob

_WORKER = """
import json, os, signal, sys, time
from pathlib import Path
from vl3.lifeline import start_lifeline

document = json.loads(Path(sys.argv[sys.argv.index("--job") + 1]).read_text())
folder, behaviour = Path(document["folder"]), document["behaviour"]
rank = int(os.environ["RANK"])
start_lifeline({"VL3_RUNNER": os.environ["VL3_LAUNCHER"]}, kill_group=True)
(folder / f"pid-{rank}").write_text(str(os.getpid()))


def say(**event):
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\\n")


def on_terminate(*_):
    (folder / f"terminated-{rank}").touch()
    os._exit(143)


if behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, on_terminate)
if rank == 0:
    say(type="started")
if behaviour == "succeed":
    names = ("OMP_NUM_THREADS", "WORLD_SIZE", "PYTHONDONTWRITEBYTECODE", "VL3_RUNNER")
    if rank == 0:
        say(type="environment", **{name: os.environ.get(name) for name in names})
    print(f"hello of rank {rank}", flush=True)
elif behaviour == "hang":
    if rank == 0:
        say(type="start", resumed_from_step=0)
        say(type="progress", done=3, total=10, text="loss 1.0")
    time.sleep(1200)
elif behaviour == "asked" and rank == 1:
    sys.exit(143)
elif behaviour == "fault" and rank == 1:
    os.kill(os.getpid(), signal.SIGSEGV)
elif behaviour == "fail" and rank == 1:
    (folder / "failure.json").write_text(json.dumps({"family": "DataError", "message": "clip.mp4 is empty"}))
    sys.exit(3)
elif behaviour == "raise" and rank == 1:
    print("2026-01-01 rank 1 ERROR vl3.training: ended by KeyError: 'pixels'", flush=True)
    sys.exit(1)
elif behaviour == "crash" and rank == 1:
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif behaviour.startswith("stall"):
    from vl3.training.heart import Activity, Heart

    def wait_for_nothing():
        time.sleep(1200)

    attempt = len(list(folder.glob(f"attempt-{rank}-*")))
    (folder / f"attempt-{rank}-{attempt}").touch()
    heart = Heart.of_environment(os.environ, rank)
    for step in range(6):
        heart.begin_step(step)
        time.sleep(0.05)
        heart.beat(Activity.FORWARD)
        if rank == 1 and step == 3 and behaviour == "stall-once" and attempt == 0:
            wait_for_nothing()
        if rank == 1 and step == 3 and behaviour == "stall-stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        heart.beat(Activity.BACKWARD)
        while len(list(folder.glob(f"done-{attempt}-{step}-*"))) < 2:  # as a collective does
            (folder / f"done-{attempt}-{step}-{rank}").touch()
            time.sleep(0.01)
else:
    time.sleep(1200)
"""


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LaunchJob]:
    (tmp_path / "misbehaving_worker.py").write_text(textwrap.dedent(_WORKER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def make(behaviour: str, **changes: object) -> LaunchJob:
        values: dict[str, object] = {
            "name": "stage video",
            "backend": "local",
            "run_id": "run-1",
            "stage": "video",
            "module": "misbehaving_worker",
            "document": {"folder": str(tmp_path), "behaviour": behaviour},
            "work_uri": f"file://{tmp_path}/work",
            "processes_per_node": 2,
            "threads_per_process": 1,
            "log_path": tmp_path / "logs" / "stage.log",
            "events_path": tmp_path / "events.jsonl",
            "failure_path": tmp_path / "failure.json",
        }
        return LaunchJob(**{**values, **changes})  # type: ignore[arg-type]

    return make
