"""The video synthesis from files to samples, with a server that sees, writes, errs and fails."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_server import Asked, ChatServer, chat_server
from tests.support.moving_pictures import sliding, texture, write_video
from tests.support.training import s3_endpoint, s3_root  # noqa: F401  # fixtures
from tests.support.video_pairs import PAIRS
from vl3.config.endpoint import EndpointConfig
from vl3.curation.video.flow import SynthesisSetup, synthesise
from vl3.curation.video.rules import read_video_rules
from vl3.data.sample.records import Record, read_annotations
from vl3.errors import ClusterError, ConfigError, DataError
from vl3.store.objects import open_store
from vl3.system.uris import file_uri

SECOND = {
    "How does the speed change?": "It stays the same.",  # the same words: no third question
    "Where does it move?": "Rightwards.",  # other words, the same thing
    "What colour is it?": "It is green.",  # something else
    "What comes last?": "That cannot be seen.",
}


def answer(asked: Asked) -> str:
    """What the model says: a caption of what it sees, four pairs, second answers, comparisons."""
    text = asked.text
    if "Write questions" in text:
        return json.dumps({"pairs": PAIRS})
    if "Answer in one short sentence" in text:
        return SECOND[text.rpartition("Question: ")[2]]
    if "say the same" in text:
        return "same" if "Rightwards." in text else "Different."
    times = [line for line in text.split("\n") if line.startswith("Time ")]
    return f"The {len(asked.pictures)} pictures show a pattern that slides to the right, at {' '.join(times)}"


@pytest.fixture(scope="module")
def running() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


@pytest.fixture
def server(running: ChatServer) -> ChatServer:
    running.asked, running.faults, running.answer = [], [], answer
    return running


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    red, blue = texture(1, (250, 60, 60)), texture(2, (60, 60, 250))
    write_video(root / "videos" / "a.mp4", sliding(red, 3, 1), sliding(blue, 2.5, 2))
    write_video(root / "videos" / "still.mp4", sliding(red, 3, 0))
    (root / "videos" / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + b"junk" * 500)
    return root


def setup(server: ChatServer, work: Path, **changes: Any) -> SynthesisSetup:
    endpoint = EndpointConfig(
        url=server.url, model="tiny", version="1", timeout_seconds=300.0, tries=2, first_pause_seconds=0.01,
        longest_pause_seconds=0.02, **changes,
    )  # fmt: skip
    return SynthesisSetup(
        rules=read_video_rules(), captioner=endpoint, asker=endpoint, answers=work / "answers.sqlite",
        work_uri=file_uri(work), workers=1, max_bad_fraction=0.5,
    )  # fmt: skip


def samples(out: Path) -> list[Record]:
    records = list(read_annotations(out, "train"))
    assert all(isinstance(record, Record) for record in records)
    return [record for record in records if isinstance(record, Record)]


def test_videos_become_samples_and_a_second_run_asks_nothing(server: ChatServer, videos: Path, tmp_path: Path) -> None:
    names = ["videos/a.mp4", "videos/still.mp4", "videos/broken.mp4", "../outside.mp4"]
    card = synthesise(names, file_uri(videos), tmp_path / "one" / "train.jsonl", setup(server, tmp_path / "work"))
    records = samples(tmp_path / "one" / "train.jsonl")
    captions, pairs = records[::2], records[1::2]
    assert [record.clips[0].path for record in records] == ["videos/a.mp4"] * 4
    assert [(clip.start_seconds, clip.end_seconds) for record in captions for clip in record.clips] == [
        (0.0, pytest.approx(2.875, abs=0.13)),
        (pytest.approx(3.125, abs=0.13), pytest.approx(5.5, abs=0.01)),
    ]
    assert captions[0].turns[0].text == "<video>\nDescribe the video in detail."
    assert captions[0].answer.startswith(
        "The 3 pictures show a pattern that slides to the right, at Time 0.0s: Time 1.0s:"
    )
    assert [turn.text for turn in pairs[0].turns] == [
        "<video>\nHow does the speed change?", "It stays the same.", "Where does it move?", "To the right.",
    ]  # fmt: skip
    funnel = card.settings["funnel"]
    assert (funnel["videos"], funnel["undecodable_videos"], funnel["clips"], funnel["captions"]) == (4, 2, 2, 2)
    assert funnel["dropped_parts_of_shots"] == {"too still": 1}
    assert funnel["pairs"] == {"spatial": 2, "temporal": 2}
    assert funnel["left_out"] == {"pair: not agreed": 2, "pair: not supported": 2}
    assert {kind: count for kind, (count, _, _) in card.reasons.items()} == {"undecodable": 1, "outside_folder": 1}
    refused = [json.loads(line) for line in (tmp_path / "one" / "train.refused.jsonl").read_text().splitlines()]
    assert any("It is green." in line["reason"] and "What colour is it?" in line["reason"] for line in refused)
    asked_of_each_clip = 1 + 1 + 4  # caption, pairs, second answers; the two comparisons of both are equal
    assert len(server.asked) == 2 * asked_of_each_clip + 2
    again = synthesise(names, file_uri(videos), tmp_path / "two" / "train.jsonl", setup(server, tmp_path / "work"))
    assert len(server.asked) == 14
    assert again.settings["funnel"] == funnel
    assert (tmp_path / "two" / "train.jsonl").read_bytes() == (tmp_path / "one" / "train.jsonl").read_bytes()


def test_of_equal_videos_the_first_gives_samples(server: ChatServer, videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(videos, root)
    shutil.copyfile(root / "videos" / "a.mp4", root / "videos" / "b.mp4")
    given = replace(setup(server, tmp_path / "work"), copies=tmp_path / "copies")
    card = synthesise(["videos/a.mp4", "videos/b.mp4"], file_uri(root), tmp_path / "train.jsonl", given)
    assert len({record.sample_id for record in samples(tmp_path / "train.jsonl")}) == card.samples == 4
    assert (card.settings["funnel"]["videos"], card.settings["funnel"]["equal_videos"]) == (2, 1)
    assert card.settings["funnel"]["clips"] == 2
    assert [path.name for path in (tmp_path / "copies" / "videos").iterdir()] == ["a.mp4"]
    left_out = [json.loads(line) for line in (tmp_path / "train.refused.jsonl").read_text().splitlines()]
    assert {"where": "videos/b.mp4", "kind": "video", "reason": "the same file as videos/a.mp4"} in left_out


def test_a_finished_video_is_kept_where_no_disk_lasts(
    server: ChatServer,
    videos: Path,
    s3_root: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = open_store(f"{s3_root}/data")
    store.put_file(videos / "videos" / "a.mp4", "videos/a.mp4")
    server.fault("say", times=2, match="Write questions", value="no questions")  # malformed, once more, malformed
    lines, asked = [], []
    for number in range(2):  # two pods, neither with the other's answers
        given = replace(setup(server, tmp_path / f"pod-{number}"), work_uri=f"{s3_root}/work")
        given = replace(given, copies=tmp_path / f"copies-{number}")
        card = synthesise(["videos/a.mp4"], f"{s3_root}/data", tmp_path / f"{number}.jsonl", given)
        lines.append((tmp_path / f"{number}.jsonl").read_bytes())
        assert (tmp_path / f"copies-{number}" / "videos" / "a.mp4").read_bytes() == (
            videos / "videos" / "a.mp4"
        ).read_bytes()
        asked.append(len(server.asked))
    assert lines[0] == lines[1]
    assert asked[0] == asked[1] > 0
    assert sum(card.settings["funnel"]["left_out"].values()) >= 1


def test_a_video_whose_answers_may_still_come_is_asked_about_again(
    server: ChatServer, videos: Path, tmp_path: Path
) -> None:
    server.fault("status", times=4, match="Write questions", value=500)  # two clips, two tries
    given = setup(server, tmp_path / "work")
    first = synthesise(["videos/a.mp4"], file_uri(videos), tmp_path / "first.jsonl", given)
    assert first.settings["funnel"]["left_out"] == {"pairs: failed": 2}
    assert not list((tmp_path / "work").glob("asked/*/*"))
    second = synthesise(["videos/a.mp4"], file_uri(videos), tmp_path / "second.jsonl", given)
    assert second.settings["funnel"]["pairs"] == {"spatial": 2, "temporal": 2}
    (kept,) = (tmp_path / "work").glob("asked/*/*")
    kept.write_text("{cut")  # damaged: the answers are still in their store
    count = len(server.asked)
    synthesise(["videos/a.mp4"], file_uri(videos), tmp_path / "third.jsonl", given)
    assert (tmp_path / "third.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()
    assert len(server.asked) == count


def test_the_pictures_that_are_sent_are_those_of_the_clip(server: ChatServer, videos: Path, tmp_path: Path) -> None:
    synthesise(["videos/a.mp4"], file_uri(videos), tmp_path / "train.jsonl", setup(server, tmp_path / "work"))
    shown = []
    for asked in server.asked:
        if "Describe the video in detail: " in asked.text:
            sums = [[sum(band.tobytes()) for band in picture.split()] for picture in asked.pictures]
            shown.append(["red" if red > 2 * blue else "blue" if blue > 2 * red else "both" for red, _, blue in sums])
    assert sorted(shown) == [["blue"] * 3, ["red"] * 3]


def test_the_second_answer_may_come_from_the_caption_alone(server: ChatServer, videos: Path, tmp_path: Path) -> None:
    usual = setup(server, tmp_path / "work")
    blind = replace(usual, rules=replace(usual.rules, evidence="caption"))
    synthesise(["videos/a.mp4"], file_uri(videos), tmp_path / "train.jsonl", blind)
    second = [asked for asked in server.asked if "Answer in one short sentence" in asked.text]
    assert len(second) == 8
    assert all(not asked.pictures and "show a pattern that slides to the right" in asked.text for asked in second)


def test_a_spend_limit_ends_the_run_and_a_later_one_ends_with_the_same_samples(
    server: ChatServer, videos: Path, tmp_path: Path
) -> None:
    priced = {"usd_per_million_output_tokens": 1000.0}
    whole, cut = tmp_path / "whole" / "train.jsonl", tmp_path / "cut" / "train.jsonl"
    synthesise(["videos/a.mp4"], file_uri(videos), whole, setup(server, tmp_path / "work-1"))
    asked = len(server.asked)
    with pytest.raises(ConfigError, match=r"was not asked: the spend limit of 0\.53 USD"):
        synthesise(
            ["videos/a.mp4"], file_uri(videos), cut, setup(server, tmp_path / "work-2", spend_limit_usd=0.53, **priced)
        )
    assert not cut.exists()
    synthesise(
        ["videos/a.mp4"], file_uri(videos), cut, setup(server, tmp_path / "work-2", spend_limit_usd=9.0, **priced)
    )
    assert cut.read_bytes() == whole.read_bytes()
    assert len(server.asked) == 2 * asked


def test_an_endpoint_that_is_gone_ends_the_run_and_a_later_one_goes_on(
    server: ChatServer, videos: Path, tmp_path: Path
) -> None:
    server.fault("status", times=1000, match="Write questions", value=503)
    with pytest.raises(ClusterError, match="gave no answer to 2 questions in a row, the last time: HTTP 503"):
        synthesise(
            ["videos/a.mp4"],
            file_uri(videos),
            tmp_path / "train.jsonl",
            setup(server, tmp_path / "work", max_failures_in_a_row=2),
        )
    server.faults = []
    synthesise(["videos/a.mp4"], file_uri(videos), tmp_path / "train.jsonl", setup(server, tmp_path / "work"))
    captions = [asked for asked in server.asked if "Describe the video in detail: " in asked.text]
    assert len(captions) == 2  # each paid once
    assert len(samples(tmp_path / "train.jsonl")) == 4


def test_an_answer_that_is_no_json_costs_the_pairs_and_not_the_caption(
    server: ChatServer, videos: Path, tmp_path: Path
) -> None:
    server.fault("say", times=2, match="Write questions", value="Here are some questions: 1. What is it?")
    server.fault("say", times=2, match="Write questions", value=('{"pairs": [{"aspect": "ord', "length"))
    card = synthesise(["videos/a.mp4"], file_uri(videos), tmp_path / "train.jsonl", setup(server, tmp_path / "work"))
    assert len(samples(tmp_path / "train.jsonl")) == 2
    assert sum(card.settings["funnel"]["left_out"].values()) == 2
    assert set(card.settings["funnel"]["left_out"]) <= {"pairs: malformed", "pairs: cut off"}


def test_too_many_undecodable_videos_end_the_run(server: ChatServer, videos: Path, tmp_path: Path) -> None:
    limits = replace(setup(server, tmp_path / "work"), max_bad_fraction=0.2)
    with pytest.raises(
        DataError, match=r"1 of 2 videos cannot be used, more than max_bad_fraction=0\.2.*\n.*broken\.mp4"
    ):
        synthesise(["videos/broken.mp4", "videos/still.mp4"], file_uri(videos), tmp_path / "train.jsonl", limits)
    assert not (tmp_path / "train.jsonl").exists()
