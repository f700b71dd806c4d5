"""The real media's lines: those that are wrong are refused one by one, each with its own reason; the good ones pass."""

import shutil
from pathlib import Path

import pytest

from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.data.build.dataset import build_dataset
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import DataError
from vl3.toy.tokenizer import build_tokenizer
from vl3.validation.result import ValidationResult
from vl3.validation.suite import validate_dataset

MEDIA = Path(__file__).resolve().parents[4] / "shared" / "media"
REASONS = {
    1: ("missing_file", "images/missing.jpg"),
    2: ("no_turns", ""),
    3: ("no_answer", ""),
    4: ("tags", "2"),
    5: ("outside_folder", "../../../etc/passwd"),
    6: ("undecodable", "annotations/train.jsonl"),
    7: ("json", ""),
    8: ("times", "9"),
}
"""Line of bad.jsonl -> kind of the problem, and what its reason names."""


@pytest.fixture(scope="module")
def config(config: RunConfig) -> RunConfig:
    """Long texts in small media: the tiny limits are widened, and one process is enough."""
    return apply_overrides(config, ["data.max_length_tokens=4096", "data.build_workers=1"])


def _validate(folder: Path, lines: str, config: RunConfig) -> ValidationResult:
    """Build and validate the shared media with these annotation lines."""
    data = folder / "data"
    (data / "annotations").mkdir(parents=True)
    for name in ("images", "videos"):
        shutil.copytree(MEDIA / name, data / name)
    (data / "annotations" / "train.jsonl").write_text(lines, encoding="utf-8")
    build_tokenizer(folder / "tokenizer")
    build_dataset(
        data,
        folder / "dataset",
        config=config.data,
        tokenizer=ChatTokenizer.from_folder(folder / "tokenizer"),
        prune=keep_mask,
        workers=config.data.build_workers,
    )
    return validate_dataset(folder / "dataset", config, folder / "validation")


def _lines(name: str) -> str:
    path = MEDIA / "annotations" / name
    if not path.exists():
        pytest.skip(f"the real media are absent: {path}")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> ValidationResult:
    return _validate(tmp_path_factory.mktemp("bad"), _lines("bad.jsonl"), config)


def test_every_bad_line_is_refused(refused: ValidationResult) -> None:
    assert not refused.passed
    assert [line.where for line in refused.left_out] == [f"annotations/train.jsonl:{line}" for line in REASONS]
    assert {finding.check for finding in refused.critical} == {
        *(f"refused_{kind}" for kind, _ in REASONS.values()),
        "has_samples",
    }
    with pytest.raises(DataError, match=r"8 lines, 8 refused, 0 train"):
        refused.require_passed()


@pytest.mark.parametrize("line", REASONS, ids=[kind for kind, _ in REASONS.values()])
def test_bad_line_is_refused_with_its_reason(refused: ValidationResult, line: int) -> None:
    kind, named = REASONS[line]
    left_out = refused.left_out[line - 1]
    assert left_out.kind == kind
    assert named in left_out.reason
    finding = next(finding for finding in refused.critical if finding.check == f"refused_{kind}")
    assert [(row.where, row.reason) for row in finding.rows] == [(left_out.where, left_out.reason)]
    assert f"  {left_out.where}: {left_out.reason}" in refused.summary().splitlines()


def test_good_lines_pass_with_warnings(tmp_path: Path, config: RunConfig) -> None:
    result = _validate(tmp_path, _lines("train.jsonl"), apply_overrides(config, ['stages.*.mixture={"data": 1}']))
    assert result.critical == ()
    assert result.left_out == ()
    assert result.facts["lines"] == 14
    assert result.facts["train"] + result.facts["heldout"] == 14
    assert {"heldout_samples"} <= {finding.check for finding in result.warnings}
