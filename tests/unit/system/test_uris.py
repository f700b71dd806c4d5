"""Paths as URIs and back: whatever a folder is called, the URI names that folder and no other."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.errors import ConfigError
from vl3.system.uris import file_path, file_uri, sqlite_path, sqlite_uri

NAME = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(st.lists(NAME, min_size=1, max_size=4))
def test_a_path_survives_both_ways(names: list[str]) -> None:
    path = Path("/", *names)
    assert file_path(file_uri(path)) == path
    if not set("?%") & set(str(path)):
        assert sqlite_path(sqlite_uri(path)) == path


def test_a_file_uri_is_quoted() -> None:
    assert file_uri(Path("/my data/a#1/b%20c?")) == "file:///my%20data/a%231/b%2520c%3F"
    assert file_uri(Path("x")) == f"file://{Path.cwd()}/x"
    assert file_path("file://localhost/a%20b") == Path("/a b")
    path = Path(os.fsdecode(b"/caf\xe9"))
    assert file_path(file_uri(path)) == path


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///a#b", "'file:///a#b' has a '#', .* Write it as %23"),
        ("file:///a?b", "has a '\\?', .* Write it as %3F"),
        ("file:///100%", "has a '%', .* Write it as %25"),
        ("file:///a%2", "Write it as %25"),
        ("file://host/a", "does not name a folder of this machine"),
        ("file:a", "does not name a folder of this machine"),
        ("file:///a%0Ab", "does not name a folder of this machine"),
        ("s3://bucket/a", "does not name a folder of this machine"),
        ("file://[/a", "is not a URI"),
        ("/a/b", "does not name a folder of this machine"),
    ],
)
def test_a_uri_that_would_lose_a_part_of_the_path_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        file_path(uri)


def test_an_sqlite_uri_is_the_plain_path() -> None:
    assert sqlite_uri(Path("/a#1/b c/mlflow.db")) == "sqlite:////a#1/b c/mlflow.db"
    assert sqlite_path("sqlite:////a/b%20c/mlflow.db") == Path("/a/b c/mlflow.db")
    assert sqlite_path("sqlite:///mlflow.db") == Path("mlflow.db")
    assert sqlite_path("sqlite:////a/mlflow.db?timeout=3") == Path("/a/mlflow.db")


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///?x", "postgresql://h/d"])
def test_an_sqlite_uri_without_a_file_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no file"):
        sqlite_path(uri)


@pytest.mark.parametrize("name", ["a?b", "a\nb", "a%20b", "100%"])
def test_a_path_that_mlflow_would_read_in_two_ways_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="MLflow would look for the file elsewhere"):
        sqlite_uri(Path("/", name, "mlflow.db"))
