"""A judge of this machine: its records, and what is no model."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from vl3.errors import ConfigError
from vl3.evaluation.judges import Message
from vl3.evaluation.local_judge import LocalJudge
from vl3.evaluation.open_judge import open_judge

QUESTION = [{"role": "user", "content": "Is it right?"}]


def test_a_question_is_answered_once(tmp_path: Path) -> None:
    asked = []

    def answer(messages: Sequence[Message]) -> tuple[str, int]:
        asked.append(messages)
        return "Correct", 5

    for cached in (False, True):
        with closing(LocalJudge(tmp_path, tmp_path / "judge.sqlite", answering=answer)) as judge:
            verdict = judge.ask(QUESTION)
            assert (verdict.text, verdict.tokens, verdict.cached) == ("Correct", 5, cached)
    assert asked == [QUESTION]


def test_an_empty_answer_is_no_verdict(tmp_path: Path) -> None:
    with closing(LocalJudge(tmp_path, tmp_path / "judge.sqlite", answering=lambda _: (" ", 1))) as judge:
        verdict = judge.ask(QUESTION)
    assert (verdict.text, verdict.why) == (None, "the judge's answer is empty")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json, so it is no model that could judge"):
        open_judge(tmp_path, tmp_path / "judge.sqlite")
