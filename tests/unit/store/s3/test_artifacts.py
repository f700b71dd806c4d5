"""Artifacts on S3: complete or not there, with concurrent writers and after kills."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fault_proxy import Fault, FaultProxy
from tests.unit.store.conftest import PART_BYTES
from vl3.errors import StorageError
from vl3.store.artifacts import delete, fetch, fetch_file, find, is_intact, note_provenance, publish, read_manifest
from vl3.store.manifest import MANIFEST_NAME, manifest_digest
from vl3.store.objects import open_s3
from vl3.store.reference import Reference
from vl3.store.s3.connection import S3Connection
from vl3.store.s3.transfer import put_bytes

CREATED_BY = {"step": "test"}


@pytest.fixture
def uri(root_uri: str) -> str:
    return f"{root_uri}/one"


@pytest.fixture
def put(make_folder: Callable[..., Path], uri: str) -> Callable[..., Reference]:
    """Publishes a small folder."""

    def put_folder(s3: S3Connection, name: str = "work", text: str = "weights") -> Reference:
        return publish(make_folder(name, text), uri, kind="checkpoint", created_by=CREATED_BY, s3=s3)

    return put_folder


def test_publish_puts_a_whole_artifact(put, s3: S3Connection, uri: str, tmp_path: Path) -> None:
    reference = put(s3)
    place = reference.sha256[:16]
    assert open_s3(uri, s3).list() == sorted([f"{place}/a.txt", f"{place}/sub/b.bin", MANIFEST_NAME])
    assert find(uri, s3) == reference
    assert is_intact(reference, s3=s3)
    folder = fetch(reference, cache=tmp_path / "cache", s3=s3)
    assert manifest_digest((folder / MANIFEST_NAME).read_bytes()) == reference.sha256
    assert (folder / "sub" / "b.bin").read_bytes() == bytes(range(256))
    assert not (tmp_path / "work").exists()


def test_one_file_is_read_without_the_others(put, s3: S3Connection, tmp_path: Path) -> None:
    reference = put(s3)
    assert fetch_file(reference, "a.txt", tmp_path, s3).read_text() == "weights"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(StorageError, match=r"nothing\.txt"):
        fetch_file(reference, "nothing.txt", tmp_path, s3)


def test_what_ran_may_be_noted_later(put, s3: S3Connection, uri: str, tmp_path: Path) -> None:
    reference = put(s3)
    note_provenance(reference, {"image": "trainer@sha256:ab"}, s3)
    manifest = read_manifest(reference, s3)
    assert (manifest.provenance["image"], "commit" in manifest.provenance) == ("trainer@sha256:ab", True)
    assert is_intact(reference, s3=s3)
    assert (fetch(reference, cache=tmp_path / "cache", s3=s3) / "a.txt").read_text() == "weights"
    assert put(s3, name="again") == reference


def test_the_digest_does_not_depend_on_the_store(put, s3: S3Connection, make_folder, tmp_path: Path) -> None:
    local = publish(make_folder("l"), (tmp_path / "local").as_uri(), kind="checkpoint", created_by=CREATED_BY)
    assert put(s3).sha256 == local.sha256


def test_publish_again_returns_the_first_artifact(put, s3: S3Connection, tmp_path: Path) -> None:
    first = put(s3)
    assert put(s3, "other", "different") == first
    assert not (tmp_path / "other").exists()


DAMAGES = {
    "file gone": lambda store, place: store.delete(f"{place}/a.txt"),
    "file truncated": lambda store, place: put_text(store, f"{place}/a.txt", "weigh"),
    "surplus file": lambda store, place: put_text(store, f"{place}/c.txt", "c"),
    "manifest cut": lambda store, place: put_text(store, MANIFEST_NAME, "{"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damaged_artifact_is_set_aside_and_made_again(name: str, put, s3: S3Connection, uri: str, tmp_path) -> None:
    reference, store = put(s3), open_s3(uri, s3)
    DAMAGES[name](store, reference.sha256[:16])
    assert not is_intact(reference, s3=s3)
    again = put(s3, "new", "repaired")
    assert (fetch(again, cache=tmp_path / "cache", s3=s3) / "a.txt").read_text() == "repaired"
    assert len([key for key in store.list() if key.startswith("manifest.damaged-")]) == 1


def test_other_content_of_the_same_size_is_found_by_a_fetch(put, s3: S3Connection, uri: str, tmp_path) -> None:
    reference = put(s3)
    put_text(open_s3(uri, s3), f"{reference.sha256[:16]}/a.txt", "weighty")
    with pytest.raises(StorageError, match=rf"{uri}/\w+/a.txt: is damaged: 7 bytes .* arrived 3 times, expected 7 b"):
        fetch(reference, cache=tmp_path / "cache", s3=s3)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_what_is_missing_or_another_is_reported(put, s3: S3Connection, uri: str, tmp_path: Path) -> None:
    reference = put(s3)
    other = Reference(uri=uri, sha256="0" * 64, kind="checkpoint", created_by={})
    with pytest.raises(StorageError, match=r"manifest.json: the manifest is not the one referred to \(sha256 \w+, exp"):
        fetch(other, cache=tmp_path / "cache", s3=s3)
    assert not is_intact(other, s3=s3)
    delete(uri, s3=s3)
    assert (find(uri, s3), is_intact(reference, s3=s3), open_s3(uri, s3).list()) == (None, False, [])
    with pytest.raises(StorageError, match=rf"{uri}: the checkpoint is missing \(expected sha256 {reference.sha256}\)"):
        fetch(reference, cache=tmp_path / "cache", s3=s3)
    delete(uri, s3=s3)


def test_the_manifest_goes_first_when_an_artifact_is_deleted(put, faulty, proxy: FaultProxy, uri: str) -> None:
    put(faulty)
    with proxy.fault():
        delete(uri, s3=faulty)
        deleted = [line for line in proxy.requests if line.startswith("DELETE")]
    assert deleted[0].endswith("/one/manifest.json")
    assert len(deleted) == 3


def test_asking_costs_little(put, faulty: S3Connection, proxy: FaultProxy, tmp_path: Path) -> None:
    reference = put(faulty)
    with proxy.fault():
        assert find(reference.uri, faulty) == reference
        assert len(proxy.requests) == 1
        assert is_intact(reference, s3=faulty)
        assert len(proxy.requests) == 3
    fetch(reference, cache=tmp_path / "cache", s3=faulty)
    with proxy.fault():
        fetch(reference, cache=tmp_path / "cache", s3=faulty)
        assert proxy.requests == []


def test_a_disk_without_room_is_told_before_the_download(put, s3: S3Connection, tmp_path: Path, monkeypatch) -> None:
    reference = put(s3)
    monkeypatch.setattr("vl3.system.files.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(StorageError, match=r"0 MB are needed to download s3://.* Free space there"):
        fetch(reference, cache=tmp_path / "cache", s3=s3)


def test_a_failed_publish_leaves_no_artifact(put, faulty: S3Connection, proxy: FaultProxy, uri: str) -> None:
    broken = Fault("refuse", "PUT .*b.bin", value="503 SlowDown", times=99)
    with proxy.fault(broken), pytest.raises(StorageError, match=r"b.bin: the S3 server at .* failed"):
        put(faulty)
    assert find(uri, faulty) is None


@pytest.mark.parametrize("fault", ["lose_answer", "reset"])
def test_a_manifest_whose_answer_is_lost_is_our_own(fault: str, put, faulty, proxy: FaultProxy, uri: str) -> None:
    with proxy.fault(Fault(fault, "PUT .*manifest.json", times=2)):
        reference = put(faulty)
    assert find(uri, faulty) == reference
    assert is_intact(reference, s3=faulty)


def test_a_server_that_refuses_conditional_writes_serves(put, faulty, proxy: FaultProxy, uri: str) -> None:
    with proxy.fault(Fault("refuse", "PUT .*manifest.json", value="501 NotImplemented")):
        reference = put(faulty)
    assert find(uri, faulty) == reference
    assert put(faulty, "other", "different") == reference


def test_a_server_that_ignores_conditions_keeps_the_last_manifest_and_mixes_nothing(
    put, s3: S3Connection, make_folder, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second writer checked before the first had published, so only the conditional write can stop it."""
    first = put(s3)
    monkeypatch.setattr("vl3.store.artifacts.find", lambda *_: None)
    monkeypatch.setattr(
        "vl3.store.s3.store.put_bytes", lambda target, data, sha256, **_: put_bytes(target, data, sha256)
    )
    second = put(s3, "other", "changed")
    assert find(uri, s3) == second != first
    assert (fetch(second, cache=tmp_path / "cache", s3=s3) / "a.txt").read_text() == "changed"
    with pytest.raises(StorageError, match="the manifest is not the one referred to"):
        fetch(first, cache=tmp_path / "cache", s3=s3)


