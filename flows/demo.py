"""The whole method on the embedded data and models, from scratch: what `make demo` runs."""

from pathlib import Path

from prefect import flow

from flows.evaluate import evaluate
from flows.label import label
from flows.precompute import precompute
from flows.train import train
from warehouse.demo_data import write_dataset

VIDEOS = {"train": 400, "valid_u": 48, "valid": 4}
SIZES = {"small": ("demo", VIDEOS), "large": ("demo-large", VIDEOS | {"train": 1500})}
"""Recipe and number of clips of each split."""


@flow
def demo(
    warehouse: str,
    videos: dict[str, int] = VIDEOS,
    workers: int | None = None,
    recipe: str = "demo",
) -> str:
    """Data set -> tracks and tokens -> pseudo-labels -> selector -> J&F; returns the run id."""
    root = Path(warehouse) / "data-set"
    write_dataset(root, videos)
    for split in videos:
        precompute(warehouse, "demo", str(root), split, recipe=recipe, workers=workers)
    for split in ("train", "valid_u"):
        label(warehouse, "demo", split, recipe=recipe, workers=workers)
    run_id = train(warehouse, "demo", "train", "valid_u", recipe)
    for split in ("valid_u", "valid"):
        evaluate(warehouse, "demo", split, run_id, workers=workers)
    return run_id
