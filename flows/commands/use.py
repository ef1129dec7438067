"""The commands that use a trained selector on videos and tracks."""

import csv
import json
import sys
from dataclasses import asdict
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
    finish,
)

if TYPE_CHECKING:
    from tasks.own_video.outputs import Found as Segmented
    from tasks.search.track_search import Found as SearchResult

FORMATS = ("table", "csv", "json")


def segment(
    video: Annotated[Path, typer.Argument(help="Video file, or folder of frames.")],
    sentences: Annotated[list[str], typer.Argument(help="What to find, each in quotes.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Overlay video to write; default: VIDEO-segmented.mp4 here."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder for masks: SENTENCE NUMBER/FRAME.png.")
    ] = None,
    tracks: Annotated[
        Path | None, typer.Option("--json", help="File for tracks, scores, areas, boxes, RLE.")
    ] = None,
    run: RunId = None,
    sam2: Annotated[
        str | None, typer.Option(help="SAM2: path, hub id or 'demo'; default: the run's.")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Grounding DINO whose boxes prompt as well, likewise.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take only every so many frames.")] = 1,
    clip_frames: Annotated[
        int, typer.Option(min=1, help="A longer video is segmented in clips; tracks end there.")
    ] = 240,
    fps: Annotated[
        float | None,
        typer.Option(min=0.1, help="Of the overlay, per second; default: the video's, or 24."),
    ] = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Find what sentences mean in a video of your own.

    Stopped, the same command continues.

    Example: `sola segment clip.mp4 "the dog running to the left" "the man" --masks masks`
    """
    from flows.checks import check_segment
    from tasks.own_video.clips import run_to_segment_with
    from warehouse import Warehouse

    if not (out or masks or tracks):
        out = Path(f"{video.resolve().stem}-segmented.mp4")
    overlay, folder, file = (str(place) if place else None for place in (out, masks, tracks))
    try:
        with explained():
            trained = run_to_segment_with(warehouse, run)
            run = trained.run_id
            check_segment(video, sentences, trained.recipe.tracker, sam2, detector)
            from tasks.own_video.outputs import Outputs

            outputs = Outputs(video=out, masks=masks, tracks=tracks)
            outputs.check(Warehouse(warehouse), video, len(sentences))
            from flows.here import segment_here

            found = segment_here(
                warehouse, str(video), sentences, run, outputs, sam2=sam2, detector=detector,
                every=every, clip_frames=clip_frames, fps=fps,
            )  # fmt: skip
            if found is None:
                from flows.runtime import prefect_api
                from flows.segment import segment as flow

                with prefect_api():
                    found = flow(
                        warehouse, str(video), sentences, run, overlay, folder, file, sam2,
                        detector, every, clip_frames, fps, workers,
                    )  # fmt: skip
    except KeyboardInterrupt:
        console.print("stopped; the same command continues where this one was")
        raise typer.Exit(130) from None
    for each in found:
        typer.echo(_summary(each))
    for place in filter(None, (out, masks, tracks)):
        typer.echo(place)


def _summary(found: "Segmented") -> str:
    if found.tracks:
        share = f"{found.tracks} track{'s' * (found.tracks > 1)}, the best {found.best:.0%} sure"
        return f'"{found.sentence}": {share}, visible in {found.frames} frames'
    if found.candidates:
        best = f"the best of {found.candidates} tracks is {found.best:.0%} sure"
        return f'"{found.sentence}": nothing found; {best}'
    return f'"{found.sentence}": nothing found, SAM2 made no tracks; try another (--sam2)'


def search(
    text: Annotated[
        str | None, typer.Argument(help="What to find; without, the search is only prepared.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many tracks to show.")] = 20,
    dataset: Annotated[str | None, typer.Option(help="Only of this data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Only of splits of this name.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Page to write, with a strip of frames for each track.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="table, or csv and json (fractions, not percent).")
    ] = "table",
    exact: Annotated[
        int,
        typer.Option(min=1, help="Videos, the most promising first, whose scores are exact."),
    ] = 50,
    run: RunId = None,
    tracks: RunTracks = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Mask tracks of all videos that a text means, the best first.

    Example: `sola search "a square turning back" --top 20 --html found.html`

    The first search of a run makes a vector for each track, later ones for the new tracks alone.
    """
    from flows.checks import check_searched
    from tasks.runs import find_run
    from warehouse import Warehouse
    from warehouse.outputs import check_output, files_of

    with explained():
        if format not in FORMATS:
            raise ValueError(f"there is no format {format!r}; valid are: {', '.join(FORMATS)}")
        store = Warehouse(warehouse)
        if html:
            check_output(html, files_of(store, html))
        trained = find_run(store, run)
        check_searched(store, dataset, split, tracks)
        from tasks.search.page import write_page
        from tasks.search.track_search import check_text
        from tasks.search.track_search import search as search_tracks
        from tasks.search.vectors import searched, unmade_vectors, vector_plan

        if text is not None:
            check_text(store, trained, text)
        plan = vector_plan(store, searched(store, trained), dataset, split, tracks)
        missing, failed = unmade_vectors(plan)
        if missing or (failed and text is None):
            console.print(
                f"{len(missing)} of {plan.keys.num_rows} videos have no search vectors yet"
            )
            from flows.index_tracks import index_tracks
            from flows.runtime import prefect_api

            with prefect_api():
                index_tracks(store.url, trained.run_id, dataset, split, workers, tracks)
            _, failed = unmade_vectors(plan)
        if failed:
            console.print(f"{len(failed)} videos are left out, see `sola status`")
        if text is None:
            return
        found = search_tracks(plan, text, top, exact)
        if html:
            write_page(store, found, html)
    _print_hits(found, format)


def _print_hits(found: "SearchResult", format: str) -> None:
    hits = [asdict(hit) for hit in found.hits]
    shown = "score" if found.hits[0].probability is None else "probability"
    if format == "json":
        typer.echo(json.dumps(hits, indent=1))
        return
    if format == "csv":
        lines = csv.DictWriter(sys.stdout, list(hits[0]))
        lines.writeheader()
        lines.writerows(hits)
        return
    names = [f"{hit['dataset']}/{hit['split']}/{hit['video_id']}" for hit in hits]
    width = max(map(len, [*names, "video"]))
    typer.echo(f"{shown:>11}  {'video':{width}}  track  frames visible")
    for name, hit in zip(names, found.hits, strict=True):
        seen = f"{hit.visible_frames} of {hit.frame_count}"
        typer.echo(f"{100 * hit.confidence:11.1f}  {name:{width}}  {hit.track_id:5}  {seen}")
    typer.echo(
        f"{shown} in percent; {found.tracks} tracks of {found.videos} videos, {found.scored} of "
        f"them scored exactly, run {found.run_id}"
    )


def label_export(
    out: Annotated[Path, typer.Option(help="Folder to write; it must not be there yet.")],
    above: Annotated[
        float, typer.Option(help="Score that every track an expression selects exceeds.")
    ] = 0.8,
    dataset: DatasetName = "mevis",
    split: Split = "valid",
    as_split: Annotated[
        str, typer.Option("--as", help="Name of the split to write; not valid or test.")
    ] = "auto",
    run: RunId = None,
    tracks: RunTracks = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Auto-labelling: what a run is sure of, as a data set in MeViS's layout.

    Example: `sola label-export --dataset mevis --split valid --above 0.8 --out mevis-auto`

    Expressions are taken with the masks of the selected tracks. An expression with a selected
    track of a lower score is left out. To train on the result, give the data set's name and
    `--root mevis-auto --split auto` to `sola precompute`, and go on as with any other split.
    """
    from flows.progress import video_progress
    from tasks.runs import find_run
    from warehouse import Warehouse

    with explained():
        store = Warehouse(warehouse)
        find_run(store, run).tracks_of(store, dataset, split, tracks)
        from tasks.results.label_export import export_labels

        made = export_labels(
            str(warehouse), run, dataset, split, above, out, as_split, workers, video_progress,
            tracks,
        )  # fmt: skip
    for message in made.skipped:
        console.print(f"skipped: {message}", markup=False, highlight=False)
    typer.echo(
        f"{out / as_split}: {made.expressions} of {made.of_expressions} expressions, "
        f"{made.tracks} tracks, {made.videos} videos"
    )
    finish(len(made.skipped))
