"""The code version follows the files that matter, and no others."""

from pathlib import Path

import pytest

from vl3.config.codeversion import code_version, read_pins
from vl3.errors import ConfigError


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


def test_a_pin_stands_for_what_is_not_installed(package: Path) -> None:
    from importlib.metadata import version

    with pytest.raises(
        ConfigError, match=r"not-there is not installed here.*VL3_TRAINER_REQUIREMENTS.*`not-there==VER"
    ):
        code_version(["*.py"], libraries=["not-there"], root=package)
    code_version(["*.py"], libraries=["not-there"], pins={"not-there": "1.0"}, root=package)
    here = code_version(["*.py"], libraries=["numpy"], root=package)
    assert code_version(["*.py"], libraries=["numpy"], pins={"numpy": version("numpy")}, root=package) == here
    assert code_version(["*.py"], libraries=["numpy"], pins={"numpy": "0.1"}, root=package) != here


def test_pins_are_read_from_a_locked_requirements_file(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# made by a tool\n--index-url https://example.org\nTorch_Vision==0.1 \\\n    --hash=sha256:ab\n"
        "torch==2.1.0+cpu ; python_version > '3'\nmlflow[db]==3.1  # why\nloose>=1\n"
    )
    assert read_pins(path) == {"torch-vision": "0.1", "torch": "2.1.0+cpu", "mlflow": "3.1"}
    with pytest.raises(ConfigError, match=r"gone: the pinned requirements.*Correct VL3_TRAINER_REQUIREMENTS"):
        read_pins(tmp_path / "gone")
