"""A stage is stopped for lack of progress and never for its age; the clock is the test's own."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from vl3.config.overrides import apply_overrides
from vl3.errors import ClusterError, ConfigError
from vl3.launch.job import BUILDING, LaunchJob
from vl3.launch.stall import Overdue, StallWatch
from vl3.recipes.catalog import get_recipe

MakeJob = Callable[..., LaunchJob]
DAY = 86400.0


def progress(done: int, total: int = 1000) -> dict[str, Any]:
    return {"type": "progress", "done": done, "total": total, "text": "loss 1.0"}


def require_override(overdue: Overdue, path: str, value: float) -> None:
    """The override in the remedy is one that can be typed, and gives that much time."""
    (override,) = re.findall(r'SET="([^"]+)"', overdue.remedy)
    config = apply_overrides(get_recipe("tiny"), [override])
    assert getattr(config.stages["video"], path) == value


def test_a_stage_that_makes_progress_is_never_stopped_for_its_age(make_job: MakeJob) -> None:
    watch = StallWatch(make_job("", stall_seconds=600), 0.0)
    for step in range(1, 1000):
        assert watch.overdue(step * DAY / 200) is None
        watch.take(progress(step), step * DAY / 200)
    assert watch.done == 999


def test_a_machine_that_gets_slower_is_not_taken_for_hung(make_job: MakeJob) -> None:
    """Every step takes five times as long as the one before, far beyond the floor."""
    watch, now = StallWatch(make_job("", stall_seconds=60), 0.0), 0.0
    for step, pause in enumerate((5, 10, 50, 250, 1250, 6250), start=1):
        now += pause
        assert watch.overdue(now) is None
        watch.take(progress(step), now)
    overdue = watch.overdue(now + 62501)
    assert overdue is not None
    assert (
        "no step was finished for 62501 s (step 6 of 1000 was the last, the longest pause before it was 6250 s)"
        in overdue.text
    )
    require_override(overdue, "stall_seconds", 125000)


def test_a_silence_is_a_stall_and_the_override_for_more_is_named(make_job: MakeJob) -> None:
    watch = StallWatch(make_job("", stall_seconds=600), 0.0)
    watch.take(progress(7), 50.0)
    assert watch.overdue(649.0) is None
    overdue = watch.overdue(651.0)
    assert overdue is not None
    assert overdue.family is ClusterError
    assert (
        overdue.text == "no step was finished for 601 s (step 7 of 1000 was the last), so it has hung and was stopped"
    )
    require_override(overdue, "stall_seconds", 1200)


def test_what_comes_before_the_first_step_and_after_the_last_has_a_limit_of_its_own(make_job: MakeJob) -> None:
    watch = StallWatch(make_job("", startup_seconds=3000, stall_seconds=60), 0.0)
    assert watch.overdue(2999.0) is None
    overdue = watch.overdue(3001.0)
    assert overdue is not None
    assert "no step was finished within 3000 s of its start" in overdue.text
    require_override(overdue, "startup_seconds", 6000)
    watch.take({"type": "start", "resumed_from_step": 0}, 3001.0)  # the processes are up: compiling may take as long
    assert watch.overdue(6000.0) is None
    watch.take(progress(999), 6000.0)
    watch.take(progress(1000), 6001.0)
    assert watch.overdue(9000.0) is None
    overdue = watch.overdue(9002.0)
    assert overdue is not None
    assert "all its 1000 steps were done, but its weights were not published within 3000 s" in overdue.text
    require_override(overdue, "startup_seconds", 6000)


def test_the_first_step_says_nothing_about_the_pace(make_job: MakeJob) -> None:
    watch = StallWatch(make_job("", startup_seconds=3000, stall_seconds=60), 0.0)
    watch.take(progress(1), 2900.0)
    assert watch.overdue(2961.0) is not None


def test_time_in_a_queue_is_no_silence(make_job: MakeJob) -> None:
    watch = StallWatch(make_job("", startup_seconds=100, stall_seconds=60), 0.0)
    watch.take(progress(5), 10.0)
    watch.restart(5000.0)  # preempted until now
    assert watch.overdue(5099.0) is None
    assert watch.overdue(5101.0) is not None


def test_a_limit_on_the_whole_holds_for_whoever_sets_one(make_job: MakeJob) -> None:
    watch = StallWatch(make_job("", timeout_seconds=90), 0.0)
    watch.take(progress(5), 80.0)
    assert watch.overdue(90.0) is None
    overdue = watch.overdue(91.0)
    assert overdue is not None
    assert overdue.family is ConfigError
    assert (
        "still running after 90 s, the limit that stages.video.timeout_seconds sets, and was stopped at step 5"
        in overdue.text
    )
    require_override(overdue, "timeout_seconds", 180)
    assert watch.overdue(91.0, running_seconds=30.0) is None


def test_a_build_names_the_setting_that_it_has(make_job: MakeJob) -> None:
    watch = StallWatch(make_job("", stage="build", words=BUILDING, startup_seconds=7200, stall_seconds=600), 0.0)
    before = watch.overdue(7201.0)
    watch.take(progress(7), 7201.0)
    between = watch.overdue(7802.0)
    watch.take(progress(1000), 7802.0)
    after = watch.overdue(15003.0)
    assert before is not None
    assert between is not None
    assert after is not None
    assert before.text == "no line was finished within 7200 s of its start, so it was stopped"
    assert between.text == (
        "no line was finished for 601 s (line 7 of 1000 was the last), so it has hung and was stopped"
    )
    assert between.remedy == (
        "Start the run again: it makes the units that are missing. If a line may take that long, add "
        'SET="launch.task_stall_seconds=1200".'
    )
    assert after.text == "all its 1000 lines were done, but it did not end within 7200 s, so it was stopped"
    for overdue, value in ((before, 14400), (between, 1200), (after, 14400)):
        (override,) = re.findall(r'SET="([^"]+)"', overdue.remedy)
        assert apply_overrides(get_recipe("tiny"), [override]).launch.task_stall_seconds == value


@pytest.mark.parametrize("event", [{"type": "progress"}, {"type": "progress", "done": "3", "total": None}, {}])
def test_an_event_of_another_shape_is_no_progress(make_job: MakeJob, event: dict[str, Any]) -> None:
    watch = StallWatch(make_job("", startup_seconds=100), 0.0)
    watch.take(event, 90.0)
    assert watch.overdue(101.0) is not None
