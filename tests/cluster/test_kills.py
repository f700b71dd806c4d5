"""The launcher killed and cancelled at random points: one TrainJob per attempt, the right end, nothing left."""

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.cluster.reach import KUBECONFIG, KUBECTL, NAMESPACE, Cluster
from tests.support.cluster.simulated import Launch, Launcher, gpus_in_use, jobs_of, left_of, seed_of, wait_until

NewRun = Callable[[str], str]

pytestmark = pytest.mark.timeout(3600)
_ONE_GPU = {"gpus_per_node": 1, "processes_per_node": 1, "cpus_per_node": 1.0}
_PATIENT = {"unschedulable_seconds": 120.0}
"""A scheduler that gets little CPU is late, which is no failure here."""
_AT_ONCE = 6


class Seen:
    """Every TrainJob that ever existed while a test ran."""

    def __init__(self) -> None:
        watch = ("get", "trainjobs", "--watch", "--no-headers")
        columns = "--output=custom-columns=NAME:.metadata.name,UID:.metadata.uid"
        command = [KUBECTL, "--kubeconfig", KUBECONFIG, "--namespace", NAMESPACE, *watch, columns]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._jobs: set[tuple[str, ...]] = set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._jobs.add(tuple(line.split()))

    def created_twice(self) -> list[str]:
        """Names under which more than one object was made."""
        return sorted(name for name, count in Counter(job[0] for job in self._jobs).items() if count > 1)

    def __len__(self) -> int:
        return len(self._jobs)

    def stop(self) -> None:
        """End the watch."""
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def seen(cluster: Cluster) -> Iterator[Seen]:
    watch = Seen()
    time.sleep(1)
    yield watch
    watch.stop()


@pytest.mark.parametrize("points", [4, pytest.param(30, marks=pytest.mark.full)])
def test_a_killed_launcher_is_taken_up_by_the_next(
    points: int, launcher: Launcher, cluster: Cluster, new_run: NewRun, seen: Seen
) -> None:
    chance = random.Random(seed_of("kills"))
    pauses = [chance.uniform(0.0, 9.0) for _ in range(points)]

    def kill_and_start_again(pause: float) -> Launch:
        run_id = new_run("killed")
        settings = {"placement": _ONE_GPU, "annotations": {"run-seconds": 5}, "limits": _PATIENT}
        first = launcher.start(run_id, **settings)
        time.sleep(pause)
        first.kill()
        return launcher.run(run_id, seconds=600, **settings)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ended = list(pool.map(kill_and_start_again, pauses))
    assert [launch.result() for launch in ended if launch.process.returncode] == []
    assert [launch.result()["result"]["attempts"] for launch in ended] == [1] * points
    assert [len(jobs_of(cluster, launch.run_id)) for launch in ended] == [1] * points
    assert seen.created_twice() == []


@pytest.mark.parametrize("points", [2, pytest.param(10, marks=pytest.mark.full)])
def test_a_launcher_killed_while_it_cancels_leaves_a_job_that_the_next_cancel_ends(
    points: int, launcher: Launcher, cluster: Cluster, new_run: NewRun
) -> None:
    chance = random.Random(seed_of("killed cancels"))
    for _ in range(points):
        run_id = new_run("twice")
        first = launcher.start(run_id, placement=_ONE_GPU, limits=_PATIENT)
        wait_until(lambda first=first: "running" in first.states(), "the job runs", 180)
        first.cancel()
        time.sleep(chance.uniform(0.0, 0.5))
        first.kill()
        second = launcher.start(run_id, placement=_ONE_GPU, limits=_PATIENT)
        wait_until(lambda second=second: bool(second.states()), "the next launcher has looked for the job", 180)
        second.cancel()
        assert second.wait() == 143, second.said()
        assert jobs_of(cluster, run_id) == []


@pytest.mark.parametrize("runs", [8, pytest.param(200, marks=pytest.mark.full)])
def test_cancelled_runs_free_their_gpus_and_leave_nothing(
    runs: int, launcher: Launcher, cluster: Cluster, new_run: NewRun, seen: Seen
) -> None:
    chance = random.Random(seed_of("cancels"))
    pauses = [chance.uniform(0.0, 8.0) for _ in range(runs)]

    def start_and_cancel(pause: float) -> tuple[Launch, float]:
        launch = launcher.start(new_run("cancel"), placement=_ONE_GPU, annotations={"stop-seconds": 1})
        time.sleep(pause)
        launch.cancel()
        asked = time.monotonic()
        launch.wait(120)
        return launch, time.monotonic() - asked

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ended = list(pool.map(start_and_cancel, pauses))
    slowest = max(seconds for _, seconds in ended)
    print(f"{runs} cancels; from the signal to the launcher's end, with pods gone: at most {slowest:.1f} s")
    assert {launch.process.returncode for launch, _ in ended} <= {143, -15}
    assert slowest < 10
    assert left_of(cluster, [launch.run_id for launch, _ in ended]) == []
    assert gpus_in_use(cluster.get("pods")) == 0
    assert seen.created_twice() == []
