"""An exported folder, read by transformers' own from_pretrained, gives our outputs; so does its processor."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoProcessor
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3ForConditionalGeneration

from vl3.data.sample.chat import ASSISTANT_HEADER, render_message
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.patches import patchify
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.models.attention import Segments
from vl3.models.convert import convert
from vl3.models.layouts.names import Layout
from vl3.models.weights import load_model, save_model

IMAGE_ID, VIDEO_ID, FIRST_SPECIAL = 90, 91, 87
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")


@pytest.fixture(scope="module")
def exported(models, tmp_path_factory):
    """(our model, folder in transformers' layout) with the same weights."""
    root = tmp_path_factory.mktemp("exported")
    words = {word: index for index, word in enumerate(["What", "?", "\n", "user", "assistant", "Time", ".", "s:", ","])}
    words |= {str(digit): len(words) + digit for digit in range(10)}
    words |= {f"<{index}>": index for index in range(len(words), FIRST_SPECIAL)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": FIRST_SPECIAL + index, "content": token, **flags} for index, token in enumerate(SPECIAL)]
    split = {
        "type": "Split",
        "pattern": {"Regex": r"\n|\d|[A-Za-z]+:?|[^\sA-Za-z]"},
        "behavior": "Isolated",
        "invert": False,
    }
    model = {"type": "WordLevel", "vocab": words, "unk_token": "<20>"}
    tokenizer = {"version": "1.0", "model": model, "added_tokens": added, "pre_tokenizer": split}
    (root / "tokenizer.json").write_text(json.dumps(tokenizer))
    ours, _ = models
    save_model(ours, root, root / "ours")
    convert(root / "ours", root / "theirs", Layout.TRANSFORMERS, max_shard_bytes=100_000)
    convert(root / "theirs", root / "back", Layout.OFFICIAL)
    return ours, root


def our_logits(ours, row):
    with torch.no_grad():
        media = {key: row[key] for key in ("input_ids_T", "pixels_PC", "grid_thw_I3", "merge_sizes_I", "keep_M")}
        segments = Segments.of_similar(np.diff(row["cu_seqlens"]).tolist())
        hidden_TD = ours.decode(ours.embed(**media), torch.from_numpy(row["position_ids_T"]), segments=segments)
        return ours.logits(hidden_TD)


def with_their_ids(inputs, config):
    """The inputs of the kit with the ids that the exported folder gives to images and videos."""
    ids = inputs["input_ids"]
    images = ids.masked_fill(ids == IMAGE_ID, config.image_token_id)
    return inputs | {"input_ids": images.masked_fill(ids == VIDEO_ID, config.video_token_id)}


def test_exported_folder_gives_our_logits(exported, kit):
    ours, root = exported
    theirs, report = VideoLlama3ForConditionalGeneration.from_pretrained(root / "theirs", output_loading_info=True)
    assert not any(report.values())
    assert (theirs.config.image_token_id, theirs.config.video_token_id) == (93, 94)
    again = load_model(root / "back")
    for items, options in kit.SHAPES.values():
        sample = kit.make_sample(np.random.default_rng(1), items, **options)
        inputs = with_their_ids(kit.their_inputs(sample), theirs.config)
        with torch.no_grad():
            expected = theirs.eval()(**inputs).logits[0]
        row = kit.our_row([sample])
        assert (our_logits(ours, row) - expected).abs().max() < 1e-4
        assert torch.equal(our_logits(again, row), our_logits(ours, row))


def test_exported_processor_prepares_a_video_as_we_do(exported):
    pytest.importorskip("torchvision", reason="transformers' video processor needs torchvision")
    from transformers.video_utils import VideoMetadata

    ours, root = exported
    processor = AutoProcessor.from_pretrained(root / "theirs")
    tokenizer = ChatTokenizer.from_folder(root / "theirs")
    frames = np.random.default_rng(0).integers(0, 256, (4, 112, 140, 3), dtype=np.uint8)
    frames[1, :, :56], frames[3] = frames[0, :, :56], frames[2]  # DiffFP drops what stays
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What?"}]}]
    inputs = processor(
        text=[processor.apply_chat_template(messages, add_generation_prompt=True)],
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        video_metadata=[VideoMetadata(total_num_frames=4, fps=1.0, frames_indices=[0, 1, 2, 3])],
        do_sample_frames=False,
        return_tensors="pt",
    )
    keep_M = keep_mask(frames, patch_size=14, merge_size=2, threshold=0.1, min_tokens=1)
    assert inputs["video_compression_mask"].tolist() == keep_M.tolist()
    ids = tokenizer.encode(render_message("user", "<video>What?", [[0, 1, 2, 3]]).text + ASSISTANT_HEADER)
    counts = iter(keep_M.reshape(4, -1).sum(1).tolist())
    expected = [i for token in ids for i in ([94] * next(counts) if token == IMAGE_ID else [token])]
    assert inputs["input_ids"][0].tolist() == expected
    pixels_PC, grid = patchify(frames, 2)
    assert inputs["video_grid_thw"][0].tolist() == list(grid)
    assert np.abs(inputs["pixel_values_videos"].numpy() - (pixels_PC / 127.5 - 1)).max() < 1e-6

    theirs = VideoLlama3ForConditionalGeneration.from_pretrained(root / "theirs").eval()
    row = {
        "input_ids_T": np.where(np.array(expected) == 94, IMAGE_ID, expected),
        "position_ids_T": np.arange(len(expected)),
        "cu_seqlens": np.array([0, len(expected)]),
        "pixels_PC": pixels_PC,
        "grid_thw_I3": np.array([grid]),
        "merge_sizes_I": np.array([2]),
        "keep_M": keep_M,
    }
    with torch.no_grad():
        assert (our_logits(ours, row) - theirs(**inputs).logits[0]).abs().max() < 1e-4
