"""Ray Data gives the same bytes as one process, and passes errors on in their family."""

from pathlib import Path

import pytest

from tests.support.chat_server import chat_server
from tests.support.curation import file_of, photo, small_recipe, write_shard
from vl3.config.curation import CAPTIONS, CurationConfig, HandedDataset, ScorerConfig
from vl3.config.endpoint import EndpointConfig
from vl3.curation.flow import Closing, InThisProcess, Tell
from vl3.curation.on_ray import OnRay, RayPlace, _require_cores, close_on_a_worker, stages_of
from vl3.curation.rounds import Operation
from vl3.curation.run import CurationPlace, clear, curate
from vl3.curation.scorer import Filter
from vl3.curation.scorers.image_facts import ImageFacts
from vl3.errors import ConfigError, DataError
from vl3.recipes.vl3_syn7m import vl3_syn7m
from vl3.system.uris import file_uri


def recipe(url: str = "") -> CurationConfig:
    """Without models; with the address of a server its captions are handed over."""
    base = small_recipe()
    endpoint = EndpointConfig(url=url, model="tiny", version="1") if url else None
    captions = ScorerConfig(kind=CAPTIONS, endpoint=endpoint, settings={"style": "short"}) if endpoint else None
    return small_recipe(
        scorers={"facts": ScorerConfig(kind="image_facts")} | ({"caption": captions} if captions else {}),
        steps={name: base.steps[name] for name in ("shape", "equal", "similar")},
        datasets={"short": HandedDataset(caption="caption" if captions else "text")},
    )


def run(data: Path, out: Path, *, is_ray: bool, url: str = "") -> dict[str, bytes]:
    place = CurationPlace(data_uri=file_uri(data), work_uri=file_uri(out / "work"), scores_uri=file_uri(out / "scores"))
    clear(out / "result")
    config = recipe(url)
    curate(config, place, {}, out / "result", executor=OnRay(config, {}, RayPlace(workers=2)) if is_ray else None)
    result = out / "result"
    return {str(path.relative_to(result)): path.read_bytes() for path in result.rglob("*") if path.is_file()}


def test_a_scorer_on_a_gpu_begins_an_actor_and_heads_stay_in_it() -> None:
    config = vl3_syn7m()
    keep = Filter(name="one", column="aesthetic", minimum=1, source="test")
    operations = [Operation(scorer=name) for name in ("facts", "bench", "clip", "aesthetic")]
    found = stages_of([*operations, Operation(filter=keep), Operation(scorer="caption")], config)
    assert [([one.scorer for one in group], gpus) for group, gpus, _ in found] == [
        (["facts", "bench"], 0.0),
        (["clip", "aesthetic", ""], 0.5),
        (["caption"], 1.0),
    ]


@pytest.mark.slow
def test_ray_gives_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for shard in range(2):
        samples = [(f"{n:03d}.png", file_of(photo(10 * shard + n)), f"text {n}") for n in range(10)]
        samples += [("900.png", file_of(photo(1, 300, 20)), "stretched"), ("901.png", b"junk", "broken")]
        write_shard(tmp_path / "data" / f"{shard}.tar", samples)
    with chat_server() as server:
        here, there = (
            run(tmp_path / "data", tmp_path / "a", is_ray=False, url=server.url),
            run(tmp_path / "data", tmp_path / "b", is_ray=True, url=server.url),
        )
    assert here.keys() == there.keys()
    assert b"1 pictures; the first has" in here["short/annotations/train.jsonl"]
    assert [name for name in here if here[name] != there[name]] == []


@pytest.mark.slow
def test_an_error_in_a_task_keeps_its_family_and_text(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    write_shard(tmp_path / "data" / "0.tar", [(f"{n}.png", b"x" * 3000, "") for n in range(5)])
    whole = (tmp_path / "data" / "0.tar").read_bytes()
    (tmp_path / "data" / "0.tar").write_bytes(whole[:5000])
    with pytest.raises(DataError, match=r"0\.tar: the shard is damaged"):
        run(tmp_path / "data", tmp_path / "b", is_ray=True)


class _Cluster:
    """What is asked of Ray: nodes, dead ones too, and cores, which come with time."""

    def __init__(self, nodes: int, *cores: int) -> None:
        self._nodes, self._cores = nodes, list(cores)

    def nodes(self) -> list[dict[str, bool]]:
        return [{"Alive": True}] * self._nodes

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self._cores.pop(0) if len(self._cores) > 1 else self._cores[0]}


def test_the_cores_of_a_lost_worker_are_waited_for_and_too_few_are_refused() -> None:
    _require_cores(_Cluster(3, 1, 1, 2), 2, patience_seconds=30)
    with pytest.raises(ConfigError, match=r"Ray has 1 cores, and the round needs 2"):
        _require_cores(_Cluster(3, 1), 2, patience_seconds=0.1)
    with pytest.raises(ConfigError, match=r"Ray has 1 cores"):
        _require_cores(_Cluster(1, 1, 2), 2)


@pytest.mark.slow
def test_a_worker_of_a_cluster_compares_what_one_process_would(tmp_path: Path) -> None:
    """A task of Ray writes the same states as this process."""
    ray = pytest.importorskip("ray")
    samples = [(f"{n}.png", file_of(photo(n % 4)), f"text {n}") for n in range(8)]
    write_shard(tmp_path / "data" / "0.tar", samples)
    config = recipe()
    told: list[str] = []

    class Remote(InThisProcess):
        def close(self, closing: Closing, tell: Tell) -> None:
            ray.init(num_cpus=2, include_dashboard=False, ignore_reinit_error=True, log_to_driver=False)
            try:
                close_on_a_worker(ray, closing, tell)
            finally:
                ray.shutdown()
            told.append(closing.round.closing)

    results = []
    for name, kind in (("here", InThisProcess), ("there", Remote)):
        place = CurationPlace(
            data_uri=file_uri(tmp_path / "data"),
            work_uri=file_uri(tmp_path / name / "work"),
            scores_uri=file_uri(tmp_path / name / "scores"),
        )
        scorers = {"facts": ImageFacts("facts", 1 << 20)}
        clear(tmp_path / name / "result")
        results.append(curate(config, place, {}, tmp_path / name / "result", executor=kind(scorers), scorers=scorers))
    assert told == ["equal", "similar"]
    assert results[0] == results[1]
    assert {row["step"]: row["dropped"] for row in results[0]["funnel"]}["equal"] == 4
