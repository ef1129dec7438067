"""Training: it learns, it follows the recorded loss curve, it refuses what cannot work."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sola_model.recipes import TrainingConfig
from sola_model.selector.batches import pad_videos
from sola_model.training.loop import train_selector
from sola_model.training.schedule import epoch_order, steps_per_epoch
from tests.sola_model.training.training_videos import (
    TINY,
    TINY_TWO_TOWER,
    make_videos,
    with_geometry_and_words,
    with_training,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "loss_curve.json"


def loss_curve(checkpoint: Path) -> list[float]:
    """The losses of 20 steps of seed 0, one video of 3 expressions each: the recorded curve.

    After a deliberate change of the training, `GOLDEN.write_text(json.dumps(...))` of this
    function's result, rounded to 6 digits, records it anew.
    """
    seen = []
    recipe = with_training(epochs=1, learning_rate=2e-4, expressions_per_step=3)
    train_selector(make_videos(20, 0), [], recipe, checkpoint, on_progress=seen.append)
    steps = seen[:-1]  # the last report is the epoch's
    sums = [0.0, *(progress.loss * progress.expressions for progress in steps)]
    return (np.diff(sums) / 3).tolist()


def test_loss_curve_is_the_recorded_one(tmp_path):
    golden = json.loads(GOLDEN.read_text())
    assert len(golden) == 20
    # Other versions of torch and other processors round differently; an error in a loss, a
    # gradient or a step shows in the first or second digit.
    assert loss_curve(tmp_path / "c.pt") == pytest.approx(golden, abs=1e-3)


def test_selector_learns_a_toy_task(tmp_path):
    recipe = with_training(epochs=15, learning_rate=1e-2, expressions_per_step=8, schedule="cosine")
    no_dropout = replace(TINY.selector, attention_dropout=0.0, convolution_dropout=0.0)
    trained = train_selector(
        make_videos(10, 0, expressions=8),
        make_videos(5, 1, expressions=8),
        replace(recipe, selector=no_dropout),
        tmp_path / "c.pt",
    )
    assert trained.metrics[0].validation_f1 < 0.5  # selecting every track would give 0.4
    assert trained.metrics[-1].validation_f1 > 0.9
    assert not trained.last.training and not trained.best.training


def test_a_step_of_several_videos_is_the_same_computed_at_once_or_in_parts(tmp_path):
    videos = make_videos(4, 0) + make_videos(3, 5, tracks=2, expressions=2)
    no_dropout = replace(TINY.selector, attention_dropout=0.0, convolution_dropout=0.0)
    losses = []
    for at_once in (4, 1, 3):
        recipe = with_training(epochs=2, videos_per_step=4, videos_at_once=at_once)
        recipe = replace(recipe, selector=no_dropout)
        metrics = train_selector(videos, videos, recipe, tmp_path / f"{at_once}.pt").metrics
        losses.append([(m.train_loss, m.validation_loss) for m in metrics])
    # Weights differ more: AdamW gives a gradient that is 0 but for rounding a full step.
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, atol=1e-5)


def test_contrast_tells_tracks_apart_that_never_meet_in_a_video(tmp_path):
    """Videos of one track each, of which their expression is true: labels alone say nothing."""
    alone = [v for v in make_videos(120, 0, tracks=1, expressions=1) if v.labels_EN.all()]
    videos = with_geometry_and_words(alone)
    training = replace(TINY.training, epochs=15, videos_per_step=8, videos_at_once=8)
    right = {}
    for weight in (0.0, 1.0):
        loss = replace(TINY_TWO_TOWER.loss, contrast_weight=weight)
        recipe = replace(TINY_TWO_TOWER, loss=loss, training=training)
        selector = train_selector(videos, [], recipe, tmp_path / f"{weight}.pt").last
        batch = pad_videos([(v.tokens_NTD, v.texts) for v in videos])
        with torch.no_grad():
            logits_EV = selector.forward_everywhere(batch)[..., 0]
        kinds_VD = torch.stack([v.tokens_NTD[0, :, :8].mean(dim=0) for v in videos])
        same_EV = torch.cdist(kinds_VD, kinds_VD) < 1.5
        comes_first_EV = logits_EV.diagonal()[:, None] > logits_EV
        right[weight] = comes_first_EV[~same_EV].float().mean()
    assert right[0.0] < 0.7 < 0.95 < right[1.0]


def test_best_weights_are_those_of_the_highest_validation_jf(tmp_path):
    judged = []

    def judge(video, expression, selected):
        judged.append((video, expression, selected))
        return [0.2, 0.9, 0.4][len(judged) - 1]

    recipe = with_training(epochs=3, validation_expressions=1)
    seen = {}
    trained = train_selector(
        make_videos(3, 0),
        make_videos(1, 1),
        recipe,
        tmp_path / "c.pt",
        judge=judge,
        on_progress=lambda p: p.metrics and seen.update({p.epoch: p.metrics.validation_jf}),
    )
    assert seen == {1: 0.2, 2: 0.9, 3: 0.4} and trained.best_epoch == 2
    two = train_selector(make_videos(3, 0), [], with_training(epochs=2), tmp_path / "two.pt")
    for ours, theirs in zip(trained.best.parameters(), two.last.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(trained.last.negative_token.weight, two.last.negative_token.weight)


def test_without_a_judge_the_lowest_validation_loss_is_best_and_without_any_the_last(tmp_path):
    recipe = with_training(epochs=3)
    trained = train_selector(make_videos(3, 0), make_videos(1, 1), recipe, tmp_path / "a.pt")
    losses = [m.validation_loss for m in trained.metrics]
    assert trained.best_epoch == 1 + int(np.argmin(losses))
    assert train_selector(make_videos(3, 0), [], recipe, tmp_path / "b.pt").best_epoch == 3


def test_training_goes_on_from_given_weights(tmp_path):
    videos = make_videos(4, 0)
    start = train_selector(videos, [], with_training(epochs=3), tmp_path / "a.pt").last
    first_loss = {}
    for name, weights in (("fresh", None), ("warm", start)):
        trained = train_selector(
            videos, [], with_training(epochs=1), tmp_path / name, start=weights
        )
        first_loss[name] = trained.metrics[0].train_loss
    assert first_loss["warm"] < first_loss["fresh"] - 0.05
    dropped = replace(TINY, selector=replace(TINY.selector, attention_dropout=0.5))
    train_selector(videos, [], dropped, tmp_path / "dropped.pt", start=start)
    other = replace(TINY, selector=replace(TINY.selector, layers=2))
    with pytest.raises(ValueError, match="one configuration"):
        train_selector(videos, [], other, tmp_path / "c.pt", start=start)


def test_random_state_of_the_caller_is_kept(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_selector(make_videos(1, 0), [], with_training(epochs=1), tmp_path / "c.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_schedules(tmp_path):
    videos = make_videos(5, 0)  # 10 steps an epoch
    cosine = with_training(epochs=4, schedule="cosine")
    metrics = train_selector(videos, [], cosine, tmp_path / "cosine.pt").metrics
    rates = [m.learning_rate for m in metrics]
    assert rates == sorted(rates, reverse=True) and 0 < rates[-1] < 1e-5 and rates[0] > 8e-4
    assert metrics[0].validation_loss is None
    linear = with_training(epochs=2, schedule="linear")  # 20 steps; the 10th and the 20th
    metrics = train_selector(videos, [], linear, tmp_path / "linear.pt").metrics
    assert [m.learning_rate for m in metrics] == pytest.approx([1e-3 * 11 / 20, 1e-3 / 20])
    frozen = with_training(epochs=9, learning_rate=1e-7)  # the loss never falls by much
    metrics = train_selector(videos, make_videos(1, 1), frozen, tmp_path / "plateau.pt").metrics
    assert [m.learning_rate for m in metrics] == [1e-7] * 7 + [5e-8] * 2


def test_seeds_differ_and_repeat(tmp_path):
    losses = [
        train_selector(
            make_videos(3, 0), [], with_training(epochs=1, seed=seed), tmp_path / f"{i}.pt"
        )
        .metrics[0]
        .train_loss
        for i, seed in enumerate((0, 1, 1))
    ]
    assert losses[1] == losses[2] != losses[0]


def test_videos_without_tracks_or_expressions_are_skipped(tmp_path):
    videos = make_videos(2, 0)
    empty = [*make_videos(1, 2, tracks=0), *make_videos(1, 3, expressions=0)]
    recipe = with_training(epochs=1)
    plain = train_selector(videos, [], recipe, tmp_path / "plain.pt")
    mixed = train_selector(videos + empty, empty, recipe, tmp_path / "mixed.pt")
    assert plain.metrics == mixed.metrics


def test_no_positive_label_is_refused(tmp_path):
    videos = [replace(v, labels_EN=torch.zeros(3, 4)) for v in make_videos(2, 0)]
    with pytest.raises(
        ValueError, match=r"2 videos.*24 pairs.*0 of them positive.*threshold \(0.7"
    ):
        train_selector(videos, [], TINY, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="Nothing to learn from: 0 videos"):
        train_selector([], [], TINY, tmp_path / "c.pt")


def test_checkpoint_of_another_run_is_refused(tmp_path):
    videos, recipe = make_videos(2, 0), with_training(epochs=1)
    train_selector(videos, [], recipe, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="another recipe"):
        train_selector(videos, [], with_training(epochs=2), tmp_path / "c.pt")
    with pytest.raises(ValueError, match="another training data"):
        train_selector(videos[:1], [], recipe, tmp_path / "c.pt")


@pytest.mark.parametrize(
    "changes",
    [{"schedule": "stairs"}, {"epochs": 0}, {"expressions_per_step": 0}, {"videos_at_once": 0}],
)
def test_settings_without_meaning_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        with_training(**changes)


def test_wrong_labels_are_refused():
    video = make_videos(1, 0)[0]
    with pytest.raises(ValueError, match=r"video0: labels have shape \(2, 4\).*\(3, 4\)"):
        replace(video, labels_EN=video.labels_EN[:2])
    with pytest.raises(ValueError, match="must be 0 or 1"):
        replace(video, labels_EN=torch.full((3, 4), 0.7))


@pytest.mark.parametrize("name", ["tokens_NTD", "texts"])
def test_nan_is_refused(tmp_path, name):
    videos = make_videos(2, 0)
    spoilt = torch.full((4, 9, 8), torch.nan) if name == "tokens_NTD" else [torch.nan] * 3
    if name == "texts":
        spoilt = [text * torch.nan for text in videos[1].texts]
    videos[1] = replace(videos[1], **{name: spoilt})
    with pytest.raises(ValueError, match="contain NaN"):
        train_selector(videos, [], TINY, tmp_path / "c.pt")


def test_tokens_of_another_width_are_refused(tmp_path):
    videos = [replace(v, tokens_NTD=v.tokens_NTD[..., :4]) for v in make_videos(2, 0)]
    with pytest.raises(ValueError, match=r"tokens have shape .*4\); this selector takes .*8\)"):
        train_selector(videos, [], TINY, tmp_path / "c.pt")


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "c.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"c\.pt is damaged.*Delete it"):
        train_selector(make_videos(1, 0), [], TINY, tmp_path / "c.pt")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5), st.integers(1, 4))
def test_epoch_order_holds_every_expression_once(expressions, per_video, videos):
    config = TrainingConfig(expressions_per_step=per_video, videos_per_step=videos, seed=3)
    steps = epoch_order(expressions, config, epoch=1)
    assert len(steps) == steps_per_epoch(expressions, config)
    assert sorted((v, e) for step in steps for v, chunk in step for e in chunk) == [
        (v, e) for v, count in enumerate(expressions) for e in range(count)
    ]
    assert all(len(step) <= videos for step in steps)
    assert all(len(chunk) <= per_video for step in steps for _, chunk in step)
    assert steps == epoch_order(expressions, config, epoch=1)


def test_epoch_order_changes_with_epoch_and_seed():
    config = TrainingConfig(seed=3)
    orders = [epoch_order([9, 9], config, 1), epoch_order([9, 9], config, 2)]
    orders.append(epoch_order([9, 9], replace(config, seed=4), 1))
    assert orders[0] != orders[1] != orders[2] != orders[0]
