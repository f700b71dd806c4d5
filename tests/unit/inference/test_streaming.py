"""One pass over all frames decides as if the frames had come one by one."""

import pytest
import torch

from vl3.data.sample.chat import ASSISTANT_HEADER, render_message, render_stream_frame
from vl3.errors import DataError
from vl3.inference.batch import Decoding
from vl3.inference.streaming import StreamResult, find_decisions, watch_streams


@pytest.fixture(scope="module")
def watcher(model, streams, tokenizer, make_decisive):
    watches = [find_decisions(sample, tokenizer) for sample in streams]
    with torch.no_grad():
        return make_decisive(
            torch.cat([Decoding(model, [watch.prompt], 1).hidden_TD[list(watch.ends)] for watch in watches])
        )


def watch_alone(sample, tokenizer, next_scores, max_new_tokens):
    """Feed the question and then frame by frame; speak at the first frame whose next token is the start of a turn."""
    watch = find_decisions(sample, tokenizer)
    for frame, end in enumerate(watch.ends):
        ids = list(watch.prompt.ids_T[: end + 1])
        scores = next_scores(ids, sample)
        if scores[tokenizer.im_start_id] > scores[tokenizer.stream_start_id]:
            ids += tokenizer.encode(ASSISTANT_HEADER)
            answer = []
            while len(answer) < max_new_tokens:
                token = int(next_scores(ids + answer, sample).argmax())
                if token == tokenizer.im_end_id:
                    break
                answer.append(token)
            return StreamResult(frame_index=frame, text=tokenizer.decode(answer).strip())
    return StreamResult(frame_index=None, text="")


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_results_equal_those_of_frame_by_frame_watching(watcher, streams, tokenizer, make_scores, batch_size):
    next_scores = make_scores(watcher)
    wanted = [watch_alone(sample, tokenizer, next_scores, 6) for sample in streams]
    frames = {result.frame_index for result in wanted}
    assert None in frames
    assert len(frames) > 2, "the model should speak at different frames"
    told = {}
    results = watch_streams(
        watcher,
        streams,
        tokenizer,
        max_new_tokens=6,
        batch_size=batch_size,
        on_batch=lambda batch, found: told.update(zip(batch, found, strict=True)),
    )
    assert results == wanted
    assert [told[index] for index in range(len(streams))] == wanted


def test_answers_are_taken_out_and_every_frame_is_a_decision(streams, tokenizer):
    sample = streams[1]  # question, two frames, answer, two frames, answer
    watch = find_decisions(sample, tokenizer)
    text = tokenizer.decode(watch.prompt.ids_T, skip_special=False)
    assert "assistant" not in text
    assert watch.frames == (0, 1, 2, 3)
    assert all(watch.prompt.ids_T[end] == tokenizer.stream_end_id for end in watch.ends)
    assert watch.ends[-1] == len(watch.prompt.ids_T) - 1


def test_a_frame_before_a_question_is_no_decision(make_sample, tokenizer):
    frames = [render_stream_frame(float(second)) for second in range(3)]
    messages = [frames[0], render_message("user", "Say when circle changes"), *frames[1:]]
    messages.append(render_message("assistant", "red"))
    watch = find_decisions(make_sample(messages, 1, is_video=True), tokenizer)
    assert watch.frames == (1, 2)


def test_a_sample_without_a_stream_is_refused(questions, tokenizer):
    with pytest.raises(DataError, match=r"sample sample-0 has no <\|stream_start\|> message"):
        find_decisions(questions[0], tokenizer)
