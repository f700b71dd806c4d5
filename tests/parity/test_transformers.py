"""Same weights, same samples: our model gives what transformers' VideoLLaMA3 gives, in fp32."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vl3.inference.batch import Decoding, Prompt
from vl3.models.attention import Segments

NAMES = [
    "text",
    "one image",
    "one image, merge 2",
    "five sizes",
    "video",
    "video with mask",
    "image and video with mask",
]


def their_loss_sum(logits_TW, labels_T):
    targets = torch.from_numpy(labels_T[1:])
    return functional.cross_entropy(logits_TW[:-1].float(), targets, ignore_index=-100, reduction="sum")


def our_logits(ours, row):
    with torch.no_grad():
        media = {key: row[key] for key in ("input_ids_T", "pixels_PC", "grid_thw_I3", "merge_sizes_I", "keep_M")}
        segments = Segments.of_similar(np.diff(row["cu_seqlens"]).tolist())
        hidden_TD = ours.decode(ours.embed(**media), torch.from_numpy(row["position_ids_T"]), segments=segments)
        return ours.logits(hidden_TD)


@pytest.fixture
def sample(request, kit):
    items, options = kit.SHAPES[request.param]
    return kit.make_sample(np.random.default_rng(1), items, **options)


@pytest.fixture
def mixed(kit):
    """Samples of every shape, some twice, of different lengths."""
    rng = np.random.default_rng(2)
    shapes = [*kit.SHAPES.values(), *list(kit.SHAPES.values())[:3]]
    return [
        kit.make_sample(rng, items, text_tokens=7 + index, **options) for index, (items, options) in enumerate(shapes)
    ]


@pytest.mark.parametrize("sample", NAMES[1:], indirect=True)
def test_encoder_gives_the_same_features(models, kit, sample):
    ours, theirs = models
    pixels = torch.from_numpy(sample.pixels_PC).float() / 255 * 2 - 1
    grid, merges = torch.from_numpy(sample.grid_I3), torch.from_numpy(sample.merges_I)
    with torch.no_grad():
        expected = theirs.model.vision_model(pixels, grid, merges).last_hidden_state
        found = ours.vision_encoder(pixels, grid, merges)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("sample", NAMES, indirect=True)
def test_logits_and_loss_are_the_same(models, kit, sample):
    ours, theirs = models
    with torch.no_grad():
        expected = theirs(**kit.their_inputs(sample)).logits[0]
        output = ours(**kit.our_row([sample]))
    assert (our_logits(ours, kit.our_row([sample])) - expected).abs().max() < 1e-4
    assert output.num_supervised == 3
    assert output.loss_sum.item() / 3 == pytest.approx(their_loss_sum(expected, sample.labels_T).item() / 3, abs=1e-5)


def test_packed_row_gives_each_sample_its_own_logits_loss_and_gradients(models, kit, mixed):
    ours, theirs = models
    row = kit.our_row(mixed)
    expected = [theirs(**kit.their_inputs(sample)).logits[0] for sample in mixed]
    assert (our_logits(ours, row) - torch.cat(expected)).abs().max() < 1e-4

    expected_loss = sum(their_loss_sum(logits, s.labels_T) for logits, s in zip(expected, mixed, strict=True))
    output = ours(**row)
    assert output.num_supervised == 3 * len(mixed)
    assert (output.loss_sum - expected_loss).abs().item() / output.num_supervised < 1e-5

    assert_same_gradients(models, kit, output.loss_sum, expected_loss)


@pytest.mark.parametrize("sample", NAMES, indirect=True)
def test_gradients_of_every_parameter_are_the_same(models, kit, sample):
    ours, theirs = models
    expected_loss = their_loss_sum(theirs(**kit.their_inputs(sample)).logits[0], sample.labels_T)
    assert_same_gradients(models, kit, ours(**kit.our_row([sample])).loss_sum, expected_loss)


def assert_same_gradients(models, kit, our_loss, their_loss):
    """Within 1e-4 of the largest of each parameter; where theirs has none (no picture, no encoder), ours is zero."""
    ours, theirs = models
    for model, loss in ((ours, our_loss), (theirs, their_loss)):
        model.zero_grad()
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        gradient = gradients[kit.their_name(name)]
        if gradient is None:
            assert not parameter.grad.any(), name
        else:
            difference = (parameter.grad - gradient).abs().max() / gradient.abs().max()
            assert difference < 1e-4, f"{name}: {difference:.1e}"


def test_packed_row_equals_its_samples_alone(models, kit, mixed):
    ours, _ = models
    alone = torch.cat([our_logits(ours, kit.our_row([sample])) for sample in mixed])
    assert (our_logits(ours, kit.our_row(mixed)) - alone).abs().max() < 1e-4


def test_greedy_ids_are_the_same_for_64_tokens(models, kit, mixed):
    ours, theirs = models
    samples = mixed[:7]
    expected = []
    for sample in samples:
        inputs = kit.their_inputs(sample)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])  # else ids that equal pad_token_id are hidden
        tokens = theirs.generate(**inputs, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0)
        expected.append(tokens[0, len(sample.ids_T) :].tolist())
    with torch.inference_mode():
        decoding = Decoding(ours, [Prompt(ids_T=sample.ids_T, media=sample) for sample in samples], 64)
        found = [decoding.scores().argmax(-1).tolist()]
        while len(found) < 64:
            decoding.add(found[-1])
            found.append(decoding.scores().argmax(-1).tolist())
    assert [list(ids) for ids in zip(*found, strict=True)] == expected
