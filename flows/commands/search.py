"""The command that searches all mask tracks by language."""

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.common import HERE, WarehousePath, Workers, console, explained

if TYPE_CHECKING:
    from tasks.search.track_search import Found

FORMATS = ("table", "csv", "json")


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
    run: Annotated[str | None, typer.Option(help="Run id; default: the newest run.")] = None,
    tracks: Annotated[
        str | None,
        typer.Option(help="Track set; default: made as those that the run was trained on."),
    ] = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Mask tracks of all videos that a text means, the best first.

    Example: `sola search "a square turning back" --top 20 --html found.html`

    The first search of a run makes a vector for each track, later ones for the new tracks alone.
    """
    from flows.runtime import prefect_api
    from flows.search import index_tracks
    from tasks.runs import find_run
    from tasks.search.page import write_page
    from tasks.search.track_search import check_text
    from tasks.search.track_search import search as search_tracks
    from tasks.search.vectors import searched, unmade_vectors, vector_plan
    from warehouse import Warehouse
    from warehouse.outputs import check_output, files_of

    with explained():
        if format not in FORMATS:
            raise ValueError(f"there is no format {format!r}; valid are: {', '.join(FORMATS)}")
        store = Warehouse(warehouse)
        if html:
            check_output(html, files_of(store, html))
        trained = find_run(store, run)
        if text is not None:
            check_text(store, trained, text)
        plan = vector_plan(store, searched(store, trained), dataset, split, tracks)
        missing, failed = unmade_vectors(plan)
        if missing or (failed and text is None):
            console.print(
                f"{len(missing)} of {plan.keys.num_rows} videos have no search vectors yet"
            )
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
    _print(found, format)


def _print(found: "Found", format: str) -> None:
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
