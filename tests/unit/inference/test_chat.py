"""The short Python call, batches, conversations whose keys are kept, and folders that are not models."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from tests.support.samples import image_bytes
from vl3.data.sample.tokenizer import MESSAGE_END
from vl3.errors import ConfigError, DataError
from vl3.inference.chat import Chat
from vl3.inference.question import Question, prepare_question
from vl3.inference.sampling import Sampling
from vl3.models.weights import save_model
from vl3.toy.tokenizer import build_tokenizer

DRAWN = Sampling(temperature=1.0, top_p=0.95, seed=4)
PICTURE = image_bytes(60, 90)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    words = tmp_path_factory.mktemp("words")
    build_tokenizer(words)
    out = tmp_path_factory.mktemp("model")
    save_model(model, words, out)
    return out


@pytest.fixture
def questions_of_all_kinds(clip):
    return [
        Question(text="What colour?"),
        Question(text="What is it?", images=[PICTURE]),
        Question(text="Which of the two is larger?", images=[PICTURE, image_bytes(90, 40)]),
        Question(text="What moves?", video=clip, end_seconds=5),
        Question(text="What moves here and where?", video=clip),
    ]


@pytest.mark.parametrize("sampling", [Sampling(), DRAWN], ids=["greedy", "drawn"])
def test_answers_do_not_depend_on_the_batch(chat, questions_of_all_kinds, sampling):
    options = {"max_new_tokens": 10, "sampling": sampling}
    wanted = [chat.ask_many(questions_of_all_kinds, batch_size=size, **options) for size in (1, 2, 64)]
    assert wanted[0] == wanted[1] == wanted[2]
    assert len(set(wanted[0])) > 2


def test_ask_is_the_batch_of_one_and_the_first_turn_of_a_conversation(chat, clip):
    answer = chat.ask("What moves?", video=clip, start_seconds=1, max_new_tokens=10, sampling=DRAWN)
    question = Question(text="What moves?", video=clip, start_seconds=1)
    assert chat.ask_many([question], max_new_tokens=10, sampling=DRAWN) == [answer]
    assert chat.conversation().say(question, max_new_tokens=10, sampling=DRAWN) == answer


def test_pieces_join_to_the_answer(chat):
    question = Question(text="What is it?", images=[PICTURE])
    pieces = list(chat.conversation().stream(question, max_new_tokens=20, sampling=DRAWN))
    assert len(pieces) > 2
    assert "".join(pieces).strip() == chat.ask("What is it?", images=[PICTURE], max_new_tokens=20, sampling=DRAWN)


def test_later_turns_see_what_was_said_before(chat, tokenizer, next_scores, clip):
    """Each token of the second and third answers is the best one after the whole conversation, computed anew."""
    conversation = chat.conversation(system="Be brief")
    turns = [Question(text="What is it?", images=[PICTURE]), Question(text="And then?"), Question(text="x", video=clip)]
    history, media = [], []
    for number, question in enumerate(turns):
        sample = prepare_question(
            question, tokenizer, conversation._remaining_settings(), system=None if number else "Be brief"
        )
        history += (tokenizer.encode(f"{MESSAGE_END}\n") if number else []) + sample.input_ids_T[
            : sample.answer_start
        ].tolist()
        media.append(sample)
        found = conversation.say(question, max_new_tokens=6)
        answer = []
        while len(answer) < 6:
            token = int(next_scores(history + answer, joined(media)).argmax())
            if token == tokenizer.im_end_id:
                break
            answer.append(token)
        assert found == tokenizer.decode(answer).strip()
        history += answer


def joined(samples):
    """One sample with the media of several."""
    import numpy as np

    names = ("pixels_PC", "grid_thw_I3", "merge_sizes_I", "keep_M")
    return replace(samples[-1], **{name: np.concatenate([getattr(s, name) for s in samples]) for name in names})


def test_an_answer_that_is_cut_short_leaves_a_conversation_that_goes_on(chat):
    conversation = chat.conversation()
    pieces = conversation.stream(Question(text="What?"), max_new_tokens=20, sampling=DRAWN)
    next(pieces)
    pieces.close()
    assert isinstance(conversation.say(Question(text="And?"), max_new_tokens=4), str)


def test_a_conversation_shares_its_visual_tokens(chat, tiny_settings):
    conversation = chat.conversation()
    for _ in range(3):
        conversation.say(Question(text="x", images=[image_bytes(500, 500)]), max_new_tokens=1)
    assert (
        conversation._visual_tokens <= tiny_settings.data.visual_budget_tokens + 2 * tiny_settings.data.min_item_tokens
    )


def test_a_conversation_that_is_full_says_so(model, tokenizer, tiny_settings):
    data = replace(tiny_settings.data, max_length_tokens=60, visual_budget_tokens=20)
    conversation = Chat(model, tokenizer, replace(tiny_settings, data=data)).conversation()
    question = Question(text="What colour is the circle?" * 3)
    conversation.say(question, max_new_tokens=4)
    with pytest.raises(DataError, match=r"the message has \d+ tokens but the conversation has room for \d+ of 60"):
        conversation.say(question, max_new_tokens=4)


def test_a_model_folder_is_loaded(folder, chat):
    loaded = Chat.load(folder, max_visual_tokens=64)
    assert loaded.settings.data.visual_budget_tokens == 64
    assert loaded.settings.video_merge_size == 2
    assert loaded.ask("What colour?", max_new_tokens=6) == chat.ask("What colour?", max_new_tokens=6)


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    data = json.loads(path.read_text())
    next(token for token in data["added_tokens"] if token["content"] == "<image>")["content"] = "<picture>"
    data["model"]["vocab"] = [["<picture>" if word == "<image>" else word, p] for word, p in data["model"]["vocab"]]
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"the tokenizer has \d+ ids and <image> as \d+, but the model has \d+ rows"):
        Chat.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("device", "message"), [("tpu9", "device 'tpu9' is unknown"), ("cuda", "needs a GPU, and none is usable")]
)
def test_devices_that_are_not_there_are_refused(folder, device, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ConfigError, match=message):
        Chat.load(folder, device=device)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config.json does not exist. Give the folder of a model"):
        Chat.load(tmp_path)
