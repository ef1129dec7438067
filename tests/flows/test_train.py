"""What the training flow adds to training: splits, progress and event files."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from flows.progress import training_progress
from flows.tensorboard import event_files
from flows.train import splits_of
from sola_model.recipes import recipe_by_name
from sola_model.training.loop import EpochMetrics, Progress

AFTER_EPOCH = Progress(
    epoch=2,
    expressions=20,
    total=20,
    loss=0.5,
    metrics=EpochMetrics(
        epoch=2,
        learning_rate=1e-4,
        train_loss=0.5,
        train_bce=0.4,
        train_alignment=0.3,
        validation_loss=0.75,
        validation_jf=0.625,
    ),
)


def test_splits_are_one_for_all_data_sets_or_one_for_each():
    assert splits_of(["a"], "train") == [("a", "train")]
    assert splits_of(["a", "b"], ["train"]) == [("a", "train"), ("b", "train")]
    assert splits_of(["a", "b"], ["train", "all"]) == [("a", "train"), ("b", "all")]
    with pytest.raises(ValueError, match=r"3 data sets \(a, b, c\) and 2 splits \(x, y\)"):
        splits_of(["a", "b", "c"], ["x", "y"])


def test_progress_says_loss_jf_and_speed(capsys):
    with training_progress(2) as show:
        for expressions in (4, 8, 20):
            show(Progress(epoch=2, expressions=expressions, total=20, loss=0.5))
        show(AFTER_EPOCH)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "train: 20/20 expressions, epoch 2/2, loss 0.500, validation 0.750, J&F 62.5, "
    )
    assert line.endswith("expressions/s")  # and at the end no time left


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_event_files_are_written(tmp_path: Path):
    with event_files(tmp_path / "events") as write:
        write(AFTER_EPOCH)
    assert list((tmp_path / "events").glob("events.*"))


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_event_files_without_tensorboard_say_what_to_install(tmp_path: Path):
    with pytest.raises(ValueError, match="pip install tensorboard"), event_files(tmp_path):
        pass
    with event_files(None) as write:
        write(AFTER_EPOCH)


def test_the_demos_share_tracks_and_labels():
    small, large = recipe_by_name("demo"), recipe_by_name("demo-large")
    for name in ("sam2", "extraction", "label_threshold", "empty_frames"):
        assert getattr(small, name) == getattr(large, name)
