"""A run that was stopped, at any moment, goes on as if it never had been."""

import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from sola_model.training import train_selector
from tests.sola_model.training_videos import make_videos, with_training

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
    assert_same(train_selector(VIDEOS, VALIDATION, with_training(epochs=12), cut), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pt", "whole.pt"]


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


def train_on(cut):
    train_selector(VIDEOS, VALIDATION, with_training(epochs=12), cut, checkpoint_seconds=0)


def test_killed_at_random(tmp_path):
    whole = train_selector(VIDEOS, VALIDATION, with_training(epochs=12), tmp_path / "whole.pt")
    cut = tmp_path / "cut.pt"
    # Forked from a process that has imported all and has no threads, as this one may have.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    kills, moments = 0, random.Random(0)
    while True:
        process = server.Process(target=train_on, args=(cut,))
        process.start()
        time.sleep(moments.uniform(0.1, 0.5))
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        assert kills < 100
    assert process.exitcode == 0
    assert kills
    assert_same(train_selector(VIDEOS, VALIDATION, with_training(epochs=12), cut), whole)
