"""Our model and transformers' with the same small random weights, and the same samples in the words of both."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from transformers.models.video_llama_3.configuration_video_llama_3 import VideoLlama3Config as TheirConfig
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3ForConditionalGeneration

from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
from vl3.models.model import VideoLlama3

IMAGE_ID, VIDEO_ID = 90, 91
VISION = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 14,
}
TEXT = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
}
_PREFIXES = {
    "vision_encoder.": "model.vision_model.",
    "mm_projector.": "model.projector.",
    "language_model.": "model.language_model.",
}


@dataclass
class Sample:
    """One sample as arrays; visual items stand one after the other at the given place of the text."""

    ids_T: np.ndarray
    labels_T: np.ndarray
    pixels_PC: np.ndarray
    grid_I3: np.ndarray
    merges_I: np.ndarray
    keep_M: np.ndarray
    is_video: bool = False
    """Whether the last item is a video; DiffFP drops tokens of it alone."""
    answer_start: int = 0
    sample_id: str = "sample"
    images: list = field(default_factory=list)

    # the names of a PreparedSample, which generation reads
    @property
    def input_ids_T(self):  # noqa: N802
        return self.ids_T

    @property
    def grid_thw_I3(self):  # noqa: N802
        return self.grid_I3

    @property
    def merge_sizes_I(self):  # noqa: N802
        return self.merges_I


def make_sample(rng, items, *, text_tokens=9, is_video=False, kept_share=1.0):
    """A sample with visual items (t, h, w, merge), two words before them and the answer in the last three tokens."""
    grid = np.array([item[:3] for item in items], dtype=np.int64).reshape(-1, 3)
    merges = np.array([item[3] for item in items], dtype=np.int64)
    tokens = grid.prod(1) // merges**2
    keep = rng.random(int(tokens.sum())) < kept_share
    keep[: int(tokens[:-1].sum()) + 1] = True  # images, and the first token of the last item
    text = rng.integers(0, 80, text_tokens)
    ids = np.concatenate([text[:2], np.full(int(keep.sum()), IMAGE_ID), text[2:]]).astype(np.int64)
    labels = np.full(len(ids), -100)
    labels[-3:] = ids[-3:]
    pixels = rng.integers(0, 256, (int(grid.prod(1).sum()), 588), dtype=np.uint8)
    return Sample(ids, labels, pixels, grid, merges, keep, is_video, answer_start=len(ids) - 3)


SHAPES = {
    "text": ([], {}),
    "one image": ([(1, 4, 6, 1)], {}),
    "one image, merge 2": ([(1, 4, 6, 2)], {}),
    "five sizes": ([(1, 4, 6, 1), (1, 2, 2, 1), (1, 8, 2, 2), (1, 3, 5, 1), (1, 6, 6, 2)], {}),
    "video": ([(3, 4, 6, 2)], {"is_video": True}),
    "video with mask": ([(3, 4, 6, 2)], {"is_video": True, "kept_share": 0.5}),
    "image and video with mask": ([(1, 4, 6, 1), (3, 4, 6, 2)], {"is_video": True, "kept_share": 0.5}),
}


@pytest.fixture(scope="session", params=[True, False], ids=["tied", "untied"])
def models(request):
    """(ours, theirs) in fp32 with the same weights."""
    torch.manual_seed(0)
    rope = {"rope_theta": 300.0, "rope_type": "default"}
    theirs = VideoLlama3ForConditionalGeneration(
        TheirConfig(
            text_config={"model_type": "qwen2", "rope_parameters": rope, "tie_word_embeddings": request.param} | TEXT,
            vision_config={"model_type": "video_llama_3_vision"} | VISION,
            image_token_id=IMAGE_ID,
            video_token_id=VIDEO_ID,
            tie_word_embeddings=request.param,
        )
    ).eval()
    for parameter in theirs.parameters():  # larger than the default draw, so that differences would show
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else parameter.data.add_(
            torch.randn_like(parameter) * 0.1
        )
    config = VideoLlama3Config(
        vision=VisionConfig(**VISION),
        text=TextConfig(**TEXT, rope_theta=300.0, tie_word_embeddings=request.param),
        image_token_id=IMAGE_ID,
    )
    ours = VideoLlama3(config).eval()
    state = theirs.state_dict()
    ours.load_state_dict({name: state[their_name(name)] for name, _ in ours.named_parameters()})
    return ours, theirs


def their_name(name):
    """Name in transformers' model of one of our parameters."""
    for prefix, other in _PREFIXES.items():
        if name.startswith(prefix):
            return other + name.removeprefix(prefix)
    return name


def their_inputs(sample):
    """A sample's keyword arguments for transformers' model: images and the video go in apart."""
    images = len(sample.grid_I3) - sample.is_video
    image_patches, image_tokens = (int(x[:images].sum()) for x in (sample.grid_I3.prod(1), tokens_of(sample)))
    ids = torch.from_numpy(sample.ids_T)
    ids = ids.masked_fill((ids == IMAGE_ID) & ((ids == IMAGE_ID).cumsum(0) > image_tokens), VIDEO_ID)
    pixels = torch.from_numpy(sample.pixels_PC).float() / 255 * 2 - 1
    grid, merges = torch.from_numpy(sample.grid_I3), torch.from_numpy(sample.merges_I)
    inputs = {"input_ids": ids[None]}
    if images:
        inputs |= {"pixel_values": pixels[:image_patches], "image_grid_thw": grid[:images]}
        inputs |= {"image_merge_sizes": merges[:images]}
    if sample.is_video:
        inputs |= {"pixel_values_videos": pixels[image_patches:], "video_grid_thw": grid[images:]}
        inputs |= {"video_merge_sizes": merges[images:]}
        inputs |= {"video_compression_mask": torch.from_numpy(sample.keep_M[image_tokens:])}
    return inputs


def tokens_of(sample):
    """Vision tokens of each item, before DiffFP."""
    return sample.grid_I3.prod(1) // sample.merges_I**2


def our_row(samples):
    """Samples as one packed row, keyword arguments of our forward."""
    lengths = [len(sample.ids_T) for sample in samples]
    labels = [np.concatenate([[-100], sample.labels_T[1:]]) for sample in samples]
    return {
        "input_ids_T": np.concatenate([sample.ids_T for sample in samples]),
        "position_ids_T": np.concatenate([np.arange(length) for length in lengths]),
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]),
        "pixels_PC": np.concatenate([sample.pixels_PC for sample in samples]),
        "grid_thw_I3": np.concatenate([sample.grid_I3 for sample in samples]),
        "merge_sizes_I": np.concatenate([sample.merges_I for sample in samples]),
        "keep_M": np.concatenate([sample.keep_M for sample in samples]),
        "labels_T": np.concatenate(labels),
    }


@pytest.fixture
def kit():
    """The functions of this module, for tests that cannot import it by name."""
    return _Kit


class _Kit:
    make_sample = staticmethod(make_sample)
    their_inputs = staticmethod(their_inputs)
    their_name = staticmethod(their_name)
    our_row = staticmethod(our_row)
    SHAPES = SHAPES
