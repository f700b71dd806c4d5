"""Decoding that skips what no wanted frame needs gives the frames of decoding everything, and does skip."""

from dataclasses import fields
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.ffmpeg import make_video, needs_ffmpeg, run_ffmpeg
from vl3.data.sample import container, frames, media, packets
from vl3.data.sample.media import FileRange, StoreRange
from vl3.data.sample.problems import SampleProblem
from vl3.data.sample.video import open_video
from vl3.errors import StorageError
from vl3.store.objects import FileStore


def h264(options: str, *more: str) -> tuple[str, ...]:
    return ("-c:v", "libx264", "-preset", "fast", "-x264opts", options, *more)


def h265(options: str) -> tuple[str, ...]:
    return ("-c:v", "libx265", "-preset", "fast", "-x265-params", f"log-level=none:{options}")


CODED = {
    "all_keys.mp4": h264("keyint=1"),
    "no_b.mp4": h264("keyint=12:bframes=0"),
    "one_b.mkv": h264("keyint=12:bframes=1"),
    "b_pyramid.mp4": h264("keyint=24:bframes=7:b-pyramid=normal:b-adapt=0:ref=4"),
    "b_strict.mp4": h264("keyint=24:bframes=5:b-pyramid=strict:b-adapt=0"),
    "b_flat.ts": h264("keyint=24:bframes=4:b-pyramid=none:b-adapt=0"),
    "many_refs.mp4": h264("keyint=250:bframes=3:ref=16:weightp=2"),
    "open_gop.mp4": h264("keyint=10:min-keyint=10:open-gop=1:bframes=3:b-adapt=0"),
    "open_gop.mkv": h264("keyint=10:min-keyint=10:open-gop=1:bframes=7:b-adapt=0:b-pyramid=normal"),
    "open_gop.ts": h264("keyint=10:min-keyint=10:open-gop=1:bframes=3:b-adapt=0"),
    "refreshed.mp4": h264("keyint=12:intra-refresh=1:bframes=2"),
    "refreshed.mkv": h264("keyint=12:intra-refresh=1:bframes=0"),
    "endless.mp4": h264("keyint=infinite:bframes=3:scenecut=0"),
    "interlaced.mp4": h264("keyint=12:bframes=3:interlaced=1:tff=1"),
    "fake_interlaced.ts": h264("keyint=12:bframes=3:fake-interlaced=1"),
    "slices.flv": h264("keyint=12:bframes=3:slices=4"),
    "ten_bit.mp4": h264("keyint=12:bframes=3", "-pix_fmt", "yuv420p10le"),
    "b_frames.avi": h264("keyint=12:bframes=3"),
    "hevc.mp4": h265("keyint=12:bframes=4:b-pyramid=1:open-gop=0"),
    "hevc_open.mkv": h265("keyint=12:min-keyint=12:bframes=4:b-pyramid=1:open-gop=1"),
    "hevc_open.mp4": h265("keyint=12:min-keyint=12:bframes=8:bframe-bias=90:open-gop=1:radl=0"),
    "hevc_layers.mp4": h265("keyint=24:bframes=4:temporal-layers=3"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-g", "12", "-bf", "2"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-g", "12"),
    "divx_b.avi": ("-c:v", "mpeg4", "-g", "12", "-bf", "2", "-vtag", "DX50"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-g", "12", "-bf", "2"),
    "mpeg2_open.ts": ("-c:v", "mpeg2video", "-g", "12", "-bf", "3", "-flags", "-cgop"),
    "mpeg2_interlaced.ts": ("-c:v", "mpeg2video", "-g", "12", "-bf", "2", "-flags", "+ildct+ilme"),
    "mpeg1.mpg": ("-c:v", "mpeg1video", "-g", "12", "-bf", "2", "-r", "25"),
    "vp8.webm": ("-c:v", "libvpx", "-g", "12", "-b:v", "200k"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-g", "24", "-b:v", "100k", "-auto-alt-ref", "1", "-lag-in-frames", "16"),
    "vp9.mp4": ("-c:v", "libvpx-vp9", "-g", "24", "-b:v", "100k"),
    "av1.mp4": ("-c:v", "libsvtav1", "-g", "24", "-preset", "10"),
    "wmv2.wmv": ("-c:v", "wmv2", "-g", "12"),
}
PLANS = ({"fps": 1}, {"fps": 4}, {"fps": 30}, {"fps": 30, "max_frames": 3}, {"fps": 2, "start_seconds": 2.35})
MOVING = "rotate=t/3:c=gray"


def taken(source: object, *, whole: bool, **plan: float) -> tuple[np.ndarray, frames.FrameReader]:
    with open_video(source, "x", whole=whole) as video:
        chosen = video.plan(**{"max_frames": 1000, **plan})
        return np.stack(list(video.frames(chosen))), video._reader


def assert_same(path: Path, source: object) -> list[frames.FrameReader]:
    """Every plan gives the frames of decoding everything; the readers that were used."""
    readers = []
    for plan in PLANS:
        every, _ = taken(path, whole=True, **plan)
        found, reader = taken(source, whole=False, **plan)
        assert found.shape == every.shape
        assert [index for index in range(len(found)) if (found[index] != every[index]).any()] == [], plan
        readers.append(reader)
    return readers


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")

    def make(name: str) -> Path:
        path = folder / name
        return path if path.exists() else make_video(path, *CODED[name], rate=20, seconds=4, filters=MOVING)

    return make


@needs_ffmpeg
@pytest.mark.parametrize("name", CODED)
def test_every_encoding(name, videos):
    path = videos(name)
    assert_same(path, path)


@needs_ffmpeg
@pytest.mark.parametrize("name", CODED)
def test_every_encoding_as_a_large_file(name, videos, tmp_path, monkeypatch):
    """By its index if the container has one, and read again where nothing was kept."""
    monkeypatch.setattr(packets, "KEPT_BYTES", 0)
    data = videos(name).read_bytes()
    (tmp_path / "shard").write_bytes(b"before" + data + b"after")
    assert_same(videos(name), FileRange(path=tmp_path / "shard", offset_bytes=6, length_bytes=len(data)))


@needs_ffmpeg
@pytest.mark.parametrize("name", [name for name in CODED if name.endswith(".mp4")])
def test_the_index_of_an_mp4_says_what_its_packets_say(name, videos, monkeypatch):
    monkeypatch.setattr(packets, "KEPT_BYTES", 0)
    assert_same_table(videos(name))


@needs_ffmpeg
def test_the_index_of_what_an_edit_list_cuts_off(tmp_path, monkeypatch):
    monkeypatch.setattr(packets, "KEPT_BYTES", 0)
    long = make_video(tmp_path / "long.mp4", *h264("keyint=20:bframes=3"), rate=20, seconds=6, filters=MOVING)
    cut = tmp_path / "cut.mp4"
    run_ffmpeg("-ss", "2.7", "-i", long, "-c", "copy", cut)
    assert_same_table(cut)
    assert_same(cut, FileRange(path=cut, offset_bytes=0, length_bytes=cut.stat().st_size))


def assert_same_table(path: Path) -> None:
    """Every column, with the header alone and with all packets."""
    tables = []
    for by_index in (False, True):
        file = container.MediaFile(path.read_bytes())
        with container.open_container(file, "x") as opened:
            stream = container.choose_stream(opened, "x")
            assert packets.has_index(opened, stream, file)
            tables.append(packets.read_packets(opened, stream, "x", file if by_index else None))
    for field in fields(packets.PacketTable):
        read, indexed = (getattr(table, field.name) for table in tables)
        assert np.array_equal(read, indexed), field.name


@needs_ffmpeg
@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe", "frag_every_frame+default_base_moof"])
def test_an_mp4_in_fragments_is_read_to_its_end(flags, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(packets, "KEPT_BYTES", 0)
    path = tmp_path / "fragments.mp4"
    run_ffmpeg("-i", videos("no_b.mp4"), "-c", "copy", "-movflags", flags, path)
    assert_same(path, FileRange(path=path, offset_bytes=0, length_bytes=path.stat().st_size))


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "groups"),
    [("no_b.mp4", 3), ("b_pyramid.mp4", 1), ("hevc.mp4", 3), ("one_b.mkv", 3), ("mpeg2.mpg", 3), ("vp9.webm", 1)],
)
def test_whole_groups_are_skipped(name, groups, videos, monkeypatch):
    """80 frames in groups of 12 or 24, of which three frames are wanted."""
    decoded, skipped = count_packets(videos(name), monkeypatch, fps=30, max_frames=3)
    assert decoded + skipped <= 80 - groups * 12


@needs_ffmpeg
@pytest.mark.parametrize("name", ["endless.mp4", "b_pyramid.mp4", "b_flat.ts", "hevc_layers.mp4", "mpeg4.mp4"])
def test_frames_that_no_other_refers_to_are_skipped(name, videos, monkeypatch):
    decoded, skipped = count_packets(videos(name), monkeypatch, fps=1)
    assert skipped > 2 * decoded


def count_packets(path: Path, monkeypatch: pytest.MonkeyPatch, **plan: float) -> tuple[int, int]:
    """How many packets libav decodes as they are, and of how many it decodes only what others refer to."""
    sent: list[str] = []
    real = frames.FrameReader._decode_next

    def watched(reader: frames.FrameReader) -> list:
        found = real(reader)
        sent.append(reader._skipped)
        return found

    monkeypatch.setattr(frames.FrameReader, "_decode_next", watched)
    taken(path, whole=False, **plan)
    return sent.count("DEFAULT"), sent.count("NONREF")


class CountingStore(FileStore):
    """A folder that notes what is read of it."""

    read_bytes = 0

    def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
        self.read_bytes += length_bytes
        return super().read_range(key, offset_bytes, length_bytes)


@needs_ffmpeg
@pytest.mark.parametrize("movflags", ["faststart", "0"])
def test_of_an_object_only_the_header_and_the_wanted_groups_are_read(movflags, tmp_path, monkeypatch):
    monkeypatch.setattr(media, "READ_AHEAD_BYTES", 1 << 15)
    path = tmp_path / "long.mp4"
    noise = "geq=random(1)*255:128:128"
    make_video(path, *h264("keyint=10:bframes=2:crf=20", "-movflags", movflags), rate=10, seconds=60, filters=noise)
    store = CountingStore(tmp_path)
    length = path.stat().st_size
    every, _ = taken(path, whole=True, fps=1, max_frames=3)
    place = StoreRange(store=store, key="long.mp4", offset_bytes=0, length_bytes=length)
    found, _ = taken(place, whole=False, fps=1, max_frames=3)
    assert np.array_equal(found, every)
    assert store.read_bytes < length / 3
    store.read_bytes = 0
    taken(place, whole=True, fps=1, max_frames=3)
    assert store.read_bytes >= length


@needs_ffmpeg
@pytest.mark.parametrize("lost", ["at once", "later"])
def test_a_store_that_fails_is_no_damage_of_the_video(lost, videos, monkeypatch):
    class Failing(FileStore):
        reads = 0

        def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
            self.reads += 1
            if lost == "at once" or self.reads > 3:
                raise StorageError("s3://b/x: the service cannot be reached.")
            return super().read_range(key, offset_bytes, length_bytes)

    path = videos("no_b.mp4")
    place = StoreRange(store=Failing(path.parent), key=path.name, offset_bytes=0, length_bytes=path.stat().st_size)
    monkeypatch.setattr(packets, "KEPT_BYTES", 0)
    monkeypatch.setattr(media, "READ_AHEAD_BYTES", 1 << 12)
    with pytest.raises(StorageError, match="the service cannot be reached"):
        taken(place, whole=False, fps=4)


@needs_ffmpeg
def test_a_large_file_that_is_cut_short_is_refused_by_its_index(tmp_path):
    path = make_video(tmp_path / "a.mp4", *h264("keyint=10", "-movflags", "faststart"), rate=10, seconds=6)
    for missing in (1, 500, 20_000):
        place = FileRange(path=path, offset_bytes=0, length_bytes=path.stat().st_size - missing)
        with pytest.raises(SampleProblem, match=r"the file is truncated|packet \d+ is damaged"):
            taken(place, whole=False, fps=1)


@needs_ffmpeg
def test_damage_between_wanted_frames_is_passed_over_and_damage_of_a_wanted_one_is_not(tmp_path):
    noise = "geq=random(1)*255:128:128"
    coded = h264("keyint=10:min-keyint=10:scenecut=0:bframes=0")
    path = make_video(tmp_path / "a.mp4", *coded, rate=10, seconds=6, filters=noise)
    honest, _ = taken(path, whole=True, fps=1, max_frames=2)
    with av.open(str(path)) as opened:
        places = [packet.pos for packet in opened.demux(video=0) if packet.size]
    data = path.read_bytes()
    middle = data[: places[25] + 60] + b"\xff" * 300 + data[places[25] + 360 :]
    found, _ = taken(middle, whole=False, fps=1, max_frames=2)
    assert np.array_equal(found, honest)
    for damaged, whole in ((middle, True), (data[: places[5] + 60] + b"\xff" * 300 + data[places[5] + 360 :], False)):
        with pytest.raises(SampleProblem, match=r"the video cannot be decoded at frame|frame \d+ is damaged"):
            taken(damaged, whole=whole, fps=1, max_frames=2)
