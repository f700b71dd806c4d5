"""JSON of any content is an object or a ValueError."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.documents import VALUES, changed
from vl3.system.documents import parse_object


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value"),
        (b'{"a": ', "Expecting value"),
        (b"\xff{}", "invalid start byte"),
        (b"[]", "is a JSON list and not an object"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64 levels"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\ud800": 1}', "surrogates not allowed"),
    ],
)
def test_what_is_no_object_of_ours_is_a_value_error(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_object(data)


def test_an_object_is_read() -> None:
    assert parse_object('{"a": [1, {"b": "é"}]}'.encode()) == {"a": [1, {"b": "é"}]}


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(st.binary(), changed({"a": {"b": [1]}}), VALUES.map(lambda value: json.dumps(value).encode())))
def test_any_bytes_are_an_object_or_a_value_error(data: bytes) -> None:
    try:
        found = parse_object(data)
    except ValueError:
        return
    assert json.dumps(found, ensure_ascii=False).encode()
