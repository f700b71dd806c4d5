"""A pod's log: each line once over several requests, and the end of a stream told from a break."""

import pytest

from tests.support.api_server import ApiServer
from vl3.launch.kube.client import ApiError, Client
from vl3.launch.kube.logs import LogReader, PodLog
from vl3.launch.kube.watch import BrokenOffError

T = "2026-11-23T14:00:0"


def test_reader_takes_each_line_once() -> None:
    reader = LogReader()
    assert reader.since() == {}
    first = [f"{T}1.5Z a", f"{T}2.25Z b", f"{T}2.25Z c"]
    assert [reader.take(line.encode()) for line in first] == ["a", "b", "c"]
    assert reader.since() == {"sinceTime": f"{T}2Z"}
    again = [f"{T}2Z before", f"{T}2.25Z b", f"{T}2.25Z c", f"{T}2.25Z d", f"{T}2.250000001Z e", f"{T}3Z "]
    assert [reader.take(line.encode()) for line in again] == [None, None, None, "d", "e", ""]
    assert reader.take(b"a line of the API server itself") == "a line of the API server itself"


def test_a_log_goes_on_after_a_break(server: ApiServer, client: Client) -> None:
    server.logs["p"] = [[f"{T}1.5Z a", f"{T}2.5Z b", "cut"], [f"{T}2.5Z b", f"{T}2.6Z c"], [f"{T}2.6Z c"]]
    log, lines = PodLog(client, "p", "main"), []
    with pytest.raises(BrokenOffError, match="a stream broke off"):
        lines.extend(log.read(follow=True))
    assert lines == ["a", "b"]
    assert list(log.read(follow=True)) == ["c"]
    assert list(log.read(follow=False)) == []
    assert server.bodies[0] == ("LOG pods", {"timestamps": "true", "container": "main", "follow": "true"})
    assert server.bodies[2] == ("LOG pods", {"timestamps": "true", "container": "main", "sinceTime": f"{T}2Z"})


def test_a_refusal_is_the_callers(client: Client) -> None:
    with pytest.raises(ApiError, match="no route to the kubelet"):
        list(PodLog(client, "p", "main").read(follow=False))
