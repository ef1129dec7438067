"""What every experiment is given, and the steps they share: prepare, train, evaluate.

A step does what is missing in the warehouse and nothing else, so experiments share their runs, and
one that was interrupted continues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flows.here import make_one_by_one
from flows.label import label
from flows.precompute import precompute
from flows.refresh import tracks_and_labels
from flows.runtime import precision
from flows.train import train_together, with_seed
from sola_model.recipes import Recipe, chosen_recipe, of_command, override, recipe_by_name
from tasks.experiments.measured import Measured, mean_scores
from tasks.experiments.tables import picture_folder
from tasks.paper import Scores
from tasks.runs import find_run
from tasks.stages.evaluate import score_plan
from tasks.track_sets import TrackSet, track_set_of
from tasks.training.train import Training
from warehouse import Warehouse, WarehouseError


class Variant(NamedTuple):
    """How a variant is trained.

    changes: of the experiment's recipe. others: data sets, each with both its splits, to train on
    together with the experiment's. limit: only the first videos.
    """

    seed: int
    changes: Sequence[str] = ()
    others: Sequence[tuple[str, str, str]] = ()
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an experiment runs on.

    root: where the data set lies; what the warehouse lacks of its splits is precomputed. None: the
        warehouse is taken as it is.
    changes: of the recipe, for all variants, such as "training.epochs=5".
    detector: whose boxes prompt as well in the validation split, as at the paper's inference.
    ground_truth: with tracks of ground-truth masks to train on (release).
    limit: only the first videos of each split.
    run: the run that is measured where an experiment measures one; None: the newest.
    """

    warehouse: str
    dataset: str
    recipe: str
    root: str | None = None
    split: str = "train"
    validation: str = "valid_u"
    changes: tuple[str, ...] = ()
    sam2: str | None = None
    detector: str | None = None
    ground_truth: bool = False
    seeds: int = 3
    limit: int | None = None
    run: str | None = None
    workers: int | None = None

    @property
    def settings(self) -> Recipe:
        """The recipe that all variants are variants of."""
        return override(recipe_by_name(self.recipe, self.sam2), self.changes)

    @property
    def any_detector(self) -> str | None:
        """The detector of experiments that cannot do without: on "demo" the embedded one."""
        return self.detector or ("demo" if self.dataset == "demo" else None)

    @property
    def store(self) -> Warehouse:
        return Warehouse(self.warehouse)

    def picture(self, experiment: str, ending: str) -> Path:
        """The file of a picture of an experiment."""
        name = f"{experiment}-{self.dataset}-{self.validation}{ending}"
        return picture_folder(self.store) / name

    def prepare(self, *splits: str) -> None:
        """Tracks and pseudo-labels of splits (default: both of the experiment's).

        Raises:
            WarehouseError: a split is not in the warehouse and there is no `root` to read it from.
        """
        for split in splits or (self.split, self.validation):
            trained_on = split == self.split
            if self.root:
                tracks_and_labels(
                    self.warehouse,
                    self.dataset,
                    self.root,
                    split,
                    self.recipe,
                    self.sam2,
                    None if trained_on else self.any_detector,
                    changes=self.changes,
                    ground_truth=trained_on and self.ground_truth,
                    limit=self.limit,
                    workers=self.workers,
                )
                continue
            self.require(self.dataset, split)
            labels = of_command(self.changes, "label")
            label(self.warehouse, self.dataset, split, self.recipe, self.workers, labels)

    def other_tracks(
        self,
        *changes: str,
        corruption: str | None = None,
        detector: str | None = None,
        ground_truth: bool = False,
    ) -> TrackSet:
        """Tracks of the validation split made in another way, beside its default ones.

        `changes`: of the recipe. Needs `root`.
        """
        if not self.root:
            raise WarehouseError("it makes tracks of the validation split anew: give --root")
        changes = (*of_command(self.changes, "precompute"), *changes)
        precompute(
            self.warehouse,
            self.dataset,
            self.root,
            self.validation,
            self.recipe,
            self.sam2,
            detector,
            ground_truth=ground_truth,
            limit=self.limit,
            workers=self.workers,
            changes=changes,
            corruption=corruption,
            default=False,
        )
        recipe = chosen_recipe(
            self.recipe, changes, sam2=self.sam2, detector=detector, ground_truth=ground_truth
        )
        return track_set_of(recipe, precision=precision(), corruption=corruption)

    def require(self, dataset: str, split: str) -> None:
        """Raise WarehouseError when a split has no tracks in the warehouse."""
        if not self.store.current("precompute", dataset=dataset, split=split):
            raise WarehouseError(
                f"there are no tracks of {dataset}/{split} in {self.store.url}. Run `sola "
                f"precompute --dataset {dataset} --root DIR --split {split}` first, or give "
                "--root if it is the experiment's own data set."
            )

    def trained(self, trainings: Sequence[Variant]) -> list[str]:
        """The run ids of variants; those that are missing train several at a time."""
        runs = []
        for training in trainings:
            together = [(self.dataset, self.split, self.validation), *training.others]
            recipe = with_seed(override(self.settings, training.changes), training.seed)
            runs.append(
                Training(
                    training=[(dataset, split) for dataset, split, _ in together],
                    validation=[(dataset, split) for dataset, _, split in together],
                    recipe=recipe,
                    limit=training.limit or self.limit,
                )
            )
        return train_together(self.warehouse, runs, self.workers)

    def full_method(self) -> list[str]:
        """The run ids of the recipe as it is, a run for each seed."""
        return self.trained([Variant(seed=seed) for seed in range(self.seeds)])

    def tracks_of(
        self, run_id: str, dataset: str | None = None, split: str | None = None
    ) -> TrackSet:
        """The tracks that a run selects from (default: of the validation split)."""
        dataset, split = dataset or self.dataset, split or self.validation
        return find_run(self.store, run_id).tracks_of(self.store, dataset, split)

    def scored(
        self,
        run_id: str,
        dataset: str | None = None,
        split: str | None = None,
        tracks: TrackSet | None = None,
    ) -> dict[str, float]:
        """Evaluate a run (default: on the validation split); the means of J&F, J and F."""
        dataset, split = dataset or self.dataset, split or self.validation
        store = self.store
        run = find_run(store, run_id)
        chosen = (tracks or run.tracks_of(store, dataset, split)).name
        make_one_by_one(score_plan(store, run, dataset, split, chosen))
        return mean_scores(store, run_id, dataset, split, chosen)


