"""Training: it learns, it resumes exactly, it refuses what cannot work."""

from dataclasses import replace

import pytest
import torch

from sola_model.recipes import LossConfig, Recipe, SelectorConfig, TrainingConfig
from sola_model.training import TrainingVideo, epoch_order, train_selector

TINY = Recipe(
    name="tiny",
    selector=SelectorConfig(token_dim=8, text_dim=16, layers=1, heads=2, negative_anchors=4),
    loss=LossConfig(),
    training=TrainingConfig(epochs=4, learning_rate=1e-3, expressions_per_step=2),
)
GOLDEN_TRAIN = [1.901177, 2.136386, 1.712652]  # 30 steps, torch 2.15.0
GOLDEN_VALIDATION = [1.607771, 1.559199, 1.510751]


def with_training(**changes) -> Recipe:
    return replace(TINY, training=replace(TINY.training, **changes))


def make_videos(count: int, seed: int, tracks: int = 4, expressions: int = 3):
    """Each expression names one of four directions; tracks moving its way are positive."""
    fixed = torch.Generator().manual_seed(99)
    words_KC = torch.randn(4, 16, generator=fixed)
    kinds_KD = torch.randn(4, 8, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    videos = []
    for v in range(count):
        track_N = torch.randint(4, (tracks,), generator=generator)
        said_E = torch.randint(4, (expressions,), generator=generator)
        noise_NTD = 0.3 * torch.randn(tracks, 9, 8, generator=generator)
        filler = [torch.randn(1 + e % 3, 16, generator=generator) for e in range(expressions)]
        videos.append(
            TrainingVideo(
                video_id=f"video{v}",
                tokens_NTD=kinds_KD[track_N][:, None] + noise_NTD,
                texts=[
                    torch.cat([0.1 * words_WC, words_KC[said][None]])
                    for words_WC, said in zip(filler, said_E, strict=True)
                ],
                labels_EN=said_E[:, None] == track_N,
            )
        )
    return videos


def test_loss_curve_is_the_recorded_one(tmp_path):
    recipe = with_training(epochs=3, learning_rate=2e-4)
    _, metrics = train_selector(make_videos(5, 0), make_videos(2, 1), recipe, tmp_path / "c.pt")
    train = [m.train_loss for m in metrics]
    validation = [m.validation_loss for m in metrics]
    assert train == pytest.approx(GOLDEN_TRAIN, abs=1e-4)
    assert validation == pytest.approx(GOLDEN_VALIDATION, abs=1e-4)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_resumed_training_equals_uninterrupted_training(tmp_path, schedule):
    videos, validation = make_videos(3, 0), make_videos(1, 1)
    recipe = with_training(schedule=schedule)
    selector, metrics = train_selector(videos, validation, recipe, tmp_path / "whole.pt")

    def stop_after_two(epoch_metrics):
        torch.rand(3)  # a caller's random numbers change nothing
        if epoch_metrics.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_selector(videos, validation, recipe, tmp_path / "cut.pt", stop_after_two)
    seen = []
    resumed, resumed_metrics = train_selector(
        videos, validation, recipe, tmp_path / "cut.pt", seen.append
    )
    assert [m.epoch for m in seen] == [3, 4]
    assert resumed_metrics == metrics
    for name, value in selector.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    again, _ = train_selector(videos, validation, recipe, tmp_path / "cut.pt", seen.append)
    assert len(seen) == 2 and torch.equal(
        again.negative_token.weight, selector.negative_token.weight
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pt", "whole.pt"]


def test_selector_learns_a_toy_task(tmp_path):
    recipe = with_training(epochs=15, learning_rate=1e-2, expressions_per_step=8, schedule="cosine")
    no_dropout = replace(TINY.selector, attention_dropout=0.0, convolution_dropout=0.0)
    selector, metrics = train_selector(
        make_videos(10, 0, expressions=8),
        make_videos(5, 1, expressions=8),
        replace(recipe, selector=no_dropout),
        tmp_path / "c.pt",
    )
    assert metrics[0].validation_f1 < 0.5  # selecting every track would give 0.4
    assert metrics[-1].validation_f1 > 0.9
    assert not selector.training


def test_random_state_of_the_caller_is_kept(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_selector(make_videos(1, 0), [], with_training(epochs=1), tmp_path / "c.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_schedules(tmp_path):
    videos = make_videos(5, 0)  # 10 steps an epoch
    cosine = with_training(epochs=4, schedule="cosine")
    _, metrics = train_selector(videos, [], cosine, tmp_path / "cosine.pt")
    rates = [m.learning_rate for m in metrics]
    assert rates == sorted(rates, reverse=True) and 0 < rates[-1] < 1e-5 and rates[0] > 8e-4
    assert metrics[0].validation_loss is None
    frozen = with_training(epochs=9, learning_rate=1e-7)  # the loss never falls by much
    _, metrics = train_selector(videos, make_videos(1, 1), frozen, tmp_path / "plateau.pt")
    assert [m.learning_rate for m in metrics] == [1e-7] * 7 + [5e-8] * 2


def test_videos_without_tracks_or_expressions_are_skipped(tmp_path):
    videos = make_videos(2, 0)
    empty = [*make_videos(1, 2, tracks=0), *make_videos(1, 3, expressions=0)]
    recipe = with_training(epochs=1)
    _, plain = train_selector(videos, [], recipe, tmp_path / "plain.pt")
    _, mixed = train_selector(videos + empty, empty, recipe, tmp_path / "mixed.pt")
    assert plain == mixed


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
    "changes", [{"schedule": "linear"}, {"epochs": 0}, {"expressions_per_step": 0}]
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


def test_epoch_order_holds_every_expression_once_and_depends_on_the_seed_only():
    steps = epoch_order([5, 2], 2, seed=3)
    assert sorted((v, e) for v, chunk in steps for e in chunk) == sorted(
        [(0, e) for e in range(5)] + [(1, 0), (1, 1)]
    )
    assert sorted(len(chunk) for _, chunk in steps) == [1, 2, 2, 2]
    assert steps == epoch_order([5, 2], 2, seed=3)
    assert steps != epoch_order([5, 2], 2, seed=4)
