"""Recipe `paper`: the printed equations, computed here plainly, one number after the other."""

import math

import pytest
import torch
from torch import Tensor

from sola_model.recipes import PAPER, LossConfig, SelectorConfig
from sola_model.selector.losses import alignment_loss, total_loss
from sola_model.selector.network import TrackSelector

SMALL = {"token_dim": 8, "text_dim": 16, "heads": 4, "negative_anchors": 3}


def selector_of(**changes) -> TrackSelector:
    torch.manual_seed(0)
    config = SelectorConfig(
        **SMALL, **{"negatives_in_language": False, "aggregation": "paper"} | changes
    )
    return TrackSelector(config).eval()


def language_aligned(selector: TrackSelector, tokens_NTD: Tensor, text_WC: Tensor) -> Tensor:
    """O' of the paper: what the last alignment layer gives (N, T', C)."""
    seen = []
    hook = selector.object_lang_align_layers[-1].register_forward_hook(
        lambda _, inputs, output: seen.append(output[0])
    )
    selector(tokens_NTD, text_WC)
    hook.remove()
    return seen[0]


def test_aggregation_is_equations_4_and_5():
    selector, tokens_NTD, text_WC = selector_of(), torch.randn(3, 20, 8), torch.randn(5, 16)
    logits_N, objects_NC = selector(tokens_NTD, text_WC)
    aligned_NTC = language_aligned(selector, tokens_NTD, text_WC)
    for n, aligned_TC in enumerate(aligned_NTC):
        mean_T = [sum((o @ word).item() for word in text_WC) / len(text_WC) for o in aligned_TC]
        weights_T = [math.exp(m) / sum(math.exp(other) for other in mean_T) for m in mean_T]
        assert logits_N[n].item() == pytest.approx(sum(mean_T) / len(mean_T), abs=1e-5)
        object_C = sum(w * o for w, o in zip(weights_T, aligned_TC, strict=True)) / len(weights_T)
        torch.testing.assert_close(objects_NC[n], object_C, rtol=0, atol=1e-5)


def test_negative_anchors_are_no_words_of_the_paper_but_of_the_release():
    tokens_NTD, text_WC = torch.randn(3, 20, 8), torch.randn(5, 16)
    for selector, changes in (
        (selector_of(), False),
        (selector_of(negatives_in_language=True), True),
        (selector_of(aggregation="release"), False),
    ):
        before, _ = selector(tokens_NTD, text_WC)
        torch.nn.init.normal_(selector.negative_token.weight)
        assert torch.equal(before, selector(tokens_NTD, text_WC)[0]) != changes


def distance(a_C: Tensor, b_C: Tensor) -> float:
    return 1 - float(a_C @ b_C) / (float(a_C.norm()) * float(b_C.norm()))


def test_alignment_is_equations_7_and_8_minimised_so_that_positives_come_near():
    generator = torch.Generator().manual_seed(0)
    objects_NC, anchor_C, negatives_AC = (
        torch.randn(*shape, generator=generator) for shape in ((4, 6), (6,), (3, 6))
    )
    labels_N = torch.tensor([1.0, 0, 0, 1])
    total = 0.0
    for o, y in zip(objects_NC, labels_N, strict=True):
        d_p, d_n = distance(o, anchor_C), [distance(o, a) for a in negatives_AC]
        k = d_n.index(min(d_n))
        positive = d_p - sum(d_n)
        negative = d_n[k] - d_p - sum(d for j, d in enumerate(d_n) if j != k)
        total += float(y) * positive + (1 - float(y)) * negative
    every = torch.ones(4, dtype=torch.bool)
    loss = alignment_loss(objects_NC, anchor_C, negatives_AC, labels_N, every, PAPER.loss)
    assert float(loss) == pytest.approx(total / 4, abs=1e-5)

    objects_NC.requires_grad_()
    alignment_loss(objects_NC, anchor_C, negatives_AC, labels_N, every, PAPER.loss).backward()
    moved_NC = (objects_NC - 0.1 * objects_NC.grad).detach()
    for before, after, y in zip(objects_NC.detach(), moved_NC, labels_N, strict=True):
        nearer = distance(after, anchor_C) < distance(before, anchor_C)
        assert nearer == bool(y)


def test_total_is_equation_6_plus_0_3_alignment():
    logits_N, labels_N = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([1, 0, 0])
    objects_NC, anchor_C, negatives_AC = torch.randn(3, 6), torch.randn(6), torch.randn(3, 6)
    scores = [1 / (1 + math.exp(-x)) for x in logits_N.tolist()]
    bce = -(math.log(scores[0]) + math.log(1 - scores[1]) + math.log(1 - scores[2])) / 3
    losses = total_loss(logits_N, objects_NC, anchor_C, negatives_AC, labels_N, PAPER.loss)
    assert float(losses.bce) == pytest.approx(bce, abs=1e-6)
    assert float(losses.total) == pytest.approx(bce + 0.3 * float(losses.alignment), abs=1e-5)


def test_padded_tracks_have_no_part_in_the_cosine_loss():
    objects_ENC = torch.randn(2, 3, 6)
    objects_ENC[1, 2] = 0.0
    objects_ENC.requires_grad_()
    anchor_EC, negatives_AC = torch.randn(2, 6), torch.randn(3, 6)
    labels_EN = torch.tensor([[1, 0, 1], [0, 1, 0]])
    tracks_EN = torch.tensor([[True, True, True], [True, True, False]])
    config = LossConfig(alignment="paper")
    padded = total_loss(
        torch.zeros(2, 3), objects_ENC, anchor_EC, negatives_AC, labels_EN, config, tracks_EN
    )
    alone = [
        total_loss(torch.zeros(n), objects_ENC[e, :n], anchor_EC[e], negatives_AC,
                   labels_EN[e, :n], config).alignment
        for e, n in ((0, 3), (1, 2))
    ]  # fmt: skip
    torch.testing.assert_close(padded.alignment, torch.stack(alone).mean())
    padded.total.backward()
    assert objects_ENC.grad.isfinite().all() and not objects_ENC.grad[1, 2].any()
