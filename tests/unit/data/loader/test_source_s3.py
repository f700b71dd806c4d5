"""Samples from an S3 server that fails: repeated, then the store's error that names the object, and no bad sample."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fault_proxy import Fault, FaultProxy
from tests.unit.data.loader.conftest import ids_of
from vl3.data.loader import source
from vl3.data.loader.cache import SampleCache
from vl3.data.loader.source import SampleSource
from vl3.data.loader.stage_loader import StageLoader
from vl3.data.plan.stage_plan import PlannedSample, StagePlan
from vl3.errors import DataError, StorageError
from vl3.store.objects import open_store
from vl3.store.s3.connection import connection_from_environment

SHARD = r"GET .*shard-000000\.tar"
MANY = 10_000


@pytest.fixture
def proxy(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    found = FaultProxy(int(s3_endpoint.rpartition(":")[2]))
    yield found
    found.close()


@pytest.fixture
def uri(s3_root: str, videos: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """The videos on the server, behind the proxy."""
    store = open_store(s3_root)
    for path in videos.iterdir():
        store.put_file(path, path.name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    return s3_root


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests in this process wait for a second, and are repeated for three."""
    connection = replace(connection_from_environment(), request_timeout_seconds=1.0, deadline_seconds=3.0)
    monkeypatch.setattr(source, "open_store", lambda uri: open_store(uri, connection))


@pytest.fixture
def sample(video_plan: StagePlan) -> PlannedSample:
    return video_plan.packs(0)[0].samples[0]


def local_bytes(videos: Path, sample: PlannedSample) -> bytes:
    span = sample.span
    return (videos / span.shard).read_bytes()[span.offset_bytes : span.offset_bytes + span.length_bytes]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("refuse", SHARD, times=2, value="503 SlowDown"),
        Fault("refuse", SHARD, times=2, value="500 InternalError"),
        Fault("cut", SHARD, times=2, value=100),
        Fault("reset", SHARD, times=2),
        Fault("lose_answer", SHARD, times=1),
    ],
    ids=lambda fault: f"{fault.action} {fault.value}",
)
def test_what_fails_for_a_moment_is_repeated_and_counted(
    make_loader: Callable[..., StageLoader],
    videos: Path,
    video_plan: StagePlan,
    uri: str,
    proxy: FaultProxy,
    fault: Fault,
) -> None:
    whole = ids_of(make_loader(video_plan, videos.as_uri()))
    with proxy.fault(fault), make_loader(video_plan, uri) as loader:
        steps = list(loader)
    assert [[row.sample_ids for row in step.rows] for step in steps] == whole
    assert fault.hits == fault.times
    assert sum(step.retries for step in steps) == fault.times
    spans = [
        sample.span for step in range(video_plan.steps) for pack in video_plan.packs(step) for sample in pack.samples
    ]
    assert sum(step.read_bytes for step in steps) == sum(span.length_bytes for span in spans)
    assert loader.ledger.bad_samples == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault("refuse", SHARD, times=MANY, value="503 SlowDown"),
        Fault("cut", SHARD, times=MANY, value=0),
        Fault("silence", SHARD, times=MANY, value=30),
        Fault("drip", SHARD, times=MANY, value=0.05),
        Fault("reset", SHARD, times=MANY),
    ],
    ids=lambda fault: fault.action,
)
def test_what_fails_for_long_is_the_stores_error_and_names_the_object(
    uri: str, proxy: FaultProxy, hasty: None, sample: PlannedSample, fault: Fault
) -> None:
    samples = SampleSource([uri])
    with proxy.fault(fault), pytest.raises(StorageError) as caught:
        samples.read(0, sample.span, where="row 0")
    assert f"{uri}/shard-000000.tar" in str(caught.value)
    assert samples.num_retries > 0 or fault.action in ("drip", "silence")


def test_the_stores_error_ends_the_loader_whatever_may_be_bad(
    make_loader: Callable[..., StageLoader], video_plan: StagePlan, uri: str, proxy: FaultProxy
) -> None:
    fault = Fault("refuse", SHARD, times=MANY, value="403 AccessDenied")
    with (
        proxy.fault(fault),
        pytest.raises(StorageError) as caught,
        make_loader(video_plan, uri, max_bad_fraction=1.0) as loader,
    ):
        next(iter(loader))
    assert f"{uri}/shard-000000.tar" in str(caught.value)
    assert loader.ledger.bad_samples == []


def test_a_shard_that_ends_early_is_the_stores_error(
    uri: str, videos: Path, sample: PlannedSample, tmp_path: Path
) -> None:
    (tmp_path / "short").write_bytes((videos / sample.span.shard).read_bytes()[: sample.span.offset_bytes + 10])
    open_store(uri).put_file(tmp_path / "short", sample.span.shard)
    with pytest.raises(StorageError, match=r"shard-000000\.tar: asked for the bytes .* The object is truncated"):
        SampleSource([uri]).read(0, sample.span, where="row 0")


def test_wrong_bytes_on_their_way_are_read_again(
    uri: str, videos: Path, proxy: FaultProxy, sample: PlannedSample
) -> None:
    fault = Fault("flip", SHARD, value=700)
    with proxy.fault(fault):
        fetched = SampleSource([uri]).read(0, sample.span, where="row 0")
    assert fault.hits == 1
    assert fetched.content == local_bytes(videos, sample)
    assert fetched.read_bytes == 2 * sample.span.length_bytes


def test_bytes_that_stay_wrong_are_a_bad_sample(
    make_loader: Callable[..., StageLoader], video_plan: StagePlan, uri: str, proxy: FaultProxy, sample: PlannedSample
) -> None:
    with proxy.fault(Fault("flip", SHARD, times=MANY, value=700)):
        with pytest.raises(DataError, match=rf"row 0: its bytes in {uri}/shard-000000\.tar do not match the digest"):
            SampleSource([uri]).read(0, sample.span, where="row 0")
        with make_loader(video_plan, uri, max_bad_fraction=1.0) as loader:
            list(loader)
    assert {bad.sample_id for bad in loader.ledger.bad_samples} == {f"v{number}" for number in range(5)}


@pytest.mark.parametrize("whole_bytes", [source.WHOLE_BYTES, 1000], ids=["memory", "file"])
def test_a_cached_sample_is_read_once_and_a_damaged_one_again(
    uri: str,
    videos: Path,
    proxy: FaultProxy,
    sample: PlannedSample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole_bytes: int,
) -> None:
    monkeypatch.setattr(source, "WHOLE_BYTES", whole_bytes)
    (tmp_path / "cache").mkdir()
    samples = SampleSource([uri], SampleCache(tmp_path / "cache", 1 << 20))

    def read() -> int:
        fetched = samples.read(0, sample.span, where="row 0")
        content = fetched.content
        data = content if isinstance(content, bytes) else content.path.read_bytes()  # type: ignore[union-attr]
        fetched.close()
        assert data == local_bytes(videos, sample)
        return fetched.read_bytes

    with proxy.fault():
        assert [read(), read()] == [sample.span.length_bytes, 0]
        assert proxy.count(SHARD) == -(-sample.span.length_bytes // whole_bytes)
        (tmp_path / "cache" / sample.span.sha256).write_bytes(bytes(sample.span.length_bytes))
        assert [read(), read()] == [sample.span.length_bytes, 0]


def test_a_large_sample_without_a_cache_leaves_no_file_and_no_descriptor(
    uri: str, sample: PlannedSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(source.tempfile, "tempdir", str(tmp_path))
    samples = SampleSource([uri])
    samples.read(0, sample.span, where="row 0").close()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    samples.read(0, sample.span, where="row 0").close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
