"""JSON of any content, as damage, other programs or a hostile hand may leave it."""

import json
from typing import Any

from hypothesis import strategies as st

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\ud800", "..", "../../etc/passwd", "/etc", "file:///etc", "s3://other/x", "file://[", "\0", "%2e%2e"]
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -1, float("nan"), float("inf"), 1e308]),
    st.floats(),
    TEXTS,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


def changed(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A document with a value or two of its tables replaced, taken out or added; or bytes that are none."""
    places = [path for path in _paths(document) if path]

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        copy = json.loads(json.dumps(document))
        for path in draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
            _change(copy, path, draw)
        return json.dumps(copy).encode()

    return st.one_of(
        build(), st.binary(max_size=40), VALUES.map(lambda value: json.dumps(value).encode()), broken(document)
    )


def broken(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Half of a document, bytes that are no text in it, or one that is nested without end."""
    data = json.dumps(document).encode()
    cut = st.integers(0, len(data) - 1).map(lambda end: data[:end])
    garbled = st.integers(0, len(data) - 1).map(lambda at: data[:at] + b"\xff\xfe" + data[at + 1 :])
    return st.one_of(cut, garbled, st.sampled_from([b"[]", b'{"a":}']).map(_deep))


def _deep(parts: bytes) -> bytes:
    """Brackets without end; made here, so that a failing example is short."""
    return parts[:-1] * 3000 + b"1" + parts[-1:] * 3000


def _paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(below for name, value in parts for below in _paths(value, (*path, name)))]


def _change(document: Any, path: tuple[Any, ...], draw: st.DrawFn) -> None:
    for name in path[:-1]:
        try:
            document = document[name]
        except (KeyError, IndexError, TypeError):
            return  # an earlier change took it away
    if isinstance(document, dict):
        match draw(st.sampled_from(["replace", "drop", "add"])):
            case "replace":
                document[path[-1]] = draw(VALUES)
            case "drop":
                document.pop(path[-1], None)
            case "add":
                document[draw(TEXTS)] = draw(VALUES)
