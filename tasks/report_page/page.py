"""Write the page: ask the figures, draw the pictures, fill in the templates."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sola_model.metrics.bootstrap import bootstrap_interval
from tasks.experiments.tables import ExperimentTable, experiment_tables
from tasks.parallel import Progress, each_video
from tasks.report_page.figures import Predicted, SplitFigures, predicted_splits, split_figures
from tasks.report_page.render import render
from tasks.report_page.strips import PICTURED, VideoStrips, Wanted, draw
from tasks.results.predictions import predicted_videos
from tasks.runs import find_run
from tasks.track_sets import sets_of
from warehouse import Warehouse, WarehouseError
from warehouse.outputs import check_output, files_of
from warehouse.submissions import replacing


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page shows of one split.

    at: what the ids of the section's elements begin with.
    interval: of J&F over videos, in percent.
    shown_threshold: position among the figures' thresholds of the one nearest to the run's.
    groups: the groups of expressions to filter by, with the number of listed expressions.
    by_video: rows of `figures.expressions` of each listed video.
    """

    at: str
    figures: SplitFigures
    interval: tuple[float, float] | None
    shown_threshold: int
    groups: tuple[tuple[str, int], ...]
    by_video: Mapping[str, Sequence[dict]]
    strips: Mapping[str, VideoStrips]
    experiments: Sequence[ExperimentTable]

    def expression(self, video_id: str, expression_id: str) -> dict:
        """The row of `figures.expressions`."""
        return next(
            row
            for row in self.figures.expressions.rows
            if (row["video_id"], row["expression_id"]) == (video_id, expression_id)
        )

    def anchor(self, video_id: str) -> str:
        """The id of the video's element, or "" when it is not listed."""
        listed = list(self.by_video)
        return f"{self.at}-v{listed.index(video_id) + 1}" if video_id in listed else ""


def write_report(
    warehouse: str,
    run: str | None,
    dataset: str | None,
    splits: Sequence[str],
    out: Path,
    megabytes: float,
    workers: int | None,
    progress: Progress,
) -> int:
    """Write the page about a run, by default the newest, and return its size in bytes.

    It has a section for each split that the run was evaluated on, or for those asked for. Pictures
    take `megabytes` in all: the best and worst expressions first, then videos by J&F, lowest first.

    Raises:
        OutputError: `out` cannot be written, or is a file that is read.
        WarehouseError: there is no such run, or no predictions of it.
    """
    store = Warehouse(warehouse)
    check_output(out, files_of(store, out))
    found = find_run(store, run)
    connection = store.connect()
    chosen = _chosen(predicted_splits(connection, found.run_id), found.run_id, dataset, splits)
    limit = int(megabytes * 1e6 / len(chosen))
    asked = [split_figures(connection, found.run_id, on) for on in chosen]
    sections = []
    for number, figures in enumerate(sorted(asked, key=lambda each: not each.summary.rows), 1):
        wanted = _wanted(store, found.run_id, figures)
        stage = f"{figures.dataset}/{figures.split}"
        strips = _within(limit, each_video(draw, wanted, workers, stage, progress))
        tables = experiment_tables(store, figures.dataset, figures.split)
        sections.append(_section(f"s{number}", figures, strips, tables, found.tau))
    with replacing(out) as stream:
        return stream.write(render(found, sections).encode())


def _chosen(
    there: list[Predicted], run_id: str, dataset: str | None, splits: Sequence[str]
) -> list[Predicted]:
    chosen = [
        on for on in there if dataset in (None, on.dataset) and (not splits or on.split in splits)
    ]
    missing = set(splits) - {on.split for on in chosen}
    if missing or not chosen:
        has = ", ".join(f"{on.dataset}/{on.split}" for on in there) or "none yet"
        asked = f"{dataset or 'any data set'}, {', '.join(sorted(missing)) or 'any split'}"
        raise WarehouseError(
            f"there are no predictions of run {run_id} for {asked}; there are: {has}. Make them "
            f"with `sola evaluate --run {run_id} --dataset DATASET --split SPLIT`."
        )
    for on in chosen:
        if on.stale:
            raise WarehouseError(
                f"predictions of run {run_id} for {on.dataset}/{on.split} are of tracks or "
                f"expressions that were replaced since. Run `sola evaluate --run {run_id} "
                f"--dataset {on.dataset} --split {on.split} --tracks {on.track_set}`."
            )
    return chosen


def _by_video(figures: SplitFigures) -> dict[str, list[dict]]:
    """The expressions of each video that the page lists, videos and expressions in its order."""
    by_video: dict[str, list[dict]] = {row["video_id"]: [] for row in figures.videos.rows}
    for row in figures.expressions.rows:
        if row["video_id"] in by_video:
            by_video[row["video_id"]].append(row)
    return by_video


def _wanted(store: Warehouse, run_id: str, figures: SplitFigures) -> list[Wanted]:
    """What to draw, in the order in which it matters."""
    ids: dict[str, dict[str, None]] = {}
    for row in (*figures.worst.rows, *figures.best.rows):
        ids.setdefault(row["video_id"], {})[row["expression_id"]] = None
    for video_id, rows in _by_video(figures).items():
        lowest = sorted(rows, key=lambda row: row["jf"] or 0)[:PICTURED]
        ids.setdefault(video_id, {}).update({row["expression_id"]: None for row in lowest})
    track_set = sets_of(store, figures.dataset, figures.split)[figures.track_set]
    videos = predicted_videos(store, run_id, figures.dataset, figures.split, track_set)
    return [
        Wanted(video=videos[video_id], expression_ids=tuple(asked))
        for video_id, asked in ids.items()
        if video_id in videos
    ]


def _within(limit: int, drawn: Iterator[VideoStrips]) -> dict[str, VideoStrips]:
    """Strips as long as they take less than `limit` bytes."""
    strips: dict[str, VideoStrips] = {}
    size = 0
    for of_video in drawn:
        size += of_video.size
        if size > limit:
            break
        strips[of_video.video_id] = of_video
    return strips


def _section(
    at: str,
    figures: SplitFigures,
    strips: Mapping[str, VideoStrips],
    experiments: Sequence[ExperimentTable],
    tau: float,
) -> Section:
    scored = [row for row in figures.expressions.rows if row["jf"] is not None]
    by_video = _by_video(figures)
    groups = Counter(name for rows in by_video.values() for row in rows for name in row["groups"])
    distances = [abs(row["tau"] - tau) for row in figures.thresholds.rows]
    return Section(
        at=at,
        figures=figures,
        interval=bootstrap_interval(
            [row["jf"] for row in scored], [row["video_id"] for row in scored]
        )
        if scored
        else None,
        shown_threshold=distances.index(min(distances)) if distances else 0,
        groups=tuple(sorted(groups.items())),
        by_video=by_video,
        strips=strips,
        experiments=experiments,
    )
