"""Benchmarks are refused without lmms-eval, and with another version of it than the catalogue's."""

from importlib.metadata import PackageNotFoundError
from typing import NoReturn

import pytest

from images.roles import ROOT
from vl3.errors import ConfigError
from vl3.evaluation.harness import offline
from vl3.workflow.code import read_pins


def test_the_image_pins_the_version_of_the_catalogue() -> None:
    assert read_pins(ROOT / "images" / "harness" / "requirements.txt")["lmms-eval"] == offline.LMMS_EVAL


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "version", lambda _: offline.LMMS_EVAL)
    offline.require_harness()
    monkeypatch.setattr(offline, "version", lambda _: "0.8.0")
    with pytest.raises(ConfigError, match=r"lmms-eval 0\.8\.0 is installed, .* the tasks of 0\.7\.3: .*make eval-env"):
        offline.require_harness()


def test_its_absence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> NoReturn:
        raise PackageNotFoundError

    monkeypatch.setattr(offline, "version", absent)
    with pytest.raises(ConfigError, match=r"lmms-eval is not installed in this environment.*make eval-env"):
        offline.require_harness()
