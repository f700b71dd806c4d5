"""Batched greedy generation equals generation of each sample alone, without a cache."""

import pytest
import torch

from vl3.errors import DataError
from vl3.inference.generate import generate_answers


def generate_alone(sample, tokenizer, next_scores, max_new_tokens):
    ids, answer = list(sample.input_ids_T[: sample.answer_start]), []
    while len(answer) < max_new_tokens:
        token = int(next_scores(ids + answer, sample).argmax())
        if token in (tokenizer.im_end_id, tokenizer.end_of_text_id):
            break
        answer.append(token)
    return answer


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_answers_equal_those_of_each_sample_alone(model, questions, tokenizer, next_scores, batch_size):
    wanted = [generate_alone(sample, tokenizer, next_scores, 8) for sample in questions]
    lengths = {len(answer) for answer in wanted}
    assert len(lengths) > 2, "the samples should end at different steps"
    answers = generate_answers(model, questions, tokenizer, max_new_tokens=8, batch_size=batch_size)
    assert answers == [tokenizer.decode(ids).strip() for ids in wanted]


def test_the_prompt_ends_before_the_answer(model, questions, tokenizer):
    sample = questions[5]
    changed = sample.input_ids_T.copy()
    changed[sample.answer_start :] = 3
    other = type(sample)(**{name: getattr(sample, name) for name in sample.__slots__} | {"input_ids_T": changed})
    first, second = (generate_answers(model, [s], tokenizer, max_new_tokens=8) for s in (sample, other))
    assert first == second


def test_no_samples_give_no_answers(model, tokenizer):
    assert generate_answers(model, [], tokenizer, max_new_tokens=4) == []


def test_more_image_tokens_than_media_are_refused(model, questions, tokenizer):
    sample = questions[1]
    fewer = {"pixels_PC": sample.pixels_PC[:0], "grid_thw_I3": sample.grid_thw_I3[:0]}
    fewer |= {"merge_sizes_I": sample.merge_sizes_I[:0], "keep_M": sample.keep_M[:0]}
    broken = type(sample)(**{name: getattr(sample, name) for name in sample.__slots__} | fewer)
    with pytest.raises(DataError, match="4 <image> tokens but there are 0 kept vision tokens"):
        generate_answers(model, [broken], tokenizer, max_new_tokens=2)


def test_no_gradient_is_kept(model, questions, tokenizer):
    generate_answers(model, questions[:2], tokenizer, max_new_tokens=2)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
