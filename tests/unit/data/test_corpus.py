"""Corpus files: what they list, and everything else refused without a traceback."""

import random
from pathlib import Path

import pytest

from vl3.data.corpus import is_corpus, read_corpus
from vl3.errors import ConfigError, DataError
from vl3.system.uris import file_uri


def write(folder: Path, text: str) -> str:
    path = folder / "corpus.yaml"
    path.write_text(text, encoding="utf-8")
    return file_uri(path)


def test_a_corpus_lists_folders_below_it_and_uris(tmp_path: Path) -> None:
    uri = write(tmp_path, "datasets:\n  plotqa: sets/plot qa/\n  far: s3://team/far/\n  near: file:///data/near\n")
    assert read_corpus(uri) == {
        "plotqa": f"{file_uri(tmp_path)}/sets/plot%20qa",
        "far": "s3://team/far",
        "near": "file:///data/near",
    }


def test_a_folder_is_a_corpus_of_one(tmp_path: Path) -> None:
    assert read_corpus(file_uri(tmp_path)) == {"data": file_uri(tmp_path)}
    assert (is_corpus("s3://b/c.yaml"), is_corpus("c.yml"), is_corpus("s3://b/c")) == (True, True, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is not one mapping `datasets`"),
        ("[1, 2]", "it is not one mapping `datasets`"),
        ("datasets: []", "it is not one mapping `datasets`"),
        ("datasets: {a: b}\nmixture: {}", "it is not one mapping `datasets`"),
        ("datasets: {}", "it has 0 datasets, not 1 to 1000"),
        ("datasets:\n" + "".join(f"  d{number}: x\n" for number in range(1001)), "it has 1001 datasets"),
        ("datasets: {a: b, a: c}", "it has 'a' twice"),
        ("datasets: {a: &x b, c: *x}", "it has an alias"),
        ("a: &a [x]\ndatasets: {b: *a}", "it has an alias"),
        ("datasets: {1: b}", "1 cannot name a dataset"),
        ("datasets: {chart: b}", "'chart' cannot name a dataset"),
        ("datasets: {a.b: c}", "'a.b' cannot name a dataset"),
        ("datasets: {a: 3}", "a is 3 and not a path"),
        ("datasets: {a: null}", "a is None and not a path"),
        ("datasets: {a: {b: c}}", "and not a path"),
        ('datasets: {a: "b\\u202ec"}', "and not a path"),
        ("datasets: {a: ../b}", "'../b' has an empty part, '.' or '..'"),
        ("datasets: {a: b/../../c}", "has an empty part"),
        ("datasets: {a: /etc}", "is empty or absolute"),
        ('datasets: {a: ""}', "is empty or absolute"),
        ("datasets: {a: 'http://example.org/x'}", "has the scheme 'http'"),
        ("datasets: {a: 's3://B/x'}", "corpus.yaml: a: s3://B/x: 'B' is not a valid bucket name"),
        ("datasets: {a: 'file://host/x'}", "does not name a folder of this machine"),
        ("datasets: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("datasets: {a: b", "expected"),
        ("[" * 5000, "nested too deeply"),
        ("datasets: {a: b}\n#" + "x" * 2**20, "more than 1048576"),
        ("datasets: {a: b}\n---\nc: d", "expected a single document"),
    ],
    ids=range(28),
)
def test_what_is_no_corpus_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_corpus(write(tmp_path, text))
    assert words in str(caught.value)


def test_mutated_corpora_are_read_or_refused(tmp_path: Path) -> None:
    good = (
        b"datasets:\n  plotqa: sets/plotqa\n  coco_text: 's3://team/coco_text'\n  mine: {a: &x [1, 2]}\n  other: *x\n"
    )
    rng, path, read = random.Random(0), tmp_path / "corpus.yaml", 0
    refusals = set()
    for _ in range(2000):
        text = bytearray(b"".join(good.splitlines(keepends=True)[: rng.choice((2, 3, 5))]))
        for _ in range(rng.randrange(4)):
            start = rng.randrange(len(text))
            text[start : start + rng.randrange(4)] = rng.choice(
                (
                    bytes([rng.randrange(256)]),
                    b"\n",
                    b": ",
                    b"{",
                    b"[",
                    b"../",
                    b"!!python/name:os.system ",
                    b"<<: ",
                    b"\t",
                )
            )
        path.write_bytes(text)
        try:
            datasets = read_corpus(file_uri(path))
        except ConfigError as error:
            refusals.add(str(path) in str(error))
        else:
            read += 1
            assert all(uri.startswith((file_uri(tmp_path), "s3://", "file:///")) for uri in datasets.values())
            assert not any("/../" in uri for uri in datasets.values())
    assert 20 < read < 1980
    assert refusals == {True}


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").write_bytes(b"datasets: {a: \xff}")
    with pytest.raises(ConfigError, match="is not a corpus: 'utf-8' codec"):
        read_corpus(file_uri(tmp_path / "corpus.yaml"))


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml: there is no such corpus file"):
        read_corpus(file_uri(tmp_path / "none.yaml"))