def measured_scores(
    setup: Setup,
    variant: str,
    seed: int,
    run_id: str,
    paper: Scores | None = None,
    dataset: str | None = None,
    split: str | None = None,
    tracks: TrackSet | None = None,
) -> list[Measured]:
    """J&F, J and F of a run as rows of an experiment."""
    printed = dict(zip(("jf", "j", "f"), paper or (), strict=False))
    return [
        Measured(
            variant=variant,
            metric=metric,
            value=value,
            seed=seed,
            run_id=run_id,
            paper=printed[metric] / 100 if paper else None,
            measured_on=f"{dataset or setup.dataset}/{split or setup.validation}",
        )
        for metric, value in setup.scored(run_id, dataset, split, tracks).items()
    ]


def compare_variants(
    setup: Setup, variants: Mapping[str, tuple[Sequence[str], Scores | None]]
) -> list[Measured]:
    """Train and evaluate each variant (name -> changes of the recipe, the paper's numbers)."""
    setup.prepare()
    wanted = [
        (variant, Variant(seed, changes), paper)
        for variant, (changes, paper) in variants.items()
        for seed in range(setup.seeds)
    ]
    run_ids = setup.trained([training for _, training, _ in wanted])
    return [
        row
        for (variant, training, paper), run_id in zip(wanted, run_ids, strict=True)
        for row in measured_scores(setup, variant, training.seed, run_id, paper)
    ]
