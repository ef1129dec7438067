"""How good tracks can be, of a track set of the warehouse or of a file: what `sola oracle` says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sola_model.metrics.best_union import EXACT, WORK
from tasks.given_tracks import given_tables
from tasks.parallel import Progress, each_video
from tasks.results.score import check_protocol
from tasks.stage import Outcome, make_each
from tasks.stages.oracle import ORACLE, oracle_plan
from tasks.tables import source_tables
from warehouse import Key, Warehouse, WarehouseError
from warehouse.annotations import AnnotatedVideo, read_annotations
from warehouse.queries import load_query
from warehouse.sources.base import SourceError, SourceExpression, SourceVideo
from warehouse.track_files import TrackFile, open_tracks, read_tracks

GIVEN = Key(dataset="given", split="given", track_set="given")  # the tracks of a file
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class OracleReport:
    """Rows of the named queries `oracle_by_slice` and `track_coverage`, in percent.

    slices: the first is of all expressions; "motion words" only where texts are known.
    coverage: of the objects; {} without any.
    run_id: the run that `better_selection` is of, None: no run was evaluated on the tracks.
    without_tracks: the videos of the split that have none.
    open: the expressions whose best union is not certain, fractions, the widest gap first.
    """

    dataset: str
    split: str
    track_set: str
    run_id: str | None
    slices: list[Row]
    coverage: Row
    without_tracks: list[str]
    open: list[Row]


def measure(
    store: Warehouse,
    on: Key,
    workers: int | None,
    progress: Progress,
    work: int = WORK,
) -> list[Outcome]:
    """Make the oracle of the videos of a track set that have none, or a stale one, of this work.

    Returns how it went with each of them.
    """
    plan = oracle_plan(store, on.dataset, on.split, on.track_set, work)
    jobs = sorted(plan.to_make().items())
    function = partial(_measure_one, store.url, work)
    made = each_video(function, jobs, workers, "oracle", progress) if jobs else ()
    return [outcome for outcomes in made for outcome in outcomes]


def _measure_one(warehouse: str, work: int, job: tuple[Key, str]) -> list[Outcome]:
    return make_each(ORACLE, Warehouse(warehouse), dict([job]), work)


def oracle_report(store: Warehouse, on: Key, run_id: str | None = None) -> OracleReport:
    """What was measured of a track set; of a run, else of the one with the best selection.

    Raises WarehouseError when there is nothing: the split has no ground truth, or no video tracks.
    """
    asked = {"dataset": on.dataset, "split": on.split, "tracks": on.track_set}
    of_tracks = "dataset = $dataset AND split = $split AND track_set = $tracks"
    with store.connect() as connection:

        def answer(sql: str) -> list[Row]:
            return connection.sql(sql, params=asked).to_arrow_table().to_pylist()

        slices = answer(f"FROM ({load_query('oracle_by_slice')}) WHERE {of_tracks}")
        coverage = answer(f"FROM ({load_query('track_coverage')}) WHERE {of_tracks}")
        bare = answer(
            "SELECT video_id FROM videos ANTI JOIN (FROM tracks WHERE track_set = $tracks) "
            "USING (dataset, split, video_id) "
            "WHERE dataset = $dataset AND split = $split ORDER BY video_id"
        )
        unsure = answer(
            "SELECT video_id, expression_id, jf, jf_bound, j, j_bound FROM oracles "
            f"WHERE NOT stale AND {of_tracks} "
            f"AND (jf_bound > jf + {EXACT} OR j_bound > j + {EXACT}) "
            "ORDER BY greatest(jf_bound - jf, j_bound - j) DESC, video_id, expression_id"
        )
    if not slices:
        raise WarehouseError(
            f"{on.dataset}/{on.split} has no oracle of the tracks {on.track_set}: no labelled "
            "expression is of a video that has tracks. `sola status` says what failed."
        )
    whole = [row for row in slices if row["slice"] == "all"]
    if run_id is not None and run_id not in {row["run_id"] for row in whole}:
        there = ", ".join(row["run_id"] for row in whole if row["run_id"]) or "none"
        raise WarehouseError(
            f"run {run_id} has no scores on the tracks {on.track_set}; there are scores of: {there}"
        )
    if run_id is None:
        known = [row for row in whole if row["run_id"]]
        run_id = min(known, key=lambda row: row["better_selection"])["run_id"] if known else None
    known_as = ("dataset", "split", "track_set", "run_id")
    return OracleReport(
        dataset=on.dataset,
        split=on.split,
        track_set=on.track_set,
        run_id=run_id,
        slices=[
            _without(row, known_as)
            for row in slices
            if row["run_id"] == run_id and (on != GIVEN or row["slice"] != "motion words")
        ],
        coverage=_without(coverage[0], known_as) if coverage else {},
        without_tracks=[row["video_id"] for row in bare],
        open=unsure,
    )


def _without(row: Row, names: tuple[str, ...]) -> Row:
    return {name: value for name, value in row.items() if name not in names}


@contextmanager
def file_measured(
    ground_truth: Path,
    tracks: Path,
    protocol: str,
    workers: int | None,
    progress: Progress,
    work: int = WORK,
) -> Iterator[Warehouse]:
    """A warehouse, gone afterwards, of the tracks in a file with the oracle of each video.

    The ground truth is read as `sola score` does it, the tracks as `warehouse.track_files`.

    Raises SourceError (ValueError) when either is at fault.
    """
    check_protocol(protocol)
    videos = read_annotations(ground_truth, protocol)
    file = open_tracks(tracks, [video.video_id for video in videos])
    with TemporaryDirectory(prefix="sola-oracle-") as folder:
        store = Warehouse.create(folder)
        for video in videos:
            _publish(store, video, file)
        outcomes = measure(store, GIVEN, workers, progress, work)
        if failed := [outcome for outcome in outcomes if outcome.status == "failed"]:
            raise SourceError(*(f"video {o.video_id}: {o.message}" for o in failed))
        yield store


def _publish(store: Warehouse, video: AnnotatedVideo, file: TrackFile) -> None:
    """A video's annotations and its tracks, as if both had been made in the warehouse."""
    key, masks = GIVEN.of(video_id=video.video_id, track_set=""), video.read_masks()
    sizes = [rle["size"] for of_object in masks.values() for rle in of_object if rle is not None]
    size = (sizes[0][0], sizes[0][1]) if sizes else (1, 1)  # nothing to cover: no track matters
    source = SourceVideo(
        video_id=video.video_id,
        path=file.path,
        frames=video.frames,
        expressions=[
            SourceExpression(expression_id=expression_id, text="", object_ids=objects)
            for expression_id, objects in video.expressions.items()
        ],
        ground_truth=masks,
    )
    tracks = read_tracks(file, video.video_id, video.frames, size) if sizes else []
    store.publish("ingest", key, "given", source_tables(key, source, size, ""))
    key = key.of(track_set=GIVEN.track_set)
    store.publish("precompute", key, "given", given_tables(key, tracks, size))
