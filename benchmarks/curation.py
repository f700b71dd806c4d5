"""Curation: overhead of the flow, a million records with kills, and clusters of a million features.

    python -m benchmarks.curation overhead [--images 2000]      the flow against the bare scorers on the same images
    python -m benchmarks.curation scale [--records 100000 1000000] [--kills 10]
    python -m benchmarks.curation clusters [--images 1000000] [--clusters 1000]

Each way runs in a process of its own, in turns; memory is the most that the process ever held.
"""

import argparse
import hashlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_result
from tests.support.curation import file_of, photo, small_recipe, write_shard
from vl3.config.curation import CurationConfig, HandedDataset, SelectionStep
from vl3.curation.flow import run_rounds
from vl3.curation.result import write_result as write_curation
from vl3.curation.run import CurationPlace, open_places
from vl3.curation.scorer import Batch, Scorer, version_digest
from vl3.curation.source import content_digest, find_parts, read_part
from vl3.recipes.curate_tiny import curate_tiny
from vl3.recipes.vl3_syn7m import vl3_syn7m
from vl3.store.bases import base_folder
from vl3.system.files import atomic_write_json
from vl3.system.uris import file_uri

_SHARD_IMAGES = 10_000
_FEATURES = 16
_STARTUP_SECONDS = 2.0
"""What a process imports before it does anything: a kill before that would show nothing."""


def main() -> int:
    """Run one measurement and write its result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("overhead", "scale", "clusters", "child"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--way", choices=("bare", "flow", "synthetic"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what == "child":
        _WAYS[options.way](options.folder, options.out)
        return 0
    {"overhead": _overhead, "scale": _scale, "clusters": _clusters}[options.what](options)
    return 0


class SyntheticFacts:
    """What image facts are, from the digest alone: one in ten is stretched, one in five has a neighbour's hash."""

    name, inputs = "facts", ("bytes",)
    outputs = ("aspect_ratio", "phash", "colours")
    version = version_digest({"kind": "synthetic"})

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        digests = [bytes.fromhex(one) for one in batch["sha256"]]
        words = np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(len(digests), 4)
        hashes = np.empty(len(digests), dtype=object)
        for row, (first, second) in enumerate(words[:, :2]):
            is_copy = second % 5 == 0
            value = int(first % 50_000) * 0x9E3779B97F4A7C15 % 2**64 if is_copy else int(first)
            hashes[row] = f"{value:016x}"
        colours = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), 32)[:, :_FEATURES]
        ratio = np.where(words[:, 2] % 10 == 0, 5.0, 1.0).astype(np.float32)
        return {"aspect_ratio": ratio, "phash": hashes, "colours": colours.astype(np.float32) / 255}


def _synthetic_recipe() -> CurationConfig:
    base = small_recipe()
    steps = {name: base.steps[name] for name in ("shape", "equal", "similar")}
    spread = SelectionStep(
        kind="clusters",
        column="colours",
        num_clusters=200,
        per_cluster=500,
        train_images=50_000,
        source="ours: benchmark",
    )
    return replace(
        base,
        scorers={"facts": base.scorers["facts"]},
        steps={**steps, "spread": spread},
        datasets={"short": HandedDataset(caption="text")},
        chunk_images=1024,
    )


def _scale(options: argparse.Namespace) -> None:
    rows = []
    for records in options.records:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "data")
            _write_records(folder, records)
            whole = _child("synthetic", folder, Path(place, "whole"))
            kills = _killed(folder, Path(place, "killed"), options.kills, whole["seconds"])
            same = _digest(Path(place, "whole/result")) == _digest(Path(place, "killed/result"))
            rows.append([records, whole["seconds"], whole["peak_mib"], kills, "the same" if same else "DIFFERENT"])
            print(rows[-1], flush=True)
    write_result(
        "curation_scale",
        title="A million records through every step without a model",
        question="Does memory grow with the number of images, and does a killed run give the same result?",
        command=f"python -m benchmarks.curation scale --records {' '.join(map(str, options.records))}",
        columns=("Records", "Seconds", "Peak MiB", "Kills", "Result after kills"),
        rows=rows,
        notes=(
            "Tar shards of 10,000 records; shape, equal files, near duplicates (6 bits), 200 clusters of 16 numbers.",
        ),
        libraries=("faiss-cpu", "pyarrow", "numpy"),
    )


