"""When a silence means a stall."""

from vl3.system.pace import Pace


def test_the_example_of_the_class() -> None:
    pace = Pace(600.0, 0.0)
    for moment in (5.0, 95.0, 100.0):
        pace.sign(moment)
    assert (pace.longest_seconds, pace.limit_seconds) == (90.0, 900.0)
    assert not pace.is_stalled(1000.0)
    assert pace.is_stalled(1000.1)


def test_the_floor_holds_for_quick_work() -> None:
    pace = Pace(600.0, 0.0)
    pace.sign(1.0)
    assert not pace.is_stalled(601.0)
    assert pace.is_stalled(601.1)


def test_a_pause_before_a_restart_is_not_learned() -> None:
    pace = Pace(10.0, 0.0)
    pace.restart(500.0)
    pace.sign(501.0)
    assert pace.longest_seconds == 1.0
