"""A training run as a value."""

import json
from dataclasses import dataclass, fields
from typing import Any

from sola_model.recipes import RECIPES, Recipe, recipe_from
from sola_model.selector.calibration import Calibration
from tasks.stage import Stage
from tasks.track_sets import TrackSet, check_tokens, tracks_for
from warehouse import Key, Warehouse, WarehouseError

TRAIN = Stage(
    name="train",
    command="train",
    keyed_by=("run_id",),
    covers=(
        "tasks.training",
        "tasks.tables",
        "sola_model.training",
        "sola_model.selector",
        "sola_model.masks",
        "sola_model.metrics",
        "sola_model.text",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training run made, and from what.

    recipe: its tau is the one in use. tau_videos: on how many it was chosen; None: it was given.
    weights: where they are in the warehouse. calibration: of probabilities; None: it has none.
    videos: contents of all videos that it and its parents were trained on.
    track_sets: what it was trained on; () of an imported checkpoint: not known.
    """

    run_id: str
    parent: str | None
    dataset: str
    split: str
    recipe: Recipe
    tau_videos: int | None
    parameters: int
    epochs: int
    best_epoch: int
    weights: str
    calibration: Calibration | None
    train_videos: int
    train_expressions: int
    videos: frozenset[str]
    track_sets: tuple[TrackSet, ...]

    @property
    def tau(self) -> float:
        """A track is selected when its score is above."""
        assert self.recipe.tau is not None, "chosen when the run was trained"
        return self.recipe.tau

    @property
    def tokens(self) -> dict[str, Any] | None:
        """What its tracks' tokens depend on; None: not known, or a mixture."""
        kinds = [track_set.tokens for track_set in self.track_sets]
        return kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else None

    def tracks_of(
        self, store: Warehouse, dataset: str, split: str, named: str | None = None
    ) -> TrackSet:
        """The track set of a split to select from: as those it was trained on, unless `named`.

        Raises:
            WarehouseError: there is no such set, or it has no tokens.
        """
        return check_tokens(tracks_for(store, dataset, split, named, self.tokens))


def find_run(store: Warehouse, run_id: str | None) -> Run:
    """The run of this id, or the newest.

    Raises:
        WarehouseError: there is no such run.
    """
    commits = sorted(store.current("train").values(), key=lambda commit: commit.created_at)
    chosen = [c for c in commits if run_id is None or c.key.run_id == run_id][-1:]
    if not chosen:
        runs = ", ".join(commit.key.run_id for commit in commits)
        raise WarehouseError(
            f"there is no run {run_id or ''} in {store.url}. It has: "
            f"{runs or 'none yet; train one with `sola train`'}."
        )
    return _run(store.read("runs", chosen).to_pylist()[0])


def last_recipe(store: Warehouse) -> str | None:
    """The name of the recipe of the newest track set or run, whatever was changed of it.

    None: no recipe of ours was used.
    """
    trained = store.current("train")
    rows = store.read("runs", trained.values()).select(["run_id", "recipe"]).to_pylist()
    used = [(trained[Key(run_id=row["run_id"])].created_at, row["recipe"]) for row in rows]
    for commit in store.current("track_set").values():
        used.append((commit.created_at, (commit.making.settings or {}).get("recipe") or ""))
    names = [name.partition("+")[0] for _, name in sorted(used)]
    return next((name for name in reversed(names) if name in RECIPES), None)


def _run(row: dict[str, Any]) -> Run:
    same = [field.name for field in fields(Run) if field.name in row and field.name != "recipe"]
    fitted = row["temperature"] is not None
    return Run(
        **{name: row[name] for name in same} | {"videos": frozenset(row["videos"])},
        recipe=recipe_from(json.loads(row["config"])),
        calibration=Calibration(row["temperature"], row["bias"]) if fitted else None,
        track_sets=tuple(map(TrackSet.of, json.loads(row["tracks"] or "[]"))),
    )
