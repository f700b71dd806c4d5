"""A very small model, rows for it, and the two base folders that stage 1 starts from."""

import json

import numpy as np
import pytest
import torch

from tests.support import models as sizes
from vl3.models.config import VideoLlama3Config

IMAGE_ID = 40


@pytest.fixture
def vision_config():
    return sizes.vision_config(num_hidden_layers=2)


@pytest.fixture
def make_config(vision_config):
    def make(tied=True):
        text = sizes.text_config(num_hidden_layers=2, tie_word_embeddings=tied)
        return VideoLlama3Config(vision=vision_config, text=text, image_token_id=IMAGE_ID)

    return make


@pytest.fixture
def make_model(make_config):
    from vl3.models.model import VideoLlama3

    def make(tied=True):
        torch.manual_seed(0)
        return VideoLlama3(make_config(tied)).eval()

    return make


@pytest.fixture
def make_row():
    """A packed row of samples with one image of 2 x 4 patches each (merge 1), or of text alone."""

    def make(num_samples=3, with_images=True):
        rng = np.random.default_rng(0)
        ids = [
            np.concatenate([rng.integers(0, 39, 2), np.full(8 * with_images, IMAGE_ID), rng.integers(0, 39, 4 + i)])
            for i in range(num_samples)
        ]
        labels = [np.concatenate([np.full(len(sample) - 2, -100), sample[-2:]]) for sample in ids]
        items = num_samples if with_images else 0
        return {
            "input_ids_T": np.concatenate(ids),
            "labels_T": np.concatenate(labels),
            "position_ids_T": np.concatenate([np.arange(len(sample)) for sample in ids]),
            "cu_seqlens": np.cumsum([0, *(len(sample) for sample in ids)]),
            "pixels_PC": rng.integers(0, 256, (8 * items, 588), dtype=np.uint8),
            "grid_thw_I3": np.array([[1, 2, 4]] * items, dtype=np.int64).reshape(-1, 3),
            "merge_sizes_I": np.ones(items, dtype=np.int64),
            "keep_M": np.ones(8 * items, dtype=bool),
        }

    return make


@pytest.fixture
def bases(tmp_path, make_config):
    """(SigLIP folder, Qwen2 folder) as transformers saves them, with the models that were saved."""

    def make(tied=True):
        from transformers.models.qwen2.modeling_qwen2 import Qwen2Config, Qwen2ForCausalLM
        from transformers.models.siglip.modeling_siglip import SiglipVisionConfig, SiglipVisionModel

        torch.manual_seed(1)
        config = make_config(tied)
        siglip = SiglipVisionModel(SiglipVisionConfig(**config.vision.to_dict(), image_size=56))
        siglip.save_pretrained(tmp_path / "siglip")
        qwen = Qwen2ForCausalLM(Qwen2Config(**config.text.to_dict()))
        qwen.save_pretrained(tmp_path / "qwen")
        vocabulary = {chr(97 + index): index for index in range(20)}
        added = [{"id": 20 + index, "content": name} for index, name in enumerate(("<|im_start|>", "<|im_end|>"))]
        tokenizer = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": added}
        (tmp_path / "qwen" / "tokenizer.json").write_text(json.dumps(tokenizer))
        return tmp_path / "siglip", tmp_path / "qwen", siglip, qwen

    return make


@pytest.fixture
def chat_tokenizer(tmp_path):
    """A folder with a tokenizer.json whose `<image>` is IMAGE_ID, and room for four more ids."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    words = {chr(0x4E00 + index): index for index in range(IMAGE_ID - 3)}
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": IMAGE_ID - 3 + index, "content": token, **flags} for index, token in enumerate(special)]
    tokenizer = {"version": "1.0", "model": {"type": "BPE", "vocab": words, "merges": []}, "added_tokens": added}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture
def checkpoint(make_model, chat_tokenizer, tmp_path):
    """Writes a checkpoint in our layout and returns its folder."""
    from vl3.models.weights import save_model

    def make(tied=True, dtype=torch.float32, name="ours"):
        save_model(make_model(tied).to(dtype), chat_tokenizer, tmp_path / name)
        return tmp_path / name

    return make
