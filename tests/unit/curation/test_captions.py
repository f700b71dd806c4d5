"""Captions of an endpoint within a whole curation: against a real server, which also fails, refuses and costs money."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_server import ChatServer, chat_server
from tests.support.curation import file_of, photo, small_recipe, write_shard
from vl3.config.curation import CAPTIONS, CurationConfig, HandedDataset, ScorerConfig
from vl3.config.endpoint import EndpointConfig
from vl3.curation.run import CurationPlace, clear, curate
from vl3.curation.scorers.make import make_scorers
from vl3.errors import ClusterError, ConfigError, DataError
from vl3.system.uris import file_uri

IMAGES = 12


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    samples = [(f"{number:03d}.png", file_of(photo(number)), f"text {number}") for number in range(IMAGES)]
    write_shard(tmp_path / "data" / "00000.tar", samples)
    return tmp_path / "data"


def recipe(server: ChatServer, max_failed_fraction: float = 0.5, **changes: Any) -> CurationConfig:
    """Shape, then two captions; one question at a time, so that faults fall on the same images."""
    given: dict[str, Any] = {"url": server.url, "model": "tiny", "version": "1", "max_concurrent": 1, "tries": 1}
    endpoint = EndpointConfig(**(given | {"first_pause_seconds": 0.01, "timeout_seconds": 2.0} | changes))
    base = small_recipe()
    captioners = {
        style: ScorerConfig(kind=CAPTIONS, endpoint=endpoint, settings={"style": style})
        for style in ("short", "detailed")
    }
    return small_recipe(
        scorers={"facts": ScorerConfig(kind="image_facts"), **captioners},
        steps={"shape": base.steps["shape"]},
        datasets={style: HandedDataset(caption=style) for style in captioners},
        max_failed_fraction=max_failed_fraction,
    )


def run(config: CurationConfig, data: Path) -> dict[str, Any]:
    out = data.parent / "out"
    place = CurationPlace(data_uri=file_uri(data), work_uri=file_uri(out / "work"), scores_uri=file_uri(out / "scores"))
    clear(out / "result")
    return curate(config, place, {}, out / "result")


def test_kept_images_are_handed_over_with_both_captions(server: ChatServer, data: Path) -> None:
    facts = run(recipe(server), data)
    assert (facts["images"], facts["kept"]) == (IMAGES, IMAGES)
    assert facts["funnel"][-1]["step"] == "captions"
    assert len(server.asked) == 2 * IMAGES
    for style in ("short", "detailed"):
        path = data.parent / "out" / "result" / style / "annotations" / "train.jsonl"
        captions = [json.loads(line)["conversations"][1]["value"] for line in path.read_text().splitlines()]
        assert len(set(captions)) == IMAGES
        assert all(one.startswith("1 pictures; the first has 96x80 px") for one in captions)


def test_what_the_model_does_not_answer_is_counted_by_name(server: ChatServer, data: Path) -> None:
    server.fault("refuse", times=2)
    server.fault("status", value=500)
    server.fault("say", value="a dog and a cat, " * 40)
    facts = run(recipe(server, attempts=1), data)
    assert facts["kept"] == IMAGES - 4
    reasons = {one["reason"].partition(":")[0]: one["count"] for one in facts["failures"]}
    assert reasons == {"refused": 2, "failed": 1, "repeated": 1}
    assert facts["funnel"][-1]["failed"] == 4


def test_after_a_refused_result_only_what_failed_is_asked_again(server: ChatServer, data: Path) -> None:
    server.fault("status", times=8, value=500)
    with pytest.raises(
        DataError, match=r"8 of 12 images failed, more than max_failed_fraction=0\.5.*8 x short: failed"
    ):
        run(recipe(server), data)
    asked = len(server.asked)
    assert asked == IMAGES + (IMAGES - 8)
    assert run(recipe(server), data)["kept"] == IMAGES
    assert len(server.asked) - asked == 2 * 8


def test_an_endpoint_that_is_gone_ends_the_run_which_can_go_on(server: ChatServer, data: Path) -> None:
    server.fault("status", times=100, value=500, match="in detail")
    config = recipe(server, max_failures_in_a_row=3)
    with pytest.raises(ClusterError, match="gave no answer to 3 questions in a row"):
        run(config, data)
    short = sum("in detail" not in one.text for one in server.asked)
    server.faults.clear()
    assert run(config, data)["kept"] == IMAGES
    assert sum("in detail" not in one.text for one in server.asked) == IMAGES
    assert short < IMAGES + 1


def test_the_spend_limit_ends_the_run_which_goes_on_with_a_higher_one(server: ChatServer, data: Path) -> None:
    prices = {"usd_per_million_input_tokens": 1000.0, "usd_per_million_output_tokens": 1000.0, "image_tokens": 60}
    with pytest.raises(ConfigError, match=r"was not asked: .*spend"):
        run(recipe(server, **prices, spend_limit_usd=1.0), data)
    asked = len(server.asked)
    assert 0 < asked < 2 * IMAGES
    assert run(recipe(server, **prices, spend_limit_usd=100.0), data)["kept"] == IMAGES
    assert len(server.asked) == 2 * IMAGES


def test_a_spend_limit_that_a_lost_pod_would_forget_is_refused(server: ChatServer) -> None:
    config = recipe(server, usd_per_million_input_tokens=1.0, spend_limit_usd=1.0)
    with pytest.raises(ConfigError, match=r"scorers\.short\.endpoint has a spend limit.*Set `answers` beside it"):
        make_scorers(config, {}, "s3://bucket/scores")
    make_scorers(recipe(server), {}, "s3://bucket/scores")


def test_only_captions_have_an_endpoint() -> None:
    with pytest.raises(ConfigError, match="kind=captions with no endpoint"):
        ScorerConfig(kind=CAPTIONS)
    with pytest.raises(ConfigError, match="kind=ocr with an endpoint"):
        ScorerConfig(kind="ocr", endpoint=EndpointConfig(url="http://a/v1", model="m", version="1"))
