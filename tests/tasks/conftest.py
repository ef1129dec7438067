"""Small warehouses that went through all stages, for tests that only read them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sola_model.recipes import DEMO, DEMO_RELEASE, Recipe
from sola_model.selector.calibration import Calibration
from tasks.stages.ingest import ingest_split
from tests.tasks import stages
from warehouse import Warehouse
from warehouse.demo_data import write_dataset

RECIPE = replace(
    DEMO,
    training=replace(DEMO.training, epochs=2),
    extraction=replace(DEMO.extraction, max_tracks=6),
    tau=0.3,
)
WITH_TRUTH = replace(RECIPE, extraction=replace(RECIPE.extraction, ground_truth=True))
# The paper's selector on the same tracks.
RELEASE = replace(
    DEMO_RELEASE,
    training=replace(DEMO_RELEASE.training, epochs=2),
    extraction=RECIPE.extraction,
    tau=0.3,
)


@pytest.fixture(scope="session")
def labelled_demo(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Splits train (with the tracks of its ground truth), valid_u and valid; no run."""
    data = tmp_path_factory.mktemp("data")
    write_dataset(data, {"train": 3, "valid_u": 3, "valid": 1}, seed=3, frames=8)
    root = str(tmp_path_factory.mktemp("warehouse") / "w")
    for split in ("train", "valid_u", "valid"):
        add_split(root, "demo", data, split, WITH_TRUTH if split == "train" else RECIPE)
    return Warehouse(root)


@pytest.fixture(scope="session")
def evaluated_demo(labelled_demo: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """With a run of two towers, which has no probabilities: of three videos none is kept out."""
    return _trained(labelled_demo, tmp_path_factory.mktemp("demo") / "w", RECIPE)


@pytest.fixture(scope="session")
def evaluated_release(
    labelled_demo: Warehouse, tmp_path_factory: pytest.TempPathFactory
) -> Warehouse:
    """With a run of the paper's selector, which has probabilities."""
    with pytest.MonkeyPatch.context() as patch:  # on so few videos there may be none to fit
        patch.setattr(
            "tasks.training.train.calibrate", lambda *_: Calibration(temperature=2.0, bias=-1.0)
        )
        return _trained(labelled_demo, tmp_path_factory.mktemp("release") / "w", RELEASE)


def _trained(labelled: Warehouse, root: Path, recipe: Recipe) -> Warehouse:
    """A copy of the warehouse with a run, evaluated on valid_u."""
    shutil.copytree(labelled.root, root)
    store = Warehouse(root)
    run = stages.train(store, [("demo", "train")], [("demo", "valid_u")], recipe)
    stages.evaluate(store, run, "demo", "valid_u")
    return Warehouse(root)


def add_split(root: str, dataset: str, data: Path, split: str, recipe: Recipe = RECIPE) -> None:
    """Ingest, tracks and labels of a split."""
    ingest_split(root, dataset, str(data), split)
    store = Warehouse(root)
    stages.precompute(store, dataset, split, recipe)
    stages.label(store, dataset, split, recipe)
