"""The commands that write predictions for others, and score what others have written."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.common import (
    HERE,
    DatasetName,
    RunId,
    RunTracks,
    Split,
    WarehousePath,
    Workers,
    console,
    explained,
)

if TYPE_CHECKING:
    from tasks.results.score import SubmissionScores

LOWEST = 20  # expressions that the table of `score` has


def score(
    ground_truth: Annotated[Path, typer.Option(help="Folder of the split, say MEVIS/valid_u.")],
    predictions: Annotated[Path, typer.Option(help="Folder or zip of PNG masks.")],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="mevis, mevis-v2, ref-youtube-vos, davis or davis-semi-supervised; default: by "
            "the layout of the ground truth."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="table, or json (fractions, not percent).")] = "table",
    workers: Workers = None,
) -> None:
    """J, F and J&F of masks made by any method; needs no warehouse.

    A table has the lowest expressions and the mean, JSON all expressions.

    Example: `sola score --ground-truth mevis/valid_u --predictions submission.zip`

    The masks are in a submission's layout. A mask is a PNG of one channel in which every value
    but 0 is foreground. `docs/scoring.md` has the layouts and protocols.
    """
    from flows.progress import video_progress
    from tasks.results.score import score_submission

    with explained():
        if format not in ("table", "json"):
            raise ValueError(f"there is no format {format!r}; valid are: table, json")
        scores = score_submission(ground_truth, predictions, protocol, workers, video_progress)
    if scores.unused:
        console.print(
            f"warning: {len(scores.unused)} PNG files belong to no expression and do not count: "
            f"{', '.join(scores.unused[:3])}{', ...' if len(scores.unused) > 3 else ''}",
            markup=False,
            highlight=False,
        )
    if format == "json":
        typer.echo(json.dumps(scores.as_json(), indent=1))
    else:
        typer.echo(_table(scores))


def _table(scores: "SubmissionScores") -> str:
    """The lowest expressions, and of all the mean in percent, N-acc, T-acc and pairs."""
    lowest = sorted(scores.expressions, key=lambda each: each.jf)[:LOWEST]
    rows = [(e.video_id, e.expression_id, e.jf, e.j, e.f) for e in lowest]
    mean = scores.mean
    rows.append(("mean", f"of {len(scores.expressions)}", mean.jf, mean.j, mean.f))
    width = max(len(row[0]) for row in rows), max(10, *(len(row[1]) for row in rows))
    lines = [f"{'video':{width[0]}}  {'expression':{width[1]}}    J&F      J      F"]
    lines += [
        f"{video:{width[0]}}  {expression:{width[1]}} {100 * jf:6.2f} {100 * j:6.2f} {100 * f:6.2f}"
        for video, expression, jf, j, f in rows
    ]
    n_acc, t_acc = scores.accuracies
    if n_acc is not None and t_acc is not None:
        lines.append(
            f"N-acc {100 * n_acc:.2f}, T-acc {100 * t_acc:.2f}, "
            f"mean of J&F, N-acc and T-acc {100 * (mean.jf + n_acc + t_acc) / 3:.2f}"
        )
    for kind, found in scores.consistency.items():
        lines.append(f"both answers right, {kind}: {100 * found.share:.2f} of {found.pairs} pairs")
    return "\n".join([*lines, f"in percent, by protocol {scores.protocol}"])


def submit(
    out: Annotated[Path, typer.Option(help="Zip file to write.")],
    dataset: DatasetName = "mevis",
    split: Split = "valid",
    run: RunId = None,
    tracks: RunTracks = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Predictions of an evaluated run as the zip that the data set's server takes.

    Example: `sola submit --dataset mevis --split valid --out submission.zip`
    """
    from flows.progress import video_progress
    from tasks.runs import find_run
    from warehouse import Warehouse
    from warehouse.outputs import check_output, files_of

    with explained():
        store = Warehouse(warehouse)
        check_output(out, files_of(store, out))
        find_run(store, run).tracks_of(store, dataset, split, tracks)
        from tasks.results.submission import write_submission

        count = write_submission(
            str(warehouse), run, dataset, split, out, workers, video_progress, tracks
        )
    typer.echo(f"{out}: {count} masks")


def export(
    out: Annotated[Path, typer.Option(help="JSON (coco) or zip (png) file to write.")],
    what: Annotated[
        str,
        typer.Option(
            help="predictions, one per expression; the tracks they select; all-tracks of a set; "
            "or ground-truth."
        ),
    ] = "predictions",
    format: Annotated[
        str, typer.Option(help="coco: video instances as JSON; png: palette images.")
    ] = "coco",
    dataset: DatasetName = "mevis",
    split: Split = "valid_u",
    run: RunId = None,
    tracks: RunTracks = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Predictions, the tracks they select, all tracks, or the ground truth.

    Example: `sola export --what tracks --format coco --out tracks.json`

    Ground truth is written with its sentences, as the data set `labelled` is laid out.
    """
    from flows.checks import check_ingested
    from flows.progress import video_progress
    from tasks.runs import find_run
    from tasks.track_sets import tracks_for
    from warehouse import Warehouse
    from warehouse.outputs import check_output, files_of

    with explained():
        store = Warehouse(warehouse)
        check_output(out, files_of(store, out))
        if what == "ground-truth":
            check_ingested(store, dataset, split)
        elif what == "all-tracks":
            tracks_for(store, dataset, split, tracks)
        else:
            find_run(store, run).tracks_of(store, dataset, split, tracks)
        from tasks.results.export import export as write

        count = write(
            str(warehouse), run, dataset, split, what, format, out, workers, video_progress, tracks
        )
    typer.echo(f"{out}: {count} {'instances' if format == 'coco' else 'images'}")
