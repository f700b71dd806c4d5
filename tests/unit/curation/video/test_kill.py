"""A synthesis that is killed again and again ends with the same samples, and pays again only what was in flight."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.chat_server import Asked, chat_server
from tests.support.moving_pictures import sliding, texture, write_video
from tests.support.video_pairs import PAIRS

IN_FLIGHT = 2


def answer(asked: Asked) -> str:
    text = asked.text
    if "Write questions" in text:
        return json.dumps({"pairs": PAIRS})
    if "Answer in one short sentence" in text:
        return f"Rightwards, {text[-8:]}"
    if "say the same" in text:
        return "same"
    return (
        f"The {len(asked.pictures)} pictures show a pattern that slides slowly to the right, in shades of one colour."
    )


def start(root: Path, out: Path, endpoint: Path, work: Path) -> "subprocess.Popen[bytes]":
    command = [
        "curate",
        "video",
        "--root",
        root,
        "--out",
        out,
        "--endpoint",
        endpoint,
        "--work",
        work,
        "--workers",
        "1",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "vl3.cli.main", *map(str, command)],
        env=os.environ | {"XDG_STATE_HOME": str(work)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def wait(process: "subprocess.Popen[bytes]") -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


@pytest.mark.full
def test_kills_lose_and_pay_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        write_video(root / "videos" / f"{number}.mp4", sliding(texture(number, (200, 80 * number, 90)), 3, 1))
    with chat_server() as server:
        server.answer, server.delay_seconds = answer, 0.3
        endpoint = tmp_path / "endpoint.yaml"
        endpoint.write_text(
            f"url: {server.url}\nmodel: tiny\nversion: '1'\nmax_concurrent: {IN_FLIGHT}\ntimeout_seconds: 300\n"
        )
        wait(start(root, tmp_path / "whole.jsonl", endpoint, tmp_path / "work-1"))
        needed = len(server.asked)
        server.asked = []
        kills = [1, 3, 7, 12, 20]
        for count in kills:
            process = start(root, tmp_path / "killed.jsonl", endpoint, tmp_path / "work-2")
            while len(server.asked) < count and process.poll() is None:
                time.sleep(0.01)
            process.kill()
            process.communicate()
        if not (tmp_path / "killed.jsonl").exists():  # on a busy machine a run may end before it is killed
            wait(start(root, tmp_path / "killed.jsonl", endpoint, tmp_path / "work-2"))
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert needed == 3 * (1 + 1 + 4 + 4)  # caption, pairs, second answers and comparisons of each
    assert needed <= len(server.asked) <= needed + IN_FLIGHT * len(kills)
