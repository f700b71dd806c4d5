"""A small random model with the tiny tokenizer, and samples of text, image and stream for it."""

import copy

import numpy as np
import pytest
import torch

from tests.support.models import text_config, vision_config
from tests.support.samples import video_bytes
from vl3.data.sample.chat import Message, encode_messages, expand_images, render_message, render_stream_frame
from vl3.data.sample.prepare import PreparedSample, PrepareSettings
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.inference.chat import Chat
from vl3.models.attention import Segments
from vl3.models.config import VideoLlama3Config
from vl3.models.model import VideoLlama3
from vl3.recipes.catalog import get_recipe
from vl3.toy.tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return ChatTokenizer.from_folder(folder)


@pytest.fixture(scope="session")
def model(tokenizer):
    """Its weights are large, so that answers depend on everything; its head likes to end messages."""
    torch.manual_seed(0)
    text = text_config(
        vocab_size=tokenizer.vocab_size, num_hidden_layers=2, max_position_embeddings=512, tie_word_embeddings=False
    )
    vision = vision_config()
    model = VideoLlama3(VideoLlama3Config(vision=vision, text=text, image_token_id=tokenizer.image_id)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        model.lm_head.weight[tokenizer.im_end_id] *= 3
        model.lm_head.weight[tokenizer.image_id] = 0
    return model


@pytest.fixture(scope="session")
def make_sample(tokenizer):
    """A prepared sample from messages; each `<image>` is 2 x 2 patches of merge 1, all of them kept or some."""

    def make(messages: list[Message], seed: int, *, is_video=False, kept_share=1.0) -> PreparedSample:
        rng = np.random.default_rng(seed)
        chat = encode_messages(messages, tokenizer)
        frames = int((chat.input_ids_T == tokenizer.image_id).sum())
        keep = rng.random((frames, 4)) < kept_share
        keep[:, 0] = True
        chat = expand_images(chat, keep.sum(1), tokenizer.image_id)
        grid = [[frames, 2, 2]] if is_video else [[1, 2, 2]] * frames
        return PreparedSample(
            sample_id=f"sample-{seed}",
            input_ids_T=chat.input_ids_T,
            labels_T=chat.labels_T,
            pixels_PC=rng.integers(0, 256, (4 * frames, 588), dtype=np.uint8),
            grid_thw_I3=np.array(grid, dtype=np.int64).reshape(-1, 3),
            merge_sizes_I=np.ones(len(grid), dtype=np.int64),
            keep_M=keep.reshape(-1),
            answer_start=chat.answer_start,
        )

    return make


@pytest.fixture(scope="session")
def questions(make_sample):
    """Twelve samples: text, one and two images, video, of many lengths."""
    samples = []
    for seed in range(12):
        words = " ".join(["circle"] * (1 + seed % 5))
        question = ["{}", "<image>{}", "<image><image>{}", "<video>{}"][seed % 4].format(words)
        messages = [
            render_message("user", question, [np.arange(3.0)]),
            render_message("assistant", "red"),
        ]
        samples.append(make_sample(messages, seed, is_video=seed % 4 == 3, kept_share=0.6 if seed % 4 == 3 else 1.0))
    return samples


@pytest.fixture(scope="session")
def streams(make_sample):
    """Ten streams of three to seven frames with a question before them and an answer in between."""
    samples = []
    for seed in range(10):
        frames = [render_stream_frame(float(second)) for second in range(3 + seed % 5)]
        question, answer = render_message("user", "Say when circle changes"), render_message("assistant", "red")
        messages = [question, *frames[:2], answer, *frames[2:], answer]
        samples.append(make_sample(messages, 100 + seed, is_video=True, kept_share=0.7))
    return samples


@pytest.fixture(scope="session")
def make_decisive(model, tokenizer):
    """A copy of the model whose decision to speak differs from state to state; it speaks in about a fifth of them."""

    @torch.no_grad()
    def make(states):
        direction = torch.linalg.svd(states - states.mean(0)).Vh[0]
        one = torch.linalg.lstsq(states, torch.ones(len(states), 1), rcond=1e-2, driver="gelsd").solution[:, 0]
        sides = ((states @ direction) / (states @ one)).sort().values
        upper = sides[len(sides) * 6 // 10 : len(sides) * 9 // 10 + 1]
        widest = upper.diff().argmax()  # far from every state, so that rounding decides nothing
        shift = upper[widest : widest + 2].mean()
        decisive = copy.deepcopy(model)
        head = decisive.lm_head.weight
        head[tokenizer.im_start_id] = head[tokenizer.stream_start_id] + 4 * (direction - shift * one)
        return decisive

    return make


@pytest.fixture(scope="session")
def tiny_settings():
    """Limits of the tiny recipe with DiffFP on."""
    return PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=get_recipe("tiny").data)


@pytest.fixture(scope="session")
def chat(model, tokenizer, tiny_settings):
    return Chat(model, tokenizer, tiny_settings)


@pytest.fixture(scope="session")
def clip():
    """Eight seconds, a frame each, as MP4; a square moves over noise and rests in some of them."""
    rng = np.random.default_rng(0)
    frames = []
    for second in range(8):
        frame = np.random.default_rng(7).integers(0, 256, (84, 112, 3), dtype=np.uint8)
        place = 14 * (second // 2)
        frame[place : place + 28, place : place + 28] = rng.integers(0, 256, 3)
        frames.append(frame)
    return video_bytes(frames, fps=1)


@pytest.fixture(scope="session")
def make_scores():
    """Scores after the last of some ids of a sample, by a forward pass of its own over ids and leading media."""

    def make(model):
        @torch.no_grad()
        def score(ids, sample):
            ids = np.asarray(ids)
            features = torch.empty(0, 32)
            if len(sample.grid_thw_I3):
                media = (sample.pixels_PC, sample.grid_thw_I3, sample.merge_sizes_I, sample.keep_M)
                features = model.encode_visual(*media)[: int((ids == model.config.image_token_id).sum())]
            segments = Segments.of_runs([len(ids)])
            hidden = model.decode(model.place(ids, features), torch.arange(len(ids)), segments=segments)
            return model.logits(hidden)[-1]

        return score

    return make


@pytest.fixture(scope="session")
def next_scores(make_scores, model):
    return make_scores(model)
