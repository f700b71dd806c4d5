"""Everything that is missing is said at once."""

import dataclasses
import json
import struct
from pathlib import Path

import pytest

from vl3.config.overrides import apply_overrides
from vl3.errors import ClusterError, ConfigError, DataError, StorageError
from vl3.steps import check_prerequisites
from vl3.steps.check_prerequisites import check, check_base
from vl3.steps.step import StepRequest


def _safetensors(path: Path, data_bytes: int = 8, *, cut: int = 0) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, data_bytes]}}).encode()
    path.write_bytes((struct.pack("<Q", len(header)) + header + bytes(data_bytes))[: -cut or None])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    _safetensors(folder / "model.safetensors")
    return folder


@pytest.fixture
def good(request_of_tiny: StepRequest, base: Path, tmp_path: Path, monkeypatch) -> StepRequest:
    """A request that lacks nothing; the tracking store is left to its own tests."""
    annotations = tmp_path / "data" / "annotations"
    annotations.mkdir(parents=True)
    (annotations / "train.jsonl").write_text("{}\n")
    probes = tuple(probe for probe in check_prerequisites._PROBES if probe.__name__ != "_check_tracking")
    monkeypatch.setattr(check_prerequisites, "_PROBES", probes)
    overrides = [f"model.vision_base={base.as_uri()}", f"model.language_base={base.as_uri()}"]
    return dataclasses.replace(request_of_tiny, config=apply_overrides(request_of_tiny.config, overrides))


def test_a_complete_set_up_passes(good: StepRequest) -> None:
    check(good)


def test_one_problem_is_raised_as_it_is(good: StepRequest, tmp_path: Path) -> None:
    gone = dataclasses.replace(good, data_uri=(tmp_path / "gone").as_uri())
    with pytest.raises(DataError, match=r"gone: the data folder does not exist.*vl3 data sample --out"):
        check(gone)


def test_several_problems_come_in_one_report(good: StepRequest, tmp_path: Path) -> None:
    config = apply_overrides(good.config, ["model.vision_base=file:///nowhere"])
    bad = dataclasses.replace(good, config=config, data_uri=(tmp_path / "gone").as_uri())
    with pytest.raises(ConfigError) as caught:
        check(bad)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 prerequisites are missing, listed above. Mend them all."
    assert "ConfigError: base 'file:///nowhere'" in lines[1]
    assert "DataError" in lines[2]


def test_a_truncated_base_is_found_without_reading_it(base: Path) -> None:
    _safetensors(base / "model.safetensors", cut=1)
    with pytest.raises(StorageError, match=r"model\.safetensors has \d+ bytes and should have \d+"):
        check_base(base, "model.language_base", ("config.json",))


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"PK\x03\x04 a pickle in a zip"])
def test_other_files_are_no_weights(base: Path, content: bytes) -> None:
    (base / "model.safetensors").write_bytes(content)
    with pytest.raises(StorageError, match="is not a safetensors file"):
        check_base(base, "model.vision_base", ())


def test_a_base_without_tokenizer_is_named(base: Path) -> None:
    (base / "tokenizer.json").unlink()
    with pytest.raises(StorageError, match=r"model\.language_base: .*tokenizer\.json cannot be read"):
        check_base(base, "model.language_base", ("config.json", "tokenizer.json"))


def test_a_full_disk_is_said_before_the_run(good: StepRequest, monkeypatch) -> None:
    monkeypatch.setattr(check_prerequisites, "MIN_FREE_BYTES", 10**18)
    with pytest.raises(StorageError, match="MB are free and 1000000000000 MB are needed"):
        check(good)


def test_an_unreachable_tracking_server_is_a_platform_error(request_of_tiny: StepRequest) -> None:
    unreachable = dataclasses.replace(request_of_tiny, tracking_uri="http://127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"http://127\.0\.0\.1:1 does not answer"):
        check_prerequisites._check_tracking(unreachable)