def _write_records(folder: Path, count: int) -> None:
    """Records of 32 bytes; one in fifty is a copy of the one 49 before it."""
    for shard in range(0, count, _SHARD_IMAGES):
        numbers = range(shard, min(shard + _SHARD_IMAGES, count))
        samples = [
            (f"{n:09d}.png", hashlib.sha256(str(n - 49 if n % 50 == 49 else n).encode()).digest(), f"record {n}")
            for n in numbers
        ]
        write_shard(folder / f"{shard // _SHARD_IMAGES:05d}.tar", samples)


def _run_synthetic(folder: Path, out: Path) -> None:
    config, scorers = _synthetic_recipe(), {"facts": SyntheticFacts()}
    place = CurationPlace(
        data_uri=file_uri(folder), work_uri=file_uri(out / "work"), scores_uri=file_uri(out / "scores")
    )
    places, scores = open_places(config, place)
    parts = find_parts(place.data_uri, config.part_images)
    rounds, keys = run_rounds(parts, config, scorers, places, scores)
    (out / "result").mkdir(parents=True, exist_ok=True)
    write_curation(parts, config, rounds, keys, places, scores, out / "result")


def _killed(folder: Path, out: Path, kills: int, seconds: float) -> int:
    """Start the same run until it ends; kill it after a random time as often as asked."""
    draw, done = random.Random(1), 0
    while True:
        child = _start("synthetic", folder, out)
        try:
            child.wait(timeout=_STARTUP_SECONDS + draw.uniform(0.0, 0.1) * seconds if done < kills else None)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            done += 1
            continue
        if child.returncode:
            raise RuntimeError(f"the run ended with {child.returncode}")
        return done


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _overhead(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "data")
        samples = [
            (f"{n:06d}.jpg", file_of(photo(n, 640, 480), "JPEG", quality=90), f"a picture with the number {n}")
            for n in range(options.images)
        ]
        write_shard(folder / "00000.tar", samples)
        found: dict[str, list[float]] = {"bare": [], "flow": []}
        for turn in range(options.rounds):
            for way in found:
                measured = _child(way, folder, Path(place, f"{way}-{turn}"))
                found[way].append(measured["cpu_seconds"])
                print(way, measured, flush=True)
    bare, flow = min(found["bare"]), min(found["flow"])
    write_result(
        "curation_overhead",
        title="The flow of a curation against its bare scorers",
        question="What do parts, chunks, stored scores and decisions cost beside the scorers themselves?",
        command=f"python -m benchmarks.curation overhead --images {options.images}",
        columns=("Images", "Bare, CPU s", "Flow, CPU s", "Overhead"),
        rows=[[options.images, round(bare, 2), round(flow, 2), f"{flow / bare - 1:.1%}"]],
        notes=(
            "Image facts, CLIP features of a tiny model, aesthetic head; the least CPU time of each way, after imports "
            "and loading. Chunks of 256 images; at 64 the overhead was 10 %. With a real model an image costs scorers "
            "more, and the flow the same.",
        ),
        libraries=("torch", "transformers", "pyarrow"),
    )


def _few_scorers() -> dict[str, Scorer]:
    from vl3.curation.scorers.make import make_scorers

    recipe = curate_tiny()
    used = {name: recipe.scorers[name] for name in ("facts", "clip", "aesthetic")}
    folders = {name: base_folder(one.weights) for name, one in used.items() if one.weights}
    return make_scorers(replace(recipe, scorers=used), folders, "file:///unused")


def _few_recipe() -> CurationConfig:
    recipe = curate_tiny()
    used = {name: recipe.scorers[name] for name in ("facts", "clip", "aesthetic")}
    steps = {name: recipe.steps[name] for name in ("aspect_ratio", "aesthetic")}
    handed = {"short": HandedDataset(caption="text")}
    return replace(recipe, scorers=used, steps=steps, datasets=handed, chunk_images=vl3_syn7m().chunk_images)


def _run_flow(folder: Path, out: Path) -> None:
    config = _few_recipe()
    place = CurationPlace(
        data_uri=file_uri(folder), work_uri=file_uri(out / "work"), scores_uri=file_uri(out / "scores")
    )
    places, scores = open_places(config, place)
    run_rounds(find_parts(place.data_uri, config.part_images), config, _few_scorers(), places, scores)


def _run_bare(folder: Path, out: Path) -> None:
    """The same scorers on the same images in the same batches, and their numbers in one array."""
    out.mkdir(parents=True, exist_ok=True)
    scorers, config = _few_scorers(), _few_recipe()
    for batch in _batches(folder, config.chunk_images):
        for name in ("facts", "clip", "aesthetic"):
            batch |= scorers[name](batch)


