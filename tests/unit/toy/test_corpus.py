"""The corpus on disk: real files, honest splits, whole or absent."""

import json
from pathlib import Path

import av
import pytest
from PIL import Image

from vl3.config.data import Category
from vl3.errors import StorageError
from vl3.toy.corpus import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "data"
    write_corpus(out, seed=3, heldout_scenes=4, scale=0.01, workers=1)
    return out


def _records(corpus: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (corpus / "annotations" / f"{split}.jsonl").read_text().splitlines()]


def test_every_category_is_in_both_splits(corpus):
    for split in ("train", "heldout"):
        assert {record["category"] for record in _records(corpus, split)} == {str(c) for c in Category}


def test_media_are_real_files_of_several_kinds_and_sizes(corpus):
    images = [path for record in _records(corpus, "train") for path in record.get("image") or ()]
    videos = [path for record in _records(corpus, "train") for path in record.get("video") or ()]

    assert {Image.open(corpus / path).format for path in images} == {"PNG", "JPEG"}
    assert len({Image.open(corpus / path).size for path in images}) > 5
    rates = set()
    for path in videos:
        with av.open(corpus / path) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            rates.add(float(stream.average_rate))
    assert len(rates) > 1


def test_a_heldout_sample_has_one_question_and_its_chance(corpus):
    for record in _records(corpus, "heldout"):
        assert 0 < record["chance"] <= 0.3
        turns = record.get("conversations") or record["conversation"]
        assert len(turns) == 2


def test_splits_share_no_conversation_over_text_and_no_media(corpus):
    train = {json.dumps(r["conversations"]) for r in _records(corpus, "train") if r["category"] == "text_only"}
    heldout = {json.dumps(r["conversations"]) for r in _records(corpus, "heldout") if r["category"] == "text_only"}
    bytes_of = {
        split: {
            (corpus / p).read_bytes() for r in _records(corpus, split) for p in r.get("video") or r.get("image") or ()
        }
        for split in ("train", "heldout")
    }

    assert not train & heldout
    assert not bytes_of["train"] & bytes_of["heldout"]


def test_the_same_seed_writes_the_same_annotations_and_images(corpus, tmp_path):
    write_corpus(tmp_path / "again", seed=3, heldout_scenes=4, scale=0.01, workers=1)

    for path in sorted(corpus.rglob("*")):
        if path.suffix in (".jsonl", ".png", ".jpg"):
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(corpus)).read_bytes()


def test_a_whole_corpus_is_kept_and_another_is_refused(corpus):
    before = (corpus / "corpus.json").stat().st_mtime_ns
    assert write_corpus(corpus, seed=3, heldout_scenes=4, scale=0.01) == len(
        _records(corpus, "train") + _records(corpus, "heldout")
    )
    assert (corpus / "corpus.json").stat().st_mtime_ns == before
    with pytest.raises(StorageError, match=r"'seed': 3.*not .*'seed': 4.*Choose another --out"):
        write_corpus(corpus, seed=4, heldout_scenes=4, scale=0.01)


def test_progress_reaches_the_total(tmp_path):
    seen = []
    write_corpus(
        tmp_path / "c", seed=0, heldout_scenes=1, scale=0.001, workers=1, progress=lambda *shown: seen.append(shown)
    )
    assert seen[-1][0] == seen[-1][1] == seen[0][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_folder_that_is_no_corpus_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(StorageError, match=r"exists and is not empty\. It is never overwritten"):
        write_corpus(tmp_path, seed=0)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"settings": 3}', '{"settings": {"seed": 4}, "samples": 9}', "[" * 9000]
)
def test_a_finished_mark_of_any_content_keeps_what_is_there(content, tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    (out / "corpus.json").write_text(content)
    with pytest.raises(StorageError, match=r"data has a corpus with .*, not .*'seed': 3.* Choose another --out"):
        write_corpus(out, seed=3, heldout_scenes=4, scale=0.01, workers=1)
    assert [path.read_text() for path in out.iterdir()] == [content]
