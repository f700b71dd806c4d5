"""Loads an image into a node without the layers that the node has already unpacked.

`docker save` always writes the whole image: 5 GB of which perhaps 10 MB are new. This module reads its stream, drops
the layers that the node has, and writes the others as an OCI archive:

    docker save of base + torch + vl3    the node has base + torch of an earlier build
    archive                              the layer vl3, the configuration, a manifest that lists all three layers
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

CHUNK_BYTES = 1 << 20
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


class UnknownLayers(Exception):
    """The stream is not as expected; the image can still be loaded whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """One file of the stream."""

    digest: str
    size: int
    path: Path | None
    """Where its bytes were stored; None if the node has them."""

    def describe(self, media_type: str) -> dict[str, Any]:
        """How a manifest refers to it."""
        return {"mediaType": media_type, "digest": self.digest, "size": self.size}


def shared_layers(wanted: Sequence[str], in_node: Sequence[Sequence[str]]) -> int:
    """How many layers, counted from the bottom, an image shares with an image in the node.

    Only from the bottom, because an unpacked layer depends on those below it: for an image of the layers a, b, c the
    node's [a, b, d] shares 2 and its [x, b, c] none, so the result is 2.
    """
    return max((_common(wanted, layers) for layers in in_node), default=0)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def convert(saved: IO[bytes], sink: IO[bytes], name: str, present: Mapping[str, int]) -> None:
    """Turn the output of `docker save` of one image into an OCI archive without some layers.

    Args:
        saved: The output of `docker save`.
        sink: Where the archive is written.
        name: Full name of the image.
        present: Digest -> size in bytes of the layers to leave out.

    Raises:
        UnknownLayers: The stream does not have a layer that should be left out; nothing has been written then.
    """
    with TemporaryDirectory(prefix="vl3-layers-") as folder:
        blobs, links = _read(saved, Path(folder), present)
        image = _saved_manifest(blobs)
        config = _at(image["Config"], blobs, links)
        layers = [_at(path, blobs, links) for path in image["Layers"]]
        assert config.path is not None
        digests = json.loads(config.path.read_bytes())["rootfs"]["diff_ids"]
        if digests != [layer.digest for layer in layers]:
            raise UnknownLayers(f"the layers of {name} differ from those in its configuration")
        _write(sink, name, config, layers)


def _read(saved: IO[bytes], folder: Path, present: Mapping[str, int]) -> tuple[dict[str, Blob], dict[str, str]]:
    """All files of the stream, and the targets of its links.

    A file with the size of a present layer is assumed to be that layer: only its digest is computed, and checked.
    """
    by_size = {size: digest for digest, size in present.items()}
    blobs: dict[str, Blob] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=saved, mode="r|") as archive:
        for member in archive:
            if member.issym() or member.islnk():
                links[member.name] = member.linkname.removeprefix("../")
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            expected = by_size.get(member.size)
            path = None if expected else folder / str(len(blobs))
            digest = _copy(content, path)
            if expected not in (None, digest):
                raise UnknownLayers(f"{member.name} has the size of {expected} and is {digest}")
            blobs[member.name] = Blob(digest=digest, size=member.size, path=path)
    return blobs, links


def _copy(content: IO[bytes], path: Path | None) -> str:
    digest = hashlib.sha256()
    with path.open("wb") if path else io.BytesIO() as file:
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
            if path:
                file.write(chunk)
    return f"sha256:{digest.hexdigest()}"


def _saved_manifest(blobs: Mapping[str, Blob]) -> dict[str, Any]:
    blob = blobs.get("manifest.json")
    if blob is None or blob.path is None:
        raise UnknownLayers("docker save wrote no manifest.json")
    images: list[dict[str, Any]] = json.loads(blob.path.read_bytes())
    return images[0]


def _at(path: str, blobs: Mapping[str, Blob], links: Mapping[str, str]) -> Blob:
    blob = blobs.get(links.get(path, path))
    if blob is None:
        raise UnknownLayers(f"docker save listed {path} but did not write it")
    return blob


def _write(sink: IO[bytes], name: str, config: Blob, layers: Sequence[Blob]) -> None:
    """Write the archive: the files that the node lacks, a manifest of all layers, and an index with the name."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.describe(CONFIG_TYPE),
        "layers": [layer.describe(LAYER_TYPE) for layer in layers],
    }
    text = json.dumps(manifest).encode()
    named = {
        **Blob(digest=f"sha256:{hashlib.sha256(text).hexdigest()}", size=len(text), path=None).describe(MANIFEST_TYPE),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]},
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [named]}
    with tarfile.open(fileobj=sink, mode="w|") as archive:
        _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        for blob in {blob.digest: blob for blob in (config, *layers)}.values():
            if blob.path is not None:
                archive.add(blob.path, arcname=_blob_name(blob.digest))
        _add(archive, _blob_name(named["digest"]), text)
        _add(archive, "index.json", json.dumps(index).encode())


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
