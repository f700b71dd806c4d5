"""Times as records write them."""

import re
from datetime import UTC, datetime

from vl3.system.clock import now, now_to_the_second


def test_times_are_of_now_and_in_utc() -> None:
    for text in (now(), now_to_the_second()):
        assert abs((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()) < 5
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", now())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", now_to_the_second())
