"""The template spares the migrations; without it MLflow migrates as usual."""

import sqlite3
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.system.uris import sqlite_uri
from vl3.tracking import database
from vl3.tracking.client import open_client
from vl3.tracking.database import ensure_database, is_template_current, make_template


def test_make_template_is_made_once(template: Path) -> None:
    before = template.stat()
    assert make_template(template) == template
    assert template.stat().st_mtime_ns == before.st_mtime_ns
    assert is_template_current(template)
    assert sorted(path.name for path in template.parent.iterdir()) == [template.name]


def test_make_template_replaces_one_of_another_mlflow(template: Path, tmp_path: Path) -> None:
    old = tmp_path / "mlflow.db"
    ensure_database(old, template)
    with sqlite3.connect(old) as connection:
        connection.execute("PRAGMA user_version = 2009000")
    connection.close()
    assert not is_template_current(old)
    fresh = tmp_path / "run.db"
    ensure_database(fresh, old)
    assert fresh.stat().st_size == 0  # a template of another version is not used


def test_ensure_database_copies_template_whole(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mlflow.db"
    ensure_database(path, template)
    assert path.read_bytes() == template.read_bytes()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["mlflow.db"]


def test_ensure_database_leaves_existing_alone(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    ensure_database(path, template)
    client = open_client(f"sqlite:///{path}")
    client.create_experiment("mine")
    ensure_database(path, template)
    assert client.get_experiment_by_name("mine") is not None


def test_ensure_database_yields_to_a_faster_process(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"
    copy = database.shutil.copyfile

    def slow_copy(source: Path, target: Path) -> None:
        copy(source, target)
        path.write_bytes(b"SQLite format 3 of another process")

    monkeypatch.setattr(database.shutil, "copyfile", slow_copy)
    ensure_database(path, template)
    assert path.read_bytes() == b"SQLite format 3 of another process"


def test_open_client_migrates_without_template(tmp_path: Path) -> None:
    client = open_client(f"sqlite:///{tmp_path}/fresh/mlflow.db")
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]


def test_ensure_database_refuses_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("not a database")
    with pytest.raises(StorageError, match=rf"{path}: not an SQLite database.*Restore it from a backup"):
        ensure_database(path)


def test_ensure_database_names_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        ensure_database(tmp_path / "file" / "mlflow.db")


@pytest.mark.parametrize("name", ["a b", "a#b", "a+b", "ü", "a'b", "a;b"])
def test_mlflow_opens_the_file_that_the_uri_was_made_from(name: str, tmp_path: Path) -> None:
    """Also no folder is made beside it, as MLflow does for a quoted URI."""
    path = tmp_path / name / "mlflow.db"
    client = open_client(sqlite_uri(path))
    client.create_experiment("here", artifact_location=tmp_path.as_uri())
    with sqlite3.connect(path) as connection:
        assert ("here",) in connection.execute("SELECT name FROM experiments").fetchall()
    assert [found.name for found in tmp_path.iterdir()] == [name]
