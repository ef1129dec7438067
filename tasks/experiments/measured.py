"""Rows of the table `experiments`, and what experiments ask of runs that are there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sola_model.metrics.pairs import is_right
from sola_model.recipes import override
from sola_model.settings import essential
from tasks.results.predictions import EvaluatedVideo, predicted_videos
from tasks.runs import find_run
from tasks.tables import read_expressions
from tasks.track_sets import TrackSet
from warehouse import TABLES, Key, Warehouse, WarehouseError, fingerprint
from warehouse.queries import load_query


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number of an experiment; the fields are columns of the table `experiments`."""

    variant: str
    metric: str
    value: float
    measured_on: str
    unit: str = "share"
    seed: int | None = None
    paper: float | None = None
    run_id: str | None = None


def publish_experiment(
    store: Warehouse,
    experiment: str,
    dataset: str,
    split: str,
    recipe: str,
    measured: Sequence[Measured],
) -> None:
    """Publish what an experiment measured, in the place of what it had on this split before."""
    key = Key(dataset=dataset, split=split, experiment=experiment)
    own = {"experiment": experiment, "dataset": dataset, "split": split, "recipe": recipe}
    rows = [own | {"position": n} | asdict(row) for n, row in enumerate(measured)]
    table = pa.Table.from_pylist(rows, schema=TABLES["experiments"])
    store.publish("experiment", key, fingerprint(rows=rows), {"experiments": table})


def mean_scores(
    store: Warehouse,
    run_id: str,
    dataset: str,
    split: str,
    tracks: str = "",
    stage: str = "evaluate",
) -> dict[str, float]:
    """Mean J&F, J and F over the expressions of a split, by name; on a track set by its name.

    Raises:
        WarehouseError: the run has no scores there.
    """
    evaluated = store.current(stage, dataset=dataset, split=split, run_id=run_id, track_set=tracks)
    scores = store.read("scores", evaluated.values())
    if not scores.num_rows:
        raise WarehouseError(
            f"{dataset}/{split} has no scores of {run_id}: it needs ground truth and videos that "
            "can be read. See `sola status`."
        )
    return {name: pc.mean(scores[name]).as_py() for name in ("jf", "j", "f")}


def share_weights(store: Warehouse, run_id: str, changes: Sequence[str]) -> str:
    """A run with the weights of another, whose recipe differs only in how they are used.

    For settings that training does not see, such as background_in_inference. Returns its id.
    """
    (commit,) = store.current("train", [Key(run_id=run_id)]).values()
    (row,) = store.read("runs", [commit]).to_pylist()
    recipe = override(find_run(store, run_id).recipe, changes)
    identity = fingerprint(weights_of=run_id, recipe=essential(recipe))
    new_id = f"{recipe.name}-{identity[:8]}"
    row |= {"run_id": new_id, "recipe": recipe.name, "config": json.dumps(asdict(recipe))}
    tables = {
        "runs": pa.Table.from_pylist([row], schema=TABLES["runs"]),
        "training_metrics": TABLES["training_metrics"].empty_table(),
    }
    store.publish("train", Key(run_id=new_id), identity, tables)
    return new_id


def pair_answers(
    store: Warehouse,
    run_id: str,
    dataset: str,
    split: str,
    tracks: str,
    pairs: Mapping[tuple[str, str], str],
) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """(pair, whether the answer is right) of a run's scores, and of the oracle over its tracks.

    `pairs`: (video id, expression id) -> pair.

    Raises:
        WarehouseError: some of the expressions have no scores.
    """
    evaluated = store.current(
        "evaluate", dataset=dataset, split=split, run_id=run_id, track_set=tracks
    )
    expressions = store.read(
        "expressions", store.current("ingest", dataset=dataset, split=split).values()
    ).to_pylist()
    has_target = {(e["video_id"], e["expression_id"]): bool(e["object_ids"]) for e in expressions}
    of_run, of_oracle = [], []
    for row in store.read("scores", evaluated.values()).to_pylist():
        name = row["video_id"], row["expression_id"]
        if name not in pairs:
            continue
        predicted = not row["predicted_empty"]
        of_run.append((pairs[name], is_right(row["jf"], has_target[name], predicted)))
        # The oracle selects nothing where that is best: without target it always does.
        of_oracle.append((pairs[name], is_right(row["oracle_jf"], has_target[name], False)))
    if len(of_run) < len(pairs):
        raise WarehouseError(
            f"{len(pairs) - len(of_run)} of {len(pairs)} expressions of {dataset}/{split} have no "
            f"scores of {run_id}; `sola status` says why"
        )
    return of_run, of_oracle


