"""THIRD_PARTY.md lists every library of the images, with the licence that it gives itself."""

import pytest

from images import licences
from images.roles import ROOT


def _rows() -> dict[str, tuple[str, str]]:
    lines = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    return {name: (licence, roles) for name, licence, roles in cells}


def test_the_page_lists_the_pins_of_the_images() -> None:
    expected = {name: ", ".join(roles) for name, roles in licences.libraries().items()}
    assert {name: roles for name, (_, roles) in _rows().items()} == expected, "run `make licences`"


def test_the_page_quotes_what_is_installed() -> None:
    known = {name: licences.SAID_HERE.get(name) or licences.licence_of(name) for name in licences.libraries()}
    installed = {name: licence for name, licence in known.items() if licence}
    assert len(installed) > 100
    assert {name: licence for name, (licence, _) in _rows().items() if name in installed} == installed
    assert all(licence for licence, _ in _rows().values())


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("kfp", "Apache Software License"),  # only its classifiers say so
        ("mlflow", "Apache Software License"),  # its field has the whole text
        ("av", "BSD-3-Clause"),
        ("no-such-library", ""),
    ],
)
def test_a_licence_is_read_from_where_it_is_said_shortest(name: str, licence: str) -> None:
    assert licences.licence_of(name) == licence
