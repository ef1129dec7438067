"""The embedded data set: deterministic, in MeViS's layout, and right about what it says."""

import hashlib
import json

import numpy as np
import pytest

from warehouse.demo_data import describe, random_scene, render_frames, write_dataset
from warehouse.demo_data.scene import HEIGHT, WIDTH
from warehouse.sources import read_split


def scenes(count: int):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng)
        yield scene, describe(scene, rng)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_dataset(root, {"train": 3, "valid_u": 2, "valid": 1}, frames=8)
    return root


def digest(root) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_the_same_arguments_give_the_same_bytes(root, tmp_path):
    write_dataset(tmp_path, {"train": 3, "valid_u": 2, "valid": 1}, frames=8)
    assert digest(tmp_path) == digest(root)


def test_a_split_that_is_there_is_left_alone_and_a_torn_one_is_finished(root, tmp_path):
    write_dataset(tmp_path, {"train": 3}, frames=8)
    before = digest(tmp_path)
    (tmp_path / "train" / "meta_expressions.json").unlink()
    (tmp_path / "train" / "JPEGImages" / "train_0002" / "00003.jpg").unlink()
    write_dataset(tmp_path, {"train": 3}, frames=8)
    assert digest(tmp_path) == before


def test_the_mevis_reader_reads_it(root):
    train = read_split("demo", root, "train")
    assert [v.video_id for v in train] == ["train_0000", "train_0001", "train_0002"]
    for video in train:
        assert len(video.frames) == 8
        assert set().union(*(e.object_ids for e in video.expressions)) <= set(video.ground_truth)
    (unlabelled,) = read_split("demo", root, "valid")
    assert unlabelled.ground_truth == {}
    assert all(e.object_ids is None for e in unlabelled.expressions)
    assert "obj_id" not in json.dumps(
        json.loads((root / "valid/meta_expressions.json").read_text())
    )


def test_masks_do_not_overlap_and_show_what_is_near():
    for scene, _ in scenes(5):
        frames_THW3, masks_NTHW = render_frames(scene, range(0, 24, 8))
        assert frames_THW3.shape == (3, HEIGHT, WIDTH, 3)
        assert masks_NTHW.sum(0).max() <= 1
        assert masks_NTHW[-1].any()


def test_a_frame_does_not_depend_on_which_frames_are_asked_for():
    for scene, _ in scenes(3):
        frames, masks = render_frames(scene)
        one, one_mask = render_frames(scene, range(7, 8))
        assert np.array_equal(frames[7:8], one)
        assert np.array_equal(masks[:, 7:8], one_mask)


def test_expressions_mean_what_moves_so():
    moved = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "upwards": (1, -1),
             "down": (1, 1), "downwards": (1, 1)}  # fmt: skip
    checked = 0
    for scene, descriptions in scenes(60):
        for d in descriptions:
            words = d.text.split()
            if "moves" not in d.tags or "no-target" in d.tags or words[-1] not in moved:
                continue
            axis, sign = moved[words[-1]]
            for n in d.targets:
                path = scene.shapes[n].centre_T2[:, axis]
                assert sign * (path[-1] - path[0]) > 10, d
                checked += 1
    assert checked > 50


def test_look_alikes_are_told_apart_by_motion_alone():
    found = 0
    for scene, descriptions in scenes(60):
        for d in descriptions:
            if "look-alike" not in d.tags:
                continue
            looks = {(scene.shapes[n].colour, scene.shapes[n].kind) for n in d.targets}
            others = [s for n, s in enumerate(scene.shapes) if n not in d.targets]
            twins = [s for s in others if (s.colour, s.kind) in looks]
            assert twins and "motion" in d.tags
            found += 1
    assert found > 50


def test_most_expressions_are_about_motion_and_some_name_several_objects_or_none():
    tags = [d.tags for _, descriptions in scenes(100) for d in descriptions]
    assert sum("motion" in t for t in tags) > 0.7 * len(tags)
    assert sum("multi-target" in t for t in tags) > 0.03 * len(tags)
    assert sum("no-target" in t for t in tags) > 0.03 * len(tags)
    assert all(d.targets for _, ds in scenes(30) for d in ds if "no-target" not in d.tags)
