"""Curation against data-juicer: aspect ratio, duplicates by hash, similarity of image and text, with the same weights.

    python -m venv build/data-juicer && build/data-juicer/bin/pip install py-data-juicer imagededup transformers torch
    python -m benchmarks.curation_peer --peer build/data-juicer/bin/python [--images 2000]

data-juicer has an environment of its own: its pins contradict ours. Both ways get the same files and one process; what
each takes for four images is taken for its start, and is not counted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.record import write_result
from tests.support.curation import file_of, photo, write_lines
from vl3.config.curation import HandedDataset, SelectionStep
from vl3.curation.flow import run_rounds
from vl3.curation.run import CurationPlace, open_places
from vl3.curation.scorers.make import make_scorers
from vl3.curation.source import find_parts
from vl3.recipes.curate_tiny import curate_tiny
from vl3.store.bases import base_folder
from vl3.system.uris import file_uri

_FEW = 4
_PEER = """
import json, sys, time
from data_juicer.core.data import NestedDataset
from data_juicer.ops.deduplicator.image_deduplicator import ImageDeduplicator
from data_juicer.ops.filter.image_aspect_ratio_filter import ImageAspectRatioFilter
from data_juicer.ops.filter.image_text_similarity_filter import ImageTextSimilarityFilter
samples, clip = json.load(open(sys.argv[1])), sys.argv[2]
started = time.perf_counter()
data = NestedDataset.from_list(samples)
for op in (
    ImageAspectRatioFilter(min_ratio=1 / 3, max_ratio=3.0, num_proc=1),
    ImageDeduplicator(method="phash", num_proc=1),
    ImageTextSimilarityFilter(hf_clip=clip, min_score=-1.0, max_score=1.0, num_proc=1),
):
    data = op.run(data)
print("peer", json.dumps({"seconds": time.perf_counter() - started, "left": len(data)}))
"""


def main() -> int:
    """Measure, and write benchmarks/results/curation_peer.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", type=Path, help="Python of data-juicer's environment.")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ours", nargs=2, type=Path)
    options = parser.parse_args()
    if options.ours:
        print("ours", json.dumps(_run_ours(*options.ours)))
        return 0
    times: dict[str, list[float]] = {"vl3": [], "data-juicer": []}
    left: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as place:
        for count in (_FEW, options.images):
            _write(Path(place, str(count)), count)
        for turn in range(options.rounds):
            for way in times:
                seconds = []
                for count in (_FEW, options.images):
                    made = _measure(way, Path(place, str(count)), Path(place, f"{way}-{turn}-{count}"), options.peer)
                    seconds.append(made["seconds"])
                    left[way] = int(made["left"])
                times[way].append(seconds[1] - seconds[0])
                print(way, times[way], left, flush=True)
    rows = [[way, round(min(found), 1), round(options.images / min(found)), left[way]] for way, found in times.items()]
    write_result(
        "curation_peer",
        title="Aspect ratio, duplicates and similarity against data-juicer",
        question="How long do the same steps take with the same CLIP weights, on the same images?",
        command=f"python -m benchmarks.curation_peer --images {options.images}",
        columns=("Way", "Seconds", "Images/s", "Left"),
        rows=rows,
        notes=("One process each. data-juicer drops equal hashes; ours, too, with max_distance=0.",),
        libraries=("torch", "transformers"),
    )
    return 0


def _write(folder: Path, count: int) -> None:
    samples = [
        (f"{n:06d}.jpg", file_of(photo(n % (count - count // 20), 640, 480), "JPEG", quality=90), f"picture {n}")
        for n in range(count)
    ]
    write_lines(folder, samples)
    images = [
        {"text": f"<__dj__image> picture {n}", "images": [str(folder / "images" / name)]}
        for n, (name, _, _) in enumerate(samples)
    ]
    (folder / "peer.json").write_text(json.dumps(images), encoding="utf-8")


def _measure(way: str, folder: Path, out: Path, peer: Path) -> dict[str, float]:
    if way == "vl3":
        command = [sys.executable, "-m", "benchmarks.curation_peer", "--ours", str(folder), str(out)]
    else:
        clip = base_folder(curate_tiny().scorers["clip"].weights)
        command = [str(peer), "-c", _PEER, str(folder / "peer.json"), str(clip)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith(("ours ", "peer ")))
    return json.loads(line.partition(" ")[2])


def _run_ours(folder: Path, out: Path) -> dict[str, float]:
    import time

    started = time.perf_counter()
    recipe = curate_tiny()
    used = {name: recipe.scorers[name] for name in ("facts", "clip", "similarity")}
    used["similarity"] = replace(used["similarity"], settings={"features": "clip", "text": "text"})
    equal_hash = SelectionStep(kind="near_duplicates", column="phash", max_distance=0, source="data-juicer's")
    steps = {"aspect_ratio": recipe.steps["aspect_ratio"], "similar": equal_hash}
    config = replace(
        recipe,
        scorers=used,
        steps={**steps, "similarity": replace(recipe.steps["similarity"], minimum=-1.0)},
        datasets={"short": HandedDataset(caption="text")},
    )
    place = CurationPlace(
        data_uri=file_uri(folder), work_uri=file_uri(out / "work"), scores_uri=file_uri(out / "scores")
    )
    folders = {name: base_folder(one.weights) for name, one in used.items() if one.weights}
    scorers = make_scorers(config, folders, place.scores_uri)
    places, scores = open_places(config, place)
    parts = find_parts(place.data_uri, config.part_images)
    rounds, _ = run_rounds(parts, config, scorers, places, scores)
    left = sum(int(places.require_state(rounds[-1].key, part.name).is_kept.sum()) for part in parts)
    return {"seconds": time.perf_counter() - started, "left": left}


if __name__ == "__main__":
    sys.exit(main())
