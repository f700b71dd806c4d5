"""The code version follows the files that matter, and no others."""

from pathlib import Path

import pytest

from vl3.errors import ConfigError
from vl3.config.codeversion import code_version


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("data/a.py", "data/b.py", "data/world.py", "other.py"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_change_of_a_file_changes_the_version(package: Path) -> None:
    before = code_version(["data/*.py"], root=package)
    (package / "data" / "a.py").write_text("changed")
    assert code_version(["data/*.py"], root=package) != before


def test_a_new_file_changes_the_version(package: Path) -> None:
    before = code_version(["data/*.py"], root=package)
    (package / "data" / "c.py").write_text("")
    assert code_version(["data/*.py"], root=package) != before


@pytest.mark.parametrize("name", ["other.py", "data/world.py"])
def test_other_files_do_not_matter(package: Path, name: str) -> None:
    before = code_version(["data/*.py"], exclude=["data/world*.py"], root=package)
    (package / name).write_text("changed")
    assert code_version(["data/*.py"], exclude=["data/world*.py"], root=package) == before


def test_libraries_are_part_of_the_version(package: Path) -> None:
    assert code_version(["*.py"], libraries=["numpy"], root=package) != code_version(["*.py"], root=package)


def test_a_pattern_without_files_is_refused(package: Path) -> None:
    with pytest.raises(ConfigError, match=r"code pattern 'gone/\*\.py' matches no file"):
        code_version(["gone/*.py"], root=package)
