"""The whole method on the embedded data and models, from scratch: what `make demo` runs."""

import shutil

from prefect import flow

from flows.baseline import baseline
from flows.evaluate import evaluate
from flows.label import label
from flows.precompute import precompute
from flows.train import train
from warehouse import Warehouse
from warehouse.demo_data import SAMPLE_CLIP, write_dataset

VIDEOS = {"train": 400, "valid_u": 48, "paraphrase": 48, "valid": 4}
MORE_VIDEOS = VIDEOS | {"train": 2000}


@flow
def demo(
    warehouse: str,
    videos: dict[str, int] = VIDEOS,
    recipe: str = "demo",
    workers: int | None = None,
) -> str:
    """Data set -> tracks and tokens -> pseudo-labels -> selector -> J&F; returns the run id."""
    _prepare(warehouse, videos, workers)
    run_id = train(warehouse, "demo", "train", "valid_u", recipe)
    for split in [split for split in videos if split != "train"]:
        evaluate(warehouse, "demo", split, run_id, workers=workers)
    baseline(warehouse, "demo", "valid_u", "demo", "demo", workers=workers)
    return run_id


def _prepare(warehouse: str, videos: dict[str, int], workers: int | None) -> None:
    """Tracks, tokens and pseudo-labels. Recipes `demo` and `demo-large` share them."""
    folder = Warehouse.create(warehouse).work_folder()
    root = folder / "data-set"
    write_dataset(root, videos)
    shutil.copyfile(SAMPLE_CLIP, folder / SAMPLE_CLIP.name)  # for `sola segment`
    for split in videos:
        # Boxes of expressions prompt at inference alone (paper, section 3.3). The embedded detector
        # knows no words of `paraphrase`, whose frames are those of `valid_u`: nothing is extracted.
        detector = None if split in ("train", "paraphrase") else "demo"
        precompute(
            warehouse, "demo", str(root), split, recipe="demo", detector=detector, workers=workers
        )
    for split in ("train", "valid_u"):
        label(warehouse, "demo", split, recipe="demo", workers=workers)
