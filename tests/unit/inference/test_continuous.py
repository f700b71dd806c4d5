"""Prompts that take each other's places get the tokens that each gets alone, whatever the rows and the order."""

import numpy as np
import pytest
import torch

from vl3.data.sample.chat import render_message
from vl3.errors import DataError
from vl3.inference import continuous
from vl3.inference.batch import Prompt
from vl3.inference.continuous import Ask, Generation
from vl3.inference.features import FeatureCache
from vl3.inference.generate import stop_tokens

LIMITS = (3, 8, 1, 5)


def asks_of(questions, numbers, *, key="", shared=False):
    return [
        Ask(
            number=number,
            prompt=Prompt(
                ids_T=questions[number].input_ids_T[: questions[number].answer_start], media=questions[number]
            ),
            media_key=key,
            is_shared=shared,
            max_new_tokens=LIMITS[number % 4],
        )
        for number in numbers
    ]


@pytest.fixture(scope="module")
def alone(questions, tokenizer, next_scores):
    return alone_of(questions, tokenizer, next_scores)


def alone_of(questions, tokenizer, next_scores):
    """The tokens of each question by forward passes without a cache."""
    answers = {}
    for number, sample in enumerate(questions):
        ids, answer = list(sample.input_ids_T[: sample.answer_start]), []
        while len(answer) < LIMITS[number % 4]:
            token = int(next_scores(ids + answer, sample).argmax())
            if token in stop_tokens(tokenizer):
                break
            answer.append(token)
        answers[number] = tuple(answer)
    return answers


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("turned", [False, True], ids=["rising", "falling"])
def test_tokens_are_those_of_each_prompt_alone(model, questions, tokenizer, alone, rows, turned):
    numbers = sorted(range(len(questions)), key=lambda number: len(questions[number].input_ids_T), reverse=turned)
    generation = Generation(model, stop_tokens(tokenizer), max_rows=rows)
    found = {one.number: one.tokens for one in generation.run(asks_of(questions, numbers))}
    assert found == alone


def test_little_memory_gives_the_same_tokens(model, questions, tokenizer, alone, monkeypatch):
    monkeypatch.setattr(continuous, "CACHE_TOKENS", 3 * 64)
    monkeypatch.setattr(continuous, "BATCH_TOKENS", 70)
    generation = Generation(model, stop_tokens(tokenizer))
    found = {one.number: one.tokens for one in generation.run(asks_of(questions, range(len(questions))))}
    assert found == alone
    assert len(generation._cache.lengths) * generation._cache.capacity_tokens <= 3 * 64


def test_a_prompt_takes_the_place_of_one_that_ended(model, questions, tokenizer):
    """Batches of four that wait for their longest answer take a packed pass and seven steps each."""
    asks = asks_of(questions, range(12))
    generation = Generation(model, (), max_rows=4)
    found = {one.number: len(one.tokens) for one in generation.run(asks)}
    assert found == {number: LIMITS[number % 4] for number in range(12)}
    assert generation.num_passes < 3 * 8


def test_equal_media_are_encoded_once(model, questions, tokenizer):
    features = FeatureCache(model)
    generation = Generation(model, stop_tokens(tokenizer), max_rows=2, features=features)
    same = asks_of([questions[3]] * 6, range(6), key="v")
    found = [one.tokens for one in generation.run(same)]
    assert features.num_encoded == 1
    assert len(found) == 6
    few = FeatureCache(model, limit_bytes=1)
    other = Generation(model, stop_tokens(tokenizer), max_rows=2, features=few)
    assert {one.tokens for one in other.run(asks_of(questions, [1, 3]))}
    assert few.num_encoded == 2


@pytest.mark.parametrize("kept", [65536, 40, 1], ids=["all", "some", "one"])
@pytest.mark.parametrize("rows", [2, 5, 64])
def test_questions_that_begin_alike_are_answered_as_alone(
    model, make_sample, tokenizer, next_scores, monkeypatch, kept, rows
):
    """Two videos with five questions each; one more question in the middle is about neither."""
    monkeypatch.setattr(continuous, "BEGINNING_TOKENS", kept)
    samples, keys = [], []
    for video in (0, 1):
        for number in range(5):
            text = "<video>" + " ".join(["circle", "red"][number % 2 :] * (1 + number % 3))
            messages = [render_message("user", text, [np.arange(9.0)]), render_message("assistant", "red")]
            samples.append(make_sample(messages, 50 + video, is_video=True))
            keys.append(f"v{video}")
    samples.insert(5, make_sample([render_message("user", "circle"), render_message("assistant", "red")], 9))
    keys.insert(5, "")
    asks = [asks_of(samples, [number], key=key, shared=True)[0] for number, key in enumerate(keys)]
    generation = Generation(model, stop_tokens(tokenizer), max_rows=rows)
    found = {one.number: one.tokens for one in generation.run(asks)}
    assert found == alone_of(samples, tokenizer, next_scores)
    assert generation._features.num_encoded == 2
    assert generation.num_continued == 8 if kept > 40 else 4 <= generation.num_continued <= 8


def test_more_image_tokens_than_media_are_refused(model, questions, tokenizer):
    ask = asks_of(questions, [3])[0]
    broken = Ask(number=0, prompt=Prompt(ids_T=ask.prompt.ids_T, media=questions[0]), max_new_tokens=2)
    with pytest.raises(DataError, match="<image> tokens but there are 0 kept vision tokens"):
        list(Generation(model, stop_tokens(tokenizer)).run([broken]))


def test_seconds_add_up_and_no_gradient_is_kept(model, questions, tokenizer):
    found = list(Generation(model, stop_tokens(tokenizer)).run(asks_of(questions, range(4))))
    assert all(one.seconds > 0 for one in found)
    assert torch.is_grad_enabled()
