"""Experiments by name: run, publish to the table `experiments`, show beside the paper's numbers.

sola experiment table5b --dataset mevis --root DIR --sam2 sam2.1_hiera_large.pt
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from prefect import flow

from flows.demo import VIDEOS
from flows.experiments import MODULES, check_experiments
from flows.experiments.setup import Setup
from flows.printing import print_experiment
from tasks.experiments.measured import Measured, publish_experiment
from tasks.experiments.tables import write_results
from warehouse import Warehouse
from warehouse.demo_data import write_dataset

EXPERIMENTS: dict[str, Callable[[Setup], list[Measured]]] = {
    name: getattr(import_module(f"flows.experiments.{module}"), name)
    for name, module in MODULES.items()
}
# They change settings that only the paper's selector has.
OF_THE_PAPERS_SELECTOR = (
    "table5a",
    "table5b",
    "tableA2a",
    "tableA2b",
    "geometry",
    "alignment",
    "streams",
)


@flow(flow_run_name="experiment {dataset}/{validation}")
def experiment(
    warehouse: str,
    names: Sequence[str],
    dataset: str = "mevis",
    root: str | None = None,
    split: str = "train",
    validation: str = "valid_u",
    recipe: str | None = None,
    changes: Sequence[str] = (),
    sam2: str | None = None,
    detector: str | None = None,
    ground_truth: bool = False,
    seeds: int = 3,
    limit: int | None = None,
    run: str | None = None,
    out: str | None = None,
    workers: int | None = None,
) -> dict[str, str]:
    """Run experiments; returns why those that could not run did not, by name.

    Parameters are those of `Setup`. Data set "demo" is written if it is not there, and its recipe
    is "demo", or "demo-release" where the paper's selector is taken apart; that of others is
    "release". `out`: a folder for README.md with the tables of all
    experiments that the data set has, these and former ones, and their pictures.

    Raises:
        ValueError: an experiment of this name does not exist.
    """
    check_experiments(names)
    store = Warehouse.create(warehouse)
    embedded = dataset == "demo"
    setup = Setup(
        warehouse=store.url,
        dataset=dataset,
        root=root or (demo_data(store) if embedded else None),
        split=split,
        validation=validation,
        recipe=recipe or "release",
        changes=tuple(changes),
        sam2=sam2,
        detector=detector,
        ground_truth=ground_truth,
        seeds=seeds,
        limit=limit,
        run=run,
        workers=workers,
    )
    not_run = {}
    for name in names:
        if embedded and not recipe:
            default = "demo-release" if name in OF_THE_PAPERS_SELECTOR else "demo"
            setup = replace(setup, recipe=default)
        try:
            measured = EXPERIMENTS[name](setup)
        except Exception as error:  # the others run nevertheless
            not_run[name] = f"{type(error).__name__}: {error}"
            continue
        publish_experiment(store, name, dataset, validation, setup.settings.name, measured)
        print_experiment(store, name, dataset, validation)
    if out:
        about = {name: str(run.__doc__).splitlines()[0] for name, run in EXPERIMENTS.items()}
        write_results(store, dataset, validation, about, Path(out))
    return not_run


def demo_data(store: Warehouse) -> str:
    """The folder of the embedded data set, written unless it is there."""
    root = store.work_folder() / "data-set"
    write_dataset(root, {split: VIDEOS[split] for split in ("train", "valid_u")})
    return str(root)
