"""A run that was stopped, at any moment, goes on as if it never had been."""

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sola_model.training.loop import Progress, train_selector
from tests.sola_model.training.training_videos import (
    TINY_TWO_TOWER,
    make_videos,
    with_geometry_and_words,
    with_training,
)

ROOT = Path(__file__).parents[3]
VIDEOS, VALIDATION = make_videos(3, 0), make_videos(1, 1)


def assert_same(ours, theirs):
    assert ours.metrics == theirs.metrics and ours.best_epoch == theirs.best_epoch
    for name in ("last", "best"):
        states = [getattr(trained, name).state_dict() for trained in (ours, theirs)]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("schedule", ["plateau", "linear", "cosine"])
@pytest.mark.parametrize("step", [1, 4, 6, 7, 13])  # 6 steps and a report of each epoch
def test_stopped_between_steps(tmp_path, schedule, step):
    recipe = with_training(schedule=schedule, epochs=3)
    whole = train_selector(VIDEOS, VALIDATION, recipe, tmp_path / "whole.pt")
    seen = []

    def stop(progress):
        torch.rand(3)  # a caller's random numbers change nothing
        seen.append(progress)
        if len(seen) == step:
            raise KeyboardInterrupt

    cut = tmp_path / "cut.pt"
    with pytest.raises(KeyboardInterrupt):
        train_selector(VIDEOS, VALIDATION, recipe, cut, on_progress=stop, checkpoint_seconds=0)
    resumed = train_selector(VIDEOS, VALIDATION, recipe, cut, on_progress=seen.append)
    assert_same(resumed, whole)
    positions = [(p.epoch, p.expressions, p.metrics is None) for p in seen]
    assert len(positions) == len(set(positions)) == 3 * 7  # nothing was done twice
    assert_same(train_selector(VIDEOS, VALIDATION, recipe, cut), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pt", "whole.pt"]


def test_the_two_tower_selector_stopped_between_steps(tmp_path):
    together = {"epochs": 4, "videos_per_step": 2, "videos_at_once": 2}
    recipe = replace(TINY_TWO_TOWER, training=replace(TINY_TWO_TOWER.training, **together))
    videos, validation = with_geometry_and_words(VIDEOS), with_geometry_and_words(VALIDATION)
    whole = train_selector(videos, validation, recipe, tmp_path / "whole.pt")
    assert whole.metrics[-1].train_loss < whole.metrics[0].train_loss
    for step in (2, 9, 14):
        seen, cut = [], tmp_path / f"{step}.pt"

        def stop(progress, seen=seen, step=step):
            seen.append(progress)
            if len(seen) == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_selector(videos, validation, recipe, cut, on_progress=stop, checkpoint_seconds=0)
        assert_same(train_selector(videos, validation, recipe, cut), whole)


def test_stopped_before_the_first_checkpoint_of_an_epoch(tmp_path):
    recipe = with_training(epochs=3)
    whole = train_selector(VIDEOS, VALIDATION, recipe, tmp_path / "whole.pt")
    seen = []

    def stop(progress):
        seen.append(progress)
        if len(seen) == 10:  # in the second epoch; the checkpoint is of the end of the first
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_selector(VIDEOS, VALIDATION, recipe, tmp_path / "cut.pt", on_progress=stop)
    assert_same(train_selector(VIDEOS, VALIDATION, recipe, tmp_path / "cut.pt"), whole)


def test_killed_at_random(tmp_path):
    recipe, cut = with_training(epochs=12), tmp_path / "cut.pt"
    whole = train_selector(VIDEOS, VALIDATION, recipe, tmp_path / "whole.pt")
    # In a process of its own: a fork of this one would wait for torch's threads for ever.
    killing = subprocess.run(
        [sys.executable, "-m", "tests.sola_model.training.test_resume", cut],
        cwd=ROOT,
        capture_output=True,
    )
    assert killing.returncode == 0, killing.stderr.decode()
    assert int(killing.stdout) > 0
    assert_same(train_selector(VIDEOS, VALIDATION, recipe, cut), whole)


def kill_at_random(cut: Path) -> int:
    """Train to the end in processes that are killed at random moments; returns how many were.

    Each lives until it has written a checkpoint, and up to 0.1 s (some steps) longer: seconds of
    its own computing, so that a busy machine kills no more often.
    """
    kills, moments = 0, random.Random(0)
    while True:
        more = moments.uniform(0.001, 0.1)
        pid = os.fork()
        if pid == 0:
            train_and_die(cut, more)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return kills
        assert os.WTERMSIG(status) == signal.SIGPROF
        kills += 1


def train_and_die(cut: Path, more: float) -> None:
    """Train; when a checkpoint has been written, the kernel kills this process soon after."""
    before = written(cut)

    def on_progress(_: Progress) -> None:
        if written(cut) != before and not signal.getitimer(signal.ITIMER_PROF)[0]:
            signal.setitimer(signal.ITIMER_PROF, more)

    recipe = with_training(epochs=12)
    train_selector(VIDEOS, VALIDATION, recipe, cut, on_progress=on_progress, checkpoint_seconds=0)


def written(file: Path) -> int:
    """When the file was written, in nanoseconds; 0 if there is none."""
    return file.stat().st_mtime_ns if file.exists() else 0


if __name__ == "__main__":
    print(kill_at_random(Path(sys.argv[1])))
