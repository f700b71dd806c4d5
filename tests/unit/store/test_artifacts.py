"""Artifacts appear complete or not at all; each kind of damage is named."""

import errno
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.store import artifacts
from vl3.store.artifacts import fetch, fetch_file, find, is_intact, note_provenance, publish, read_manifest
from vl3.store.manifest import MANIFEST_NAME, manifest_digest, verify_folder, write_manifest
from vl3.store.reference import Reference
from vl3.system.uris import file_path


def test_publish_moves_the_folder_and_the_reference_verifies(published: Reference, tmp_path: Path) -> None:
    folder = fetch(published)
    assert folder == tmp_path / "store" / "one"
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", MANIFEST_NAME, "sub"]
    assert manifest_digest((folder / MANIFEST_NAME).read_bytes()) == published.sha256
    assert not (tmp_path / "work").exists()
    assert find(published.uri) == published
    assert sorted(path.name for path in folder.parent.iterdir()) == ["one"]


def test_the_manifest_says_what_ran_and_is_the_same_artifact_after_another_run(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for host in ("desk", "node-7"):
        monkeypatch.setattr(artifacts, "provenance", lambda host=host: {"machine": {"host": host}})
        uri = (tmp_path / "store" / host).as_uri()
        made.append(publish(make_folder(), uri, kind="checkpoint", created_by={"step": "test"}))
    assert [read_manifest(one).provenance for one in made] == [{"machine": {"host": h}} for h in ("desk", "node-7")]
    assert made[0].sha256 == made[1].sha256
    note_provenance(made[0], {"image": "trainer@sha256:ab"})
    assert read_manifest(made[0]).provenance == {"machine": {"host": "desk"}, "image": "trainer@sha256:ab"}
    assert is_intact(made[0])


def test_nothing_is_noted_in_another_artifact(published: Reference) -> None:
    path = file_path(published.uri) / MANIFEST_NAME
    path.write_text(path.read_text().replace("checkpoint", "another"))
    before = path.read_bytes()
    with pytest.raises(StorageError, match="the checkpoint is another one"):
        note_provenance(published, {"image": "x"})
    assert path.read_bytes() == before


def test_publish_again_returns_the_first_artifact(published: Reference, make_folder: Callable[..., Path]) -> None:
    other = make_folder("other", text="different")
    again = publish(other, published.uri, kind="checkpoint", created_by={"step": "second"})
    assert again == published
    assert not other.exists()
    assert (fetch(again) / "a.txt").read_text() == "weights"


def test_publish_sets_a_damaged_artifact_aside(published: Reference, make_folder: Callable[..., Path]) -> None:
    folder = file_path(published.uri)
    (folder / "a.txt").write_text("weighty")
    again = publish(make_folder("other", text="new"), published.uri, kind="checkpoint", created_by={"step": "test"})
    assert (fetch(again) / "a.txt").read_text() == "new"
    aside = [path for path in folder.parent.iterdir() if ".damaged-" in path.name]
    assert [(path / "a.txt").read_text() for path in aside] == ["weighty"]


def test_same_content_gives_the_same_manifest(make_folder: Callable[..., Path]) -> None:
    digests = {write_manifest(make_folder(name), kind="x", created_by={"step": "s"}) for name in ("one", "two")}
    assert len(digests) == 1


def _truncate(folder: Path) -> None:
    with (folder / "sub" / "b.bin").open("r+b") as file:
        file.truncate(255)


def _flip(folder: Path) -> None:
    data = bytearray((folder / "sub" / "b.bin").read_bytes())
    data[7] ^= 1
    (folder / "sub" / "b.bin").write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "a.txt").unlink(), r"a\.txt: the file is missing"),
    "surplus": (lambda folder: (folder / "sub" / "c.txt").write_text("c"), r"c\.txt: a surplus file"),
    "truncated": (_truncate, r"b\.bin: has 255 bytes and should have 256"),
    "flipped bit": (_flip, r"b\.bin: is damaged \(sha256 [0-9a-f]{64}, expected [0-9a-f]{64}\)"),
    "manifest gone": (lambda folder: (folder / MANIFEST_NAME).unlink(), r"manifest\.json: the manifest cannot be read"),
    "manifest cut": (
        lambda folder: (folder / MANIFEST_NAME).write_text("{"),
        r"manifest\.json: the manifest is not the one referred to \(sha256 \w+, expected \w+\)",
    ),
    "manifest rewritten": (
        lambda folder: write_manifest(folder, kind="checkpoint", created_by={"step": "forged"}),
        "not the one referred to",
    ),
    "symbolic link": (
        lambda folder: (folder / "link").symlink_to("/etc/hostname"),
        "an artifact may only contain plain files",
    ),
    "folder gone": (lambda folder: shutil.rmtree(folder), "the checkpoint is missing"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_fetch_names_the_damage(name: str, published: Reference) -> None:
    damage, message = DAMAGES[name]
    damage(file_path(published.uri))
    with pytest.raises(StorageError, match=message) as caught:
        fetch(published)
    assert any(word in str(caught.value) for word in ("run the step", "Run the step", "Replace it"))
    assert not is_intact(published)


def test_find_needs_a_valid_manifest(tmp_path: Path, published: Reference) -> None:
    assert find((tmp_path / "store" / "none").as_uri()) is None
    (file_path(published.uri) / MANIFEST_NAME).write_text('{"files": {"../x": {"size_bytes": 1, "sha256": ""}}}')
    assert find(published.uri) is None


def test_an_empty_folder_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="there is no file to publish as a dataset"):
        publish(tmp_path / "empty", (tmp_path / "out").as_uri(), kind="dataset", created_by={})
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(make_folder: Callable[..., Path], tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = make_folder()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"the disk is full .* Free space there and run again"):
        publish(folder, (tmp_path / "store" / "one").as_uri(), kind="checkpoint", created_by={})
    assert not (tmp_path / "store" / "one").exists()


def _publish_from_process(folder: str, uri: str, barrier, results) -> None:
    barrier.wait()
    results.put(publish(Path(folder), uri, kind="checkpoint", created_by={"from": Path(folder).name}))


def test_concurrent_publishers_agree_on_one_artifact(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    uri = (tmp_path / "store" / "one").as_uri()
    workers = [
        context.Process(
            target=_publish_from_process, args=(str(make_folder(f"w{i}", f"text {i}")), uri, barrier, results)
        )
        for i in range(4)
    ]
    for worker in workers:
        worker.start()
    references = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert len({reference.sha256 for reference in references}) == 1
    verify_folder(file_path(uri), references[0].sha256)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["one"]


def test_one_file_of_an_artifact_is_fetched_and_verified(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "small.json").write_text("{}")
    (tmp_path / "new" / "large").write_text("x")
    reference = publish(tmp_path / "new", (tmp_path / "made").as_uri(), kind="model", created_by={})
    (tmp_path / "here").mkdir()
    assert fetch_file(reference, "small.json", tmp_path / "here").read_text() == "{}"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["small.json"]
    with pytest.raises(StorageError, match=r"made: the model has no other\.json"):
        fetch_file(reference, "other.json", tmp_path / "here")
    (tmp_path / "made" / "small.json").write_text("[]")
    with pytest.raises(StorageError, match=r"small\.json: is damaged"):
        fetch_file(reference, "small.json", tmp_path / "here")
