"""The training loss against the released one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sola_model.recipes import RELEASE, LossConfig
from sola_model.selector.batches import Batch, pad_videos
from sola_model.selector.losses import contrast_loss, total_loss

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [c for c in json.loads((GOLDEN / "index.json").read_text()) if c["kind"] == "selector"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_released_losses(case):
    with np.load(GOLDEN / f"{case['file']}.npz") as arrays:
        golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    negatives_AC = torch.load(GOLDEN / f"{case['file']}.pth")["negative_token.weight"]
    losses = total_loss(
        golden["logits_N"],
        golden["object_NC"],
        golden["text_WC"].mean(dim=0),
        negatives_AC,
        golden["labels_N"],
        RELEASE.loss,
    )
    for name in ("bce", "alignment", "total"):
        torch.testing.assert_close(getattr(losses, name), golden[name], rtol=0, atol=1e-5)


def test_several_expressions_give_the_mean_of_their_losses():
    generator = torch.Generator().manual_seed(0)
    logits_EN = torch.randn(3, 4, generator=generator)
    objects_ENC = torch.randn(3, 4, 8, generator=generator)
    anchor_EC = torch.randn(3, 8, generator=generator)
    negatives_AC = torch.randn(5, 8, generator=generator)
    labels_EN = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1]])
    config = LossConfig()
    together = total_loss(logits_EN, objects_ENC, anchor_EC, negatives_AC, labels_EN, config)
    single = [
        total_loss(logits_EN[e], objects_ENC[e], anchor_EC[e], negatives_AC, labels_EN[e], config)
        for e in range(3)
    ]
    for name in ("bce", "alignment", "total"):
        mean = torch.stack([getattr(losses, name) for losses in single]).mean()
        torch.testing.assert_close(getattr(together, name), mean)


def test_loss_falls_as_objects_reach_their_anchors():
    anchor_C, negatives_AC = torch.tensor([1.0, 0, 0]), torch.eye(3)[1:]
    labels_N = torch.tensor([True, False])
    right, wrong = torch.tensor([[4.0, -4, -4], [-4, 4, -4]]), torch.tensor([[-4.0, 4, -4]] * 2)
    losses = [
        total_loss(torch.zeros(2), objects_NC, anchor_C, negatives_AC, labels_N, LossConfig())
        for objects_NC in (right, wrong)
    ]
    assert losses[0].alignment < 0.1 < 1 < losses[1].alignment


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(1, 2)])
def test_labels_must_match_the_scores(labels):
    with pytest.raises(ValueError, match="one label per score"):
        total_loss(
            torch.zeros(2),
            torch.zeros(2, 4),
            torch.zeros(4),
            torch.zeros(3, 4),
            labels,
            LossConfig(),
        )


def test_no_tracks_no_loss():
    with pytest.raises(ValueError, match="at least one"):
        total_loss(
            torch.zeros(0),
            torch.zeros(0, 4),
            torch.zeros(4),
            torch.zeros(3, 4),
            torch.zeros(0),
            LossConfig(),
        )


def videos_and_logits() -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """Three videos of 2, 3 and 1 tracks with 2, 1 and 1 expressions; the last has no positive."""
    sizes = ((2, 2), (3, 1), (1, 1))
    batch = pad_videos([(torch.zeros(n, 4, 1), [torch.zeros(1, 1)] * e) for n, e in sizes])
    logits_EVN = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))
    labels_EN = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    return batch, logits_EVN, labels_EN


def test_contrast_is_the_cross_entropy_among_the_tracks_of_other_videos():
    batch, logits_EVN, labels_EN = videos_and_logits()
    tracks_V = (2, 3, 1)
    losses = []
    for e, own in enumerate((0, 0, 1, 2)):
        others = torch.cat([logits_EVN[e, v, :n] for v, n in enumerate(tracks_V) if v != own])
        positive = [
            torch.nn.functional.cross_entropy(
                torch.cat([logits_EVN[e, own, n : n + 1], others]), torch.tensor(0)
            )
            for n in labels_EN[e].nonzero()[:, 0]
        ]
        losses.append(torch.stack(positive).mean() if positive else torch.tensor(0.0))
    found = contrast_loss(logits_EVN, labels_EN, batch)
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_contrast_asks_for_an_order_alone_and_nothing_of_padding():
    batch, logits_EVN, labels_EN = videos_and_logits()
    before = contrast_loss(logits_EVN, labels_EN, batch)
    moved_EVN = logits_EVN + torch.tensor([1.0, -2.0, 3.0, 0.5])[:, None, None]
    moved_EVN[:, ~batch.tracks_VN] = 99.0
    torch.testing.assert_close(contrast_loss(moved_EVN, labels_EN, batch), before)
    logits_EVN.requires_grad_()
    contrast_loss(logits_EVN, labels_EN, batch).backward()
    assert logits_EVN.grad.isfinite().all() and not logits_EVN.grad[:, ~batch.tracks_VN].any()
    assert not logits_EVN.grad[3].any() and logits_EVN.grad[:3].abs().sum() > 0.1


def test_one_video_has_nothing_to_contrast_with():
    batch = pad_videos([(torch.zeros(2, 4, 1), [torch.zeros(1, 1)])])
    assert contrast_loss(torch.randn(1, 1, 2), torch.tensor([[1, 0]]), batch) == 0
