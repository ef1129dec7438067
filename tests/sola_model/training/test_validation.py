"""tau and probabilities come from videos that were not trained on: the right tau, the right fit."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sola_model.recipes import LossConfig
from sola_model.selector.base import Selector
from sola_model.selector.batches import Batch
from sola_model.selector.calibration import fit_calibration
from sola_model.selector.selection import THRESHOLDS
from sola_model.training.data import TrainingVideo
from sola_model.training.validation import calibrate, choose_tau
from tests.sola_model.training.training_videos import TINY

RECIPE = replace(
    TINY,
    loss=LossConfig(alignment_weight=0.0),
    training=replace(TINY.training, videos_at_once=2),
)
# Every threshold selects another number of tracks.
BETWEEN = [tau + 0.025 for tau in THRESHOLDS]


class Told(Selector):
    """A track's logit is the first channel of its tokens, whatever the text."""

    config = TINY.selector
    object_dim = 1

    def _score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_EN = batch.tokens_VNTD[batch.video_E, :, 0, 0] * batch.tracks_EN
        return logits_EN, logits_EN[..., None]


def video(scores_N: Sequence[float], labels_N: Sequence[int] | None = None) -> TrainingVideo:
    """A video of one expression and one frame, whose tracks have these scores."""
    tokens_NTD = torch.zeros(len(scores_N), 1, 8)
    tokens_NTD[:, 0, 0] = torch.tensor(scores_N).logit()
    labels_1N = torch.tensor([labels_N or [0] * len(scores_N)], dtype=torch.bool)
    return TrainingVideo(
        video_id="v", tokens_NTD=tokens_NTD, texts=[torch.ones(2, 16)], labels_EN=labels_1N
    )


def chosen(*jf_VS: Sequence[float]) -> float:
    """The tau for videos whose J&F at each threshold is given."""

    def judge(v: int, expression: int, selected: tuple[int, ...]) -> float:
        assert expression == 0 and selected == tuple(range(len(BETWEEN)))[-len(selected) :]
        return jf_VS[v][len(BETWEEN) - len(selected)]

    return choose_tau(Told(), [video(BETWEEN) for _ in jf_VS], RECIPE, judge, "cpu")


def peak(at: int, height: float = 0.9, around: float = 0.5) -> list[float]:
    """J&F by threshold: `height` at one, `around` beside it, 0.1 elsewhere."""
    jf_S = [0.1] * len(THRESHOLDS)
    for step in (at - 1, at + 1):
        if 0 <= step < len(jf_S):
            jf_S[step] = around
    jf_S[at] = height
    return jf_S


@pytest.mark.parametrize("at", [0, 2, 7, 9, 16, 18])
def test_tau_is_the_threshold_of_the_highest_mean(at: int) -> None:
    assert chosen(peak(at)) == THRESHOLDS[at]
    assert chosen(*[peak(at)] * 20, *[peak(3, height=0.4, around=0.2)] * 2) == THRESHOLDS[at]


def test_of_thresholds_that_differ_by_chance_it_is_the_one_nearest_to_a_half() -> None:
    flat = [0.8] * len(THRESHOLDS)
    lucky, unlucky = flat.copy(), flat.copy()
    lucky[1], unlucky[1] = 1.0, 0.7  # by a low threshold one expression gains more than one loses
    assert chosen(lucky, unlucky, *[flat] * 38) == 0.5
    low = [0.9] * 4 + [0.5] * (len(THRESHOLDS) - 4)  # all of them do
    assert chosen(*[low] * 40) == THRESHOLDS[3]


def test_padding_is_never_selected() -> None:
    asked = []

    def judge(v: int, expression: int, selected: tuple[int, ...]) -> float:
        asked.append((v, selected))
        return 0.5

    choose_tau(Told(), [video([0.5]), video([0.5] * 4)], RECIPE, judge, "cpu")
    assert {selected for v, selected in asked if v == 0} == {(), (0,)}
    assert {selected for v, selected in asked if v == 1} == {(), (0, 1, 2, 3)}


def test_nothing_to_choose_on_gives_a_half() -> None:
    def judge(*_: object) -> float:
        raise AssertionError("there is nothing to judge")

    assert choose_tau(Told(), [], RECIPE, judge, "cpu") == 0.5
    assert choose_tau(Told(), [video([])], RECIPE, judge, "cpu") == 0.5


def test_probabilities_are_fitted_on_the_tracks_of_the_given_videos_alone() -> None:
    random = np.random.default_rng(0)
    videos = [
        video(scores, (random.random(len(scores)) < np.square(scores)).astype(int).tolist())
        for scores in (random.uniform(0.02, 0.98, count).tolist() for count in (40, 7, 25))
    ]
    found = calibrate(Told(), [*videos, video([])], RECIPE, "cpu")
    expected = fit_calibration(
        torch.cat([v.tokens_NTD[:, 0, 0] for v in videos]).numpy(),
        torch.cat([v.labels_EN[0] for v in videos]).numpy(),
    )
    assert found is not None and found == pytest.approx(expected)
    assert calibrate(Told(), [], RECIPE, "cpu") is None
