"""The rules of a run's data, of one dataset and of a corpus."""

import dataclasses
from pathlib import Path

import pytest

from vl3.errors import ConfigError
from vl3.steps import evaluate
from vl3.steps.judging import judging_of
from vl3.workflow.step import StepRequest


def of_data(request: StepRequest, uri: str) -> StepRequest:
    return dataclasses.replace(request, data_uri=uri)


def test_data_without_rules_have_none(request_of_tiny: StepRequest, tmp_path: Path) -> None:
    assert judging_of(of_data(request_of_tiny, tmp_path.as_uri())) == {}


def test_the_rules_of_a_folder_are_in_the_key_of_its_evaluation(request_of_tiny: StepRequest, tmp_path: Path) -> None:
    (tmp_path / "judging.yaml").write_text("charts: {kind: number, relative_tolerance: 0.05}\n")
    request = of_data(request_of_tiny, tmp_path.as_uri())
    assert judging_of(request) == {"": {"charts": {"kind": "number", "relative_tolerance": 0.05}}}
    before = evaluate.key_parts(request)
    (tmp_path / "judging.yaml").write_text("charts: {kind: number, relative_tolerance: 0.1}\n")
    assert evaluate.key_parts(request) != before


def test_each_dataset_of_a_corpus_has_its_own(request_of_tiny: StepRequest, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "judging.yaml").write_text("default: {kind: anls}\n")
    rules = {"default": {"kind": "anls"}}
    (tmp_path / "two.yaml").write_text("datasets: {a: a, b: b}\n")
    assert judging_of(of_data(request_of_tiny, (tmp_path / "two.yaml").as_uri())) == {"b": rules}
    (tmp_path / "one.yaml").write_text("datasets: {b: b}\n")
    assert judging_of(of_data(request_of_tiny, (tmp_path / "one.yaml").as_uri())) == {"": rules}


def test_a_wrong_rule_is_named_before_anything_is_asked(request_of_tiny: StepRequest, tmp_path: Path) -> None:
    (tmp_path / "judging.yaml").write_text("charts: {kind: guess}\n")
    with pytest.raises(ConfigError, match=r"judging\.yaml, charts: "):
        judging_of(of_data(request_of_tiny, tmp_path.as_uri()))