def scored_predictions(
    store: Warehouse, run_id: str, dataset: str, split: str, track_set: TrackSet
) -> list[tuple[EvaluatedVideo, str, str, float, list[int]]]:
    """(video, expression id, text, J&F, selected tracks) of a run's scores, the worst first."""
    found = []
    for video in predicted_videos(store, run_id, dataset, split, track_set).values():
        texts = {e.expression_id: e.text for e in read_expressions(store, video.ingested)}
        selected: dict[str, list[int]] = {}
        for row in store.read("predictions", [video.evaluated]).to_pylist():
            if row["selected"]:
                selected.setdefault(row["expression_id"], []).append(row["track_id"])
        for row in store.read("scores", [video.evaluated]).to_pylist():
            name = row["expression_id"]
            found.append((video, name, texts[name], row["jf"], selected.get(name, [])))
    return sorted(found, key=lambda each: (each[3], each[0].evaluated.key, each[1]))


def oracle_jf(store: Warehouse, run_id: str, dataset: str, split: str, tracks: str) -> float:
    """Mean J&F of the best union of the candidates that a run was given."""
    evaluated = store.current(
        "evaluate", dataset=dataset, split=split, run_id=run_id, track_set=tracks
    )
    return pc.mean(store.read("scores", evaluated.values())["oracle_jf"]).as_py()


def group_means(
    store: Warehouse, run_id: str, dataset: str, split: str, tracks: str, tags: Sequence[str]
) -> dict[str, float]:
    """Mean J&F of a run over the expressions that carry each of the tags, where there are any."""
    sql = """
        SELECT tag, avg(jf) FROM scores
        JOIN expressions USING (dataset, split, video_id, expression_id), unnest(tags) AS t(tag)
        WHERE run_id = ? AND dataset = ? AND split = ? AND track_set = ? GROUP BY tag
    """
    with store.connect() as connection:
        found = dict(connection.execute(sql, [run_id, dataset, split, tracks]).fetchall())
    return {tag: found[tag] for tag in tags if tag in found}


def calibrated_error(store: Warehouse, run_id: str, dataset: str, split: str, tracks: str) -> float:
    """Expected calibration error of a run's probabilities on a split, ten buckets.

    Raises WarehouseError when the run has no probabilities or the split no pseudo-labels.
    """
    sql = f"""
        SELECT any_value(calibrated_error) FROM ({load_query("calibration")})
        WHERE run_id = ? AND dataset = ? AND split = ? AND track_set = ?
    """
    with store.connect() as connection:
        ((error,),) = connection.execute(sql, [run_id, dataset, split, tracks]).fetchall()
    if error is None:
        raise WarehouseError(
            f"{run_id} has no probabilities on {dataset}/{split}: it needs labelled videos to fit "
            "them on (training.kept_out), and the split labels (`sola label`)."
        )
    return error


def token_count(store: Warehouse, dataset: str, split: str, tracks: str) -> int:
    """How many numbers the object tokens of a split's track set are."""
    tracked = [
        commit
        for stage in ("precompute", "box_tracks")
        for commit in store.current(stage, dataset=dataset, split=split, track_set=tracks).values()
    ]
    return pc.sum(pc.list_value_length(store.read("tokens", tracked)["token"])).as_py() or 0


def mean_tracks(store: Warehouse, dataset: str, split: str, tracks: str) -> float:
    """Tracks per video."""
    tracked = store.current("precompute", dataset=dataset, split=split, track_set=tracks)
    return store.read("tracks", tracked.values()).num_rows / len(tracked)
