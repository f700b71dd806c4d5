"""Which failure is followed by another attempt, and for how long things may take."""

import pytest

from vl3.launch.diagnosis import causes
from vl3.launch.diagnosis.causes import AttemptFailure
from vl3.launch.jobs.durations import Durations
from vl3.launch.jobs.history import FailedAttempt, format_history, may_retry, parse_history
from vl3.launch.jobs.state import Observation
from vl3.launch.kube.limits import LaunchLimits


def test_history_survives_its_text() -> None:
    history = [FailedAttempt("node_lost", 40), FailedAttempt("crash", 0)]
    assert format_history(history) == "node_lost@40,crash@0"
    assert parse_history("node_lost@40,crash@0") == history
    assert parse_history("") == []
    assert parse_history("odd,,x@y") == [FailedAttempt("odd", 0), FailedAttempt("x", 0)]


@pytest.mark.parametrize(
    ("history", "max_retries", "expected"),
    [
        ("node_lost@0", 2, True),
        ("node_lost@0,node_lost@0", 2, True),
        ("node_lost@0,node_lost@0,node_lost@9", 2, False),
        ("node_lost@0", 0, False),
        ("crash@0", 2, True),
        ("crash@0,crash@0", 2, False),
        ("crash@10,crash@20", 2, True),
        ("crash@10,node_lost@15,crash@10", 5, False),
        ("config@0", 2, False),
        ("out_of_memory@50", 2, False),
    ],
)
def test_another_attempt_follows_by_cause_and_count(history: str, max_retries: int, expected: bool) -> None:
    known = {cause.name: cause for cause in vars(causes).values() if isinstance(cause, causes.Cause)}
    past = parse_history(history)
    assert may_retry(known[past[-1].cause], past, max_retries=max_retries) is expected


def test_waiting_and_running_are_counted_apart() -> None:
    durations = Durations(LaunchLimits())
    for now, state in ((10, "queued"), (15, "queued"), (20, "admitted"), (30, "running"), (50, "preempted")):
        durations.look(Observation(state, ""), now)
    assert (durations.queued_seconds, durations.running_seconds) == (10, 20)
    durations.look(Observation("preempted", ""), 57)
    assert durations.waited(60) == 10  # this span alone, not the 10 s before it ran
    durations.look(Observation("resumed", ""), 60)
    durations.look(Observation("resumed", ""), 61)
    assert (durations.queued_seconds, durations.running_seconds, durations.waited(99)) == (20, 21, 0)


def test_an_adopted_job_has_run_and_waited_before() -> None:
    durations = Durations(LaunchLimits())
    durations.look(Observation("running", "", since=40), 100)
    assert durations.running_seconds == 60
    durations = Durations(LaunchLimits())
    durations.look(Observation("queued", "", since=40), 100)
    assert durations.waited(101) == 61


def test_a_trouble_counts_when_it_lasts() -> None:
    durations = Durations(LaunchLimits(image_certain_seconds=30))
    missing, slow = AttemptFailure(causes.IMAGE_MISSING, "x"), AttemptFailure(causes.IMAGE_SLOW, "x")
    assert durations.lasting(missing, 100) is None
    assert durations.lasting(slow, 110) is None
    assert durations.lasting(missing, 129) is None
    assert durations.lasting(missing, 130) is missing
    assert durations.lasting(None, 131) is None
    assert durations.lasting(missing, 132) is None
    assert durations.lasting(AttemptFailure(causes.DELETED, "x"), 133) is not None
