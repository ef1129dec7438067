"""The switches behind the paper's ablations: each does what its name says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sola_model.recipes import LossConfig, SelectorConfig
from sola_model.selector.background import training_foreground
from sola_model.selector.losses import total_loss
from sola_model.selector.network import AlignmentLayer, Real, TrackSelector

TINY = SelectorConfig(token_dim=8, text_dim=16, heads=4, negative_anchors=3)


def seen_by_language(config: SelectorConfig, x_NTC: torch.Tensor) -> torch.Tensor:
    """What a layer's cross-attention is asked about: objects after the two self-attentions."""
    torch.manual_seed(0)
    layer, seen = AlignmentLayer(config).eval(), []
    layer.object2lang_attn.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    N, T, C = x_NTC.shape
    words = torch.ones(1, 2, dtype=torch.bool)
    real = Real(torch.ones(1, N, dtype=bool), torch.ones(1, T, dtype=bool), False)
    layer(x_NTC[None], real, torch.zeros(T, C), torch.ones(1, 2, C), words, torch.tensor([0]))
    return seen[0].view(N, T, C)


@pytest.mark.parametrize("objects", [True, False])
@pytest.mark.parametrize("motion", [True, False])
def test_attention_that_is_off_sees_nothing(objects, motion):
    config = replace(TINY, object_attention=objects, motion_attention=motion)
    x_NTC = torch.randn(3, 4, 16)
    other_objects, other_times = x_NTC.clone(), x_NTC.clone()
    other_objects[1:], other_times[:, 1:] = 5.0, 5.0
    here = seen_by_language(config, x_NTC)[0, 0]
    sees_objects = not torch.allclose(here, seen_by_language(config, other_objects)[0, 0])
    sees_times = not torch.allclose(here, seen_by_language(config, other_times)[0, 0])
    assert (sees_objects, sees_times) == (objects, motion)
    if not (objects or motion):
        assert torch.equal(here, x_NTC[0, 0])


@pytest.mark.parametrize(
    ("change", "absent"),
    [
        ({"object_attention": False}, ("obj_attn.", "norm.0.")),
        ({"motion_attention": False}, ("motion_attn.", "norm.1.")),
        ({"layers": 1}, ("object_lang_align_layers.1.",)),
    ],
)
def test_weights_of_what_is_off_are_absent_and_the_rest_keep_their_names(change, absent):
    whole = TrackSelector(TINY).state_dict()
    ablated = TrackSelector(replace(TINY, **change)).state_dict()
    kept = {name for name in whole if not any(part in name for part in absent)}
    assert ablated.keys() == kept and len(kept) < len(whole)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_as_many_layers_run_as_asked_for(layers):
    selector, runs = TrackSelector(replace(TINY, layers=layers)), []
    for layer in selector.object_lang_align_layers:
        layer.register_forward_hook(lambda *_: runs.append(1))
    selector(torch.randn(2, 9, 8), torch.randn(3, 16))
    assert len(runs) == layers


@pytest.mark.parametrize("form", ["release", "paper"])
def test_without_alignment_loss_it_is_not_even_computed(form):
    logits_N, labels_N, broken = torch.randn(2), torch.tensor([1, 0]), torch.full((3, 4), torch.nan)
    objects_NC, anchor_C = torch.randn(2, 4), torch.randn(4)
    with_it, without = (
        total_loss(logits_N, objects_NC, anchor_C, broken, labels_N,
                   LossConfig(alignment=form, alignment_weight=weight))
        for weight in (0.3, 0.0)
    )  # fmt: skip
    assert with_it.total.isnan()
    assert without.total == without.bce == with_it.bce and without.alignment == 0


def test_background_in_training_is_what_no_expression_means():
    labels_EN = np.array([[True, False, False], [False, False, True]])
    assert training_foreground(labels_EN).tolist() == [True, False, True]
    assert training_foreground(np.zeros((2, 3), bool)).tolist() == [False] * 3
    assert training_foreground(np.zeros((2, 0), bool)).shape == (0,)
