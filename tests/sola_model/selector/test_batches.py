"""Exact batching: videos of any sizes in one step give what they give one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sola_model.masks.geometry import CHANNELS, VISIBLE
from sola_model.recipes import (
    PAPER,
    RELEASE,
    TWO_TOWER,
    LossConfig,
    SelectorConfig,
    TwoTowerConfig,
)
from sola_model.selector.base import Selector
from sola_model.selector.batches import Batch, pad_texts, pad_videos
from sola_model.selector.losses import total_loss
from sola_model.selector.modules import new_selector
from sola_model.selector.network import TrackSelector, mean_over_words
from sola_model.text.words import with_words

SMALL = {"token_dim": 16, "text_dim": 64}
CONFIGS = {
    "release": (SelectorConfig(**SMALL), RELEASE.loss),
    "paper": (
        SelectorConfig(**SMALL, negatives_in_language=False, aggregation="paper"),
        PAPER.loss,
    ),
    "motion": (SelectorConfig(**SMALL, object_attention=False, whitening=1.0), RELEASE.loss),
    "objects": (SelectorConfig(**SMALL, motion_attention=False, layers=3), RELEASE.loss),
    "separate": (
        SelectorConfig(token_dim=28, text_dim=64, separate_streams=True, layers=1),
        RELEASE.loss,
    ),
    "two-tower": (
        TwoTowerConfig(token_dim=28, text_dim=64, vocabulary=2000, width=16),
        TWO_TOWER.loss,
    ),
}
Sizes = tuple[int, int, list[int]]
sizes = st.tuples(
    st.integers(1, 64), st.integers(1, 120), st.lists(st.integers(1, 40), min_size=1, max_size=3)
)


def make_videos(
    config: SelectorConfig | TwoTowerConfig,
    all_sizes: list[Sizes],
    seed: int,
    dtype: torch.dtype = torch.float32,
):
    """Tokens, texts and labels of videos with (N, T, words of each expression)."""
    draw = {"generator": torch.Generator().manual_seed(seed), "dtype": dtype}
    return [
        (
            tokens(torch.randn(tracks, frames, config.token_dim, **draw)),
            [random_text(config, count, draw) for count in words],
            torch.randint(2, (len(words), tracks), **draw),
        )
        for tracks, frames, words in all_sizes
    ]


def tokens(random_NTD: torch.Tensor) -> torch.Tensor:
    """Tokens that end in geometry, if they have room for it: 0 where the mask is empty."""
    if random_NTD.shape[-1] > CHANNELS:
        geometry_NTG = random_NTD[..., -CHANNELS:]
        geometry_NTG *= geometry_NTG[..., VISIBLE : VISIBLE + 1] > -0.5
        geometry_NTG[..., VISIBLE] = geometry_NTG[..., VISIBLE].abs()
    return random_NTD


def random_text(config: SelectorConfig | TwoTowerConfig, words: int, draw: dict) -> torch.Tensor:
    text_WC = torch.randn(words, config.text_dim, **draw) / 8
    if not config.reads_words:
        return text_WC
    return with_words(text_WC, torch.randint(2000, (words,), generator=draw["generator"]))


def one_by_one(selector: Selector, videos: list, loss: LossConfig):
    """Scores, object vectors and the gradients of the mean loss, each expression by itself."""
    results, losses = [], []
    for tokens_NTD, texts, labels_EN in videos:
        for text_WC, labels_N in zip(texts, labels_EN, strict=True):
            logits_N, objects_NC = selector(tokens_NTD, text_WC)
            negatives_AC = negatives_of(selector)
            results.append((logits_N.detach(), objects_NC.detach()))
            losses.append(
                total_loss(logits_N, objects_NC, text_WC.mean(0), negatives_AC, labels_N, loss)
            )
    sum(loss.total for loss in losses).div(len(losses)).backward()
    return results, gradients(selector)


def negatives_of(selector: Selector) -> torch.Tensor | None:
    return selector.negative_token.weight if isinstance(selector, TrackSelector) else None


def together(selector: Selector, batch: Batch, videos: list, loss: LossConfig):
    logits_EN, objects_ENC = selector.forward_batch(batch)
    labels_EN = torch.zeros_like(logits_EN)
    for row_N, labels_N in zip(labels_EN, (row for v in videos for row in v[2]), strict=True):
        row_N[: len(labels_N)] = labels_N
    losses = total_loss(
        logits_EN,
        objects_ENC,
        mean_over_words(batch.text_EWC, batch.words_EW),
        negatives_of(selector),
        labels_EN,
        loss,
        batch.tracks_EN,
    )
    losses.total.backward()
    return logits_EN.detach(), objects_ENC.detach(), gradients(selector)


def gradients(selector: Selector) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in selector.named_parameters() if p.grad is not None}
    selector.zero_grad(set_to_none=True)
    return found


def assert_batch_equals_singles(
    config: SelectorConfig | TwoTowerConfig,
    loss: LossConfig,
    all_sizes: list[Sizes],
    seed: int,
    dtype: torch.dtype,
) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    torch.manual_seed(seed)
    selector = new_selector(config).eval().to(dtype)
    videos = make_videos(config, all_sizes, seed, dtype)
    selector.fit_inputs(2 * torch.randn(99, config.token_dim) + 1)
    singles, single_gradients = one_by_one(selector, videos, loss)
    batch = pad_videos([(tokens_NTD, texts) for tokens_NTD, texts, _ in videos])
    logits_EN, objects_ENC, batch_gradients = together(selector, batch, videos, loss)
    assert len(logits_EN) == len(singles)
    for e, (logits_N, objects_NC) in enumerate(singles):
        count = len(logits_N)
        for ours, expected in ((logits_EN[e], logits_N), (objects_ENC[e], objects_NC)):
            torch.testing.assert_close(ours[:count], expected, rtol=tolerance, atol=tolerance)
            assert not ours[count:].any()
    assert batch_gradients.keys() == single_gradients.keys()
    for name, gradient in single_gradients.items():
        scale = max(1.0, gradient.abs().max().item())
        difference = (batch_gradients[name] - gradient).abs().max().item()
        assert difference < tolerance * scale, name


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=10)
@given(all_sizes=st.lists(sizes, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_batch_equals_one_by_one(name, all_sizes, seed):
    # In float64: in float32 an activation within rounding of LeakyReLU's kink, or two anchors
    # equally close, can take one branch in the batch and the other alone.
    assert_batch_equals_singles(*CONFIGS[name], all_sizes, seed, torch.float64)


@pytest.mark.parametrize("seed", range(6))
def test_batch_equals_one_by_one_in_float32(seed):
    draw = np.random.default_rng(seed)
    all_sizes = [
        (
            int(draw.integers(1, 65)),
            int(draw.integers(1, 121)),
            draw.integers(1, 41, size=draw.integers(1, 4)).tolist(),
        )
        for _ in range(4)
    ]
    assert_batch_equals_singles(*CONFIGS["release"], all_sizes, seed, torch.float32)


def test_batch_equals_one_by_one_at_full_width():
    # In float32 rounding alone is 1e-4 here: the random encoder's outputs are of size 100.
    all_sizes = [(5, 33, [12, 3]), (2, 60, [7]), (6, 1, [1])]
    assert_batch_equals_singles(RELEASE.selector, RELEASE.loss, all_sizes, 0, torch.float64)


@pytest.mark.parametrize("name", ["release", "separate", "two-tower"])
def test_padding_of_text_is_not_seen_whatever_it_holds(name):
    torch.manual_seed(0)
    selector = new_selector(CONFIGS[name][0]).eval()
    batch = pad_videos([v[:2] for v in make_videos(selector.config, [(3, 20, [4, 9])], 0)])
    dirty = replace(batch, text_EWC=batch.text_EWC.masked_fill(~batch.words_EW[..., None], 1.0))
    for clean, ours in zip(
        selector.forward_batch(batch), selector.forward_batch(dirty), strict=True
    ):
        torch.testing.assert_close(ours, clean, rtol=0, atol=1e-5)


def test_padding_is_not_seen_whatever_it_holds():
    torch.manual_seed(0)
    selector = TrackSelector(CONFIGS["release"][0]).eval()
    videos = make_videos(selector.config, [(3, 20, [4, 9]), (5, 9, [2])], 0)
    batch = pad_videos([video[:2] for video in videos])
    dirty = replace(
        batch,
        tokens_VNTD=batch.tokens_VNTD.clone(),
        text_EWC=batch.text_EWC.masked_fill(~batch.words_EW[..., None], 9.0),
    )
    dirty.tokens_VNTD[0, 3:] = 9.0
    dirty.tokens_VNTD[1, :, 9:] = 9.0
    for clean, ours in zip(
        selector.forward_batch(batch), selector.forward_batch(dirty), strict=True
    ):
        torch.testing.assert_close(ours, clean, rtol=0, atol=1e-5)


def test_what_does_not_see_language_is_computed_once_per_video():
    selector = TrackSelector(SelectorConfig(**SMALL)).eval()
    first, second = selector.object_lang_align_layers
    tracks_seen = {}
    for name, module in {
        "encoder": selector.short_motion_encoder[0],
        "layer 1": first.motion_attn.q_proj,
        "layer 1, to language": first.object2lang_attn.q_proj,
        "layer 2": second.motion_attn.q_proj,
    }.items():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: tracks_seen.update({name: len(inputs[0])})
        )
    tokens_NTD, texts, _ = make_videos(selector.config, [(3, 16, [4] * 7)], 0)[0]
    selector(tokens_NTD, *pad_texts(texts))
    assert tracks_seen == {"encoder": 3, "layer 1": 3, "layer 1, to language": 1, "layer 2": 21}


def test_videos_without_scores_are_refused():
    text_WC = torch.zeros(3, 64)
    for tokens_NTD, texts in (
        (torch.zeros(0, 4, 16), [text_WC]),
        (torch.zeros(2, 0, 16), [text_WC]),
        (torch.zeros(2, 4, 16), []),
    ):
        with pytest.raises(ValueError, match="has no scores"):
            pad_videos([(tokens_NTD, texts)])
    with pytest.raises(ValueError, match="no videos"):
        pad_videos([])


def test_bad_values_in_a_batch_are_named():
    selector = TrackSelector(SelectorConfig(**SMALL))
    tokens_NTD, text_WC = torch.zeros(2, 4, 16), torch.zeros(3, 64)
    for broken, message in (
        ((tokens_NTD.fill_(torch.nan), [text_WC]), "Object tokens contain NaN"),
        ((torch.zeros(2, 4, 17), [text_WC]), r"17\); this selector takes"),
        ((torch.zeros(2, 4, 16), [torch.zeros(0, 64)]), "at least one word"),
    ):
        with pytest.raises(ValueError, match=message):
            selector.forward_batch(pad_videos([broken]))


def test_float16_tokens_make_a_float32_step():
    selector = TrackSelector(SelectorConfig(**SMALL)).eval()
    videos = make_videos(selector.config, [(3, 20, [4]), (2, 7, [2])], 0)
    halves = [(tokens_NTD.half(), texts) for tokens_NTD, texts, _ in videos]
    floats = [(tokens_NTD.float(), texts) for tokens_NTD, texts in halves]
    logits_EN, _ = selector.forward_batch(pad_videos(halves))
    assert logits_EN.dtype == torch.float32
    assert torch.equal(logits_EN, selector.forward_batch(pad_videos(floats))[0])


def test_pad_texts():
    text_EWC, words_EW = pad_texts([torch.ones(2, 4), torch.ones(3, 4)])
    assert words_EW.tolist() == [[True, True, False], [True, True, True]]
    assert text_EWC.sum(dim=(1, 2)).tolist() == [8, 12]
