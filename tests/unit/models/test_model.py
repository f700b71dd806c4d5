"""The whole model over packed rows: loss, placeholders, text alone, errors with their numbers."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vl3.errors import DataError
from vl3.models import head_loss
from vl3.models.attention import Segments


def test_loss_is_the_cross_entropy_of_supervised_tokens(make_model, make_row):
    model, row = make_model(), make_row()
    output = model(**row)
    media = {name: row[name] for name in ("input_ids_T", "pixels_PC", "grid_thw_I3", "merge_sizes_I", "keep_M")}
    segments = Segments.of_runs(np.diff(row["cu_seqlens"]).tolist())
    logits = model.logits(
        model.decode(model.embed(**media), torch.from_numpy(row["position_ids_T"]), segments=segments)
    )
    wanted = functional.cross_entropy(
        logits[:-1], torch.from_numpy(row["labels_T"][1:]), ignore_index=-100, reduction="sum"
    )
    assert output.num_supervised == 6
    assert output.loss_sum.dtype == torch.float32
    assert output.loss_sum.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_tensors_and_arrays_give_the_same_loss(make_model, make_row):
    model, row = make_model(), make_row()
    tensors = {name: torch.from_numpy(value) for name, value in row.items()}
    assert model(**row).loss_sum.item() == model(**tensors).loss_sum.item()


@pytest.mark.parametrize("tied", [True, False])
def test_head_in_chunks_gives_the_same_loss_and_gradients(make_model, make_row, monkeypatch, tied):
    model, row = make_model(tied), make_row()
    losses, gradients = [], []
    for chunk in (2048, 4):
        monkeypatch.setattr(head_loss, "chunk_tokens", lambda *_, chunk=chunk: chunk)
        model.zero_grad()
        output = model(**row)
        output.loss_sum.backward()
        losses.append(output.loss_sum.item())
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recomputation_changes_no_loss_or_gradient(make_model, make_row, kind):
    model, row = make_model().train(), make_row()
    plain = model(**row).loss_sum
    plain.backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.set_recompute(kind)
    again = model(**row).loss_sum
    again.backward()
    assert torch.equal(plain, again)
    assert all(torch.allclose(p.grad, w, atol=1e-6) for p, w in zip(model.parameters(), wanted, strict=True))


def test_dropped_vision_tokens_leave_the_rest_in_place(make_model, make_row):
    model, row = make_model(), make_row(1)
    keep = np.array([1, 0, 0, 1, 1, 0, 0, 0], dtype=bool)
    pixels = (row["pixels_PC"], row["grid_thw_I3"], row["merge_sizes_I"])
    everything = model.encode_visual(*pixels, np.ones(8, bool))
    assert torch.allclose(model.encode_visual(*pixels, keep), everything[torch.from_numpy(keep)], atol=1e-6)


def test_text_alone_keeps_the_encoder_in_the_graph_with_zero_gradients(make_model, make_row):
    model, row = make_model(), make_row(with_images=False)
    output = model(**row)
    output.loss_sum.backward()
    for name, parameter in model.parts()["vision"] + model.parts()["projector"]:
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    words = model.language_model.embed_tokens(torch.from_numpy(row["input_ids_T"]))
    segments = Segments.of_similar(np.diff(row["cu_seqlens"]).tolist())
    hidden = model.decode(words, torch.from_numpy(row["position_ids_T"]), segments=segments)
    wanted = functional.cross_entropy(
        model.logits(hidden)[:-1], torch.from_numpy(row["labels_T"][1:]), ignore_index=-100, reduction="sum"
    )
    assert output.loss_sum.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_row_without_supervised_tokens_has_loss_zero_and_a_graph(make_model, make_row):
    model, row = make_model(), make_row()
    output = model(**row | {"labels_T": np.full(len(row["labels_T"]), -100)})
    assert output.num_supervised == 0
    output.loss_sum.backward()
    assert output.loss_sum.item() == 0


@pytest.mark.parametrize("tied", [True, False])
def test_parts_hold_every_parameter_once_under_its_own_name(make_model, tied):
    model = make_model(tied)
    listed = [pair for part in model.parts().values() for pair in part]
    named = dict(model.named_parameters())
    assert sorted(name for name, _ in listed) == sorted(named)
    assert all(named[name] is parameter for name, parameter in listed)
    assert ("lm_head.weight" in named) is not tied


def test_a_frozen_decoder_still_teaches_projector_and_encoder(make_model, make_row):
    model, row = make_model(), make_row()
    for _, parameter in model.parts()["language"]:
        parameter.requires_grad_(False)
    model(**row).loss_sum.backward()
    assert all(parameter.grad is None for _, parameter in model.parts()["language"])
    assert all(parameter.grad.any() for _, parameter in model.parts()["projector"])
    assert model.vision_encoder.embeddings.patch_embedding.weight.grad.any()


def test_missing_image_token_is_refused_with_both_numbers(make_model, make_row):
    row = make_row()
    first = int(np.flatnonzero(row["input_ids_T"] == 40)[0])
    row["input_ids_T"][first] = 1
    with pytest.raises(DataError, match="23 <image> tokens but there are 24 kept vision tokens"):
        make_model()(**row)


def test_text_with_image_tokens_but_no_image_is_refused(make_model, make_row):
    row = make_row(with_images=False)
    row["input_ids_T"][1] = 40
    with pytest.raises(DataError, match="1 <image> tokens but there are 0 kept"):
        make_model()(**row)


def test_mask_of_another_size_is_refused(make_model, make_row):
    row = make_row()
    with pytest.raises(DataError, match=r"mask has shape \(23,\) but the grids give 24 vision tokens"):
        make_model()(**row | {"keep_M": row["keep_M"][:-1]})


def test_an_id_outside_the_vocabulary_is_refused(make_model, make_row):
    row = make_row()
    row["input_ids_T"][0] = 48
    with pytest.raises(DataError, match=r"ids range from \d+ to 48 but the model's vocabulary has 48 rows"):
        make_model()(**row)


def test_a_row_whose_parts_differ_in_length_is_refused(make_model, make_row):
    row = make_row()
    with pytest.raises(DataError, match="packed row has 45 ids, 44 positions, 45 labels and samples from 0 to 45"):
        make_model()(**row | {"position_ids_T": row["position_ids_T"][:-1]})


def test_pixels_of_kept_tokens_alone_are_pruned_before_the_encoder(make_model, make_row):
    """Same ids and order of tokens; the encoder computes the kept patches only, so features may differ."""
    model, row = make_model(), make_row()
    keep = np.random.default_rng(1).random(24) < 0.6
    keep[[0, 8, 16]] = True
    media = {key: row[key] for key in ("grid_thw_I3", "merge_sizes_I")}
    after = model.encode_visual(row["pixels_PC"], keep_M=keep, **media)
    before = model.encode_visual(row["pixels_PC"][keep], keep_M=keep, **media)
    assert before.shape == after.shape == (keep.sum(), 32)
    assert not torch.allclose(before, after, atol=1e-5)
    places = np.flatnonzero(keep[8:16])
    alone = model.encode_visual(
        row["pixels_PC"][8:16][places], row["grid_thw_I3"][1:2], row["merge_sizes_I"][1:2], keep[8:16]
    )
    start = keep[:8].sum()
    assert torch.allclose(before[start : start + len(places)], alone, atol=1e-5)


def test_with_nothing_pruned_both_ways_are_one(make_model, make_row):
    model, row = make_model(), make_row()
    media = {key: row[key] for key in ("pixels_PC", "grid_thw_I3", "merge_sizes_I")}
    features = model.encode_visual(keep_M=row["keep_M"], **media)
    assert torch.equal(features, model.mm_projector(model.vision_encoder(*map(torch.from_numpy, media.values()))))


def test_pixels_of_neither_all_nor_the_kept_tokens_are_refused(make_model, make_row):
    row = make_row()
    keep = row["keep_M"].copy()
    keep[3:6] = False
    with pytest.raises(DataError, match=r"pixels have shape \(22, 588\) but the grids need \(24, 588\)"):
        make_model().encode_visual(row["pixels_PC"][:22], row["grid_thw_I3"], row["merge_sizes_I"], keep)
