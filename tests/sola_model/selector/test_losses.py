"""The training loss against the released one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sola_model.recipes import RELEASE, LossConfig
from sola_model.selector.losses import total_loss

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