def _publish_from_process(folder: str, uri: str, s3: S3Connection, barrier, results) -> None:
    barrier.wait()
    results.put(publish(Path(folder), uri, kind="checkpoint", created_by={"from": Path(folder).name}, s3=s3))


def test_of_writers_at_the_same_moment_one_wins_whole(make_folder, s3: S3Connection, root_uri: str, tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(4):
        uri, barrier, results = f"{root_uri}/race-{turn}", context.Barrier(4), context.Queue()
        folders = [make_folder(f"w{turn}-{i}", f"text {i}") for i in range(4)]
        workers = [
            context.Process(target=_publish_from_process, args=(str(folder), uri, s3, barrier, results))
            for folder in folders
        ]
        for worker in workers:
            worker.start()
        references = [results.get(timeout=30) for _ in workers]
        for worker in workers:
            worker.join(30)
        assert len({reference.sha256 for reference in references}) == 1
        winner = references[0].created_by["from"]
        folder = fetch(references[0], cache=tmp_path / "cache", s3=s3)
        assert (folder / "a.txt").read_text() == f"text {winner[-1]}"
        assert len(open_s3(uri, s3).list()) == 3  # the others' files are gone


def test_a_reader_during_a_race_sees_one_whole_artifact(
    make_folder, faulty: S3Connection, proxy: FaultProxy, s3: S3Connection, uri: str, tmp_path: Path
) -> None:
    """A slow writer keeps putting files after another has published; a reader fetches in between."""
    slow, quick_one = make_folder("slow", "slow"), make_folder("quick", "quick")
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(1), context.Queue()
    with proxy.fault(Fault("delay", "PUT .*(a.txt|b.bin)", value=1.0, times=2)):
        writer = context.Process(target=_publish_from_process, args=(str(slow), uri, faulty, barrier, results))
        writer.start()
        winner = publish(quick_one, uri, kind="checkpoint", created_by={"from": "quick"}, s3=s3)
        read = fetch(winner, cache=tmp_path / "early", s3=s3)
        assert results.get(timeout=30) == winner
        writer.join(30)
    assert (read / "a.txt").read_text() == "quick"
    assert (fetch(winner, cache=tmp_path / "late", s3=s3) / "a.txt").read_text() == "quick"


PUBLISHER = """
import sys
from pathlib import Path
from vl3.store.s3 import transfer as s3_transfer
from vl3.store.artifacts import publish
s3_transfer.PART_BYTES = int(sys.argv[3])
publish(Path(sys.argv[1]), sys.argv[2], kind="checkpoint", created_by={"step": "test"})
"""


def test_a_killed_writer_leaves_no_artifact_and_the_next_one_succeeds(
    proxy: FaultProxy, faulty: S3Connection, s3: S3Connection, uri: str, tmp_path: Path
) -> None:
    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("small")
        (tmp_path / name / "large").write_bytes(bytes(4 * PART_BYTES))
        return tmp_path / name

    environment = os.environ | {
        "AWS_ENDPOINT_URL": proxy.endpoint,
        "AWS_ACCESS_KEY_ID": "admin",
        "AWS_SECRET_ACCESS_KEY": "admin-secret",
        "AWS_REGION": "us-east-1",
    }
    with proxy.fault(Fault("silence", "PUT .*partNumber=3", value=60, times=9)):
        command = [sys.executable, "-c", PUBLISHER, str(folder("killed")), uri, str(PART_BYTES)]
        writer = subprocess.Popen(command, env=environment)
        _wait_for(lambda: proxy.count("partNumber=3") > 0)
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
    store = open_s3(uri, s3)
    assert find(uri, s3) is None
    assert [key.partition("/")[2] for key in store.list()] == ["a.txt"]
    reference = publish(folder("next"), uri, kind="checkpoint", created_by=CREATED_BY, s3=s3)
    assert is_intact(reference, s3=s3)
    assert store.abort_uploads(older_than_seconds=3600) == 0  # too young: it could be a living writer's
    delete(uri, s3=s3)
    assert (store.list(), store.abort_uploads(older_than_seconds=0)) == ([], 0)


def _fetch_from_process(reference: Reference, s3: S3Connection, cache: Path, barrier, results) -> None:
    barrier.wait()
    results.put(str(fetch(reference, cache=cache, s3=s3)))


def test_processes_of_one_machine_download_once(put, faulty, proxy: FaultProxy, tmp_path: Path) -> None:
    reference = put(faulty)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    with proxy.fault(Fault("delay", "GET .*a.txt", value=0.3)):
        arguments = (reference, faulty, tmp_path / "cache", barrier, results)
        workers = [context.Process(target=_fetch_from_process, args=arguments) for _ in range(4)]
        for worker in workers:
            worker.start()
        assert {results.get(timeout=30) for _ in workers} == {str(tmp_path / "cache" / reference.sha256)}
        for worker in workers:
            worker.join(30)
        assert (proxy.count("GET .*a.txt"), proxy.count("GET .*manifest.json")) == (1, 1)


def put_text(store, key: str, text: str) -> None:
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        store.put_file(Path(file.name), key)


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def test_a_manifest_that_names_a_path_outside_is_refused(put, s3: S3Connection, uri: str, tmp_path: Path) -> None:
    put(s3)
    forged = {"kind": "x", "created_by": {}, "files": {"../../evil": {"size_bytes": 1, "sha256": "0"}}}
    put_text(open_s3(uri, s3), MANIFEST_NAME, json.dumps(forged))
    assert find(uri, s3) is None
    digest = hashlib.sha256(json.dumps(forged).encode()).hexdigest()
    reference = Reference(uri=uri, sha256=digest, kind="x", created_by={})
    with pytest.raises(StorageError, match=r"names '\.\./\.\./evil', which is outside the artifact"):
        fetch(reference, cache=tmp_path / "cache", s3=s3)
