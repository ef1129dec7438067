"""Does a run read motion? Pairs of embedded clips that differ in motion alone."""

from dataclasses import replace

from flows.experiments.setup import Setup
from flows.precompute import track_videos
from flows.runtime import precision
from sola_model.metrics.pairs import consistency
from tasks.experiments.measured import Measured, pair_answers
from tasks.runs import Run, find_run
from tasks.stages.ingest import ingest_split
from tasks.track_sets import TrackSet, remember, track_set_of
from warehouse import WarehouseError
from warehouse.annotations import read_annotations
from warehouse.demo_data.counterfactual import CHANCE, SPLIT, write_pairs

PAIRS = 20  # of each kind


def counterfactual(setup: Setup) -> list[Measured]:
    """Pairs of embedded clips that differ in motion alone: share with both answers right.

    Of one run (--run), its oracle over the same tracks, and a selector that sees looks alone.

    Raises WarehouseError for changes of a recipe: the run has its own.
    """
    if setup.changes or setup.sam2:
        raise WarehouseError(
            "it measures a run as it is, with tracks as its own: --set and --sam2 change nothing"
        )
    run = find_run(setup.store, setup.run)
    root = setup.store.work_folder() / "data-set-counterfactual"
    write_pairs(root, PAIRS)
    tracks = _extract(setup, run, str(root))
    setup.scored(run.run_id, "demo", SPLIT, tracks)
    videos = read_annotations(root / SPLIT, "mevis")
    pairs = {(v.video_id, name): pair for v in videos for name, pair in v.pairs.items()}
    answers = pair_answers(setup.store, run.run_id, "demo", SPLIT, tracks.name, pairs)
    of_run, of_oracle = (consistency(given) for given in answers)
    kinds = [*CHANCE, "all"]
    chance = CHANCE | {"all": sum(CHANCE.values()) / len(CHANCE)}
    shares = {
        run.run_id: {kind: of_run[kind].share for kind in kinds},
        "oracle over the tracks": {kind: of_oracle[kind].share for kind in kinds},
        "looks alone (chance)": {kind: chance[kind] for kind in kinds},
    }
    return [
        Measured(
            variant=variant,
            metric=f"{kind}, both right",
            value=value,
            run_id=run.run_id,
            measured_on=f"demo/{SPLIT}",
        )
        for variant, by_kind in shares.items()
        for kind, value in by_kind.items()
    ]


def _extract(setup: Setup, run: Run, root: str) -> TrackSet:
    """Tracks of the pairs' clips as the run's recipe makes them, of the grid alone."""
    tracks = track_set_of(replace(run.recipe, detector=None), precision=precision())
    ingested = ingest_split(setup.warehouse, "demo", root, SPLIT)
    videos = [outcome.video_id for outcome in ingested if outcome.status == "done"]
    remember(setup.store, "demo", SPLIT, tracks)
    track_videos(setup.store, "demo", SPLIT, videos, tracks, setup.workers, ingested)
    return tracks