def _batches(folder: Path, size: int) -> Iterator[Batch]:
    (part,) = find_parts(file_uri(folder), size)
    rows = list(read_part(part, max_bytes=1 << 24))
    for at in range(0, len(rows), size):
        columns: dict[str, list[Any]] = {
            "bytes": [row.data for row in rows[at : at + size]],
            "text": [row.text for row in rows[at : at + size]],
        }
        columns["sha256"] = [content_digest(data or b"") for data in columns["bytes"]]
        batch = {name: np.empty(len(values), dtype=object) for name, values in columns.items()}
        for name, values in columns.items():
            batch[name][:] = values
        yield batch


def _clusters(options: argparse.Namespace) -> None:
    from vl3.curation.clusters import assign, find_centres, neighbours, normalised

    random_ = np.random.default_rng(0)
    centres = random_.normal(size=(options.clusters * 2, 768)).astype(np.float32)
    features = np.empty((options.images, 768), dtype=np.float32)
    for at in range(0, options.images, 50_000):
        few = features[at : at + 50_000]
        few[:] = centres[random_.integers(0, len(centres), len(few))] + random_.normal(size=few.shape).astype(
            np.float32
        )
        few[:] = normalised(few)
    rows: list[list[Any]] = []
    sample = features[:: max(1, options.images // (256 * options.clusters))]
    started = time.perf_counter()
    found = find_centres(sample, options.clusters, 0)
    trained = time.perf_counter()
    assign(features, found)
    assigned = time.perf_counter()
    queries = features[:: max(1, options.images // 1000)]
    exact, _ = neighbours(features, queries, found, 10, len(found))
    for probed in (1, 8, 32):
        begun = time.perf_counter()
        places, _ = neighbours(features, queries, found, 10, probed)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(places, exact, strict=True)])
        rows.append([probed, f"{recall:.3f}", round(time.perf_counter() - begun, 1)])
    write_result(
        "curation_clusters",
        title=f"Clusters of {options.images:,} features of 768 numbers",
        question="How long do centres and assignment take, and how many of the true neighbours are found?",
        command=f"python -m benchmarks.curation clusters --images {options.images} --clusters {options.clusters}",
        columns=("Clusters probed", "Recall of 10 neighbours", "Seconds with adding"),
        rows=rows,
        notes=(
            f"Centres on {len(sample):,}: {trained - started:.1f} s; assigned in {assigned - trained:.1f} s.",
            f"Features are drawn around {2 * options.clusters:,} points: pictures are less clearly apart, so recall at "
            "few probes will be lower.",
        ),
        libraries=("faiss-cpu", "numpy"),
    )
    print(rows, flush=True)


def _start(way: str, folder: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "benchmarks.curation", "child", "--way", way]
    return subprocess.Popen([*command, "--folder", str(folder), "--out", str(out)])


def _child(way: str, folder: Path, out: Path) -> dict[str, float]:
    """Run one way in a process of its own; its seconds and the most memory that it held."""
    child = _start(way, folder, out)
    if child.wait():
        raise RuntimeError(f"{way} ended with {child.returncode}")
    return json.loads((out / "measured.json").read_text(encoding="utf-8"))


def _warm_up() -> None:
    """Import libraries and load models once: both ways pay it, and it would hide the difference."""
    data = file_of(photo(10**6, 640, 480), "JPEG", quality=90)
    batch: Batch = {name: np.empty(1, dtype=object) for name in ("sha256", "bytes", "text")}
    batch["sha256"][0], batch["bytes"][0], batch["text"][0] = content_digest(data), data, ""
    for scorer in _few_scorers().values():
        batch |= scorer(batch)


def _measured(run: Any, prepare: Any = lambda: None) -> Any:
    def measured(folder: Path, out: Path) -> None:
        prepare()
        started, before = time.perf_counter(), time.process_time()
        run(folder, out)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        facts = {
            "seconds": round(time.perf_counter() - started, 2),
            "cpu_seconds": round(time.process_time() - before, 2),
            "peak_mib": round(usage.ru_maxrss / 1024),
        }
        out.mkdir(parents=True, exist_ok=True)
        atomic_write_json(out / "measured.json", facts)

    return measured


_WAYS = {
    "bare": _measured(_run_bare, _warm_up),
    "flow": _measured(_run_flow, _warm_up),
    "synthetic": _measured(_run_synthetic),
}

if __name__ == "__main__":
    sys.exit(main())
