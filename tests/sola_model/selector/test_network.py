"""The track selector against the released module's outputs, and its own promises."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sola_model.recipes import RELEASE, SelectorConfig
from sola_model.selector.batches import pad_texts
from sola_model.selector.checkpoints import load_selector, save_selector
from sola_model.selector.network import TrackSelector

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [c for c in json.loads((GOLDEN / "index.json").read_text()) if c["kind"] == "selector"]
TINY = SelectorConfig(token_dim=8, text_dim=16, layers=2, heads=4, negative_anchors=3)


def tiny_selector() -> TrackSelector:
    torch.manual_seed(0)
    return TrackSelector(TINY).eval()


def tiny_inputs() -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    tokens_NTD = torch.randn(5, 11, 8, generator=generator)
    return tokens_NTD, [torch.randn(words, 16, generator=generator) for words in (4, 1, 7)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_released_checkpoint_gives_released_outputs(case):
    config = SelectorConfig(token_dim=case["D"], text_dim=case["C"], layers=case["layers"])
    selector = TrackSelector(config).eval()
    selector.load_state_dict(torch.load(GOLDEN / f"{case['file']}.pth"), strict=True)
    golden = np.load(GOLDEN / f"{case['file']}.npz")
    with torch.no_grad():
        logits_N, objects_NC = selector(
            torch.from_numpy(golden["tokens_NTD"]), torch.from_numpy(golden["text_WC"])
        )
    np.testing.assert_allclose(logits_N, golden["logits_N"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(objects_NC, golden["object_NC"], rtol=0, atol=1e-5)


def test_release_has_the_papers_number_of_parameters():
    with torch.device("meta"):
        selector = TrackSelector(RELEASE.selector)
    assert sum(p.numel() for p in selector.parameters() if p.requires_grad) == 32_980_480


def test_batched_expressions_equal_single_ones():
    selector, (tokens_NTD, texts) = tiny_selector(), tiny_inputs()
    text_EWC, mask_EW = pad_texts(texts)
    text_EWC = text_EWC.masked_fill(~mask_EW[..., None], 9.0)  # padding must not matter

    singles = [selector(tokens_NTD, text) for text in texts]
    torch.stack([logits for logits, _ in singles]).square().sum().backward()
    single_gradients = [p.grad.clone() for p in selector.parameters()]
    selector.zero_grad()
    logits_EN, objects_ENC = selector(tokens_NTD, text_EWC, mask_EW)
    logits_EN.square().sum().backward()

    for e, (logits_N, objects_NC) in enumerate(singles):
        torch.testing.assert_close(logits_EN[e], logits_N, rtol=0, atol=1e-5)
        torch.testing.assert_close(objects_ENC[e], objects_NC, rtol=0, atol=1e-5)
    for (name, parameter), single in zip(
        selector.named_parameters(), single_gradients, strict=True
    ):
        scale = max(1.0, single.abs().max().item())
        difference = (parameter.grad - single).abs().max().item()
        assert difference < 1e-5 * scale, name


def test_order_of_tracks_does_not_matter_but_their_set_does():
    selector, (tokens_NTD, texts) = tiny_selector(), tiny_inputs()
    logits_N, _ = selector(tokens_NTD, texts[0])
    torch.testing.assert_close(selector(tokens_NTD.flip(0), texts[0])[0].flip(0), logits_N)
    fewer, _ = selector(tokens_NTD[:4], texts[0])
    assert not torch.allclose(fewer, logits_N[:4], atol=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9])
def test_any_number_of_frames(frames):
    logits_N, _ = tiny_selector()(torch.randn(2, frames, 8), torch.randn(3, 16))
    assert logits_N.shape == (2,) and logits_N.isfinite().all()


def test_float16_tokens_are_accepted():
    selector, (tokens_NTD, texts) = tiny_selector(), tiny_inputs()
    stored = tokens_NTD.half()
    assert torch.equal(selector(stored, texts[0])[0], selector(stored.float(), texts[0])[0])


def test_no_tracks_give_empty_results():
    selector = tiny_selector()
    logits_N, objects_NC = selector(torch.zeros(0, 4, 8), torch.randn(3, 16))
    assert logits_N.shape == (0,) and objects_NC.shape == (0, 16)
    logits_EN, objects_ENC = selector(torch.zeros(0, 4, 8), torch.randn(2, 3, 16))
    assert logits_EN.shape == (2, 0) and objects_ENC.shape == (2, 0, 16)


@pytest.mark.parametrize(
    ("tokens", "text", "message"),
    [
        (torch.zeros(2, 4, 9), torch.zeros(3, 16), r"\(2, 4, 9\).*SAM2 model it was trained on"),
        (torch.zeros(2, 0, 8), torch.zeros(3, 16), "frames >= 1"),
        (torch.zeros(2, 4, 8), torch.zeros(3, 17), r"3, 17\).*text encoder it was trained"),
        (torch.full((2, 4, 8), torch.nan), torch.zeros(3, 16), "Object tokens contain NaN"),
        (torch.zeros(2, 4, 8), torch.full((3, 16), torch.inf), "Text features contain NaN"),
    ],
)
def test_wrong_inputs_are_named(tokens, text, message):
    with pytest.raises(ValueError, match=message):
        tiny_selector()(tokens, text)


def test_whitened_tokens_are_decorrelated_and_saved_with_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = SelectorConfig(token_dim=8, text_dim=16, layers=1, whitening=1e-6)
    selector = TrackSelector(config).eval()
    mixing_DD = torch.randn(8, 8) * torch.logspace(-2, 1, 8)
    tokens_KD = torch.randn(4000, 8) @ mixing_DD + 3
    selector.fit_inputs(tokens_KD)
    whitened_KD = (tokens_KD - selector.token_mean) @ selector.token_whitening
    assert (torch.cov(whitened_KD.T) - torch.eye(8)).abs().max() < 0.02
    for bad in (tokens_KD[:1], tokens_KD.clone().fill_(torch.nan)):
        with pytest.raises(ValueError, match="at least two finite object tokens"):
            selector.fit_inputs(bad)
    tokens_NTD, text_WC = tokens_KD[:60].view(3, 20, 8), torch.randn(5, 16)
    save_selector(selector, tmp_path)
    again, _ = load_selector(tmp_path)(tokens_NTD, text_WC)
    assert torch.equal(selector(tokens_NTD, text_WC)[0], again)
