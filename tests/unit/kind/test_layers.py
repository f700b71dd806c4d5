"""An image goes into a node without the layers that the node has."""

import hashlib
import io
import json
import tarfile

import pytest

from kind.layers import UnknownLayers, convert, shared_layers

BOTTOM, TOP = b"b" * 5000, b"top"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def saved_image(*layers: bytes, diff_ids: list[str] | None = None) -> io.BytesIO:
    """What `docker save` of Docker 20.10 writes."""
    config = json.dumps({"rootfs": {"diff_ids": diff_ids or [digest_of(layer) for layer in layers]}}).encode()
    paths = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["a:1"], "Layers": paths}]
    files = {
        **dict(zip(paths, layers, strict=True)),
        "config.json": config,
        "manifest.json": json.dumps(manifest).encode(),
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    stream.seek(0)
    return stream


def files_of(stream: io.BytesIO) -> dict[str, bytes]:
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_only_what_the_node_lacks_is_sent() -> None:
    sink = io.BytesIO()
    convert(saved_image(BOTTOM, TOP), sink, "docker.io/a:1", {digest_of(BOTTOM): len(BOTTOM)})
    files = files_of(sink)
    index = json.loads(files["index.json"])
    (named,) = index["manifests"]
    manifest = json.loads(files[f"blobs/sha256/{named['digest'].removeprefix('sha256:')}"])
    assert named["annotations"]["io.containerd.image.name"] == "docker.io/a:1"
    assert [(layer["digest"], layer["size"]) for layer in manifest["layers"]] == [
        (digest_of(BOTTOM), len(BOTTOM)),
        (digest_of(TOP), len(TOP)),
    ]
    assert TOP in files.values()
    assert BOTTOM not in files.values()


def test_a_stranger_of_the_same_size_is_noticed() -> None:
    sink = io.BytesIO()
    with pytest.raises(UnknownLayers, match=r"0/layer\.tar has the size of sha256:"):
        convert(saved_image(b"x" * len(BOTTOM), TOP), sink, "a:1", {digest_of(BOTTOM): len(BOTTOM)})
    assert sink.getvalue() == b""


def test_layers_must_be_those_of_the_configuration() -> None:
    saved = saved_image(BOTTOM, TOP, diff_ids=[digest_of(BOTTOM), digest_of(b"other")])
    with pytest.raises(UnknownLayers, match="differ from those in its configuration"):
        convert(saved, io.BytesIO(), "a:1", {})


@pytest.mark.parametrize(
    ("in_node", "count"),
    [([], 0), ([["a", "b"], ["a"]], 2), ([["b", "a"]], 0), ([["a", "b", "c", "d"]], 3)],
    ids=["nothing", "the longest", "another place", "more on top"],
)
def test_layers_are_shared_from_the_bottom(in_node: list[list[str]], count: int) -> None:
    assert shared_layers(["a", "b", "c"], in_node) == count
